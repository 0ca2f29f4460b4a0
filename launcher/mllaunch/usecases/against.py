"""Whether code and files from elsewhere are those of a run: another commit, or a published folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mllaunch.errors import NotFound
from mllaunch.usecases.origin import origin

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.ports import BlobStore, RunLog

COMMIT_SCHEMA = "mllaunch.against/1"
FOLDER_SCHEMA = "mllaunch.folder/1"

_MOST = 100_000  # files of a folder

Document = dict[str, Any]


def executed(log: RunLog, blobs: BlobStore, run: Run) -> dict[str, set[str]]:
    """By path in the checkout, the versions (git's ids) that processes of a run really took code from."""
    from mllaunch.usecases.provenance import traces

    found: dict[str, set[str]] = {}
    for _, _, line in traces(blobs, run.id, list(log.views(run.id))):
        if line.get("record") == "code" and line.get("blob") and not line["path"].startswith("/"):
            found.setdefault(line["path"], set()).add(line["blob"])
    return found


def compare(code: Mapping[str, set[str]], files: Mapping[str, str]) -> Document:
    """{same, differs, missing: [path]}: the files that were executed, as they are among others; pure.

    files: path -> git's id. A file of which several versions were executed is the same as none.
    """
    parts: dict[str, list[str]] = {"same": [], "differs": [], "missing": []}
    for path, versions in sorted(code.items()):
        if path not in files:
            parts["missing"].append(path)
        else:
            parts["same" if versions == {files[path]} else "differs"].append(path)
    return dict(parts)


def against(log: RunLog, blobs: BlobStore, run: Run, commit: str, files: Mapping[str, str]) -> Document:
    """A run's executed code against that of a commit of any repository. NotFound if it is not on record."""
    code = executed(log, blobs, run)
    if not code:
        raise NotFound(
            "no_code",
            f"which code {run.name} executed is not on record",
            hint=f"mllaunch provenance {run.name}   says why",
        )
    return {
        "schema": COMMIT_SCHEMA,
        "run": {"id": run.id, "name": run.name},
        "commit": commit,
        **compare(code, files),
    }


def folder(log: RunLog, blobs: BlobStore, path: str, files: Iterable[Document]) -> Document:
    """What of a folder is known: which runs made its files, and whether its code is what those executed.

    files: [{path, sha256, weights, blob, size_bytes}]. NotFound if no run has made any of them.
    """
    listed, code = [], {}
    makers: dict[str, str] = {}
    for file in files:
        code[file["path"]] = file["blob"]
        made = _made_by(log, file)
        listed.append({"path": file["path"], "digest": f"sha256:{file['sha256']}", "made_by": made})
        if made is not None:
            makers.setdefault(made["run"]["id"], made["run"]["name"])
    if not makers:
        raise NotFound(
            "unknown_folder",
            f"of the {len(listed)} files in {path}, no run is known to have made any",
            hint="name a file in it, or wait for the run that made it to end",
        )
    compared = [
        {"run": {"id": run_id, "name": name}, **compare(executed(log, blobs, log.get(run_id)[0]), code)}
        for run_id, name in makers.items()
    ]
    return {"schema": FOLDER_SCHEMA, "path": path, "files": listed, "code": compared}


def _made_by(log: RunLog, file: Document) -> Document | None:
    if not file["size_bytes"]:
        return None
    try:
        found = origin(log, file["sha256"], weights=file["weights"])
    except NotFound:
        return None
    makers = found["written_by"] or found["same_weights"]
    return makers[0] if makers else None


def read_folder(path: str) -> list[Document]:
    """The files of a folder, as ``folder`` wants them; git's own are left out. OSError."""
    import stat

    from mllaunch_agent import codewatch, hashing, weights

    root = os.fsencode(path)
    found: list[Document] = []
    for entry in hashing.walk(root, skip=lambda name: name.split(b"/")[0] == b".git"):
        place = os.path.join(root, entry.path)
        if entry.info is None or not stat.S_ISREG(entry.info.st_mode) or len(found) >= _MOST:
            continue
        hashed = hashing.sha256_of(place)
        if hashed.sha256 is None:
            continue
        held = weights.read(place)
        found.append(
            {
                "path": hashing.text(entry.path),
                "sha256": hashed.sha256,
                "weights": held.digest if held else None,
                "blob": codewatch.blob_id(os.fsdecode(place)),
                "size_bytes": entry.info.st_size,
            }
        )
    return found
