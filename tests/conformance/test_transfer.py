"""Images from engine to engine, without a registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mllaunch_agent import engine as agent_engine
from mllaunch_containers.engine import Docker
from mllaunch_containers.transfer import Shipment
from tests.conformance.images import Maker, spec
from tests.testbed.engine import Engine

pytestmark = pytest.mark.real("engine", "busybox")

CHANGE_BYTES = 10 << 20


def test_a_node_is_sent_the_layers_that_it_has_not_got_and_no_more(
    engine: Engine, new_engine: Callable[..., Engine], tiny_image: str, tmp_path: Path
) -> None:
    node = new_engine(isolated=True)
    maker = Maker(engine, tmp_path / "m", layers=True)
    maker.write("train.py", "print(1)\n")
    source, target = agent_engine.Engine(str(engine.socket)), agent_engine.Engine(str(node.socket))
    docker = Docker(str(engine.socket))

    def sent(commit: str) -> int:
        image = maker.build(spec(tiny_image, project="shipped", commit=commit * 40, tree=commit * 40))
        with Shipment(source, lambda: docker, image.id, image.reference) as shipment:
            size = shipment.send(target, target.shared_layers(shipment.layers))
            assert shipment.send(target, 0) == 0, "what is there was sent again"
        assert target.image(image.reference) is not None, "it has no name, as what a prune removes"
        printed = node.docker("run", "--rm", "--network=none", image.id, "cat", "train.py").stdout
        assert printed == (maker.tree / "train.py").read_text()
        return size

    everything = sent("a")
    assert everything > 1 << 20, "busybox is larger than that"
    maker.write("train.py", "print(2)\n")
    assert sent("b") < 32 << 10
    (maker.tree / "table.bin").write_bytes(os.urandom(CHANGE_BYTES))
    assert CHANGE_BYTES < sent("c") < 11 << 20
