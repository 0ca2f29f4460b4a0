"""All nodes of the configuration: one connection each, shared by whatever this process does there at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from mllaunch.errors import MllaunchError, NotFound
from mllaunch.schedulers.ssh import calls, transport
from mllaunch.schedulers.ssh.calls import Calls
from mllaunch.schedulers.ssh.transport import Address, Link

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.archive import Archive

T = TypeVar("T")

_AT_ONCE = 128
_AGAIN_S = 5.0  # one that did not answer is not asked again for so long


class Fleet:
    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = {address.name: address for address in addresses}
        self._lock = threading.Lock()
        self._doors: dict[Address, _Door] = {}

    @cached_property
    def _archive(self) -> Archive:
        from mllaunch.schedulers.ssh import archive

        return archive.make()

    @property
    def names(self) -> list[str]:
        return list(self._addresses)

    def address(self, name: str) -> Address:
        """NotFound if no node of the configuration has this name."""
        found = self._addresses.get(name)
        if found is None:
            have = ", ".join(self._addresses) or "none"
            raise NotFound(
                "node", f"there is no node {name}; the configuration has {have}", hint="mllaunch nodes"
            )
        return found

    def calls(self, address: Address) -> Calls:
        """Raises MllaunchError if the node cannot be reached, or has no agent."""
        with self._lock:
            if address not in self._doors:
                self._doors[address] = _Door(address)
            door = self._doors[address]
        return door.open(lambda: self._archive)

    @contextmanager
    def engine(self, address: Address, path: str) -> Iterator[str]:
        """A node's container engine, listening at ``path`` there, as a socket here. MllaunchError, as for calls."""
        from mllaunch.schedulers.ssh.tunnel import tunnel

        self.calls(address)
        with tunnel(self._doors[address].link, address.python, path) as here:
            yield here

    def each(self, addresses: Iterable[Address], act: Callable[[Calls], T]) -> dict[str, T | MllaunchError]:
        """By name, what came of it on each node; all at once."""
        from concurrent.futures import ThreadPoolExecutor

        def one(address: Address) -> T | MllaunchError:
            try:
                return act(self.calls(address))
            except MllaunchError as error:
                return error

        wanted = list(addresses)
        if len(wanted) == 1:
            return {wanted[0].name: one(wanted[0])}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip([address.name for address in wanted], pool.map(one, wanted), strict=True))


class _Door:
    """The way to one node. Whoever comes while it is being opened waits for that."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._calls: Calls | None = None
        self._failed: tuple[float, MllaunchError] | None = None

    @property
    def link(self) -> Link:
        """The connection, once it has been opened."""
        assert self._link is not None
        return self._link

    def open(self, archive: Callable[[], Archive]) -> Calls:
        with self._lock:
            if self._calls is not None and not self._calls.is_broken:
                return self._calls
            if self._failed is not None and time.monotonic() - self._failed[0] < _AGAIN_S:
                raise self._failed[1]
            try:
                if self._link is None or not self._link.is_open:
                    self._link = transport.connect(self._address)
                self._calls = calls.begin(self._link, self._address, archive())
            except MllaunchError as error:
                self._failed = (time.monotonic(), error)
                raise
            self._failed = None
            return self._calls
