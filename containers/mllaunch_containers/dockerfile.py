"""The text that builds an environment, and the one that builds a whole image; no input or output.

Dockerfiles for the classic builder of Docker 20.10 as well as for BuildKit: no ``# syntax=``, no here-documents, no
mounts. Whatever comes from the repository is checked or quoted before it stands in one.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable

from mllaunch_containers.spec import (
    CREATED,
    ENVIRONMENT,
    LOCK,
    OURS,
    REVISION,
    SOURCE,
    TREE,
    VERSION,
    WORKSPACE,
    Dependencies,
    Environment,
    ImageError,
    ImageSpec,
)

__all__ = ["environment", "files", "labels", "whole"]

_CONTEXT = "dependencies"  # the folder of the build context, and of the image
_C_LAYER = "c-layer"  # another one; what the agent looks for in it is told in docs/images.md
_COMPILE = "-O2 -shared -fPIC -w -o preload.so preload.c -ldl -lpthread"  # as the agent does on a node
_TOOL = "/opt/mllaunch-tool"  # what installs, while it does
# With ";;" for the ends of lines, which cannot stand in a RUN.
_BEGIN = (
    "def begin():;;"
    "    try:;;"
    "        import os, sys;;"
    f"        hook = '{OURS}/hook';;"
    "        if os.path.isdir(hook) and sys.version_info >= (3, 8):;;"
    "            sys.path.insert(0, hook);;"
    "            try:;;"
    "                import mllaunch_hook;;"
    "            finally:;;"
    "                sys.path.remove(hook);;"
    "            mllaunch_hook.install();;"
    "    except Exception:;;"
    "        pass;;"
)
_HEADER = (
    "# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file"
)

# https://github.com/distribution/reference/blob/main/regexp.go
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@{_DIGEST})?"
)
# https://www.debian.org/doc/debian-policy/ch-controlfields.html; to apt-get, a name that ends in "-" is one to remove.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](?::[a-z0-9]+)?(?:=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?")
_PYTHON = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./+-]*")


def environment(env: Environment, platform: str) -> str:
    """The Dockerfile of an environment; of the user's own Dockerfile, that.

    Beside it are ``files(env)``. What is installed in the end is written to /.mllaunch/requirements.lock: where the
    repository pins nothing, that is the lock. Raises ImageError ``bad_name``.
    """
    if env.dockerfile is not None:
        return env.dockerfile[1].rstrip("\n") + "\n"
    _check(_PLATFORM, platform, "a platform")
    base = env.base if env.reference is None else env.reference
    _check(_REFERENCE, base, "the name of an image")
    parts = [_HEADER, f"FROM --platform={platform} {base}"]
    if env.reference is None:
        _check(_PYTHON, env.python, "the command of an interpreter")
        # Many images end as somebody who may not install. Tasks run as their submitter in any case.
        parts.append("USER root")
        if env.system:
            parts.append(_run(_system(env.system)))
        if env.dependencies.kind != "none":
            parts.append(f'COPY ["{_CONTEXT}/", "{OURS}/{_CONTEXT}/"]')
        parts.append(_run(_installation(env.dependencies, env.python)))
        if env.c_layer is not None:
            # Last, so that the engine finds the steps above again when it is switched on.
            parts.append("# the folder c-layer is beside this file, too")
            parts.append(f'COPY ["{_C_LAYER}/", "{OURS}/{_C_LAYER}/"]')
            parts.append(_run(_c_layer()))
    return "\n".join(parts) + "\n"


def files(env: Environment) -> dict[str, bytes]:
    """The build context beside the Dockerfile, by relative path; nothing for what is not our recipe."""
    if env.reference is not None or env.dockerfile is not None:
        return {}
    found = {f"{_CONTEXT}/{path}": content for path, content in env.dependencies.files}
    if env.c_layer is not None:
        found[f"{_C_LAYER}/preload.c"] = env.c_layer
    return found


def whole(spec: ImageSpec, platform: str) -> str:
    """The Dockerfile of the whole image. Its context also has ``code.tar``, the layer that codelayer writes."""
    told = " \\\n      ".join(
        f"{key}={_label(value)}" for key, value in sorted(labels(spec, platform).items())
    )
    return (
        environment(spec.environment, platform)
        + f'ADD ["code.tar", "/"]\nWORKDIR {WORKSPACE}\n'
        + f"LABEL {told}\n"
    )


def labels(spec: ImageSpec, platform: str) -> dict[str, str]:
    """What an image says about itself, but for the digest of its code layer, which is known when it is made."""
    code = spec.code
    found = {
        REVISION: code.commit,
        CREATED: code.committed_at,
        TREE: code.tree,
        ENVIRONMENT: spec.environment.key(platform, code.tree),
        VERSION: spec.version,
        SOURCE: code.source,
        LOCK: spec.environment.dependencies.lock_digest,
    }
    return {key: value for key, value in found.items() if value is not None}


# --- what is run


def _system(packages: Iterable[str]) -> list[str]:
    for package in packages:
        _check(_PACKAGE, package, "a Debian package")
    names = " ".join(shlex.quote(package) for package in sorted(set(packages)))
    return [
        _needed("command -v apt-get", "the base image has no apt-get, which installs system packages"),
        "apt-get update",
        f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {names}",
        "apt-get clean",
        "rm -rf /var/lib/apt/lists/*",
    ]


def _installation(asked: Dependencies, python: str) -> list[str]:
    """Installs the packages, and records what is there then."""
    # At the root: Python looks for modules where it is started, and a base may end in a folder full of them.
    freeze = f"{python} -m pip freeze > {OURS}/requirements.lock"
    if asked.kind == "none":  # not even Python has to be there
        found = f"{{ {freeze} 2>/dev/null || rm -f {OURS}/requirements.lock; }}"
        return ["cd /", f"mkdir -p {OURS}", found, f"{{ {_beginning(python)} 2>/dev/null || true; }}"]
    first = _quoted(posixpath.join(OURS, _CONTEXT, asked.files[0][0]))
    if asked.kind == "environment.yml":
        steps = _conda(first)
    else:
        pip = f"{python} -m pip install --no-cache-dir"
        steps = [
            _needed(
                f"{python} -m pip --version",
                f"the base image has no pip for {python}; on Debian it is in the system package python3-pip",
            ),
            # Of this RUN alone, not of the image.
            "export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1",
        ]
        if asked.kind in ("requirements", "pyproject.toml"):
            steps += [f"{pip} -r {first}"]
        elif asked.kind == "poetry.lock":
            steps += _poetry(python, pip)
        else:
            steps += _uv(asked.kind, first, python, pip)
    return ["cd /", *steps, freeze, _importable(asked, python), _beginning(python)]


def _tool(pip: str, names: str) -> str:
    """Installs what installs, into a folder of its own, which goes in the end and needs no venv module in the base.

    Images for training come with constraints for their own packages (PIP_CONSTRAINT), which are not for the tool.
    """
    return f"PIP_CONSTRAINT= {pip} --target {_TOOL} {names}"


def _uv(kind: str, first: str, python: str, pip: str) -> list[str]:
    uv = f"{_TOOL}/bin/uv"
    # Where the files are, uv finds the project's settings for building packages.
    steps = [_tool(pip, "uv"), f"export UV_NO_CACHE=1 TMPDIR={_TOOL}", f"cd {OURS}/{_CONTEXT}"]
    if kind == "uv.lock":
        # Not as requirements: those would lose from which index a package comes. Frozen: nothing is resolved anew,
        # and nothing asked of the network.
        options = "--frozen --no-dev --no-emit-local --format pylock.toml"
        first = f"{_TOOL}/pylock.toml"
        steps.append(f"{uv} export --quiet {options} --output-file {first}")
    target = f'--python "$(command -v {python})" --break-system-packages'
    steps.append(f"{uv} pip install --preview-features pylock {target} -r {first}")
    return [*steps, f"rm -rf {_TOOL}", "cd /"]


def _poetry(python: str, pip: str) -> list[str]:
    exported = f"{_TOOL}/exported.txt"
    poetry = f"PYTHONPATH={_TOOL} {python} -m poetry --no-interaction --directory {OURS}/{_CONTEXT}"
    return [
        _tool(pip, "poetry poetry-plugin-export"),
        f"{poetry} export --output {exported}",
        # Packages of the repository itself are not there yet. Lines that go on after a backslash are one.
        rf"sed -i -e ':a' -e '/\\$/{{N;ba' -e '}}' -e '/file:\/\//d' {exported}",
        f"{pip} --no-deps -r {exported}",
        f"rm -rf {_TOOL}",
    ]


def _conda(first: str) -> list[str]:
    missing = "the base image has none of micromamba, mamba and conda, which install an environment.yml"
    return [
        f"{{ tool=$(command -v micromamba || command -v mamba || command -v conda) || {_failing(missing)}; }}",
        f'case "$tool" in *micromamba) "$tool" install -y -n base -f {first} ;; '
        f'*) "$tool" env update -n base -f {first} ;; esac',
        '"$tool" clean -a -y',
        # The images of micromamba find what it installed only once an environment is activated.
        'export PATH="${MAMBA_ROOT_PREFIX:+$MAMBA_ROOT_PREFIX/bin:}$PATH"',
    ]


def _importable(asked: Dependencies, python: str) -> str:
    """Puts the project and its src at the end of the search path of whatever interpreter this is."""
    project = posixpath.normpath(posixpath.join(WORKSPACE, posixpath.dirname(asked.path or "")))
    program = (
        "import os, sys, sysconfig; "
        'place = sysconfig.get_path("purelib"); '
        "os.makedirs(place, exist_ok=True); "
        'file = open(os.path.join(place, "mllaunch-workspace.pth"), "wb"); '
        r'file.write(b"".join(os.fsencode(line) + b"\n" for line in sys.argv[1:])); '
        "file.close()"
    )
    return f"{python} -c {_quoted(program)} {_quoted(project)} {_quoted(project + '/src')}"


def _beginning(python: str) -> str:
    """Lets what the agent mounts at /.mllaunch/hook begin with every Python of the image, also with one that is
    started with -E or without our variables. Nothing is mounted where the image is used without mllaunch.

    Twice, because Python 3.18 ignores what .pth files import: https://peps.python.org/pep-0829/
    """
    program = (
        "import os, sys, sysconfig; "
        'place = sysconfig.get_path("purelib"); '
        "os.makedirs(place, exist_ok=True); "
        "pairs = zip(sys.argv[1::2], sys.argv[2::2]); "
        'write = lambda name, text: open(os.path.join(place, name), "w").write(text.replace(";;", chr(10))); '
        "[write(*pair) for pair in pairs]"
    )
    names = ("mllaunch_begin.py", "mllaunch-begin.pth", "mllaunch-begin.start")
    texts = (_BEGIN, "import mllaunch_begin; mllaunch_begin.begin();;", "mllaunch_begin:begin;;")
    words = [_quoted(word) for pair in zip(names, texts, strict=True) for word in pair]
    return f"{python} -c {_quoted(program)} {' '.join(words)}"


def _c_layer() -> list[str]:
    """Compiles the library and tries it; where that fails the build goes on, and the file ``why`` says why.

    What cannot be loaded would not fail a program, but make the loader complain on its stderr.
    """
    missing = "the image has no C compiler, which image.system: [gcc, libc6-dev] brings on Debian"
    return [
        f"cd {OURS}/{_C_LAYER}",
        "if tool=$(command -v cc || command -v gcc || command -v clang); then"
        f' "$tool" {_COMPILE} >why 2>&1'
        f' && LD_PRELOAD={OURS}/{_C_LAYER}/preload.so /bin/sh -c "exit 0" >why 2>&1'
        ' || echo "exit status $?" >>why;'
        f" else echo {_quoted(missing)} >why; fi",
        "if [ -s why ]; then cat why; rm -f preload.so; else rm why; fi",
    ]


# --- how it is written


def _run(steps: list[str]) -> str:
    return "RUN " + " && \\\n    ".join(steps)


def _needed(question: str, missing: str) -> str:
    return f"{{ {question} >/dev/null 2>&1 || {_failing(missing)}; }}"


def _failing(message: str) -> str:
    return f"{{ echo {_quoted('mllaunch: ' + message)} >&2; exit 1; }}"


def _quoted(text: str) -> str:
    """For the shell, in a Dockerfile: on one line."""
    if not text.isprintable():
        raise ImageError("bad_name", f"{text!r} cannot stand in a Dockerfile", hint="rename it")
    return shlex.quote(text)


def _label(value: str) -> str:
    if not value.isprintable():
        raise ImageError("bad_name", f"{value!r} cannot stand in a Dockerfile")
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _check(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value):
        raise ImageError("bad_name", f"{value!r} is not {what}")
