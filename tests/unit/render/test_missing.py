from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain.missing import missing_file, missing_module


@pytest.mark.parametrize(
    ("tail", "path"),
    [
        (
            "Traceback ...\nFileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'\n",
            "data/x.csv",
        ),
        ('FileNotFoundError: [Errno 2] No such file or directory: "it\'s"', "it's"),
        ("[Errno 2] No such file or directory: 'a' -> 'b'\n", "a"),
        ("[Errno 2] No such file or directory: b'raw'\n", "raw"),
        (r"[Errno 2] No such file or directory: 'two\nlines \'x\''", "two\nlines 'x'"),
        ("cat: data/x.txt: No such file or directory\n", "data/x.txt"),
        ("ls: cannot access 'my data': No such file or directory\r\n", "my data"),
        ("bash: line 1: ./run.sh: No such file or directory\n", "./run.sh"),
        (
            "sh: 1: cannot open y.txt: No such file\n",
            "y.txt",
        ),
        (
            "/usr/bin/python3: can't open file '/w/train.py': [Errno 2] No such file or directory\n",
            "/w/train.py",
        ),
        ("error: could not open weights.bin: No such file or directory", "weights.bin"),
        (
            "(unable to open file: name = 'x.h5', errno = 2, error message = 'No such file or directory')",
            "x.h5",
        ),
        ("Error: No such file or directory: model.safetensors\n", "model.safetensors"),
        ("cat: first: No such file or directory\ncat: last: No such file or directory\n", "last"),
        ("all is well\n", None),
        ("", None),
        ("No such file or directory\n", None),
        ("PermissionError: [Errno 13] Permission denied: 'x'\n", None),
    ],
)
def test_the_file_that_a_task_died_for_is_named(tail, path):
    assert missing_file(tail) == path


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-c", "open('no such/file.csv')"],
        [sys.executable, "no such/file.csv"],
        ["cat", "no such/file.csv"],
        ["ls", "no such/file.csv"],
        ["sh", "-c", "cat < 'no such/file.csv'"],
        ["bash", "-c", "cat < 'no such/file.csv'"],
        ["tail", "no such/file.csv"],
    ],
)
def test_what_real_programs_say_is_understood(command, tmp_path):
    said = subprocess.run(command, cwd=tmp_path, env={"LC_ALL": "C"}, capture_output=True, text=True)
    found = missing_file(said.stderr)
    assert found is not None
    assert found.endswith("no such/file.csv")


@pytest.mark.parametrize(
    ("tail", "candidates"),
    [
        ("ModuleNotFoundError: No module named 'foo'\n", ("foo.py", "foo/__init__.py")),
        (
            "ModuleNotFoundError: No module named 'foo.bar'; 'foo' is not a package",
            ("foo/bar.py", "foo/bar/__init__.py"),
        ),
        ("/usr/bin/python: No module named helper\n", ("helper.py", "helper/__init__.py")),
        ("No module named 'a'\nNo module named 'b'\n", ("b.py", "b/__init__.py")),
        ("ImportError: cannot import name 'x'", ()),
    ],
)
def test_the_module_that_a_task_died_for_is_named(tail, candidates):
    assert missing_module(tail) == candidates


@given(
    st.text()
    | st.lists(st.sampled_from(["No such file or directory", ": ", "'", "\\", "[Errno 2] ", "x", "\n"])).map(
        "".join
    )
)
def test_any_text_is_read_without_error(tail):
    found = missing_file(tail)
    assert found is None or isinstance(found, str)
    assert all(path.endswith(".py") for path in missing_module(tail))
