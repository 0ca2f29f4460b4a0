"""Runs, reasons and views as JSON text. Described in docs/runlog.md.

Laws: ``decode_run(encode_run(run)) == run`` for every run whose text came from the operating system or
from a user. A reader ignores keys that it does not know and gives missing ones their default, so that
stores written by a newer minor version stay readable.
"""

from __future__ import annotations

from typing import Any, TypeVar

from mllaunch.domain.image import Image, Lock
from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.run import Parent, Run, Silence
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import Reason
from mllaunch.errors import InternalError

Value = TypeVar("Value")


def encode(document: object) -> str:
    """JSON in one line of ASCII: text which is not valid Unicode (an argument's escaped bytes) survives."""
    import json

    return json.dumps(document, separators=(",", ":"))


def decode(text: str) -> Any:
    """The reverse of ``encode``. InternalError if the text is not JSON."""
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise _damaged(f"{error}: {text[:60]!r}") from error


def encode_run(run: Run) -> str:
    spec = {**run.spec._asdict(), "resources": run.spec.resources._asdict()}
    image = run.image and {**run.image._asdict(), "lock": run.image.lock and run.image.lock._asdict()}
    parent = run.parent and run.parent._asdict()
    lock = run.lock and run.lock._asdict()
    values = {
        "spec": spec,
        "snapshot": run.snapshot._asdict(),
        "image": image,
        "parent": parent,
        "lock": lock,
    }
    return encode({**run._asdict(), **values})


def decode_run(text: str) -> Run:
    """The reverse of ``encode_run``. InternalError if the text holds no run."""
    try:
        document = decode(text)
        spec = document["spec"]
        spec["resources"] = _make(Resources, spec["resources"])
        document["spec"] = _make(JobSpec, spec)
        document["snapshot"] = _make(Snapshot, document["snapshot"])
        image = document.get("image")
        if image is not None:
            image["lock"] = image["lock"] and _make(Lock, image["lock"])
            document["image"] = _make(Image, image)
        if document.get("parent") is not None:
            document["parent"] = _make(Parent, document["parent"])
        if document.get("lock") is not None:
            document["lock"] = _make(Lock, document["lock"])
        return _make(Run, document)
    except (TypeError, KeyError) as error:
        raise _damaged(f"{error}: {text[:60]!r}") from error


def decode_tasks(text: str) -> int:
    """How many tasks an encoded run has; 1 of a damaged one, which is said when it is itself asked for."""
    try:
        resources: Resources = _make(Resources, decode(text)["spec"]["resources"])
    except (InternalError, TypeError, KeyError):
        return 1
    return resources.world_size


def encode_reason(reason: Reason | None) -> str | None:
    return None if reason is None else encode(reason._asdict())


def decode_reason(text: str | None) -> Reason | None:
    return None if text is None else _make(Reason, decode(text))


def encode_unreachable(nodes: tuple[Silence, ...]) -> str | None:
    """None for none, as mostly."""
    return encode(nodes) if nodes else None


def decode_unreachable(text: str | None) -> tuple[Silence, ...]:
    return tuple(Silence(*fields) for fields in decode(text)) if text else ()


def encode_tags(tags: tuple[str, ...]) -> str | None:
    """None for no tags: a listing of untagged runs then needs no JSON."""
    return encode(tags) if tags else None


def decode_tags(text: str | None) -> tuple[str, ...]:
    return tuple(decode(text)) if text else ()


def _make(kind: type[Value], document: dict[str, Any]) -> Value:
    """A NamedTuple from the keys it knows. Their lists are tuples, at every depth."""
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    return kind(**{key: _frozen(document[key]) for key in fields if key in document})


def _frozen(value: Any) -> Any:
    return tuple([_frozen(item) for item in value]) if type(value) is list else value


def _damaged(evidence: str) -> InternalError:
    return InternalError(
        "damaged_record",
        "a record of the run log cannot be read",
        evidence=(evidence,),
        hint="mllaunch doctor checks the run log",
    )
