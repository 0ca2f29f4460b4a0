"""What takes an engine long (building, pulling, pushing), through Docker's SDK, with every failure explained.

Importing the SDK takes 150 ms. So what a submission asks of an engine when nothing has changed does not come here:
see ``Engine``, which the caller brings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Protocol

from mllaunch_containers.spec import ImageError

__all__ = ["Docker", "Engine", "Say"]

Say = Callable[[str], None]  # takes a line that tells how far it is

_EVIDENCE_LINES = 20
_DISCARD_S = 5.0
_TIMEOUT_S = 600  # between two signs of life
# As Docker's classic builder prints them, and as Podman does.
_STEP = re.compile(r"Step \d+/\d+ ?: ", re.IGNORECASE)
_MADE = re.compile(r"^ ?--?-> ([0-9a-f]{11,64})$")


class Engine(Protocol):
    """What is asked of an engine on every submission. Implementations raise OSError when it does not answer."""

    def version(self) -> dict[str, Any]:
        """{"Os", "Arch", ...}"""

    def image(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image."""

    def load(self, parts: Iterable[bytes], size_bytes: int) -> str:
        """Take an image from a tar."""


class Docker:
    """The engine that listens at a unix socket. Methods raise ImageError, and leave nothing half-made."""

    def __init__(self, socket: str) -> None:
        import docker

        # The version is asked of the engine: a fixed one is too old for some and too new for others.
        with _failures("use"):
            self._api = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=_TIMEOUT_S)

    def build(
        self, context: IO[bytes], dockerfile: str, tag: str, labels: Mapping[str, str], network: str, say: Say
    ) -> str:
        """Build the context (a tar) and tag the result; its id. network: of what is run meanwhile."""
        made: list[str] = []  # images that this build has made, for removal
        said: list[str] = []
        cached = False
        try:
            with _failures("build"):
                for message in self._api.build(
                    fileobj=context,
                    custom_context=True,
                    dockerfile=dockerfile,
                    tag=tag,
                    labels=dict(labels),
                    network_mode=network,
                    rm=True,
                    forcerm=True,
                    decode=True,
                ):
                    if "error" in message:
                        raise ImageError(
                            *_build_failure(str(message["error"]), said),
                            evidence=_last(said),
                            hint=_hint(said),
                        )
                    for line in _lines(message):
                        found = _MADE.match(line)
                        if found and not cached:
                            made.append(found[1])
                        cached = "-> Using cache" in line
                        if _STEP.match(line):
                            say(line)
                        elif "--> " not in line[:6] and not line.startswith("Removing intermediate"):
                            said.append(line)
                            say(line)
        except BaseException:
            self._discard(made)
            raise
        return self._id(tag)

    def _discard(self, made: list[str]) -> None:
        """Remove what a build that broke off has left: its last image, and with it those that led there."""
        import docker

        deadline_s = time.monotonic() + _DISCARD_S
        for image in reversed(made):
            while True:
                try:
                    for left in self._api.containers(all=True, filters={"ancestor": image}):
                        self._api.remove_container(left["Id"], force=True)
                    self._api.remove_image(image)
                    return
                except docker.errors.APIError as e:
                    # The step under way may just be starting its container.
                    if e.status_code != 409 or time.monotonic() > deadline_s:
                        break
                    time.sleep(0.1)
                except Exception:  # noqa: BLE001  the engine has gone, and the build's own error counts
                    return

    def pull(self, reference: str, say: Say) -> None:
        """Fetch an image from its registry, with the user's own credentials."""
        with _failures("pull", reference):
            for message in self._api.pull(reference, stream=True, decode=True):
                _raise_error(message, "pull", reference)
                for line in _lines(message):
                    say(line)

    def push(self, repository: str, tag: str, say: Say) -> str:
        """Send an image to its registry, without what is there already; the manifest's digest."""
        digest = ""
        with _failures("push", repository):
            for message in self._api.push(repository, tag, stream=True, decode=True):
                _raise_error(message, "push", repository)
                digest = (message.get("aux") or {}).get("Digest") or digest
                for line in _lines(message):
                    say(line)
        if not digest:
            raise ImageError("push", f"the registry did not name what it was given: {repository}:{tag}")
        return digest

    def credentials(self, registry: str) -> str | None:
        """What an engine must be told to pull from a registry: the X-Registry-Auth header; None: nothing is stored."""
        import docker

        with _failures("log in to", registry):
            found = docker.auth.load_config(credstore_env=None).resolve_authconfig(registry)
        return None if not found else docker.auth.encode_header(found).decode("ascii")

    def tag(self, image: str, repository: str, tag: str) -> None:
        with _failures("tag", image):
            self._api.tag(image, repository, tag)

    def read_file(self, image: str, path: str) -> bytes | None:
        """The content of a file in an image; None if it is not there."""
        import io
        import tarfile

        import docker

        with _failures("read", image):
            container = self._api.create_container(image, command=["none"], labels={"mllaunch.probe": "file"})
            try:
                parts, _ = self._api.get_archive(container["Id"], path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
                    member = tar.next()
                    content = tar.extractfile(member) if member and member.isfile() else None
                    return content.read() if content else None
            except docker.errors.NotFound:
                return None
            finally:
                self._api.remove_container(container["Id"], v=True, force=True)

    def images(self, label: str) -> list[dict[str, Any]]:
        """Every image with the label, as the engine lists them."""
        with _failures("list", label):
            found: list[dict[str, Any]] = self._api.images(filters={"label": label})
        return found

    def remove(self, image: str) -> None:
        """Remove an image with all its names, those in registries too. Refused while a container of it runs."""
        with _failures("remove", image):
            self._api.remove_image(image, force=True)

    def save(self, image: str) -> Iterator[bytes]:
        """The image with all its layers, as a tar."""
        with _failures("save", image):
            yield from self._api.get_image(image)

    def _id(self, name: str) -> str:
        with _failures("inspect", name):
            return str(self._api.inspect_image(name)["Id"])


@contextmanager
def _failures(what: str, name: str = "") -> Iterator[None]:
    """Whatever the SDK raises, as an ImageError."""
    import docker
    import requests
    import urllib3

    try:
        yield
    except docker.errors.APIError as e:
        raise _explained(what, name, str(e.explanation or e)) from e
    except docker.errors.DockerException as e:
        raise ImageError("engine", f"the container engine cannot be used: {e}", hint="docker info") from e
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as e:
        raise ImageError(
            "engine_gone", f"the container engine stopped answering (during {what})", evidence=(_short(e),)
        ) from e


def _raise_error(message: Mapping[str, Any], what: str, name: str) -> None:
    if "error" in message:
        raise _explained(what, name, str(message["error"]))


# What an engine says, and what that means. The first that fits counts.
_KNOWN = (
    (
        ("no space left",),
        "disk_full",
        "the engine has no room for it: no space left on its disk",
        "mllaunch image prune, or docker system prune",
    ),
    (
        ("unauthorized", "authentication required", "no basic auth", "denied"),
        "registry_login",
        "the registry does not let you {what} {name}",
        "docker login {registry}; or is the name misspelt?",
    ),
    (
        ("manifest unknown", "not found", "does not exist", "repository name not known"),
        "no_such_image",
        "there is no image {name}",
        "is the name misspelt? docker pull {name}",
    ),
    (
        (
            "verification failed",
            "unexpected digest",
            "does not match",
            "digest did not match",
            "invalid checksum",
        ),
        "damaged_image",
        "the registry served other bytes than the digest of {name} says",
        None,
    ),
    (
        ("no matching manifest", "no match for platform"),
        "foreign_image",
        "there is no {name} for this machine's architecture",
        "choose another image",
    ),
    (
        (
            "connection refused",
            "no such host",
            "timeout",
            "timed out",
            "eof",
            "unreachable",
            "dial tcp",
            "reset by peer",
        ),
        "registry_gone",
        "the registry of {name} does not answer",
        "is {registry} up? An image that is here will do: MLLAUNCH_IMAGE_BASE=NAME; or: --runtime process",
    ),
    (
        ("toomanyrequests", "rate limit"),
        "registry_limit",
        "the registry of {name} has had too many requests from here",
        "docker login raises the limit at most registries",
    ),
)


def _explained(what: str, name: str, said: str) -> ImageError:
    low = said.lower()
    for words, code, message, hint in _KNOWN:
        if any(word in low for word in words):
            place = {"what": what, "name": name, "registry": _registry(name)}
            return ImageError(
                code,
                message.format(**place),
                evidence=(_short(said),),
                hint=hint.format(**place) if hint else None,
            )
    code = "build" if what == "build" else f"image_{what}"
    return ImageError(code, f"the engine could not {what} {name}".rstrip(), evidence=(_short(said),))


def _build_failure(said: str, before: list[str]) -> tuple[str, str]:
    """(code, message) for what ended a build. before: what its steps said."""
    low = said.lower()
    if _is_full(before):
        return _KNOWN[0][1], _KNOWN[0][2]
    if "returned a non-zero code" in low:
        command = said.partition("'")[2].rpartition("'")[0]
        code = low.rpartition(":")[2].strip()
        step = "the packages could not be installed" if "mllaunch" in command and "pip" in command else None
        return "build", f"{step or 'a step of the build failed'} (exit code {code})"
    explained = _explained("build", "the base image", said)
    # "not found" may be a file that a Dockerfile copies.
    if explained.code == "build" or (explained.code == "no_such_image" and "manifest" not in low):
        return "build", f"the build failed: {_short(said)}"
    return explained.code, f"{explained.message}: {_short(said)}"


def _is_full(said: list[str]) -> bool:
    return "no space left on device" in "\n".join(said[-_EVIDENCE_LINES:]).lower()


def _hint(said: list[str]) -> str | None:
    if _is_full(said):
        return _KNOWN[0][3]
    text = "\n".join(said[-_EVIDENCE_LINES:])
    if re.search(r"No matching distribution|Could not find a version|ResolutionImpossible", text):
        return "is the pin right for the Python of image.base? mllaunch submit --dry-run shows the Dockerfile"
    if re.search(r"Temporary failure in name resolution|NameResolutionError|Failed to establish", text):
        return "the build has no network: try `container: {network: host}` in mllaunch.yaml"
    return "mllaunch submit --dry-run shows the Dockerfile"


def _lines(message: Mapping[str, Any]) -> list[str]:
    """What a message of a stream says, in lines; progress of a layer as one."""
    if "stream" in message:
        text = str(message["stream"])
    elif "status" in message:
        text = " ".join(str(message[key]) for key in ("id", "status", "progress") if message.get(key))
    else:
        return []
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _last(lines: list[str]) -> tuple[str, ...]:
    plain = [_uncoloured(line) for line in lines]
    return tuple([line for line in plain if line.strip()][-_EVIDENCE_LINES:])


def _uncoloured(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def _registry(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _short(said: object) -> str:
    return " ".join(str(said).split())[:500]
