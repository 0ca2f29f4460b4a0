"""What tests of images work with: a builder on a real engine, and specifications for it."""

from __future__ import annotations

from pathlib import Path

from mllaunch.domain.image import Image
from mllaunch.images.asking import ask
from mllaunch.images.builder import EngineImageBuilder
from mllaunch.images.locks import FileLocks
from mllaunch_agent import engine as agent_engine
from mllaunch_containers.builder import Builder
from mllaunch_containers.engine import Docker
from mllaunch_containers.spec import Code, Dependencies, Environment, ImageSpec
from tests.testbed.engine import Engine

NOTHING = Dependencies("none", None, (), False)


class Maker:
    """A builder, and a folder with the code that it puts into images."""

    def __init__(self, engine: Engine, folder: Path, *, layers: bool, registry: str | None = None) -> None:
        self.engine = engine
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        self.locks = FileLocks(str(folder / "home"))
        self.said: list[str] = []
        answer = ask(dict(engine.environment))
        assert answer.version is not None, answer.problem
        self.builder = EngineImageBuilder(
            Builder(
                agent_engine.Engine(answer.socket),
                lambda: Docker(answer.socket),
                self.locks,
                platform=answer.platform,
                registry=registry,
                network="host",
                layers=layers,
            )
        )

    def write(self, path: str, content: str) -> None:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def build(self, spec: ImageSpec) -> Image:
        return self.builder.build(spec, lambda: str(self.tree), self.said.append)

    def run(self, image: Image, *argv: str) -> str:
        """What a program prints in a container of the image."""
        return self.engine.docker("run", "--rm", "--network=none", image.id, *argv).stdout


def spec(
    base: str,
    dependencies: Dependencies = NOTHING,
    *,
    commit: str = "c" * 40,
    tree: str = "7" * 40,
    project: str = "digits",
    **environment: object,
) -> ImageSpec:
    made = Environment(base, dependencies=dependencies)._replace(**environment)
    code = Code(commit, tree, "2026-11-24T10:00:00Z", "https://example.org/digits.git")
    return ImageSpec(project, made, code, "0.1.0")


def requirements(*lines: str, pinned: bool) -> Dependencies:
    text = "".join(f"{line}\n" for line in lines).encode()
    return Dependencies("requirements", "requirements.txt", (("requirements.txt", text),), pinned)


def images_of(engine: Engine) -> set[str]:
    """Every image in the engine, those without a name too."""
    return set(engine.docker("images", "--all", "--quiet", "--no-trunc").stdout.split())


def containers_of(engine: Engine) -> set[str]:
    return set(engine.docker("ps", "--all", "--quiet").stdout.split())
