"""What is in a container's image."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mllaunch_agent import container_files, node, system
from mllaunch_agent.container import C_LAYER, PROBE_LABEL
from mllaunch_agent.engine import Engine, EngineError
from mllaunch_agent.engine_answer import Frames
from mllaunch_agent.probes import NotCaptured, not_captured
from mllaunch_agent.probes import python as python_probe

__all__ = ["TREE", "python", "why_no_c_layer"]

TREE = "/.mllaunch/tree"  # the code of an image, as it was built: see docs/images.md
_PYTHON_TIMEOUT_S = 30.0
_KEPT_WHY = 200


def python(
    engine: Engine, image: str, environment: Mapping[str, str], interpreter: str, cached: str
) -> Tuple[Dict[str, Any], List[NotCaptured]]:
    """As probes.python.facts, of the interpreter in an image. cached: a file that holds them once they are known.

    Asked in a container of its own: the task's belongs to the task, which may be over before it could answer.
    """
    known: Optional[Dict[str, Any]] = node.read_json(cached)
    if known is not None:
        return known, []
    request = {
        "Image": image,
        "Entrypoint": [interpreter],
        "Cmd": ["-c", python_probe.SCRIPT],
        "Env": ["%s=%s" % pair for pair in environment.items()],
        "User": "%d:%d" % (os.getuid(), os.getgid()),
        "Labels": {PROBE_LABEL: "python"},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "local"}, "Init": True},
    }
    try:
        container = engine.create(_name(), request)
        try:
            engine.start(container)
            engine.wait(container, _PYTHON_TIMEOUT_S)
            with engine.output(container, follow=False) as answer:
                output = b"".join(data for _, data in Frames().feed(answer.read()))
        finally:
            engine.remove(container)
    except OSError as e:
        return {}, [not_captured("python", "%s in the image: %s" % (interpreter, e))]
    found = python_probe.parse(output)
    if found is None:
        last = output.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it says nothing"]
        return {}, [
            not_captured("python", "%s in the image does not answer: %s" % (interpreter, last[0][:200]))
        ]
    unlisted = found.pop("error", None)
    if unlisted is not None:
        return found, [not_captured("python packages", unlisted)]
    try:
        system.write_atomic(cached, json.dumps(found).encode())
    except OSError:
        pass  # asked again next time
    return found, []


def why_no_c_layer(engine: Engine, image: str) -> Optional[str]:
    """Why an image has no library to preload; None if it has one. Looked up in a container that never starts: labels
    would be inherited by images that have thrown the library away."""
    request = {"Image": image, "Entrypoint": ["none"], "Labels": {PROBE_LABEL: "c-layer"}}
    why = "the image is none of those that mllaunch builds by itself"
    try:
        container = engine.create(_name(), request)
        try:
            with container_files.archive(engine, container, C_LAYER) as tar:
                for member in tar:
                    name = os.path.basename(member.name)
                    if name == "preload.so":
                        return None
                    content = tar.extractfile(member) if name == "why" else None
                    if content is not None:
                        why = " ".join(content.read().decode("utf-8", "replace").split())[-_KEPT_WHY:]
        finally:
            engine.remove(container)
    except EngineError as e:
        if e.status != 404:
            return "the container engine: %s" % e
    except OSError as e:
        return "the container engine: %s" % e
    return why


def _name() -> str:
    return "mllaunch-probe-%s" % os.urandom(8).hex()
