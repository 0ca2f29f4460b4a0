"""The files that went into a run and came out of it, as a provenance document lists them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mllaunch.domain.artifact import digest
from mllaunch.domain.codeuse import Change, live
from mllaunch.domain.usage import Views

__all__ = ["inputs", "outputs"]

Line = tuple[int, str, dict[str, Any]]
Document = dict[str, Any]


def inputs(views: Views, traced: Iterable[Line], producers: Mapping[str, Document]) -> list[Document]:
    """Data paths, then what the program opened besides: one entry for each content that a path had."""
    lines = list(traced)
    found: dict[tuple[str, str | None], Document] = {}
    for (number, node), view in views.items():
        reads = {
            line["path"]: line
            for n, where, line in lines
            if (n, where) == (number, node) and _is(line, "read")
        }
        for data in view["data"]:
            entry = found.setdefault((data["path"], data["digest"]), _declared(data))
            _add_reading(entry, node, reads.get(data["path"]))
            for change in view["data_changes"]:
                if change["path"] == data["path"]:
                    entry["changed"] = {kind: change[kind] for kind in ("added", "removed", "modified")}
    folders = {(number, node, line["path"]) for number, node, line in lines if _is(line, "folder")}
    for number, node, line in lines:
        if _is(line, "folder") or (
            _is(line, "input") and not _is_within(line["path"], number, node, folders)
        ):
            entry = found.setdefault((line["path"], line["sha256"]), _opened(line))
            _add_reading(entry, node, line)
    for entry in found.values():
        entry["produced_by"] = producers.get(entry["digest"] or "") or producers.get(entry["weights"] or "")
    return list(found.values())


def _is(line: Mapping[str, Any], record: str) -> bool:
    return line.get("record") == record


def _is_within(path: str, number: int, node: str, folders: set[tuple[int, str, str]]) -> bool:
    parts = path.split("/")
    return any((number, node, "/".join(parts[:count])) in folders for count in range(1, len(parts)))


def _add_reading(entry: Document, node: str, line: Mapping[str, Any] | None) -> None:
    """Who opened it, and when first; the node alone where no more is known."""
    users = [{"node": node, **user} for user in (line or {}).get("by", ())]
    if not users and node not in [by["node"] for by in entry["by"]]:
        users = [{"node": node, "rank": None, "pid": None}]
    entry["by"] += [user for user in users if user not in entry["by"]]
    if line is not None and line.get("at") is not None:
        entry["opened_at"] = min(filter(None, (entry["opened_at"], line["at"])))
    if line is not None and line.get("read") and entry["read"] is None:
        entry["read"] = line["read"]


def _declared(data: Mapping[str, Any]) -> Document:
    known = {"form": data.get("form"), "verified": data.get("verified"), "files": data.get("files")}
    return {
        **_blank(data["path"], "data"),
        **known,
        "digest": digest(data["digest"]),
        "size_bytes": data["size_bytes"],
    }


def _opened(line: Mapping[str, Any]) -> Document:
    is_folder = line["record"] == "folder"
    return {
        **_blank(line["path"], "data" if is_folder else line["kind"]),
        "form": "folder" if is_folder else "file",
        "digest": digest(line["sha256"]),
        "weights": digest(line.get("weights")),
        "format": line.get("format"),
        "verified": line.get("verified") or ("content" if line["sha256"] else None),
        "size_bytes": line["size_bytes"],
        "files": line.get("files"),
        "loaded_by": line.get("loaded_by"),
        "problem": line.get("problem"),
    }


def _blank(path: str, kind: str) -> Document:
    unknown = ("form", "digest", "weights", "format", "verified", "size_bytes", "files", "read", "opened_at")
    rest = ("loaded_by", "produced_by", "changed", "problem")
    entry: Document = {"path": path, "kind": kind, **dict.fromkeys(unknown), "by": [], **dict.fromkeys(rest)}
    return entry


def outputs(
    files: Sequence[Line],
    traced: Iterable[Line],
    tree: str,
    changes: Sequence[Change],
    trees: Mapping[tuple[str, str], str],
) -> list[Document]:
    """What is there in the end, then checkpoints that were replaced, lie elsewhere, or are folders."""
    lines = list(traced)
    writers = {(n, node, line["path"]): line for n, node, line in lines if _is(line, "written")}
    checkpoints = {
        (n, node, line["path"], line["sha256"]): line for n, node, line in lines if _is(line, "checkpoint")
    }
    found = []
    for number, node, line in files:
        if line.get("kind") == "file":
            checkpoint = checkpoints.pop((number, node, line["path"], line.get("sha256")), None)
            writer = checkpoint or writers.get((number, node, line["path"]))
            found.append(_output(number, node, line, writer, checkpoint))
    listed = {(number, node, line["path"]) for number, node, line in files}
    for (number, node, path, _), line in checkpoints.items():
        entry = _output(number, node, line, line, line)
        # Another version has its place; what lies elsewhere, or is a folder, was not listed by itself.
        entry["replaced"] = (number, node, path) in listed
        found.append(entry)
    for entry in found:
        entry["code"] = live(tree, changes, trees, entry["written_at"])
    return found


def _output(
    number: int,
    node: str,
    line: Mapping[str, Any],
    writer: Mapping[str, Any] | None,
    checkpoint: Mapping[str, Any] | None,
) -> Document:
    known, by = checkpoint or {}, writer or {}
    return {
        "path": line["path"],
        "kind": "checkpoint" if checkpoint else "file",
        "form": "folder" if line.get("folder") else "file",
        "digest": digest(line.get("sha256")),
        "weights": digest(known.get("weights")),
        "format": known.get("format"),
        "size_bytes": line.get("size_bytes"),
        "step": known.get("step", by.get("step")),
        "step_from": known.get("step_from"),
        "written_at": by.get("at") if checkpoint and "mtime" not in line else line.get("mtime"),
        "attempt": number,
        "node": node,
        "rank": by.get("rank"),
        "by": by.get("by"),
        "replaced": False,
        "code": [],
    }
