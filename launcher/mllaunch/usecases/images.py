"""Which images of an engine are ours, and which of them nobody needs any more; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

CODE, ENVIRONMENT = "code", "environment"


class MadeImage(NamedTuple):
    """An image that mllaunch has made. kind: CODE on top of an environment, or the ENVIRONMENT alone (its key).

    name: its first tag, or its id if it has none. size_bytes: all layers together, shared ones too.
    """

    name: str
    id: str
    kind: str
    environment: str
    commit: str | None
    size_bytes: int


def made(listed: Iterable[Mapping[str, Any]]) -> Iterator[MadeImage]:
    """Ours among the images that an engine lists, sorted by name."""
    found = []
    for image in listed:
        labels = image.get("Labels") or {}
        environment = labels.get("mllaunch.environment")
        if not environment:
            continue
        names = tuple(sorted(name for name in image.get("RepoTags") or () if name != "<none>:<none>"))
        kind = CODE if "mllaunch.tree" in labels else ENVIRONMENT
        commit = labels.get("org.opencontainers.image.revision") if kind == CODE else None
        name = names[0] if names else str(image["Id"])
        found.append(
            MadeImage(name, str(image["Id"]), kind, environment, commit, int(image.get("Size") or 0))
        )
    return iter(sorted(found))


def known(images: Iterable[MadeImage], is_ours: Callable[[MadeImage], bool]) -> list[MadeImage]:
    """Those that this home's runs have used, with what these are built on: an engine may serve several people."""
    images = list(images)
    ours = [image for image in images if image.kind == CODE and is_ours(image)]
    environments = {image.environment for image in ours}
    return [
        image
        for image in images
        if image in ours or (image.kind == ENVIRONMENT and image.environment in environments)
    ]


def removable(
    images: Iterable[MadeImage], used: Collection[str], *, environments: bool
) -> Iterator[MadeImage]:
    """Those that no run needs. used: ids of the images of runs that have not ended. environments: also ENVIRONMENTs,
    but for those below an image that is used; without, of each environment one image stays that has its layers."""
    images = list(images)
    below = {image.environment for image in images if image.id in used}
    kept = below | {image.environment for image in images if image.kind == ENVIRONMENT}
    for image in images:
        if image.kind == ENVIRONMENT:
            if environments and image.environment not in below:
                yield image
        elif environments or image.environment in kept:
            if image.id not in used:
                yield image
        else:  # it was fetched, or sent here, without an image of the environment alone
            kept.add(image.environment)
