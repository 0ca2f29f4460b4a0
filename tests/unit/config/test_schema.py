from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mllaunch.config.schema import SETTINGS
from mllaunch.config.values import Config

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_documentation_names_every_key_with_its_variable_and_its_flag() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    expected = [
        f"| `{setting.key}` | {setting.kind.expects.replace('|', '/')} | {setting.doc} "
        f"| `{setting.variable}`{f' `{setting.flag}`' if setting.flag else ''} |"
        for setting in SETTINGS
    ]
    assert rows == expected


def test_every_key_has_a_field_of_the_configuration() -> None:
    fields = {setting.field.partition(".")[0] for setting in SETTINGS}
    assert fields | {"origins"} == set(Config._fields)


def test_without_a_file_nothing_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    program = (
        "import sys; from mllaunch.config import load, home\n"
        f"load({str(tmp_path)!r}, {{'HOME': '/nowhere'}}, {{'resources.gpus': '1'}}); home({{}})\n"
        "print([m for m in ('yaml', 'tomllib', 'pathlib', 'difflib', 'json', 'subprocess', 'dataclasses') "
        "if m in sys.modules])"
    )
    # -S: the development environment's own .pth files import what they like.
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
