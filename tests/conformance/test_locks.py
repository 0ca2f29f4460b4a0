"""Lock files of real tools, installed by real builds. The locks are made on the spot: they name a package index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mllaunch_containers.dependencies import choose
from tests.conformance.images import Maker, spec
from tests.testbed.engine import Engine

pytestmark = pytest.mark.real("engine", "mmdebstrap")

_MARK = "=== the next file ==="
_PROJECT = """\
[project]
name = "locked"
version = "1"
requires-python = ">=3.10"
dependencies = ["six==1.16.0"]
"""
_MAKE = f"""\
set -e
python3 -m pip install --quiet --break-system-packages --root-user-action ignore uv
mkdir /project && cd /project && cat > pyproject.toml
uv lock --quiet
uv export --quiet --frozen --format pylock.toml --output-file pylock.toml >/dev/null
cat uv.lock; echo '{_MARK}'; cat pylock.toml
"""


@pytest.fixture(scope="module")
def locks(engine: Engine, python_image: str) -> Mapping[str, str]:
    """What uv makes of a project that asks for one package: file name -> content."""
    done = engine.docker(
        *("run", "--rm", "--interactive", "--network=host", python_image, "sh", "-c", _MAKE),
        stdin=_PROJECT.encode(),
    )
    first, second = done.stdout.split(f"{_MARK}\n")
    return {"uv.lock": first, "pylock.toml": second, "pyproject.toml": _PROJECT}


@pytest.mark.parametrize("names", [("uv.lock", "pyproject.toml"), ("pylock.toml",), ("pyproject.toml",)])
def test_the_packages_of_a_lock_are_installed_and_the_projects_own_code_can_be_imported(
    engine: Engine, python_image: str, locks: Mapping[str, str], names: tuple[str, ...], tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True)
    maker.write("src/locked/__init__.py", "WHERE = 'in the workspace'\n")
    for name in names:
        maker.write(name, locks[name])
    files = {name: locks[name].encode() for name in names}
    asked = choose([*files, "src/locked/__init__.py"], files.__getitem__, "", None)
    assert asked.kind == names[0]
    image = maker.build(spec(python_image, asked, project="locks"))
    program = "import six, locked; print(six.__version__, locked.WHERE)"
    assert maker.run(image, "sh", "-c", f'cd / && python3 -c "{program}"') == "1.16.0 in the workspace\n"
    assert "uv" not in maker.run(image, "python3", "-m", "pip", "list"), "the tool stayed in the image"
    assert image.lock is not None
    assert image.lock.resolved is False
