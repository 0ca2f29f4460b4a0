from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllaunch.config import Config, home, load
from mllaunch.errors import ConfigError


class Place:
    """A repository's root and a user's home, both empty at first."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.user = folder / "user" / "mllaunch"
        self.root.mkdir()
        self.user.mkdir(parents=True)
        self.environ = {"XDG_CONFIG_HOME": str(folder / "user"), "HOME": str(folder)}

    def yaml(self, text: str | bytes) -> None:
        (self.root / "mllaunch.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())

    def load(self, flags: dict[str, object] | None = None, **variables: str) -> Config:
        return load(str(self.root), {**self.environ, **variables}, flags or {})

    def faults(self, **more: Any) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load(**more)
        assert caught.value.exit_code == 2
        return caught.value.evidence

    def yaml_faults(self, text: str | bytes) -> tuple[str, ...]:
        self.yaml(text)
        return self.faults()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_any_source_everything_has_its_default(place: Place) -> None:
    config = place.load()
    assert (config.backend, config.resources.gpus, config.keep_s) == ("local", 0, 604800)
    assert config.project == "project"
    assert config.origins["project"] == "the repository's folder name"
    assert {origin for key, origin in config.origins.items() if key != "project"} == {"default"}


def test_the_contract_example_is_accepted(place: Place) -> None:
    place.yaml(
        """\
project: digits
backend: local                  # local | ssh | ray
runtime: auto                   # auto | docker | process
dirty: refuse                   # refuse | snapshot
resources: {gpus: 0, cpus: null, memory: null, nodes: 1, procs_per_node: 1}
image: {base: "python:3.11-slim", system: [libgomp1], reference: null, dockerfile: null, registry: null}
python: null                    # interpreter for the process runtime; default: the one on PATH
env: [HF_HOME, "NCCL_DEBUG=INFO"]
data: [data/train]
output: outputs                 # relative to the work folder; MLLAUNCH_OUTPUT_DIR
resume_args: ["--resume", "{checkpoint}"]
weights_args: ["--init", "{checkpoint}"]
nodes:
  - {name: gpu01, host: 10.0.0.1, user: me, port: 22}   # or a host of the user's ssh configuration: {name: gpu02}
  - {name: gpu02}
ssh: {known_hosts: null, config: null, lease: 30m}
keep: 7d                        # node-side folders after sealing
server: null
ray: {address: null}
"""
    )
    config = place.load()
    assert config.env == (("HF_HOME", None), ("NCCL_DEBUG", "INFO"))
    assert config.nodes[0] == ("gpu01", "10.0.0.1", "me", 22, None, (), ())
    assert config.nodes[1] == ("gpu02", None, None, None, None, (), ())
    assert config.image.system == ("libgomp1",)
    assert config.ssh.lease_s == 1800
    assert config.origins["resources.gpus"] == "mllaunch.yaml:5:19"


def test_each_source_yields_to_the_one_above_it(place: Place) -> None:
    (place.user / "config.yaml").write_text(
        "{runtime: docker, output: user, keep: 1d, python: user, backend: ssh}"
    )
    (place.root / "pyproject.toml").write_text(
        '[tool.mllaunch]\nruntime = "process"\noutput = "toml"\nkeep = "2d"\npython = "toml"\n'
    )
    place.yaml("runtime: auto\noutput: yaml\nkeep: 3d\n")
    config = place.load(flags={"runtime": "docker"}, MLLAUNCH_RUNTIME="auto", MLLAUNCH_OUTPUT="variable")
    origins = config.origins
    assert (config.runtime, origins["runtime"]) == ("docker", "--runtime")
    assert (config.output, origins["output"]) == ("variable", "MLLAUNCH_OUTPUT")
    assert (config.keep_s, origins["keep"]) == (3 * 86400, "mllaunch.yaml:3:7")
    assert (config.python, origins["python"]) == ("toml", "pyproject.toml:5:1")
    assert (config.backend, origins["backend"]) == ("ssh", f"{place.user}/config.yaml:1:66")


def test_one_key_of_a_section_leaves_the_others_to_the_source_below(place: Place) -> None:
    place.yaml("resources: {gpus: 2, memory: 16GiB}\n")
    config = place.load(MLLAUNCH_RESOURCES_GPUS="4")
    assert (config.resources.gpus, config.resources.memory_bytes) == (4, 16 * 1024**3)


def test_variables_of_the_task_add_up_by_name(place: Place) -> None:
    place.yaml("env: [A=file, B=file]\n")
    config = place.load(flags={"env": ["A=flag", "C"]})
    assert dict(config.env) == {"A": "flag", "B": "file", "C": None}
    assert config.origins["env.A"] == "--env"
    assert config.origins["env.B"] == "mllaunch.yaml:1:15"


def test_null_above_resets_what_a_source_below_says(place: Place) -> None:
    (place.user / "config.yaml").write_text("python: /usr/bin/python3\n")
    place.yaml("python: null\n")
    assert place.load().python is None


def test_a_list_in_a_variable_is_yaml_or_its_only_entry(place: Place) -> None:
    assert place.load(MLLAUNCH_DATA="[a b, c]").data == ("a b", "c")
    assert place.load(MLLAUNCH_DATA="a b").data == ("a b",)
    assert place.load(MLLAUNCH_DATA="").data == ()


@pytest.mark.parametrize("written", ["012", "+12", "0o14", "0xC", "12", "!!int 12"])
def test_numbers_are_those_of_yaml_1_2(place: Place, written: str) -> None:
    place.yaml(f"resources: {{gpus: {written}}}\n")
    assert place.load().resources.gpus == 12


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "Yes", "1:30", "2026-11-21", "0b1", "1_000", "!!str 3", "<<"]
)
def test_what_only_yaml_1_1_interprets_is_a_string(place: Place, word: str) -> None:
    place.yaml(f"project: {word}\n")
    assert place.load().project == word.removeprefix("!!str ")


@pytest.mark.parametrize("word", ["3e-4", ".5", "true", "False", ".inf", "0o7"])
def test_what_yaml_1_2_interprets_is_no_string_and_quotes_are_suggested(place: Place, word: str) -> None:
    (fault,) = place.yaml_faults(f"project: {word}\n")
    assert fault.startswith("mllaunch.yaml:1:10: expected a text, not ") and "quotes" in fault


@pytest.mark.parametrize(
    "written", [".nan", "NaN", "-1", "1e99", '"four"', "four", "true", "'4'", "[1]", "{a: 1}", "null", "1025"]
)
def test_bad_gpus_are_refused_with_what_is_expected(place: Place, written: str) -> None:
    (fault,) = place.yaml_faults(f"resources:\n  gpus: {written}\n")
    assert fault.startswith("mllaunch.yaml:2:9: expected a whole number from 0 to 1024")


def test_a_number_of_a_million_digits_is_refused_at_once(place: Place) -> None:
    (fault, _) = place.yaml_faults("resources: {gpus: " + "9" * 1_000_000 + "}")
    assert "a number of 1000000 digits" in fault


def test_all_faults_of_all_sources_are_told_at_once(place: Place) -> None:
    place.yaml("backend: locl\nresources: {gpu: 1}\nkeep: 7\nkeep: 8d\n")
    (place.root / "pyproject.toml").write_text('[tool.mllaunch]\nbackned = "local"\n')
    (place.user / "config.yaml").write_text("a: [")
    faults = place.faults(flags={"resources.cpus": "many"}, MLLAUNCH_RUNTIME="vm")
    for start in (
        "mllaunch.yaml:1:10: expected local | ssh | ray, not 'locl'; did you mean \"local\"?",
        "mllaunch.yaml:2:13: unknown key 'gpu'; did you mean resources.gpus?",
        "mllaunch.yaml:3:7: expected a duration",
        "mllaunch.yaml:4:1: the key 'keep' is there already, at mllaunch.yaml:3:1",
        "pyproject.toml:2:1: unknown key 'backned'; did you mean backend?",
        f"{place.user}/config.yaml:2:1: not valid YAML",
        "--cpus: expected a whole number",
        "MLLAUNCH_RUNTIME: expected auto | docker | process",
    ):
        assert any(fault.startswith(start) for fault in faults), (start, faults)
    assert len(faults) == 8


def test_a_key_of_another_section_is_recognised(place: Place) -> None:
    assert place.yaml_faults("gpus: 1\n") == (
        "mllaunch.yaml:1:1: unknown key 'gpus'; did you mean resources.gpus?",
    )


@pytest.mark.parametrize(
    "tag", ["!!python/object:os.system", "!!python/object/apply:os.system", "!x", "!!binary", "!!set"]
)
def test_tags_that_are_no_plain_values_are_refused(place: Place, tag: str) -> None:
    for value in ("{}", "[id]", "id"):
        faults = place.yaml_faults(f"project: {tag} {value}\n")
        assert f"mllaunch.yaml:1:10: the tag {tag} is refused" in faults[0]


def test_an_alias_bomb_is_refused(place: Place) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    faults = place.yaml_faults("\n".join(lines))
    assert any("more than 10000 values, with aliases expanded" in fault for fault in faults)


def test_a_fault_behind_an_alias_is_told_once(place: Place) -> None:
    (fault,) = place.yaml_faults("resume_args: &args [3]\nweights_args: *args\n")
    assert fault.startswith("mllaunch.yaml:1:21: expected a text")


def test_a_file_of_a_hundred_thousand_values_is_refused(place: Place) -> None:
    (fault,) = place.yaml_faults("data: [" + "a, " * 100_000 + "]")
    assert "more than 10000 values" in fault


def test_bytes_that_are_no_text_are_refused_in_a_variable(place: Place) -> None:
    (fault,) = place.faults(MLLAUNCH_PROJECT="\udcff")
    assert fault.startswith("MLLAUNCH_PROJECT: expected a text in UTF-8")


def test_an_honest_alias_is_followed(place: Place) -> None:
    place.yaml('resume_args: &args ["--from", "{checkpoint}"]\nweights_args: *args\n')
    assert place.load().weights_args == ("--from", "{checkpoint}")


@pytest.mark.parametrize("text", ["data: &a [*a]", "data: &a {b: *a}", "data: *nowhere"])
def test_an_alias_to_itself_or_to_nothing_is_refused(place: Place, text: str) -> None:
    (fault,) = place.yaml_faults(text)
    assert "alias" in fault


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_deep_nesting_is_refused_quickly(place: Place, text: str) -> None:
    (fault,) = place.yaml_faults(text)
    # PyYAML's own limit, since 6.0.4, is met first by brackets: its parser reads ahead.
    assert "nested more than 20 deep" in fault or "maximum nesting depth" in fault


@pytest.mark.parametrize(
    "data", [b"", b"\n \n", b"# nothing\n", b"\xef\xbb\xbf", b"---\n", b"null", b"resources:\nenv:\n"]
)
def test_an_empty_file_is_an_empty_configuration(place: Place, data: bytes) -> None:
    place.yaml(data)
    assert place.load().resources.gpus == 0


def test_a_byte_order_mark_is_accepted_and_counts_for_no_column(place: Place) -> None:
    place.yaml(b"\xef\xbb\xbfproject: x\r\n")
    config = place.load()
    assert (config.project, config.origins["project"]) == ("x", "mllaunch.yaml:1:10")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("project: x".encode("utf-16"), ":1:1: is UTF-16; save it as UTF-8"),
        ("project: x".encode("utf-16-be"), ":1:1: a NUL byte"),
        (b"project: x\nkeep: \0", ":2:7: a NUL byte"),
        (b"project: \xff\n", ":1:10: not UTF-8"),
        ("project: é\nkeep: ".encode() + b"\xff", ":2:7: not UTF-8"),
        (b"project: \x1b[2J\n", ":1:10: a character that YAML does not allow"),
        (b"project: x\n---\nproject: y\n", ":2:1: a second document"),
        (b"- a\n", ":1:1: expected settings"),
        (b"just text", ":1:1: expected settings"),
        (b"1: x\n", ":1:1: a key must be a text, not 1"),
        (b"? [a]\n: x\n", ":1:3: a key must be a text, not a list"),
        (b"a: b: c\n", ":1:5: not valid YAML"),
        (b"\tproject: x", ":1:1: not valid YAML"),
        (b"resources: 4", ":1:12: expected a mapping under resources"),
        (b"#" * (1024 * 1024 + 1), ":1:1: larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_place(
    place: Place, data: bytes, said: str
) -> None:
    (fault,) = place.yaml_faults(data)
    assert fault.startswith("mllaunch.yaml" + said)


def test_a_folder_or_a_fifo_in_place_of_the_file_is_refused(place: Place) -> None:
    path = place.root / "mllaunch.yaml"
    for make in (path.mkdir, lambda: os.mkfifo(path)):
        make()
        assert place.faults() == (
            "mllaunch.yaml:1:1: cannot be read: expected a file, not a folder or a device",
        )
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_symlink_loop_is_a_fault_and_a_dangling_link_is_no_file(place: Place) -> None:
    path = place.root / "mllaunch.yaml"
    path.symlink_to("nowhere")
    assert place.load().backend == "local"
    path.unlink()
    path.symlink_to("mllaunch.yaml")
    assert place.faults()[0].startswith("mllaunch.yaml:1:1: cannot be read: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("output: ../x", "1:9: expected a folder inside the work folder"),
        ("output: /tmp/x", "1:9: expected a folder inside the work folder"),
        ("output: a/../../b", "1:9: expected a folder inside the work folder"),
        ('output: ""', "1:9: expected a text"),
        ("data: [3]", "1:8: expected a text, not 3"),
        ("data: data/train", "1:7: expected a list"),
        ("env: [1A=x]", "1:7: expected NAME"),
        ('env: ["A B"]', "1:7: expected NAME"),
        ("env: [A=1, A]", "1:12: 'A' is there twice"),
        ("env: {A: 1}", "1:6: expected a list"),
        ("resume_args: [--resume]", "1:14: none of the arguments contains {checkpoint}"),
        ("resume_args: [--resume, 3]", "1:25: expected a text, not 3; put it in quotes"),
        ("nodes: [{host: a}]", "1:9: a node needs a name"),
        ("nodes: [{name: a, prt: 1}]", "1:19: unknown key 'prt' of a node; did you mean"),
        ("nodes: [{name: a, port: 0}]", "1:25: expected a whole number from 1 to 65535"),
        ("nodes: [{name: a}, {name: a}]", "1:20: 'a' is there twice"),
        ("nodes: [{name: a, groups: lab}]", "1:27: expected a list"),
        ("nodes: [{name: a, groups: [x, x]}]", "1:31: 'x' is there twice"),
        ("nodes: [{name: a}, {name: b, groups: [x, a]}]", "1:42: 'a' is the name of a node, so no group"),
        ("nodes: [{name: a, labels: {rack: 3}}]", "1:34: expected a text, not 3; put it in quotes"),
        ("nodes: [{name: a, labels: {'a b': c}}]", "1:28: expected a name of letters"),
        ("nodes: [{name: a, labels: [c]}]", "1:27: expected a mapping of names to texts"),
        ("nodes: [gpu01]", "1:9: expected a mapping with name, host, user, port, python, groups, labels"),
        ("server: gpu01", "1:9: expected an address that starts with"),
        ("resources: {procs_per_node: 0}", '1:29: expected "auto" or a whole number'),
        ("resources: {nodes: 0}", "1:20: expected a whole number from 1"),
        ("resources: {memory: 16G}", "1:21: expected a number of bytes or a size"),
        ('project: "a\\nb"', "1:10: expected a text without control characters"),
        ("<<: {project: x}", "1:1: unknown key '<<'"),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused_with_what_is_expected(
    place: Place, text: str, said: str
) -> None:
    (fault,) = place.yaml_faults(text)
    assert fault.startswith(f"mllaunch.yaml:{said}"), fault


def test_a_bad_value_hidden_by_a_better_source_is_still_told(place: Place) -> None:
    place.yaml("runtime: vm\n")
    assert place.faults(flags={"runtime": "process"})[0].startswith("mllaunch.yaml:1:10: ")


def test_a_secret_in_a_malformed_entry_is_not_shown(place: Place) -> None:
    (fault,) = place.yaml_faults('env: ["MY-KEY=hunter22"]')
    assert "hunter22" not in fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.mllaunch]\nkeep = 7\n", "2:1: expected a duration"),
        ('[tool.mllaunch.resources]\n  gpus = "4"\n', "2:3: expected a whole number"),
        ("[tool.mllaunch]\nresources.gpus = nan\n", "2:1: expected a whole number"),
        ("[tool.mllaunch]\nresources = {gpu = 1}\n", "2:1: unknown key 'gpu'"),
        ("[tool.mllaunch]\nproject = 2026-11-21\n", "2:1: expected a text, not a date"),
        ("[tool.mllaunch]\nkeep = \n", "2:8: not valid TOML"),
        ("[tool]\nx = 1\n[tool.mllaunch]\na = 1\na = 2\n", "5:6: not valid TOML"),
        ("[tool.mllaunch]\nx = " + "[" * 50_000, "1:1: nested too deep"),
        ("[[tool.mllaunch]]\n", "1:1: expected settings"),
        ("[tool.mllaunch]\n" + "a." * 5_000 + "b = 1", "1:1: nested too deep"),
    ],
)
def test_faults_of_pyproject_have_places_too(place: Place, text: str, said: str) -> None:
    (place.root / "pyproject.toml").write_text(text)
    (fault,) = place.faults()
    assert fault.startswith(f"pyproject.toml:{said}"), fault


def test_a_pyproject_without_our_table_may_be_as_broken_as_it_likes(place: Place) -> None:
    (place.root / "pyproject.toml").write_bytes(b"[[[ \xff")
    assert place.load().backend == "local"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="abc:- []{}&*!?|>'\"#%@,\n\t019.~", max_size=80).map(str.encode),
    )
)
def test_no_file_content_leads_to_anything_but_a_configuration_or_its_error(
    place: Place, data: bytes
) -> None:
    place.yaml(data)
    (place.root / "pyproject.toml").write_bytes(b"[tool.mllaunch]\n" + data)
    try:
        assert isinstance(place.load(), Config)
    except ConfigError as error:
        assert all("\n" not in line for line in error.evidence)


def test_home_is_the_chosen_folder_or_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert home({"MLLAUNCH_HOME": "/a/../b"}) == "/b"
    assert home({"MLLAUNCH_HOME": "~/x", "HOME": "/h"}) == "/h/x"
    assert home({"MLLAUNCH_HOME": "x"}) == str(Path("x").absolute())
    assert home({"XDG_DATA_HOME": "/d", "HOME": "/h"}) == "/d/mllaunch"
    assert home({"XDG_DATA_HOME": "relative", "HOME": "/h"}) == "/h/.local/share/mllaunch"
    monkeypatch.setattr("sys.platform", "darwin")
    assert home({"HOME": "/h"}) == "/h/Library/Application Support/mllaunch"
