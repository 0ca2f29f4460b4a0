from __future__ import annotations

from typing import Any

import pytest

from mllaunch.usecases.doctor import (
    OK,
    PROBLEM,
    WARNING,
    Engine,
    Facts,
    Fault,
    Finding,
    Home,
    NodeAnswer,
    evaluate,
    evaluate_node,
)

AGENT: dict[str, Any] = {
    "protocol": 1,
    "python": "3.11.7",
    "checkout": "overlay",
    "cgroup": True,
    "lease_folder": "/run/lock/mllaunch",
    "gpus": {"found": [], "driver": None, "problems": [], "strangers": []},
    "mounts": [],
    "failed": {},
}
SOUND = Facts(
    git="2.39.5",
    repository=("/home/me/digits", 0),
    config=None,
    python=("/usr/bin/python3", "3.11.7"),
    home=Home("/home/me/.local/share/mllaunch", None, 100 << 30, "ext4", True),
    run_log=(1, 1, ()),
    code=None,
    agent=AGENT,
    engine=Engine("Docker 28.2.2", "/var/run/docker.sock", has_nvidia=True),
)
GPU = {"index": 0, "uuid": "GPU-1", "name": "H200", "memory_bytes": 1}


def worst(facts: Facts) -> list[Finding]:
    """The findings that are not ok."""
    return [finding for finding in evaluate(facts) if finding.status != "ok"]


def gpus(**changes: Any) -> Facts:
    return SOUND._replace(agent={**AGENT, "gpus": {**AGENT["gpus"], **changes}})


def test_an_engine_that_is_not_there_is_no_fault_and_one_that_is_denied_is() -> None:
    absent = SOUND._replace(engine=Engine(None, "/d.sock", "no container engine answers at /d.sock"))
    assert worst(absent) == []
    assert "no container engine answers at /d.sock: runs are processes" in [f.says for f in evaluate(absent)]
    denied = SOUND._replace(engine=Engine(None, "/d.sock", "you may not use it", is_denied=True))
    (finding,) = worst(denied)
    assert finding.fix is not None
    assert "usermod" in finding.fix


def test_gpus_that_an_engine_cannot_hand_on_are_a_warning() -> None:
    with_gpus = gpus(found=[GPU])._replace(engine=SOUND.engine._replace(has_nvidia=False))
    (finding,) = [f for f in worst(with_gpus) if f.check == "containers"]
    assert finding.fix is not None
    assert "NVIDIA container toolkit" in finding.fix
    mended = with_gpus._replace(engine=SOUND.engine)
    assert not [f for f in worst(mended) if f.check == "containers"]


def test_a_sound_machine_has_nothing_but_ok() -> None:
    assert worst(SOUND) == []
    assert all(finding.fix is None for finding in evaluate(SOUND))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"git": None}, "git"),
        ({"git": "2.30.9"}, "git"),
        ({"config": Fault("the configuration has a fault", "correct it")}, "configuration"),
        ({"python": Fault("no interpreter", "set python")}, "python for runs"),
        ({"home": SOUND.home._replace(fault="Permission denied")}, "home"),
        ({"home": SOUND.home._replace(free_bytes=1 << 20)}, "space"),
        ({"run_log": (1, 1, ("row 3 missing from index",))}, "run log"),
        ({"run_log": (9, 1, ())}, "run log"),
        ({"code": "missing blob"}, "code"),
        ({"agent": Fault("it did not answer", "nvidia-smi")}, "agent"),
        ({"agent": {**AGENT, "checkout": None, "failed": {"checkout": "no space"}}}, "checkouts"),
        ({"agent": {**AGENT, "lease_folder": None, "failed": {"lease_folder": "not ours"}}}, "GPU leases"),
        ({"agent": {**AGENT, "gpus": None, "failed": {"gpus": "boom"}}}, "GPUs"),
    ],
)
def test_what_keeps_runs_from_working_is_a_problem_with_a_fix(changes: dict[str, Any], check: str) -> None:
    (finding,) = worst(SOUND._replace(**changes))
    assert (finding.check, finding.status) == (check, "problem")
    assert finding.fix


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"repository": ("/home/me/digits", 2)}, "repository"),
        ({"repository": Fault("not in a git repository", "git init")}, "repository"),
        ({"home": SOUND.home._replace(free_bytes=500 << 20)}, "space"),
        ({"home": SOUND.home._replace(file_system="nfs4", is_local=False)}, "file system"),
        ({"unattended": ("brave-otter-1",)}, "stale"),
        ({"mounts": ("/home/me/a b",)}, "stale"),
        ({"leftovers": ("/home/me/trees/tmp-1",)}, "stale"),
    ],
)
def test_what_does_not_is_a_warning_with_a_fix(changes: dict[str, Any], check: str) -> None:
    (finding,) = worst(SOUND._replace(**changes))
    assert (finding.check, finding.status) == (check, "warning")
    assert finding.fix


def test_a_path_with_a_blank_is_quoted_in_the_command_that_mends_it() -> None:
    (finding,) = worst(SOUND._replace(mounts=("/home/me/a b",)))
    assert finding.fix == "umount '/home/me/a b'"


def test_a_broken_driver_is_a_problem_and_no_gpu_is_none() -> None:
    (finding,) = worst(gpus(problems=[{"what": "gpus", "why": "Driver Not Loaded"}]))
    assert finding.status == "problem" and "Driver Not Loaded" in finding.says
    assert [f.says for f in evaluate(SOUND) if f.check == "GPUs"] == ["this machine has none"]


def test_who_uses_a_gpu_without_a_lease_is_named() -> None:
    stranger = {"gpu": "GPU-1", "pid": 42, "user": "ann", "command": "python x.py"}
    (finding,) = worst(gpus(found=[GPU], driver="570.1", strangers=[stranger]))
    assert finding.status == "warning"
    assert all(word in finding.says for word in ("GPU-1", "42", "ann", "python x.py"))


@pytest.mark.parametrize("method", ["overlay", "reflink", "copy"])
def test_each_way_of_making_a_checkout_says_what_it_costs(method: str) -> None:
    facts = SOUND._replace(agent={**AGENT, "checkout": method, "cgroup": False})
    assert worst(facts) == []
    (finding,) = [f for f in evaluate(facts) if f.check == "checkouts"]
    assert "checkout" in finding.says


@pytest.mark.parametrize(
    ("offset_s", "status", "words"),
    [
        (0.2, OK, "as ours does"),
        (61.0, WARNING, "61.0 s ahead of ours"),
        (-2.0, WARNING, "2.0 s behind ours"),
    ],
)
def test_a_node_s_clock_is_compared_with_ours(offset_s: float, status: str, words: str) -> None:
    answer = NodeAnswer(AGENT, {"version": {"Version": "28.2"}, "runtimes": ["nvidia", "runc"]}, offset_s)
    [found] = [finding for finding in evaluate_node("gpu01", answer) if finding.check == "clock"]
    assert found.status == status and words in found.says


def test_a_node_that_cannot_be_reached_has_one_finding() -> None:
    found = evaluate_node("gpu01", Fault("gpu01 cannot be reached", "ssh gpu01 true"))
    assert [(finding.check, finding.status, finding.fix) for finding in found] == [
        ("reach", PROBLEM, "ssh gpu01 true")
    ]


def test_a_node_s_engine_that_is_closed_to_the_user_is_a_warning() -> None:
    answer = NodeAnswer(
        AGENT,
        {"version": None, "problem": "you may not use it (/var/run/docker.sock)", "is_denied": True},
        0.0,
    )
    found = evaluate_node("gpu01", answer)[-1]
    assert (found.check, found.status) == ("containers", WARNING) and "usermod" in (found.fix or "")


def test_a_node_s_engine_that_cannot_hand_on_its_gpus_is_a_warning() -> None:
    agent = {**AGENT, "gpus": {**AGENT["gpus"], "found": [GPU]}}
    engine = {"version": {"Version": "28.2"}, "runtimes": ["runc"]}
    found = evaluate_node("gpu01", NodeAnswer(agent, engine, 0.0))[-1]
    assert (found.check, found.status) == ("containers", WARNING) and "nvidia-ctk" in (found.fix or "")
    assert evaluate_node("gpu01", NodeAnswer(AGENT, engine, 0.0))[-1].status == OK


def test_a_node_without_the_interpreter_that_is_configured_for_its_runs_has_a_problem() -> None:
    engine = {"version": None, "problem": "none answers", "is_denied": False}
    answer = NodeAnswer(AGENT, engine, 0.0, lacks_python="/none/python")
    (found,) = [finding for finding in evaluate_node("gpu01", answer) if finding.status == PROBLEM]
    assert (found.check, found.says) == (
        "python for runs",
        "gpu01 has no /none/python, which is configured",
    )
    assert found.fix is not None and "nodes: [{name: gpu01, python: " in found.fix
