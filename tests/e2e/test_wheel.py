from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_all_packages_and_the_examples_that_init_can_copy(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        archive.extractall(installed)
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "mllaunch",
        "mllaunch_agent",
        "mllaunch_containers",
    }
    program = (
        "import mllaunch, mllaunch_agent, sys\n"
        f"assert mllaunch.__file__.startswith({str(installed)!r}), mllaunch.__file__\n"
        "from mllaunch.cli.main import main; main()"
    )
    for example in ("digits", "torch"):
        subprocess.run(
            [sys.executable, "-c", program, "init", "--example", example, str(tmp_path / example)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(installed)},
            check=True,
            capture_output=True,
        )
        for file in (ROOT / "examples" / example).iterdir():
            if file.is_file():
                assert (tmp_path / example / file.name).read_bytes() == file.read_bytes()
