"""Facts about a node, each found by a reader at the edge and a pure parser.

Every probe reports its own success: it returns ``(facts, not_captured)``, where not_captured is a list of
``{"what", "why"}``. A probe never raises, and what could not be found out is None in the facts and named in
not_captured. Whatever might wait for ever (NVML on a broken driver, statvfs on a dead NFS server, the name
service) runs through ``bounded.Bounded``, which gives up and leaves the hanging call to a daemon thread.
"""

from __future__ import annotations

from typing import Any, Dict, List

__all__ = ["NotCaptured", "not_captured", "optional_module"]

NotCaptured = Dict[str, str]


def not_captured(what: str, why: object) -> NotCaptured:
    """An entry that names what is missing from the record and why. Always one line each."""
    return {"what": what, "why": " ".join(str(why).split()) or type(why).__name__}


def optional_module(name: str, import_path: List[str]) -> Any:
    """The module ``name`` found in the folders or zips of ``import_path``, or None if it is not there or
    does not import.

    sys.path is neither searched nor changed: the folders are those of the launcher's installation, and
    nothing else in them may become importable here.
    """
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    if not import_path:
        return None
    if name in sys.modules:
        return sys.modules[name]
    spec = PathFinder.find_spec(name, import_path)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception:  # noqa: BLE001  a C extension for another Python fails in many ways
        del sys.modules[name]
        return None
    return module
