from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllaunch.config import Config, load
from mllaunch.config.display import as_document, as_yaml
from mllaunch.config.schema import SETTINGS

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def loaded(root: Path | None = None, **flags: object) -> Config:
    return load(
        str(root) if root else None, {"HOME": "/nowhere"}, {k.replace("__", "."): v for k, v in flags.items()}
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    project=TEXT,
    value=TEXT,
    memory=st.integers(1, 2**60),
    seconds=st.integers(0, 10**6),
    procs=st.integers(0, 9),
)
def test_what_is_shown_is_a_configuration_file_that_says_the_same(
    tmp_path: Path, project: str, value: str, memory: int, seconds: int, procs: int
) -> None:
    config = loaded(
        project=project,
        env=[f"A={value}", "B"],
        resources__memory=memory,
        resources__procs_per_node=procs or "auto",
        keep=f"{seconds}s",
        image__system=[project, "true", "012"],
        nodes="[{name: a, port: 3, groups: [lab, '12'], labels: {'12': x, rack: '3'}}, {name: b}]",
    )
    (tmp_path / "mllaunch.yaml").write_text(as_yaml(config, show_origin=True), encoding="utf-8")
    assert loaded(tmp_path)._replace(origins={}) == config._replace(origins={})


def test_every_key_is_shown_with_its_origin() -> None:
    config = loaded(env=["A=1", "B"])
    shown = as_yaml(config, show_origin=True)
    for setting in SETTINGS:
        assert f"{setting.key.rpartition('.')[2]}:" in shown
    assert [line.split("# ")[1] for line in shown.splitlines() if "  - " in line] == ["--env", "--env"]
    assert "# default" not in as_yaml(config)


def test_secrets_are_masked_in_every_form() -> None:
    config = loaded(
        env=[
            "MY_PASSWORD=hunter22",
            "HFTOKEN=plainvalue",
            "URL=https://me:hunter22@host/",
            "apikey=hunter22",
        ],
        server="https://me:hunter22@host",
    )
    for shown in (as_yaml(config), as_yaml(config, True), json.dumps(as_document(config))):
        assert "hunter22" not in shown and "plainvalue" not in shown
        assert "MY_PASSWORD=********" in shown


def test_the_document_has_units_in_its_names_and_null_for_what_nobody_said() -> None:
    document = as_document(loaded(resources__memory="1KiB"))
    assert document["config"]["resources"]["memory_bytes"] == 1024
    assert document["config"]["keep_s"] == 604800
    assert document["config"]["resources"]["cpus"] is None
    assert document["origins"]["resources.memory"] == "--memory"


def test_control_characters_never_reach_the_terminal() -> None:
    shown = as_yaml(loaded(env=["A=\x1b[2J\u202e\x9b"]), show_origin=True)
    assert all(line.isprintable() for line in shown.splitlines())
