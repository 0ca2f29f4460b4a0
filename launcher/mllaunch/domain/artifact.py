"""What a run wrote, read or ran in, known by its content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mllaunch.domain.run import Run

WRITTEN = "file"
CHECKPOINT = "checkpoint"  # written, and it holds weights; also a version that was replaced since
WEIGHTS = "weights"  # the digest of a written checkpoint's weights alone, whatever the file around them
READ = "data"
OPENED = "input"
OPENED_WEIGHTS = "input-weights"  # the digest of the weights in a file that was read
IMAGE = "image"

MADE = (CHECKPOINT, WRITTEN)
USED = (OPENED, READ)

# What precedes a digest where it stands alone: it says everything that changes the output.
_ALGORITHM = "sha256:"


class Artifact(NamedTuple):
    """One file of one attempt on one node.

    sha256: of the file's bytes, 64 hexadecimal digits. path: relative to the root of the run's checkout; names that
    are not UTF-8 hold lone surrogates (PEP 383). kind: WRITTEN (by the tasks), CHECKPOINT, READ (data of the run),
    OPENED; WEIGHTS and OPENED_WEIGHTS, where sha256 is the digest of the weights in it; or IMAGE: path is then the
    reference of the container image. step: of a checkpoint, where that is known.
    """

    sha256: str
    run_id: str
    attempt: int
    node: str
    path: str
    kind: str
    size_bytes: int
    step: int | None = None


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
    traced: Iterable[Mapping[str, Any]] = (),
) -> Iterator[Artifact]:
    """What of an attempt on a node can be found again by its content.

    lines: of the ``files`` stream. data: fields of the DATA events. traced: lines of the ``trace`` stream. A folder of
    data has a digest of its manifest, which is the digest of no file.
    """

    def made(sha256: str, kind: str, line: Mapping[str, Any]) -> Artifact:
        size, step = line.get("size_bytes") or 0, line.get("step")
        return Artifact(sha256, run_id, attempt, node, line["path"], kind, size, step)

    for line in traced:
        is_written = line.get("record") == "checkpoint"
        if (is_written or line.get("record") in ("input", "folder")) and line.get("sha256"):
            yield made(line["sha256"], CHECKPOINT if is_written else OPENED, line)
            if line.get("weights"):
                yield made(line["weights"], WEIGHTS if is_written else OPENED_WEIGHTS, line)
    for line in lines:
        if line.get("kind") == "file" and line.get("sha256"):
            yield made(line["sha256"], WRITTEN, line)
    for found in data:
        if found.get("digest"):
            yield made(found["digest"], READ, found)
