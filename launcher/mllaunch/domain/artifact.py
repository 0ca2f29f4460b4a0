"""What a run wrote, read or ran in, known by its content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mllaunch.domain.run import Run

WRITTEN = "file"
READ = "data"
IMAGE = "image"

# What precedes a digest where it stands alone: it says everything that changes the output.
_ALGORITHM = "sha256:"


class Artifact(NamedTuple):
    """One file of one attempt on one node.

    sha256: of the file's bytes, 64 hexadecimal digits. path: relative to the root of the run's checkout; names that
    are not UTF-8 hold lone surrogates (PEP 383). kind: WRITTEN (by the tasks) or READ (data of the run); or IMAGE: path
    is then the reference of the container image.
    """

    sha256: str
    run_id: str
    attempt: int
    node: str
    path: str
    kind: str
    size_bytes: int


def digest(sha256: str | None) -> str | None:
    """The digest as documents carry it: ``sha256:9f31...``."""
    return None if sha256 is None else _ALGORITHM + sha256


def parse_digest(text: str) -> str | None:
    """The 64 digits of ``sha256:HEX`` or ``HEX``, in small letters; None if the text is no digest."""
    hexadecimal = text.lower().removeprefix(_ALGORITHM)
    is_digest = len(hexadecimal) == 64 and not hexadecimal.strip("0123456789abcdef")
    return hexadecimal if is_digest else None


def of_image(run: Run) -> Iterator[Artifact]:
    """The image of a run, by its digest in a registry and by what the engine calls it."""
    if run.image is not None:
        for found in dict.fromkeys((run.image.digest, run.image.id)):
            sha256 = parse_digest(found)
            if sha256 is not None:
                reference, host = run.image.reference, run.submitted_by_host
                yield Artifact(sha256, run.id, 1, host, reference, IMAGE, run.image.size_bytes)


def identified(
    run_id: str,
    attempt: int,
    node: str,
    lines: Iterable[Mapping[str, Any]],
    data: Iterable[Mapping[str, Any]],
) -> Iterator[Artifact]:
    """What of an attempt on a node can be found again by its content.

    lines: of the ``files`` stream. data: fields of the DATA events; a folder has a digest of its manifest, which is
    the digest of no file.
    """
    for line in lines:
        if line.get("kind") == "file" and line.get("sha256"):
            yield Artifact(line["sha256"], run_id, attempt, node, line["path"], WRITTEN, line["size_bytes"])
    for found in data:
        if found.get("form") == "file" and found.get("digest"):
            yield Artifact(found["digest"], run_id, attempt, node, found["path"], READ, found["size_bytes"])
