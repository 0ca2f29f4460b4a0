"""From a specification to an image in an engine, and in a registry where there is one.

The environment is built by the engine, once for each key. The code is one layer on top that is put together here and
loaded: 20 times faster than a build, and the same bytes everywhere. An engine that cannot load a single layer builds
the same from the same tar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mllaunch_containers.spec import (
    CODE,
    ENVIRONMENT,
    LOCK,
    OURS,
    TREE,
    VERSION,
    WORKSPACE,
    Dependencies,
    ImageError,
    ImageRef,
    ImageSpec,
)

if TYPE_CHECKING:
    from mllaunch_containers.engine import Docker, Engine, Say

# Imports what making an image takes only where one is made: most submissions find theirs.
__all__ = ["Builder", "Built", "Lock", "Locks"]

_RESOLVED = "requirements.lock"


class Locks(Protocol):
    """Where resolutions of unpinned requirements are kept, by the key of their environment."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, content: bytes) -> None: ...


class Lock(NamedTuple):
    """What decided the versions. path: in the repository. digest: ``sha256:...``. resolved: whether the repository
    left them open, and the digest is that of what they were resolved to."""

    path: str
    digest: str
    resolved: bool


class Built(NamedTuple):
    """An image that is there. id: what the engine calls it. environment: the key of what the code runs in.

    lock: None where nothing decides the versions. size_bytes: of all layers.
    """

    ref: ImageRef
    id: str
    environment: str
    lock: Lock | None
    size_bytes: int


class Builder:
    """Makes images in one engine.

    docker: asked for when something has to be made. platform: what the engine runs, such as ``linux/amd64``.
    registry: where images are pushed to, ``HOST/PATH``. network: of what is run during builds. layers: whether the
    code is loaded as a layer, rather than built.
    """

    def __init__(
        self,
        engine: Engine,
        docker: Callable[[], Docker],
        locks: Locks,
        *,
        platform: str,
        registry: str | None = None,
        network: str = "bridge",
        layers: bool = True,
    ) -> None:
        self._engine = engine
        self._docker = docker
        self._locks = locks
        self._platform = platform
        self._registry = registry
        self._network = network
        self._layers = layers

    def find(self, spec: ImageSpec) -> Built | None:
        """The image if it is there, finished: one request to the engine."""
        key = spec.environment.key(self._platform, spec.code.tree)
        if self._is_open(spec) and self._locks.get(key) is None:
            return None  # made by somebody else, and what was resolved is to be read from it
        found = self._engine.image(_name(spec, key))
        if found is None or not _is_of(found, spec, key):
            return None
        if self._registry is None:
            return self._built(spec, key, found, None)
        repository = self._repository(spec)
        pushed = [name for name in found.get("RepoDigests") or () if name.startswith(f"{repository}@")]
        return self._built(spec, key, found, pushed[0]) if pushed else None

    def build(self, spec: ImageSpec, tree: Callable[[], str], say: Say) -> Built:
        """Make the image, from as much as is there already. tree: gives the folder with exactly the code's files.

        Raises ImageError; OSError (no room for temporary files, the engine does not answer).
        """
        from mllaunch_containers import dockerfile

        dockerfile.environment(
            spec.environment, self._platform
        )  # names that are none are no engine's concern
        key = spec.environment.key(self._platform, spec.code.tree)
        name = _name(spec, key)
        found = self._engine.image(name)
        if found is None or not _is_of(found, spec, key):
            parent = self._environment(spec, key, tree, say)
            self._add_code(spec, key, parent, name, tree(), say)
            found = self._engine.image(name)
            if found is None:
                raise ImageError("engine", f"the engine made the image {name}, and now does not know it")
        self._keep_resolution(spec, key, str(found["Id"]))
        pushed = None
        if self._registry is not None:
            repository, tag = self._repository(spec), name.rpartition(":")[2]
            docker = self._docker()
            docker.tag(str(found["Id"]), repository, tag)
            pushed = f"{repository}@{docker.push(repository, tag, say)}"
        return self._built(spec, key, found, pushed)

    def _built(self, spec: ImageSpec, key: str, found: Mapping[str, Any], pushed: str | None) -> Built:
        image = str(found["Id"])
        ref = ImageRef(pushed, pushed.rpartition("@")[2]) if pushed else ImageRef(_name(spec, key), image)
        return Built(ref, image, key, self._lock(spec, key), int(found.get("Size") or 0))

    def _lock(self, spec: ImageSpec, key: str) -> Lock | None:
        asked = spec.environment.dependencies
        if asked.path is None:
            return None
        if asked.lock_digest is not None:
            return Lock(asked.path, asked.lock_digest, resolved=False)
        content = self._locks.get(key)
        return None if content is None else Lock(asked.path, _sha256(content), resolved=True)

    # --- the environment ------------------------------------------------------------------------------------

    def _environment(self, spec: ImageSpec, key: str, tree: Callable[[], str], say: Say) -> dict[str, Any]:
        """What the engine knows of the environment's image, which is made if need be."""
        from mllaunch_containers import context, dockerfile

        wanted = spec.environment
        if wanted.reference is not None:
            return self._base(wanted.reference, say)
        name = f"mllaunch/environment:{key[:32]}"
        found = self._engine.image(name)
        if found is None and self._registry is not None:
            found = self._pull_environment(name, say)
        if found is None:
            if wanted.dockerfile is None:
                self._base(wanted.base, say)
                asked = wanted.dependencies
                known = None if asked.pinned or asked.kind == "none" else self._locks.get(key)
                if known is not None:  # resolved once, installed again
                    fixed = Dependencies("requirements", asked.path, ((_RESOLVED, known),), pinned=True)
                    wanted = wanted._replace(dependencies=fixed)
                sent = context.of_files(
                    dockerfile.environment(wanted, self._platform), dockerfile.files(wanted)
                )
                path = "Dockerfile"
            else:
                sent, path = context.of_tree(tree()), wanted.dockerfile[0]
            with sent:
                self._docker().build(sent, path, name, {ENVIRONMENT: key}, self._network, say)
            found = self._engine.image(name)
            if found is None:
                raise ImageError("engine", f"the engine made the image {name}, and now does not know it")
        if self._registry is not None:
            self._push_environment(name, found, say)
        self._keep_resolution(spec, key, str(found["Id"]))
        _refuse_foreign(found, self._platform, name)
        return found

    def _base(self, reference: str, say: Say) -> dict[str, Any]:
        found = self._engine.image(reference)
        if found is None:
            say(f"pulling {reference}")
            self._docker().pull(reference, say)
            found = self._engine.image(reference)
        if found is None:
            raise ImageError("no_such_image", f"the engine pulled {reference}, and now does not know it")
        _refuse_foreign(found, self._platform, reference)
        return found

    def _keep_resolution(self, spec: ImageSpec, key: str, image: str) -> None:
        if self._is_open(spec) and self._locks.get(key) is None:
            content = self._docker().read_file(image, f"{OURS}/{_RESOLVED}")
            if content is not None:
                self._locks.put(key, content)

    @staticmethod
    def _is_open(spec: ImageSpec) -> bool:
        """Whether versions are resolved by the build."""
        asked = spec.environment.dependencies
        return asked.kind != "none" and not asked.pinned

    def _pull_environment(self, name: str, say: Say) -> dict[str, Any] | None:
        """Another's build of the same environment, if the registry has it."""
        theirs = self._theirs(name)
        docker = self._docker()
        try:
            docker.pull(":".join(theirs), say)
        except ImageError as error:
            if error.code == "no_such_image":
                return None
            raise
        docker.tag(":".join(theirs), *name.rsplit(":", 1))
        return self._engine.image(name)

    def _push_environment(self, name: str, found: Mapping[str, Any], say: Say) -> None:
        """So that others need not build it, nor move more than the code."""
        repository, tag = self._theirs(name)
        if any(known.startswith(f"{repository}@") for known in found.get("RepoDigests") or ()):
            return
        docker = self._docker()
        docker.tag(name, repository, tag)
        docker.push(repository, tag, say)

    def _theirs(self, name: str) -> tuple[str, str]:
        return f"{self._registry}/environment", name.rpartition(":")[2]

    def _repository(self, spec: ImageSpec) -> str:
        return f"{self._registry}/{_path(spec.project)}"

    # --- the code -------------------------------------------------------------------------------------------

    def _add_code(
        self, spec: ImageSpec, key: str, parent: Mapping[str, Any], name: str, tree: str, say: Say
    ) -> None:
        import calendar
        import tempfile
        import time

        from mllaunch_containers import codelayer, context, dockerfile, layered

        mtime = calendar.timegm(time.strptime(spec.code.committed_at, "%Y-%m-%dT%H:%M:%SZ"))
        with tempfile.TemporaryFile(prefix="mllaunch-") as file:
            layer = codelayer.write(tree, file, mtime)
            say(f"code: {layer.files} files, {layer.size_bytes} bytes")
            labels = {**dockerfile.labels(spec, self._platform), CODE: f"sha256:{layer.sha256}"}
            lock = self._lock(spec, key)
            if lock is not None:
                labels[LOCK] = lock.digest
            if self._layers:
                below = layered.Layer(layer.sha256, layer.size_bytes)
                config = layered.image(parent, below, spec.code.committed_at, labels, WORKSPACE)
                file.seek(0)
                try:
                    self._engine.load(*layered.load_stream(config, below, file, name))
                except OSError as error:
                    say(f"the engine does not load a single layer ({error}): it builds the image instead")
                else:
                    found = self._engine.image(name)
                    if found is not None and found.get("Id") == layered.image_id(config):
                        return
            file.seek(0)
            text = f'FROM {parent["Id"]}\nADD ["code.tar", "/"]\nWORKDIR {WORKSPACE}\n'
            with context.of_files(text, {}, ("code.tar", file, layer.size_bytes)) as sent:
                self._docker().build(sent, "Dockerfile", name, labels, self._network, say)


def _name(spec: ImageSpec, key: str) -> str:
    """What an engine calls the image. The tag names the commit for people; its end tells environments apart."""
    return f"mllaunch/{_path(spec.project)}:{spec.code.commit[:12]}-{key[:12]}"


def _path(project: str) -> str:
    """The project's name as a repository may be called: small letters, digits, and single separators in between."""
    parts = "".join(c if c.isascii() and c.isalnum() else "-" for c in project.lower()).split("-")
    return "-".join(part for part in parts if part) or "project"


def _is_of(image: Mapping[str, Any], spec: ImageSpec, key: str) -> bool:
    """Whether the image is what its name says: names can be given to anything."""
    labels = (image.get("Config") or {}).get("Labels") or {}
    wanted = {TREE: spec.code.tree, ENVIRONMENT: key, VERSION: spec.version}
    return all(labels.get(name) == value for name, value in wanted.items())


def _refuse_foreign(image: Mapping[str, Any], platform: str, name: str) -> None:
    has = f"{image.get('Os')}/{image.get('Architecture')}"
    if has != platform:
        raise ImageError(
            "foreign_image",
            f"{name} is for {has}, and the engine runs {platform}",
            hint="choose another image.base, or a tag that has this architecture",
        )


def _sha256(content: bytes) -> str:
    import hashlib

    return "sha256:" + hashlib.sha256(content).hexdigest()
