"""The lineage of a run as a graph for Graphviz (https://graphviz.org/doc/info/lang.html); pure."""

from __future__ import annotations

from collections.abc import Iterator
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
    lines += _edges(document)
    return "\n".join([*lines, "}", ""])


def _edges(document: dict[str, Any]) -> Iterator[str]:
    """The runs that made the inputs, and those that used the outputs."""
    for edge in document["lineage"]["parents"]:
        name, file = _quoted(edge["run"]), _quoted(edge["checkpoint"] or f"path {edge['path']}")
        yield f"  {name} [shape=box, label={_label(edge['name'] or edge['run'])}];"
        yield f"  {file} [shape=note, label={_label(edge['path'], (edge['checkpoint'] or '')[:_DIGEST_SHOWN])}];"
        yield f"  {name} -> {file};"
        yield f"  {file} -> {_quoted(document['run']['id'])} [label={_label(edge['kind'])}];"
    for edge in document["lineage"]["children"]:
        name = _quoted(edge["run"])
        yield f"  {name} [shape=box, label={_label(edge['name'] or edge['run'])}];"
        source = edge["checkpoint"] or document["run"]["id"]
        yield f"  {_quoted(source)} -> {name} [label={_label(edge['kind'])}];"


def origin_graph(document: dict[str, Any]) -> str:
    """A digraph of a file's origin: the runs that made it, what they were made from, and so on back to the first.

    document: of usecases/origin.py.
    """
    lines = ["digraph provenance {", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    name = _quoted(document["digest"])
    lines.append(f"  {name} [shape=note, label={_label(document['digest'][:_DIGEST_SHOWN])}];")
    found: dict[str, None] = {}
    for place in document["written_by"] or document["same_weights"]:
        run = place["run"]
        words = (run["name"], run["state"], place["code"]["commit"][:12])
        found[f"  {_quoted(run['id'])} [shape=box, label={_label(*words)}];"] = None
        found[f"  {_quoted(run['id'])} -> {name};"] = None
    makers = document["written_by"] or document["same_weights"]
    if makers:
        found.update(dict.fromkeys(_back(_quoted(makers[0]["run"]["id"]), document["ancestors"])))
    return "\n".join([*lines, *found, "}", ""])


def _back(run: str, ancestors: list[dict[str, Any]]) -> Iterator[str]:
    for entry in ancestors:
        file = _quoted(entry["digest"])
        yield f"  {file} [shape=note, label={_label(entry['path'], entry['digest'][:_DIGEST_SHOWN])}];"
        yield f"  {file} -> {run} [label={_label(entry['kind'])}];"
        made = entry["produced_by"]
        if made is not None:
            maker = _quoted(made["run"])
            step = [f"step {made['step']}"] if made["step"] is not None else []
            commit = [made["code"]["commit"][:12]] if made["code"] else []
            yield f"  {maker} [shape=box, label={_label(made['name'] or made['run'], *commit)}];"
            yield f"  {maker} -> {file} [label={_label(*step)}];"
            yield from _back(maker, entry["from"])


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
