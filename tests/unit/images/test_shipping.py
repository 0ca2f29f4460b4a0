"""Who is to blame when an image does not come to a node: said by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from mllaunch.domain.image import Image
from mllaunch.errors import MllaunchError
from mllaunch.images import shipping
from mllaunch_agent.engine import EngineError, EngineGone
from mllaunch_containers.spec import ImageError

IMAGE = Image("mllaunch/x:1", "sha256:1", "sha256:1", "env", "base", None, 1)


class Shipment:
    """Fails as it is told to, where the real one would."""

    layers = ("l1", "l2")

    def __init__(self, fault: BaseException | None) -> None:
        self._fault = fault
        self.known: list[int] = []

    def __enter__(self) -> Shipment:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, target: Any, known: int, progress: Any) -> int:
        self.known.append(known)
        if self._fault is not None:
            raise self._fault
        progress(5 << 20, 10 << 20)
        return 10 << 20


@contextmanager
def engine() -> Iterator[str]:
    yield "/engine.sock"


def send(monkeypatch: pytest.MonkeyPatch, fault: BaseException | None, said: list[str]) -> int:
    made = Shipment(fault)
    monkeypatch.setattr(shipping, "Shipment", lambda *_: made)
    targets = [shipping.Target("a", engine, len), shipping.Target("b", engine, lambda layers: 0)]
    sent = shipping.send("/here.sock", cast(Any, None), IMAGE, cast(Iterable[Any], targets), said.append)
    assert made.known == [2, 0]
    return sent


def test_each_node_is_sent_what_it_lacks_and_named_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert send(monkeypatch, None, said) == 20 << 20
    assert said == ["sending to a", "a has 5 of 10 MiB", "sending to b", "b has 5 of 10 MiB"]


@pytest.mark.parametrize(
    ("fault", "code", "message", "hint"),
    [
        (
            EngineError(500, "write: no space left on device"),
            "disk_full",
            "a: its container engine has no room for the image",
            "docker system prune   on a",
        ),
        (
            EngineGone("broken pipe"),
            "image_transfer",
            "a: its container engine did not take the image",
            "mllaunch doctor --node a",
        ),
        (ImageError("transfer", "it does not know it"), "transfer", "a: it does not know it", None),
    ],
)
def test_a_node_that_takes_it_not_is_named(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, code: str, message: str, hint: str | None
) -> None:
    with pytest.raises(MllaunchError) as caught:
        send(monkeypatch, fault, [])
    assert (caught.value.code, caught.value.message, caught.value.hint) == (code, message, hint)


def test_an_engine_here_that_has_gone_is_no_fault_of_a_node() -> None:
    with pytest.raises(MllaunchError) as caught:
        shipping.send("/nowhere.sock", cast(Any, None), IMAGE, [], lambda line: None)
    assert caught.value.code == "engine_gone"
