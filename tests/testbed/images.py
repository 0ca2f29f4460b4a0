"""Images for tests, made on this machine because no registry is asked for any.

Each ``load_...`` puts one image into an engine and returns its name. The fixtures of fixtures.py do so once for the
session's engine. All images are handed over as the tar that ``docker load`` takes: quicker than a build.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from tests.testbed import packages
from tests.testbed.engine import CACHE, CLI, Engine

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Debian's packages in the image with Python, as minbase has only what apt needs.
DEBIAN = ("python3", "python3-venv", "python3-pip", "git", "ca-certificates")
# Of the image with a compiler; extracted only, as nothing in it needs to be set up.
COMPILER = ("dash", "coreutils", "gcc", "libc6-dev")
TORCH = "2.13.0"
BARE_SOURCE = Path(__file__).with_name("bare.c")


class File(NamedTuple):
    """A file, link or folder in a layer."""

    path: str  # without a leading slash
    content: bytes | Path | None = None  # None: a folder, or a link
    link: str | None = None
    mode: int = 0o644


_ACCOUNTS = (
    File("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
    File("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
)


class Image(NamedTuple):
    name: str
    layers: Sequence[Path | bytes]  # tars
    variables: Mapping[str, str] = {}
    command: Sequence[str] = ("/bin/sh",)
    architecture: str = "amd64"
    # Digests of layers that the engine has already: they come below ``layers`` and need not be handed over.
    below: Sequence[str] = ()


def load(engine: Engine, image: Image) -> str:
    """Put an image into an engine; its name."""
    digests = [*image.below, *map(_sha256, image.layers)]
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {
            "Env": [f"{name}={value}" for name, value in {"PATH": PATH, **image.variables}.items()],
            "Cmd": list(image.command),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "tests/testbed"} for _ in digests],
    }
    manifest = [{"Config": "config.json", "RepoTags": [image.name], "Layers": [f"{d}.tar" for d in digests]}]
    process = subprocess.Popen(
        [CLI, "load", "--quiet"],
        env={**os.environ, **engine.environment, "DOCKER_CONFIG": str(engine.folder / "cli")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin
    try:
        with tarfile.open(fileobj=process.stdin, mode="w|") as tar:
            _add(tar, File("manifest.json", json.dumps(manifest).encode()))
            _add(tar, File("config.json", json.dumps(config).encode()))
            for digest, layer in zip(digests[len(image.below) :], image.layers, strict=True):
                _add(tar, File(f"{digest}.tar", layer))
    except BrokenPipeError:
        pass  # it says why below
    said = process.communicate()[0].decode(errors="replace")
    assert process.returncode == 0, f"docker load: {said}"
    return image.name


def load_tiny(engine: Engine) -> str:
    """A shell and busybox's programs, in 2 MB; no Python."""
    return load(engine, Image("testbed-tiny:1", [_busybox()]))


def load_foreign(engine: Engine) -> str:
    """As tiny, but said to be for another architecture (arm64)."""
    return load(engine, Image("testbed-foreign:1", [_busybox()], architecture="arm64"))


def load_bare(engine: Engine) -> str:
    """One static program and nothing else, no shell: ``/bare``, described in bare.c."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "bare")
        subprocess.run(["gcc", "-Os", "-s", "-static", "-o", program, BARE_SOURCE], check=True)
        layer = _tar([File("bare", program.read_bytes(), mode=0o755)])
    return load(engine, Image("testbed-bare:1", [layer], command=("/bare", "0")))


def load_python(engine: Engine) -> str:
    """Debian 12 with Python 3.11, pip, venv and git, where `pip` and `uv` reach what they reach on this machine."""
    return load(engine, python())


def load_compiler(engine: Engine) -> str:
    """Debian 12 with gcc, a shell and coreutils; no Python."""
    return load(engine, Image("testbed-compiler:1", [_debian("extract", COMPILER), _tar(_ACCOUNTS)]))


def load_torch(engine: Engine) -> str:
    """As python, with this machine's torch wheel: `pip install torch` and `uv pip install torch` take that one.

    The engine must have the python image.
    """
    with engine.client() as client:
        below = client.images.get(python().name).attrs["RootFS"]["Layers"]
    wheel, settings = torch_wheel(), packages.of_this_machine().with_wheels("/opt/wheels", f"torch=={TORCH}")
    assert wheel, f"no wheel of torch {TORCH} on this machine"
    below = [digest.removeprefix("sha256:") for digest in below]
    with tempfile.NamedTemporaryFile(dir=CACHE, suffix=".tar") as layer:  # 200 MB
        _write_tar(layer, [File(f"opt/wheels/{wheel.name}", wheel), *_settings(settings)])
        image = Image("testbed-torch:1", [Path(layer.name)], settings.variables, below=below)
        return load(engine, image)


@cache
def python() -> Image:
    settings = packages.of_this_machine()
    return Image(
        "testbed-python:1", [_debian("minbase", DEBIAN), _tar(_settings(settings))], settings.variables
    )


def _settings(settings: packages.Settings) -> list[File]:
    return [File(path.lstrip("/"), content) for path, content in settings.files.items()]


def _debian(variant: str, packages: Sequence[str]) -> Path:
    """The root folder of a Debian 12 as a tar; made once (15 to 25 s) and kept."""
    command = [
        "mmdebstrap",
        "--quiet",
        f"--variant={variant}",
        f"--include={','.join(packages)}",
        # As in images of Python's own: pip may install into the system, which is nobody else's here.
        '--customize-hook=rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
    ]
    key = hashlib.sha256("\0".join(command).encode()).hexdigest()[:16]
    target = CACHE / f"bookworm-{key}.tar"
    with _alone("bookworm"):
        if not target.exists():
            new = CACHE / f"bookworm.{os.getpid()}.tar"
            try:
                subprocess.run([*command, new], check=True, timeout=600)
                new.rename(target)
            finally:
                new.unlink(missing_ok=True)
    return target


@cache
def torch_wheel() -> Path | None:
    """A wheel of torch for the image's Python that lies on this machine's disk; never downloaded from elsewhere."""
    wheels = CACHE / f"torch-{TORCH}"
    with _alone("torch"):
        if not wheels.exists():
            new = Path(tempfile.mkdtemp(prefix="torch-new-", dir=CACHE))
            words = [
                "--no-deps",
                "--no-index",
                "--python-version=3.11",
                "--only-binary=:all:",
                f"--dest={new}",
            ]
            done = packages.pip("download", "--quiet", *words, f"torch=={TORCH}")
            if done.returncode != 0:
                shutil.rmtree(new)
                return None
            new.rename(wheels)
    return next(wheels.glob("*.whl"))


def busybox() -> Path | None:
    """A busybox that needs no libraries."""
    found = shutil.which("busybox")
    return Path(found) if found and b"/ld-linux" not in Path(found).read_bytes() else None


def _busybox() -> bytes:
    program = busybox()
    assert program, "no static busybox is installed"
    names = subprocess.run([program, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return _tar(
        [
            File("bin/busybox", program.read_bytes(), mode=0o755),
            *(File(f"bin/{name}", link="busybox") for name in names if name != "busybox"),
            File("usr/bin/env", link="/bin/busybox"),
            *_ACCOUNTS,
            File("root", mode=0o700),
            File("tmp", mode=0o1777),
        ]
    )


def _tar(files: Sequence[File]) -> bytes:
    """A layer; the same files always give the same bytes."""
    buffer = io.BytesIO()
    _write_tar(buffer, files)
    return buffer.getvalue()


def _write_tar(target: IO[bytes], files: Sequence[File]) -> None:
    with tarfile.open(fileobj=target, mode="w") as tar:
        for file in files:
            _add(tar, file)
    target.flush()


def _add(tar: tarfile.TarFile, file: File) -> None:
    info = tarfile.TarInfo(file.path)
    info.mode = file.mode
    if file.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, file.link
    elif file.content is None:
        info.type = tarfile.DIRTYPE
    with _reading(file.content) as content:
        info.size = content.seek(0, io.SEEK_END)
        content.seek(0)
        tar.addfile(info, content)


def _reading(content: bytes | Path | None) -> IO[bytes]:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content or b"")


def _sha256(layer: Path | bytes) -> str:
    digest = hashlib.sha256()
    with _reading(layer) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """One at a time, of all sessions that make or use this part of the cache."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
