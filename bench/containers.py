"""Runs in containers, beside plain `docker run` and `docker build` on the same engine.

The engine is a dockerd of the benchmark's own, the image Debian with Python, the same for both. The job's first line
tells when it was printed, by its own clock. A plain `docker run` gives a container a network of its own, which takes
the engine about 100 ms; a container of ours has the host's. So the references are also measured with `--network host`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.images import Maker, spec
from tests.testbed import images
from tests.testbed.engine import CLI, Engine, missing

from bench.measuring import Row, Spread, in_turns, spread
from bench.startup import FILES, SCRIPT, first_line_ms
from bench.user import User
from mllaunch_agent import engine as agent_engine
from mllaunch_containers.engine import Docker
from mllaunch_containers.transfer import Shipment

_NODES = 10
_CHANGE_BYTES = 10 << 20
_LIMIT_MB = 11


def rows(quick: bool) -> Iterator[Row]:
    why = missing()
    if why:
        raise SystemExit(f"bench containers: {why}")
    rounds = 5 if quick else 11
    with Engine() as engine, User() as user:
        base = images.load_python(engine)
        user.home.environ.update(engine.environment)
        user.repo.write("mllaunch.yaml", f"image: {{base: {base}}}\n")
        for number in range(FILES):
            user.repo.write(f"package{number % 20}/module{number}.py", f"VALUE = {number}\n" * 50)
        user.repo.script(SCRIPT, "t.py")
        yield from _starts(engine, user, rounds)
        yield from _changes(engine, user, base, rounds)
        yield _moved(engine, 2 if quick else _NODES)


def _starts(engine: Engine, user: User, rounds: int) -> Iterator[Row]:
    user.mllaunch("image", "build")
    image = user.output.read_text().strip()

    def submitted() -> float:
        began_ns = user.mllaunch("submit", "t.py")
        first_ms = first_line_ms(user.newest_stream(), began_ns)
        user.settle()
        return first_ms

    for network in ("bridge", "host"):

        def plain(network: str = network) -> float:
            return _docker_run(user, image, network)

        what = "submit -> first line, docker run" + (" --network host" if network == "host" else "")
        target = 1.3 if network == "bridge" else None  # the second is for information
        yield Row(what, *in_turns(plain, submitted, rounds), at_most_ratio=target)


def _docker_run(user: User, image: str, network: str) -> float:
    variables = ("--env", "PYTHONUNBUFFERED=1", "--workdir", "/workspace")
    options = ("--rm", "--init", "--network", network, *variables)
    return first_line_ms(user.output, user.call([CLI, "run", *options, image, "python3", "t.py"]))


def _changes(engine: Engine, user: User, base: str, rounds: int) -> Iterator[Row]:
    numbers = itertools.count()
    user.repo.write("Dockerfile", f"FROM {base}\nCOPY . /workspace\n")
    user.repo.write(".dockerignore", ".git\n")

    def change() -> None:
        user.repo.write("package0/module0.py", f"VALUE = {next(numbers)}\n")
        user.repo.commit()

    def built(network: str) -> float:
        change()
        began_ns = user.call([CLI, "build", "--quiet", "--tag", "reference", "."], DOCKER_BUILDKIT="0")
        _docker_run(user, "reference", network)
        return (int(user.output.read_bytes()) - began_ns) / 1e6

    def submitted() -> float:
        change()
        began_ns = user.mllaunch("submit", "t.py")
        first_ms = first_line_ms(user.newest_stream(), began_ns)
        user.settle()
        return first_ms

    what = f"1 line of {FILES} files changed -> first line, build + run"
    yield Row(what, *in_turns(lambda: built("bridge"), submitted, rounds), at_most_ratio=0.5)
    yield Row(f"{what} --network host", *in_turns(lambda: built("host"), submitted, rounds))


def _moved(engine: Engine, nodes: int) -> Row:
    """What each of several nodes without a registry is sent of a change of 10 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="mllaunch-bench-"))
    sent = []
    try:
        maker = Maker(engine, folder / "m", layers=True)
        tiny = images.load_tiny(engine)
        maker.write("train.py", "1\n")
        first = maker.build(spec(tiny, project="moved", commit="a" * 40, tree="a" * 40))
        (maker.tree / "change.bin").write_bytes(os.urandom(_CHANGE_BYTES))
        second = maker.build(spec(tiny, project="moved", commit="b" * 40, tree="b" * 40))
        source, docker = agent_engine.Engine(str(engine.socket)), Docker(str(engine.socket))
        with Shipment(source, docker, first.id) as old, Shipment(source, docker, second.id) as new:
            for _ in range(nodes):
                with Engine(isolated=True) as node:
                    target = agent_engine.Engine(str(node.socket))
                    old.send(target)
                    sent.append(new.send(target) / 2**20)
    finally:
        shutil.rmtree(folder)
    moved: Spread = spread(sent)
    return Row(
        f"10 MiB of code changed, sent to each of {nodes} nodes", None, moved, unit="MiB", at_most=_LIMIT_MB
    )
