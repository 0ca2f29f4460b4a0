"""Which file says what is needed, what it says, and whether it decides every version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_containers.dependencies import choose
from mllaunch_containers.spec import KINDS, Dependencies, ImageError

PROJECT = '[project]\nname = "demo"\ndependencies = ["six>=1", "torch==2.4.0"]\n'
HASH = "--hash=sha256:" + "0" * 64


def chosen(files: dict[str, str | bytes], workdir: str = "", chosen: str | None = None) -> Dependencies:
    content = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return choose(content.keys(), content.__getitem__, workdir, chosen)


def refused(files: dict[str, str | bytes], workdir: str = "", path: str | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        chosen(files, workdir, path)
    assert "\n" not in caught.value.message
    return caught.value


def pinned(*lines: str, **more: str) -> bool:
    return chosen(
        {"requirements.txt": "\n".join(lines), **{f"{n}.txt": text for n, text in more.items()}}
    ).pinned


# --- where it is


def test_with_no_such_file_the_base_alone_is_used_and_a_note_says_so() -> None:
    made = chosen({"train.py": "", "pyproject.toml": "[tool.ruff]\n"})
    assert made[:4] == ("none", None, (), False)
    assert "base image alone" in made.notes[0]


def test_of_several_files_in_one_folder_the_one_that_says_most_is_taken() -> None:
    files: dict[str, str | bytes] = {
        "uv.lock": "version = 1\n",
        "pylock.toml": 'lock-version = "1.0"\npackages = []\n',
        "poetry.lock": "",
        "requirements.txt": "six\n",
        "pyproject.toml": PROJECT,
        "environment.yml": "dependencies: []\n",
    }
    found = []
    for name in list(files):
        found.append(chosen(files).kind)
        if name != "pyproject.toml":  # without it, the locks before it would be of no use
            del files[name]
        else:
            files[name] = "[tool.x]\n"
    assert found == [kind for kind in KINDS if kind != "none"]


def test_the_folder_where_the_command_was_typed_comes_before_those_above_it() -> None:
    files: dict[str, str | bytes] = {
        "uv.lock": "",
        "pyproject.toml": PROJECT,
        "a/requirements.txt": "six\n",
        "a/b/train.py": "",
        "ab/x": "",
    }
    assert chosen(files, "a/b").path == "a/requirements.txt"
    assert chosen(files, "a/b/../b/").path == "a/requirements.txt"
    assert chosen(files, "ab").path == "uv.lock"
    assert chosen(files, "").path == "uv.lock"
    assert chosen({"a/requirements.txt": "six\n"}, "").kind == "none"


def test_the_only_file_of_another_name_is_taken_and_several_are_refused_by_name() -> None:
    assert chosen({"requirements-gpu.txt": "six\n"}).path == "requirements-gpu.txt"
    assert chosen({"pylock.gpu.toml": "packages = []\n"}).path == "pylock.gpu.toml"
    assert chosen({"requirements.txt": "six\n", "requirements-dev.txt": ""}).path == "requirements.txt"
    error = refused({"requirements-gpu.txt": "", "requirements-cpu.txt": ""})
    assert error.code == "dependencies_ambiguous"
    assert error.evidence == ("requirements-cpu.txt", "requirements-gpu.txt")
    assert error.hint == "set image.dependencies"
    assert refused({"a/pylock.x.toml": "", "a/pylock.y.toml": ""}, "a").code == "dependencies_ambiguous"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/uv.lock", "uv.lock"),
        ("pylock.gpu.toml", "pylock.toml"),
        ("deps/train.txt", "requirements"),
        ("./deps/requirements.in", "requirements"),
        ("conda/gpu.yaml", "environment.yml"),
        ("a/pyproject.toml", "pyproject.toml"),
    ],
)
def test_a_chosen_file_is_judged_by_its_name(path: str, kind: str) -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "other\n",
        "a/uv.lock": "",
        "a/pyproject.toml": PROJECT,
        "pylock.gpu.toml": "",
        "deps/train.txt": "",
        "deps/requirements.in": "",
        "conda/gpu.yaml": "dependencies: []",
    }
    assert chosen(files, "", path).kind == kind


def test_a_chosen_file_that_is_missing_or_of_no_known_kind_is_refused() -> None:
    assert refused({}, path="deps.txt").code == "no_dependencies_file"
    assert refused({}, path="../deps.txt").code == "no_dependencies_file"
    assert refused({"Pipfile": ""}, path="Pipfile").code == "dependencies_unknown"
    assert refused({"pyproject.toml": "[tool.x]\n"}, path="pyproject.toml").code == "dependencies_unreadable"


# --- locks


def test_a_lock_comes_with_the_pyproject_beside_it_and_cannot_do_without() -> None:
    for name in ("uv.lock", "poetry.lock"):
        made = chosen({f"a/{name}": "", "a/pyproject.toml": "[tool.poetry]\n"}, "a")
        assert made[:4] == (name, f"a/{name}", ((name, b""), ("pyproject.toml", b"[tool.poetry]\n")), True)
        error = refused({f"a/{name}": "", "pyproject.toml": PROJECT}, "a")
        assert (error.code, error.hint is not None) == ("no_dependencies_file", True)


def test_packages_of_the_repository_in_a_lock_are_named_but_the_project_itself_is_not() -> None:
    uv = """
[[package]]
name = "demo"
source = { editable = "." }
[[package]]
name = "six"
source = { registry = "https://index.invalid/simple" }
[[package]]
name = "helper"
source = { editable = "libs/helper" }
"""
    poetry = '[[package]]\nname = "helper"\n[package.source]\ntype = "directory"\nurl = "libs/helper"\n'
    for name, text in (("uv.lock", uv), ("poetry.lock", poetry)):
        notes = chosen({name: text, "pyproject.toml": PROJECT}).notes
        assert len(notes) == 1
        assert "left out helper (libs/helper)" in notes[0]


PYLOCK = """lock-version = "1.0"

[[packages]]
name = "demo"
directory = { path = ".", editable = true }

[[packages]]
name = "six"
version = "1.17.0"
wheels = [{ url = "https://index.invalid/six.whl", hashes = { sha256 = "00" } }]

[[packages]]
name = "local"
[packages.archive]
path = "wheels/local.zip"

[tool.other]
kept = "yes"
"""


def test_a_pylock_loses_the_packages_of_the_repository_and_nothing_else() -> None:
    made = chosen({"pylock.toml": PYLOCK})
    ((name, content),) = made.files
    assert (name, made.pinned) == ("pylock.toml", True)
    text = content.decode()
    assert "six" in text
    assert 'kept = "yes"' in text
    assert "demo" not in text
    assert "wheels/local.zip" not in text
    assert [note.split(",")[0] for note in made.notes] == [
        "pylock.toml: left out demo",
        "pylock.toml: left out local",
    ]


def test_a_pylock_of_the_project_alone_is_left_with_an_empty_list() -> None:
    text = PYLOCK[: PYLOCK.index('[[packages]]\nname = "six"')]
    assert chosen({"pylock.toml": text}).files[0][1] == b'packages = []\nlock-version = "1.0"\n\n'


def test_a_pylock_without_the_repository_is_passed_on_as_it_is() -> None:
    text = b'\xef\xbb\xbflock-version = "1.0"\r\npackages = []\r\n'
    assert chosen({"pylock.toml": text}).files == (("pylock.toml", text),)


def test_a_pylock_written_so_that_its_packages_cannot_be_told_apart_is_refused() -> None:
    error = refused({"pylock.toml": 'packages = [{ name = "demo", directory = { path = "." } }]\n'})
    assert error.code == "dependencies_unreadable"
    deep = refused({"pylock.toml": "a" + ".a" * 1500 + "=1\n" + PYLOCK})
    assert (deep.code, deep.message) == (
        "dependencies_unreadable",
        "pylock.toml cannot be read: nested too deep",
    )


# --- pyproject.toml


def test_the_dependencies_of_a_project_become_one_line_each_in_their_order() -> None:
    made = chosen({"a/pyproject.toml": PROJECT}, "a")
    assert made.files == (("requirements.txt", b"six>=1\ntorch==2.4.0\n"),)
    assert (made.kind, made.path, made.pinned, made.notes) == (
        "pyproject.toml",
        "a/pyproject.toml",
        False,
        (),
    )
    assert chosen({"pyproject.toml": "[project]\ndependencies = ['torch==2.4.0']"}).pinned


def test_dynamic_dependencies_are_not_guessed() -> None:
    made = chosen({"pyproject.toml": '[project]\nname = "demo"\ndynamic = ["dependencies"]\n'})
    assert (made.files, made.pinned) == ((("requirements.txt", b""),), False)
    assert "dynamic" in made.notes[0]


def test_a_dependency_of_a_project_that_lies_in_the_repository_is_left_out() -> None:
    made = chosen({"pyproject.toml": '[project]\ndependencies = ["six", "helper @ file:///x/helper"]\n'})
    assert made.files == (("requirements.txt", b"six\n"),)
    assert "left out helper" in made.notes[0]


@pytest.mark.parametrize(
    "line", ['"six\\n-r /etc/passwd"', '"--index-url x"', '"six\\\\"', "1", '""', '"a # b"', '"six\\u2028x"']
)
def test_what_would_be_more_than_one_requirement_is_refused(line: str) -> None:
    error = refused({"pyproject.toml": f"[project]\ndependencies = [{line}]\n"})
    assert error.code == "dependencies_unreadable"


# --- requirements


def test_a_requirements_file_is_passed_on_byte_by_byte() -> None:
    text = b"\xef\xbb\xbf# a comment\r\nsix==1.17.0 \\\r\n    " + HASH.encode() + b"\r\n"
    made = chosen({"requirements.txt": text})
    assert made == Dependencies("requirements", "requirements.txt", (("requirements.txt", text),), True)
    utf_16 = "\ufeffsix==1.17.0\n".encode("utf-16-le")
    assert chosen({"requirements.txt": utf_16})[2:4] == ((("requirements.txt", utf_16),), True)


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-e.",
        "--editable=.",
        "--editable .[dev]",
        "-e ./x",
        "-e x",
        "-e file:///src/x",
        "-e file:.",
        ".",
        ".[dev]",
        "./x  # a comment",
        "../x ; python_version > '3'",
        "file:x",
        "file:///src/x#egg=x",
        "x @ file:///src/x",
        "x[extra]@file:x",
        "git+file:///src/x",
        "libs/x",
        "wheels/x-1.0-py3-none-any.whl",
        "x-1.0.tar.gz",
        "-e \\\n  .",
    ],
)
def test_a_line_that_installs_from_the_repository_goes_and_a_note_says_so(line: str) -> None:
    made = chosen({"a/requirements.txt": f"six==1.17.0\r\n{line}\r\ntorch==2.4.0\n"}, "a")
    assert made.files == (("requirements.txt", b"six==1.17.0\r\ntorch==2.4.0\n"),)
    assert made.pinned
    assert len(made.notes) == 1
    assert "/workspace/a and its src" in made.notes[0]
    assert "\n" not in made.notes[0]


@pytest.mark.parametrize(
    "line",
    [
        "# -e .",
        "--extra-index-url file:///wheels",
        "--find-links ./wheels",
        "-f wheels/",
        "-e git+https://host.invalid/x.git#egg=x",
        "x @ https://host.invalid/x.whl",
        "https://host.invalid/files/x.whl",
        "six ; sys_platform == './linux'",
    ],
)
def test_a_line_that_does_not_install_from_the_repository_stays(line: str) -> None:
    made = chosen({"requirements.txt": line})
    assert made.files == (("requirements.txt", line.encode()),)
    assert made.notes == ()


def test_included_files_come_along_in_circles_too() -> None:
    files: dict[str, str | bytes] = {
        "a/requirements.txt": "-r deps/base.txt\n-cdeps/pins.txt\n--requirement 'my deps.txt'\n",
        "a/deps/base.txt": "-r ../requirements.txt\nsix\n-e ..\n",
        "a/deps/pins.txt": "six==1.17.0\nunused>=1\n",
        "a/my deps.txt": "--constraint=deps/pins.txt",
    }
    made = chosen(files, "a")
    assert [path for path, _ in made.files] == [
        "requirements.txt",
        "deps/base.txt",
        "deps/pins.txt",
        "my deps.txt",
    ]
    assert dict(made.files)["deps/base.txt"] == b"-r ../requirements.txt\nsix\n"
    assert made.pinned
    assert len(made.notes) == 1


def test_a_file_included_from_above_moves_the_folder_up_and_rewrites_nothing() -> None:
    files: dict[str, str | bytes] = {"x/a/gpu.txt": "-r ../base.txt\n", "x/base.txt": "six==1.17.0\n"}
    made = chosen(files, "", "x/a/gpu.txt")
    assert made.path == "x/a/gpu.txt"
    assert made.files == (("a/gpu.txt", b"-r ../base.txt\n"), ("base.txt", b"six==1.17.0\n"))


@pytest.mark.parametrize("target", ["../base.txt", "/etc/base.txt", "x/../../base.txt", ".."])
def test_a_file_included_from_outside_of_the_repository_is_refused(target: str) -> None:
    assert refused({"requirements.txt": f"-r {target}\n"}).code == "dependencies_outside"


def test_a_missing_included_file_is_refused() -> None:
    assert refused({"requirements.txt": "-r base.txt\n"}).code == "no_dependencies_file"
    assert refused({"requirements.txt": "-r\n"}).code == "no_dependencies_file"


def test_an_option_after_a_requirement_includes_nothing_as_in_pip() -> None:
    assert len(chosen({"requirements.txt": "six -r base.txt\n", "base.txt": ""}).files) == 1


def test_a_variable_that_no_build_will_know_is_named_without_its_value() -> None:
    made = chosen({"requirements.txt": "-i https://${TOKEN}@host.invalid/simple\nsix==${SIX}\n# ${OTHER}\n"})
    assert [note.split(":")[0] for note in made.notes] == [
        "requirements.txt uses ${TOKEN}",
        "requirements.txt uses ${SIX}",
    ]
    assert not made.pinned


@pytest.mark.parametrize(
    "line",
    [
        "six==1.17.0",
        "six===1.17.0",
        "six == 1.17.0+cu121",
        "six (==1.17.0)",
        "Six[extra]==1.17.0,<2 ; python_version < '3.12'",
        f"six==1.17.0 {HASH}",
        f"six==1.17.0 \\\n  # why\n{HASH} \\\n{HASH}",
        "six @ https://host.invalid/six.whl#sha256=" + "0" * 64,
        f"https://host.invalid/six.whl {HASH}",
        "six @ git+https://host.invalid/six.git@" + "a" * 40,
        "-e git+https://host.invalid/six.git@" + "a" * 40 + "#egg=six",
        "",
        "# nothing",
        "--index-url https://host.invalid/simple",
    ],
)
def test_a_line_that_decides_the_version_is_pinned(line: str) -> None:
    assert pinned(line)


@pytest.mark.parametrize(
    "line",
    [
        "six",
        "six>=1.17.0",
        "six==1.*",
        "six!=1.0",
        "six~=1.17.0",
        "six<1 # ==1.17.0",
        "six ; python_version == '3.12'",
        f"six {HASH}",
        "six @ https://host.invalid/six.whl",
        "six @ git+https://host.invalid/six.git@main",
        "-e git+https://host.invalid/six.git",
        "six @@ ?",
        "=?",
        "-r https://host.invalid/more.txt",
    ],
)
def test_a_line_that_leaves_the_version_open_is_not_pinned(line: str) -> None:
    assert not pinned("torch==2.4.0", line)


def test_a_constraint_pins_what_it_names_in_whatever_spelling() -> None:
    assert pinned("Ruamel_Yaml[jinja2]>0.1", "-c pins.txt", pins="ruamel.yaml==0.18.6")
    assert not pinned("six", "-c pins.txt", pins="six>=1")
    assert not pinned("six", "-c pins.txt", pins="torch==2.4.0")
    assert pinned("six==1.17.0", "-c pins.txt", pins="torch>2")


def test_a_pin_for_other_circumstances_is_none() -> None:
    marker = "; python_version < '3.9'"
    assert not pinned("six", "-c pins.txt", pins=f"six==1.17.0 {marker}")
    assert pinned(f"six>1 {marker}", "-c pins.txt", pins=f"six==1.17.0{marker}")
    assert pinned(f"six>1 {marker}", "-c pins.txt", pins="six==1.17.0")


def test_one_open_requirement_in_an_included_file_leaves_all_open() -> None:
    assert not pinned("six==1.17.0", "-r base.txt", base="torch\n")
    assert pinned("six==1.17.0", "-r base.txt", base="torch==2.4.0\n")


# --- environment.yml

CONDA = """name: demo
channels: [conda-forge]
dependencies:
  - python=3.11.9
  - conda-forge::numpy==1.26   # exact
  - cudatoolkit=11.8=h4ba93d1_13
  - pip=24.0.0
  - pip:
    - six==1.17.0
    - -r more.txt
"""


def test_a_conda_environment_is_pinned_when_all_it_names_has_one_version() -> None:
    made = chosen({"environment.yml": CONDA, "more.txt": "torch==2.4.0\n"})
    assert made[:2] == ("environment.yml", "environment.yml")
    assert made.files == (("environment.yml", CONDA.encode()), ("more.txt", b"torch==2.4.0\n"))
    assert made.pinned
    assert not chosen({"environment.yml": CONDA, "more.txt": "torch\n"}).pinned


@pytest.mark.parametrize(
    "spec", ["python", "python=3.10", "python=3.10.*", "python>=3.10.1", "python 3.10.1"]
)
def test_a_conda_package_that_may_have_several_versions_is_not_pinned(spec: str) -> None:
    assert not chosen({"environment.yaml": f"dependencies:\n- {spec}\n"}).pinned


def test_a_conda_environment_loses_what_pip_would_install_from_the_repository() -> None:
    text = CONDA.replace("    - -r more.txt\n", "    - '-e .'  # us\n    - \"./libs/x\"\n")
    made = chosen({"environment.yml": text})
    assert made.files[0][1].decode() == CONDA.replace("    - -r more.txt\n", "")
    assert len(made.notes) == 2
    alone = "dependencies:\n- python=3.11.9\n- pip:\n  - -e .\n"
    made = chosen({"environment.yml": alone})
    assert made.files[0][1] == b"dependencies:\n- python=3.11.9\n"
    assert made.pinned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "dependencies: 1",
        "dependencies: [a, [b]]",
        "dependencies:\n- pip: [a]\n- pip: [b]",
        "dependencies: [{pip: [-e .]}]",
        "dependencies: [",
        'dependencies: ["\\UFFFFFFFF"]',
        "[" * 1500,
    ],
)
def test_what_is_no_conda_environment_is_refused(text: str) -> None:
    assert refused({"environment.yml": text}).code == "dependencies_unreadable"


# --- whatever comes


@pytest.mark.parametrize(
    "path", ["uv.lock", "poetry.lock", "pylock.toml", "requirements.txt", "pyproject.toml", "environment.yml"]
)
@pytest.mark.parametrize("content", [b"\xff", b"\xff\xfeX", b"\x80 = 1", b"a = 'b"])
def test_what_cannot_be_read_is_refused_with_its_path_and_the_cause(path: str, content: bytes) -> None:
    beside: dict[str, str | bytes] = {} if path == "pyproject.toml" else {"pyproject.toml": PROJECT}
    error = refused({**beside, path: content if path != "requirements.txt" else b"\xff"}, path=path)
    assert error.code == "dependencies_unreadable"
    assert path in error.message


def test_a_quote_that_does_not_end_is_refused() -> None:
    assert refused({"requirements.txt": "-r 'base.txt\n"}).code == "dependencies_unreadable"


_WORDS = [
    *(
        "-r",
        "-c",
        "-e",
        "--hash=",
        ".",
        "./x",
        "/",
        "..",
        "file:",
        "@",
        "==",
        "===",
        "*",
        "${X}",
        "six",
        "1.0",
    ),
    *("[", "]", "[[packages]]", "[project]", "[[package]]", "=", "{", "}", ",", "'", '"', "\\", "#"),
    *(":", "- ", "pip:", "dependencies", "packages", "source", "directory", "path", "name", "dynamic"),
    *("&a", "*a", "!!int", "|", ">", ";", "\r\n", "\n", "\n  ", "\t", "\u2028", "\x85", "\0", "é", "\ufeff"),
]
_LINES = st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=40).map(" ".join)
_BYTES = st.binary(max_size=200) | _LINES.map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(
    path=st.sampled_from(
        ["uv.lock", "poetry.lock", "pylock.toml", "requirements.txt", "pyproject.toml", "environment.yml"]
    ),
    start=st.sampled_from(
        [
            b"",
            b"[project]\ndependencies = ",
            b"[[packages]]\n",
            b"[[package]]\nsource = ",
            b"dependencies:\n- ",
        ]
    ),
    content=_BYTES,
    other=_BYTES,
)
def test_whatever_bytes_come_in_there_is_an_answer_or_a_plain_error(
    path: str, start: bytes, content: bytes, other: bytes
) -> None:
    files = {"pyproject.toml": other, "x": other, path: start + content}
    try:
        made = choose(files.keys(), files.__getitem__, "", path)
    except ImageError as error:
        assert error.message.isprintable()
    else:
        assert made.kind in KINDS
        assert made.files
        assert all(note.isprintable() for note in made.notes)
