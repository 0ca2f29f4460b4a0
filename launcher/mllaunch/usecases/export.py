"""Write a run as a folder, for people and tools that know nothing of mllaunch.

config.yaml       the run's parameters
notes.txt         its note and tags
run_info.txt      when, which commit, which host, how it ended: for people
provenance.json   everything that is known of it
outputs/          what the newest attempt wrote in its output folder
work/             what it wrote elsewhere in its checkout, if anything
                  (both with a folder for each node where several wrote different contents to one path)
logs/             the stored streams
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mllaunch.domain.run import Run
from mllaunch.errors import MllaunchError, UsageError
from mllaunch.ports import BlobStore, StreamRef
from mllaunch.usecases.layout import layout
from mllaunch.usecases.outputs import OutputFile, OutputFolder, stays_inside
from mllaunch.usecases.pull import Outcome, pull

_BLOCK = 1 << 20


class Export(NamedTuple):
    """What to write. run_info: makes the text, given what could not be copied, and at which paths nodes differ."""

    run: Run
    note: str | None
    tags: tuple[str, ...]
    provenance: dict[str, Any]
    files: Sequence[OutputFile]
    folders: Mapping[str, OutputFolder]
    run_info: Callable[[list[str], Sequence[str]], str]


def export(what: Export, blobs: BlobStore, dest: str, *, partial: bool) -> list[Outcome]:
    """Write the folder ``dest``: absent or empty; it appears whole or not at all. What was not copied.

    Links that lead out of the folder, pipes and the like are never copied. partial: nor are files that are gone,
    that are no longer what the run wrote or whose node is silent; without it they are an error. Raises UsageError
    "not_empty" and "no_parent", MllaunchError "outputs_differ" and "cannot_write".
    """
    dest = _checked(dest)
    temporary = f"{os.path.dirname(dest)}/.{os.path.basename(dest)[:100]}.{os.urandom(6).hex()}.part"
    try:
        os.mkdir(temporary)
        try:
            left_out = _write(what, blobs, temporary, partial)
            os.rename(temporary, dest)
        except BaseException:
            _remove(temporary)
            raise
    except OSError as error:
        raise MllaunchError(
            "cannot_write",
            f"{dest} cannot be written; nothing was left behind",
            evidence=(str(error),),
            hint="free some space, or name another folder",
        ) from error
    return left_out


def _checked(dest: str) -> str:
    """The folder's real path. UsageError unless it can be made."""
    path = os.path.realpath(dest)
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise UsageError(
            "not_empty", f"{dest} exists and is not an empty folder", hint="name a folder that does not exist"
        )
    if not os.path.isdir(os.path.dirname(path)):
        raise UsageError(
            "no_parent", f"there is no folder {os.path.dirname(path)} to put it in", hint="mkdir -p it first"
        )
    return path


def _write(what: Export, blobs: BlobStore, folder: str, partial: bool) -> list[Outcome]:
    import json

    left_out, contested = _copy_outputs(what, folder)
    lost = [outcome for outcome in left_out if outcome.file.kind == "file"]
    if lost and not partial:
        raise MllaunchError(
            "outputs_differ",
            f"{len(lost)} of the files that {what.run.name} wrote cannot be copied; nothing was exported",
            evidence=tuple(f"{outcome.place}: {outcome.problem}" for outcome in lost[:10]),
            hint="--partial exports the rest, and says in run_info.txt what is not there",
        )
    _copy_streams(what.run, blobs, folder)
    missing = [f"{outcome.place}: {outcome.problem}" for outcome in left_out]
    texts = {
        "config.yaml": _config(what.run),
        "notes.txt": notes_text(what.note, what.tags),
        "run_info.txt": what.run_info(missing, contested),
        "provenance.json": json.dumps(what.provenance, indent=2) + "\n",
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    return left_out


def _copy_outputs(what: Export, folder: str) -> tuple[list[Outcome], tuple[str, ...]]:
    """Copy what was written, the output folder's content to ``outputs``. What was left out and why, and at which paths
    nodes differ, so that each has a folder of its own."""
    work, outputs = os.path.join(folder, "work"), os.path.join(folder, "outputs")
    inside = _output_folder(what.run)
    places = layout([file for file in what.files if file.kind != "deleted"])
    outcomes = []
    wanted = []
    for want in places.wanted:
        file = want.holders[0]
        if file.kind == "symlink" and _leads_out(file, inside):
            why = f"a link that leads out of the folder: {file.target}"
            outcomes.append(Outcome(want.place, file, problem=why))
        else:
            wanted.append(want)
    outcomes += pull(wanted, what.folders, work, force=False, progress=lambda count, size: None)
    owners = {want.holders[0].node for want in wanted} if places.contested else {"."}
    for owner in owners:
        _move(work, f"{work}/{owner}/{inside}", f"{outputs}/{owner}")
    os.makedirs(outputs, exist_ok=True)
    return [outcome for outcome in outcomes if outcome.problem], places.contested


def _output_folder(run: Run) -> str:
    """Relative to the checkout's root; the root itself (".") if it lies outside."""
    inside = os.path.normpath(os.path.join(run.spec.workdir, run.spec.output))
    return "." if os.path.isabs(inside) or inside.split("/")[0] == ".." else inside


def _leads_out(link: OutputFile, inside: str) -> bool:
    """Whether a link would lead out of the exported folder, where the output folder lies by itself."""
    path = link.path
    if inside != "." and path.startswith(inside + "/"):
        path = path[len(inside) + 1 :]
    return link.target is None or not stays_inside(link.target, path.count("/"))


def _move(work: str, source: str, target: str) -> None:
    """Give an output folder, if it is there, its place beside ``work``, and remove the folders that are empty then."""
    source, target = os.path.normpath(source), os.path.normpath(target)
    if os.path.isdir(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
    path = os.path.dirname(source)
    while path.startswith(work):
        try:
            os.rmdir(path)
        except OSError:  # not empty, or not there
            return
        path = os.path.dirname(path)


def _copy_streams(run: Run, blobs: BlobStore, folder: str) -> None:
    refs = list(blobs.streams(run.id))
    places = {(ref.attempt, ref.node) for ref in refs}
    for ref in refs:
        inner = "" if len(places) == 1 else f"attempt-{ref.attempt}-{ref.node}"
        parent = os.path.join(folder, "logs", inner)
        os.makedirs(parent, exist_ok=True)
        with open(os.path.join(parent, ref.stream), "xb") as file:
            _copy_stream(blobs, ref, file)


def _copy_stream(blobs: BlobStore, ref: StreamRef, file: Any) -> None:
    offset = 0
    while data := blobs.read(ref, offset, _BLOCK):
        file.write(data)
        offset += len(data)


def _config(run: Run) -> str:
    """The parameters as YAML, as they were typed: ``3e-4`` stays what a YAML 1.2 reader takes for a number."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Leaves what reads as a number or a truth value as it was typed, rather than as a quoted text."""

    def typed(dumper: Any, text: str) -> Any:
        tag = dumper.resolve(yaml.ScalarNode, text, (True, False))
        plain = tag in {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool")}
        return dumper.represent_scalar(tag if plain else "tag:yaml.org,2002:str", text)

    Dumper.add_representer(str, typed)
    head = f"# Parameters of the run {run.name}, as read from its arguments.\n"
    return head + yaml.dump(dict(run.params), Dumper=Dumper, sort_keys=False, default_flow_style=False)


def notes_text(note: str | None, tags: tuple[str, ...]) -> str:
    """The note, then the tags."""
    lines = [note] if note else []
    lines += [f"tags: {', '.join(tags)}"] if tags else []
    return "".join(f"{line}\n" for line in lines)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
