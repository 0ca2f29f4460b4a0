"""The lineage of a run as a graph for Graphviz (https://graphviz.org/doc/info/lang.html); pure."""

from __future__ import annotations

from typing import Any

_DIGEST_SHOWN = len("sha256:") + 12
_NAMED = 3


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
    for entries, arrow in ((document["inputs"], "{file} -> {run}"), (document["outputs"], "{run} -> {file}")):
        for name, same in _by_content(entries).items():
            lines.append(f"  {name} [shape={_shape(same[0])}, label={_label(*_words(same))}];")
            lines.append(f"  {arrow.format(file=name, run=_quoted(run['id']))};")
    return "\n".join([*lines, "}", ""])


def _by_content(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Entries by the name of their node: files with the same bytes are one."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        nodes.setdefault(_name(entry), []).append(entry)
    return nodes


def _shape(entry: dict[str, Any]) -> str:
    return "folder" if entry.get("form") == "folder" else "note"


def _words(same: list[dict[str, Any]]) -> list[str]:
    paths = list(dict.fromkeys(entry["path"] for entry in same))
    more = [f"and {len(paths) - _NAMED} more"] if len(paths) > _NAMED else []
    digest = same[0]["digest"]
    return [*paths[:_NAMED], *more, digest[:_DIGEST_SHOWN] if digest else "content not captured"]


def _name(entry: dict[str, Any]) -> str:
    return _quoted(entry["digest"] or f"path {entry['path']}")


def _label(*lines: str) -> str:
    return '"' + r"\n".join(_escaped(line) for line in lines) + '"'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    from mllaunch.domain.render import escape

    return escape(text).replace("\\", "\\\\").replace('"', '\\"')
