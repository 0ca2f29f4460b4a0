"""The lineage of a run as a graph for Graphviz (https://graphviz.org/doc/info/lang.html); pure."""

from __future__ import annotations

from typing import Any

_DIGEST_SHOWN = len("sha256:") + 12


def graph(document: dict[str, Any]) -> str:
    """A digraph: what the run was given, the run, and what it wrote. document: of domain/provenance.py.

    Nodes are named by content where it is known, so graphs of several runs join where they share a file.
    """
    run = document["run"]
    lines = ["digraph provenance {", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    commit = document["code"]["commit"]
    lines.append(
        f"  {_quoted(run['id'])} [shape=box, label={_label(run['name'], run['state'], commit[:12])}];"
    )
    for entry in document["inputs"]:
        lines.append(_file(entry, "folder" if entry["form"] == "folder" else "note"))
        lines.append(f"  {_name(entry)} -> {_quoted(run['id'])};")
    for entry in document["outputs"]:
        lines.append(_file(entry, "note"))
        lines.append(f"  {_quoted(run['id'])} -> {_name(entry)};")
    return "\n".join([*lines, "}", ""])


def _file(entry: dict[str, Any], shape: str) -> str:
    shown = entry["digest"][:_DIGEST_SHOWN] if entry["digest"] else "content not captured"
    return f"  {_name(entry)} [shape={shape}, label={_label(entry['path'], shown)}];"


def _name(entry: dict[str, Any]) -> str:
    return _quoted(entry["digest"] or f"path {entry['path']}")


def _label(*lines: str) -> str:
    return '"' + r"\n".join(_escaped(line) for line in lines) + '"'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    from mllaunch.domain.render import escape

    return escape(text).replace("\\", "\\\\").replace('"', '\\"')
