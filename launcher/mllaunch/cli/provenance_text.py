"""A provenance document as a person reads it. Works on the document alone, so it can say no more than that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from mllaunch.cli import ending, terminal, times
from mllaunch.cli.sheet import Sheet
from mllaunch.cli.table import text_width
from mllaunch.domain.render import escape
from mllaunch.domain.state import Reason

_LISTED = 10  # inputs, outputs, packages' changes: on a terminal
_SHORT_COMMIT = 12
_SHORT_DIGEST = len("sha256:") + 12

Document = dict[str, Any]


def render(document: Document, now: str, stream: IO[Any]) -> str:
    """All sections. stream: where they go to."""
    sheet = Sheet(stream)
    headline(sheet, document["run"])
    _about(sheet, document["run"], now)
    sheet.gap()
    command(sheet, document["command"])
    code(sheet, document["code"])
    _environment(sheet, document["environment"])
    for lines in _hosts(document["hosts"]):
        sheet.row("host", *lines)
    sheet.gap()
    lineage(sheet, document["lineage"])
    sheet.items("inputs", _inputs(sheet, document) or ["none recorded"], _LISTED)
    sheet.items("outputs", _outputs(sheet, document) or ["none recorded"], _LISTED)
    sheet.row("usage", usage_words(document["usage"]))
    sheet.items("logs", _logs(document), _LISTED)
    attempts(sheet, document["attempts"], document["run"]["tasks"], now)
    sheet.gap()
    sheet.row("not captured", *_not_captured(document["not_captured"]))
    seal(sheet, document["seal"])
    return sheet.text()


def headline(sheet: Sheet, run: Document) -> None:
    """``brave-otter-17  failed: exited with 3, after 3m 05s``"""
    words = _ending(run, run["tasks"], run["exit_code"])
    painted = sheet.styled(terminal.state, run["state"])
    sheet.headline(run["name"], words, lambda text: text.replace(run["state"], painted, 1))


def _ending(part: Document, tasks: int, exit_code: int | None = None) -> str:
    reason = part["reason"] and Reason(**part["reason"])
    return ending.words(part["state"], reason, tasks, part["started_at"], part["ended_at"], exit_code)


def _about(sheet: Sheet, run: Document, now: str) -> None:
    by = run["submitted_by"]
    sheet.row("run", f"{run['id']}  in project {run['project']}")
    at = times.when(run["submitted_at"], now, terminal=sheet.on_terminal)
    sheet.row("submitted", f"{at} by {by['user']} on {by['host']}")
    if run["started_at"] and not sheet.on_terminal:
        sheet.row("ran", f"{run['started_at']} to {run['ended_at'] or 'now'}")
    notes(sheet, run)


def notes(sheet: Sheet, run: Document) -> None:
    sheet.row("note", run["note"])
    sheet.row("tags", ", ".join(run["tags"]))


def command(sheet: Sheet, document: Document) -> None:
    from shlex import join

    where = f"in {document['workdir']}/" if document["workdir"] else None
    sheet.row("command", join(document["argv"]), where)
    sheet.items("parameters", [f"{name} = {value}" for name, value in document["params"].items()], _LISTED)


def code(sheet: Sheet, document: Document) -> None:
    commit = document["commit"][:_SHORT_COMMIT] if sheet.on_terminal else document["commit"]
    branch = f"on {document['branch']}" if document["branch"] else "on no branch"
    if document["dirty"]:
        count = len(document["uncommitted"])
        base = document["base_commit"][:_SHORT_COMMIT] if sheet.on_terminal else document["base_commit"]
        state = f"= {base} {branch} and {_counted(count, 'uncommitted file')}"
    else:
        state = f"{branch}, clean"
    in_place = "run in the working tree itself, where edits could reach it" if document["in_place"] else None
    sheet.row("code", f"{commit} {state}", in_place)
    sheet.items("", [f"  {path}" for path in document["uncommitted"]], _LISTED)
    remote = f" ({document['remote']})" if document["remote"] else ""
    sheet.row("", f"{document['repository']}{remote}")
    for path in dict.fromkeys(entry["path"] for entry in document["mixed"]):
        sheet.row("MIXED CODE", f"processes executed different versions of {path}", paint=_loud(sheet))
    sheet.items("changed", [_change(change) for change in document["changes"]], _LISTED)
    sheet.items("from outside", [entry["path"] for entry in document["outside"]], _LISTED)


def _loud(sheet: Sheet) -> Callable[[str], str]:
    return lambda text: sheet.styled(terminal.yellow, text)


def _change(change: Document) -> str:
    """``train.py, edited at 09:31:07 in attempt 1 on gpu01: in use``"""
    how = "deleted" if change["after"] is None else "added" if change["before"] is None else "edited"
    effect = {"yes": "in use", "no": "not in use", "unknown": "perhaps in use"}[change["in_use"]]
    return f"{change['path']}, {how} at {change['at']} in attempt {change['attempt']} on {change['node']}: {effect}"


def lineage(sheet: Sheet, document: Document) -> None:
    """The runs that this one goes back to, and those that go back to it."""
    words = {"resume": "goes on from", "weights": "began with weights of", "data": "read what was made by"}
    parents = [f"{words[edge['kind']]} {_edge(sheet, edge)}" for edge in document["parents"]]
    sheet.items("made from", parents, _LISTED)
    words = {"resume": "went on from it", "weights": "began with its weights", "data": "read what it made"}
    children = [f"{edge['name'] or edge['run']} {words[edge['kind']]}" for edge in document["children"]]
    sheet.items("used by", list(dict.fromkeys(children)), _LISTED)


def _edge(sheet: Sheet, edge: Document) -> str:
    step = f" at step {edge['step']}" if edge["step"] is not None else ""
    path = f", {edge['path']}" if edge["path"] else ""
    return f"{edge['name'] or edge['run']}{step}{path}   {_digest(sheet, edge['checkpoint'])}"


def _environment(sheet: Sheet, document: Document) -> None:
    python = document["python"]
    if python:
        packages = python["packages"]
        count = "" if packages is None else f", {_counted(len(packages), 'package')}"
        sheet.row("python", f"{python['implementation']} {python['version']}{count}", python["executable"])
    if document["image"]:
        image(sheet, document["image"])
        engine = document["engine"]
        by = f", in {engine['name']} {engine['version']}" if engine else ""
        sheet.row("", f"on {document['image']['base']}{by}")
    else:
        sheet.row("runtime", f"{document['runtime']}: {document['runtime_why']}")
    if document["lock"]:
        lock = document["lock"]
        how = "versions were open, and resolved to " if lock["resolved"] else ""
        sheet.row("lock", f"{lock['path']}  {how}{lock['digest']}")
    if sheet.on_terminal:
        sheet.row("variables", " ".join(document["variables"]))
    else:
        sheet.items("variables", [f"{name}={value}" for name, value in document["variables"].items()])
    if document["redacted"]:
        sheet.row("withheld", " ".join(document["redacted"]))


def image(sheet: Sheet, document: Document) -> None:
    """What the run's container was made from."""
    if "@" in document["reference"]:
        sheet.row("image", document["reference"])
    else:
        sheet.row("image", document["digest"], document["reference"])


def _hosts(hosts: list[Document]) -> list[list[str]]:
    """Each machine once, with the attempts that found it so if there were several."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for host in hosts:
        alike.setdefault(tuple(_host(host)), []).append(host["attempt"])
    several = len({host["attempt"] for host in hosts}) > 1
    return [
        [*lines, f"in attempt {', '.join(map(str, numbers))}"] if several else [*lines]
        for lines, numbers in alike.items()
    ]


def _host(host: Document) -> list[str]:
    cpu = host["cpu"]
    cores = f", {cpu['cores']} cores" if cpu["cores"] else ""
    kind = f" ({host['virtualization']})" if host["virtualization"] else ""
    lines = [f"{host['hostname'] or host['node']}{kind}: {_joined(host['os'], host['kernel'], host['arch'])}"]
    if cpu["model"]:
        memory = f", {times.bytes(host['memory_bytes'])} memory" if host["memory_bytes"] else ""
        lines.append(f"{cpu['model']}{cores}{memory}")
    for gpu in host["gpus"] or ():
        leased = "" if gpu["leased"] else "  (not leased)"
        lines.append(
            f"GPU {gpu['index']}  {gpu['name']}  {times.bytes(gpu['memory_bytes'])}  {gpu['uuid']}{leased}"
        )
    if host["driver"]:
        lines.append(f"driver {host['driver']}, CUDA {host['cuda'] or '?'}")
    return lines


def _joined(*words: str | None) -> str:
    return ", ".join(word for word in words if word) or "nothing recorded about it"


def _inputs(sheet: Sheet, document: Document) -> list[str]:
    lines = []
    for entry in document["inputs"]:
        files = (
            f"{entry['files']} file{'s' if entry['files'] != 1 else ''}, "
            if entry["files"] is not None
            else ""
        )
        words = (
            f"{entry['path']}   {files}{times.bytes(entry['size_bytes'])}   {_digest(sheet, entry['digest'])}"
        )
        words += _reading(entry) + _maker(entry)
        lines.append(words + ("   CHANGED DURING THE RUN" if entry["changed"] else ""))
    return lines


def _reading(entry: Document) -> str:
    """How much of a folder was read."""
    read = entry["read"]
    if not read or entry["form"] != "folder":
        return ""
    return f"   {'' if read['exact'] else 'about '}{read['count']} read"


def _maker(entry: Document) -> str:
    made = entry["produced_by"]
    if made is None:
        return "   made by no run that is known here" if entry["kind"] == "checkpoint" else ""
    step = f" at step {made['step']}" if made["step"] is not None else ""
    return f"   made by {made['name'] or made['run']}{step}"


def _outputs(sheet: Sheet, document: Document) -> list[str]:
    outputs = document["outputs"]
    shown = outputs[:_LISTED] if sheet.on_terminal else outputs
    widest = min(60, max((text_width(escape(entry["path"])) for entry in shown), default=0))
    several = len(document["attempts"]) > 1
    lines = []
    for entry in outputs:
        attempt = f"   attempt {entry['attempt']}" if several else ""
        size = times.bytes(entry["size_bytes"]).rjust(9)
        padding = " " * (widest - text_width(escape(entry["path"])))
        step = f"   step {entry['step']}" if entry["step"] is not None else ""
        replaced = "   replaced since" if entry["replaced"] else ""
        digest = _digest(sheet, entry["digest"])
        lines.append(f"{entry['path']}{padding} {size}   {digest}{step}{replaced}{attempt}")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _digest(sheet: Sheet, digest: str | None) -> str:
    if digest is None:
        return "content not captured"
    return digest[:_SHORT_DIGEST] if sheet.on_terminal else digest


def usage_words(usage: Document | None) -> str | None:
    """``3m 05s, 2m 50s of CPU, 1.2 GiB of memory at most, 20.0 MiB read, 1.0 GiB written``"""
    if usage is None:
        return None
    parts = [
        (usage["wall_s"], times.duration(usage["wall_s"])),
        (usage["cpu_s"], f"{times.duration(usage['cpu_s'])} of CPU"),
        (usage["max_rss_bytes"], f"{times.bytes(usage['max_rss_bytes'])} of memory at most"),
        (usage["read_bytes"], f"{times.bytes(usage['read_bytes'])} read"),
        (usage["written_bytes"], f"{times.bytes(usage['written_bytes'])} written"),
    ]
    gpu = usage["gpu"] or dict.fromkeys(("mean_utilisation", "max_memory_bytes", "energy_j"))
    parts += [
        (gpu["mean_utilisation"], f"GPU {100 * (gpu['mean_utilisation'] or 0):.0f} % busy"),
        (gpu["max_memory_bytes"], f"{times.bytes(gpu['max_memory_bytes'])} of GPU memory at most"),
        (gpu["energy_j"], f"{(gpu['energy_j'] or 0) / 3_600_000:.3f} kWh"),
    ]
    return ", ".join(words for value, words in parts if value is not None)


def _logs(document: Document) -> list[str]:
    several = len({log["node"] for log in document["logs"]}) > 1
    retried = len(document["attempts"]) > 1
    ranks = len({log["rank"] for log in document["logs"]}) > 1
    lines = []
    for log in document["logs"]:
        where = [f"attempt {log['attempt']}"] if retried else []
        where += [log["node"]] if several else []
        where += [f"rank {log['rank']}"] if ranks else []
        missing = sum(gap["size_bytes"] for gap in log["gaps"])
        gaps = f", of which {times.bytes(missing)} are missing" if missing else ""
        lines.append(f"{' '.join([*where, log['stream']])} {times.bytes(log['size_bytes'])}{gaps}")
    return [", ".join(lines)] if lines and len(lines) <= 2 else lines


def attempts(sheet: Sheet, attempts: list[Document], tasks: int, now: str) -> None:
    """Only worth a section when there were several. tasks: of the run."""
    if len(attempts) < 2:
        return
    lines = []
    for attempt in attempts:
        began = times.when(attempt["started_at"], now, terminal=sheet.on_terminal)
        lines.append(f"{attempt['number']}  {_ending(attempt, tasks)}, started {began}")
    sheet.items("attempts", lines)


def _not_captured(entries: list[Document]) -> list[str]:
    """What went missing this time, then what is never recorded; what shares a reason is one line."""
    by_reason: dict[str, list[str]] = {}
    for entry in sorted(entries, key=lambda entry: entry["node"] is None):
        _, _, words = entry["what"].rpartition(": ")
        where = f" (attempt {entry['attempt']} on {entry['node']})" if entry["node"] else ""
        by_reason.setdefault(entry["why"], []).append(words + where)
    lines = [
        f"{why}: {'; '.join(whats)}" if len(whats) > 1 else f"{whats[0]}: {why}"
        for why, whats in by_reason.items()
    ]
    return lines or ["nothing is known to be missing"]


def seal(sheet: Sheet, document: Document) -> None:
    words = {
        "sealed-complete": "complete",
        "sealed-with-gaps": "sealed, with gaps",
        "unsealed": "never sealed: it may lack anything",
        None: "not sealed yet",
    }[document["status"]]
    digest = f", sha256:{document['sha256']}" if document["sha256"] else ""
    if sheet.on_terminal:
        digest = digest[: len(", ") + _SHORT_DIGEST]
    sheet.row("record", f"{words}; {document['events']} events{digest}")
