"""Brings an image from the engine that has it to the engines of nodes, without a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.errors import MllaunchError
from mllaunch.images.builder import explained, silent
from mllaunch_agent.engine import Engine, EngineError, EngineGone
from mllaunch_containers.spec import ImageError
from mllaunch_containers.transfer import Shipment

if TYPE_CHECKING:
    from mllaunch.domain.image import Image
    from mllaunch_containers.engine import Docker, Say

_MIB = 1 << 20


class Target(NamedTuple):
    """A node that lacks an image. engine: gives the socket of its engine. shared: how many of some layers, from the
    lowest on, that engine has."""

    node: str
    engine: Callable[[], AbstractContextManager[str]]
    shared: Callable[[Sequence[str]], int]


def send(source: str, docker: Callable[[], Docker], image: Image, targets: Iterable[Target], say: Say) -> int:
    """Send it to each target; how many bytes that took in all. MllaunchError.

    source: the socket of the engine that has it, and docker gives the same engine. say: takes lines of progress.
    """
    sent = 0
    try:
        with Shipment(Engine(source), docker, image.id, image.reference) as shipment:
            for target in targets:
                sent += _send(shipment, target, say)
    except ImageError as error:
        raise explained(error) from error
    except (EngineGone, EngineError) as error:
        raise silent(error) from error
    return sent


def _send(shipment: Shipment, target: Target, say: Say) -> int:
    node = target.node

    def progress(sent: int, whole: int) -> None:
        say(f"{node} has {sent // _MIB} of {whole // _MIB} MiB")

    say(f"sending to {node}")
    known = target.shared(shipment.layers)
    with target.engine() as socket:
        try:
            return shipment.send(Engine(socket), known, progress)
        except ImageError as error:
            error.message = f"{node}: {error.message}"
            raise
        except OSError as error:
            is_full = "no space left" in str(error).lower()
            raise MllaunchError(
                "disk_full" if is_full else "image_transfer",
                f"{node}: its container engine {'has no room for' if is_full else 'did not take'} the image",
                evidence=(str(error),),
                hint=f"docker system prune   on {node}" if is_full else f"mllaunch doctor --node {node}",
            ) from error
