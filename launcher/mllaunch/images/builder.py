"""The ImageBuilder: mllaunch_containers' builder, with values and errors in the launcher's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mllaunch.domain.image import Image, Lock
from mllaunch.errors import MllaunchError, NotFound, NotPermitted, UsageError
from mllaunch_agent.engine import EngineError, EngineGone
from mllaunch_containers.builder import Builder, Built
from mllaunch_containers.spec import ImageError, ImageSpec

if TYPE_CHECKING:
    from mllaunch_containers.engine import Say

_KINDS: dict[str, type[MllaunchError]] = {
    "registry_login": NotPermitted,
    "no_such_image": NotFound,
    **dict.fromkeys(
        (
            *("bad_name", "code_name", "foreign_image", "dependencies_ambiguous", "dependencies_unknown"),
            *("dependencies_outside", "dependencies_unreadable", "no_dependencies_file"),
        ),
        UsageError,
    ),
}


def explained(error: ImageError) -> MllaunchError:
    kind = _KINDS.get(error.code, MllaunchError)
    return kind(error.code, error.message, evidence=error.evidence, hint=error.hint)


class EngineImageBuilder:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def find(self, spec: ImageSpec) -> Image | None:
        """The finished image, if it is there. MllaunchError if the engine does not answer."""
        try:
            found = self._builder.find(spec)
        except (EngineGone, EngineError) as error:
            raise silent(error) from error
        return None if found is None else _image(spec, found)

    def build(self, spec: ImageSpec, tree: Callable[[], str], say: Say) -> Image:
        """Make the image. tree: gives the folder with exactly the code's files. say: takes lines of progress.

        MllaunchError; OSError where there is no room for temporary files.
        """
        try:
            return _image(spec, self._builder.build(spec, tree, say))
        except ImageError as error:
            raise explained(error) from error
        except (EngineGone, EngineError) as error:
            raise silent(error) from error


def silent(error: OSError) -> MllaunchError:
    return MllaunchError(
        "engine_gone", "the container engine stopped answering", evidence=(str(error),), hint="docker info"
    )


def _image(spec: ImageSpec, built: Built) -> Image:
    wanted = spec.environment
    base = wanted.reference or (wanted.dockerfile[0] if wanted.dockerfile else wanted.base)
    lock = built.lock and Lock(*built.lock)
    return Image(built.ref.name, built.ref.digest, built.id, built.environment, base, lock, built.size_bytes)
