"""Brings an image from the engine that has it to the engines of nodes, without a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mllaunch.errors import MllaunchError
from mllaunch.images.builder import explained
from mllaunch_agent.engine import Engine
from mllaunch_containers.spec import ImageError
from mllaunch_containers.transfer import Shipment

if TYPE_CHECKING:
    from mllaunch_containers.engine import Docker, Say

_MIB = 1 << 20


def send(
    source: str,
    docker: Docker,
    image: str,
    targets: Iterable[tuple[str, Callable[[], AbstractContextManager[str]]]],
    say: Say,
) -> int:
    """Send it to each target that has not got it; how many bytes that took in all. MllaunchError.

    source: the socket of the engine that has it, and docker the same engine. targets: the name of each node, and what
    gives its engine's socket. say: takes lines of progress.
    """
    sent = 0
    try:
        with Shipment(Engine(source), docker, image) as shipment:
            for node, engine in targets:
                with engine() as socket:
                    sent += _send(shipment, node, socket, say)
    except ImageError as error:
        raise explained(error) from error
    return sent


def _send(shipment: Shipment, node: str, socket: str, say: Say) -> int:
    def progress(sent: int, whole: int) -> None:
        say(f"to {node}: {sent // _MIB} of {whole // _MIB} MiB")

    say(f"to {node}")
    try:
        return shipment.send(Engine(socket), progress)
    except OSError as error:
        full = "no space left" in str(error).lower()
        raise MllaunchError(
            "disk_full" if full else "image_transfer",
            f"{node}: its container engine has no room for the image"
            if full
            else f"{node}: its container engine did not take the image",
            evidence=(str(error),),
            hint=f"docker system prune   on {node}" if full else f"mllaunch doctor --node {node}",
        ) from error
