"""All nodes of the configuration: one link each, shared by whatever this process does there at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from mllaunch.domain.placement import unknown
from mllaunch.errors import MllaunchError
from mllaunch.schedulers.ssh import calls, transport
from mllaunch.schedulers.ssh.calls import Answered, Calls, nobody
from mllaunch.schedulers.ssh.door import Door
from mllaunch.schedulers.ssh.links import Link
from mllaunch.schedulers.ssh.transport import Address

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.archive import Archive

T = TypeVar("T")

_HEED_S = 0.2  # a Ctrl-C that comes just before a wait begins is heeded when that ends


class Fleet:
    """answered: is told the name of each node that answers, each time."""

    def __init__(self, addresses: Sequence[Address], answered: Answered = nobody) -> None:
        self._answered = answered
        self._addresses = {address.name: address for address in addresses}
        self._lock = threading.Lock()
        self._ways: dict[Address, _Way] = {}
        self._doors: dict[Address, Door] = {}

    @cached_property
    def _archive(self) -> Archive:
        from mllaunch.schedulers.ssh import archive

        return archive.make()

    @property
    def addresses(self) -> list[Address]:
        return list(self._addresses.values())

    @property
    def names(self) -> list[str]:
        return list(self._addresses)

    def address(self, name: str) -> Address:
        """NotFound if no node of the configuration has this name."""
        found = self._addresses.get(name)
        if found is None:
            raise unknown(name, self.names)
        return found

    def calls(self, address: Address) -> Calls:
        """Raises MllaunchError if the node cannot be reached, or has no agent."""
        with self._lock:
            if address not in self._doors:
                self._ways[address] = _Way(address, lambda: self._archive, self._answered)
                self._doors[address] = Door(self._ways[address].enter)
            door = self._doors[address]
        return door.open()

    @contextmanager
    def engine(self, address: Address, path: str) -> Iterator[str]:
        """A node's container engine, listening at ``path`` there, as a socket here. MllaunchError, as for calls."""
        from mllaunch.schedulers.ssh.tunnel import tunnel

        self.calls(address)
        with tunnel(self._ways[address].link, address.python, path) as here:
            yield here

    def each(self, addresses: Iterable[Address], act: Callable[[Calls], T]) -> dict[str, T | MllaunchError]:
        """By name, what came of it on each node; all at once. Ctrl-C waits for none."""
        wanted = list(addresses)
        found: dict[str, T | MllaunchError] = {}
        failed: list[BaseException] = []

        def one(address: Address) -> None:
            try:
                found[address.name] = act(self.calls(address))
            except MllaunchError as error:
                found[address.name] = error
            except BaseException as error:  # noqa: BLE001  raised again where it is waited for
                failed.append(error)

        if len(wanted) == 1:
            one(wanted[0])
        else:
            # Not a pool, whose threads would have to end before this process can.
            threads = [threading.Thread(target=one, args=(address,), daemon=True) for address in wanted]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_HEED_S)
        if failed:
            raise failed[0]
        return {address.name: found[address.name] for address in wanted}


class _Way:
    """The connection to one node, and an agent that answers over it."""

    def __init__(self, address: Address, archive: Callable[[], Archive], answered: Answered) -> None:
        self._address = address
        self._archive = archive
        self._answered = answered
        self._link: Link | None = None

    @property
    def link(self) -> Link:
        """The connection, once it has been opened."""
        assert self._link is not None
        return self._link

    def enter(self) -> Calls:
        if self._link is None or not self._link.is_open:
            self._link = transport.connect(self._address)
        return calls.begin(self._link, self._address, self._archive(), self._answered)


def raise_first(answers: Mapping[str, object]) -> None:
    """Raise the first node's failure, if there is any."""
    for answer in answers.values():
        if isinstance(answer, MllaunchError):
            raise answer
