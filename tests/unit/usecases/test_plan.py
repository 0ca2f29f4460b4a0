from __future__ import annotations

from typing import Any

import pytest

from mllaunch.domain.job import Resources
from mllaunch.errors import MllaunchError, NotFound, UsageError
from mllaunch.usecases.plan import Look, Plan, Request, plan

ROOT = "/home/ann/digits"
FILES = {
    f"{ROOT}/train.py",
    f"{ROOT}/sub/eval.py",
    f"{ROOT}/-x.py",
    f"{ROOT}/notes.txt",
    f"{ROOT}/data/train",
}
FOLDERS = {ROOT, f"{ROOT}/data"}
FILES |= FOLDERS
PROGRAMS = {"python": "/usr/bin/python", "torchrun": "/usr/bin/torchrun"}


def request(*words: str, command: bool = False, **changes: Any) -> Request:
    made = Request(
        words=words,
        is_command=command,
        resources=Resources(),
        project=None,
        backend="local",
        runtime="process",
        runtime_why="it was asked for",
        in_place=False,
        python=None,
        environment=(),
        data=(),
        output="outputs",
        note=None,
        tags=(),
        max_retries=0,
        timeout_s=None,
        grace_s=30.0,
    )
    return made._replace(**changes)


def planned(asked: Request, cwd: str = ROOT, programs: dict[str, str] = PROGRAMS, **environ: str) -> Plan:
    return plan(asked, ROOT, cwd, environ, Look(FILES.__contains__, programs.get, FOLDERS.__contains__))


def test_a_script_runs_with_the_interpreter_on_the_path_in_the_folder_where_it_was_typed() -> None:
    made = planned(request("train.py", "--lr", "3e-4"))
    assert made.python == "/usr/bin/python"
    assert made.job.argv == ("/usr/bin/python", "train.py", "--lr", "3e-4")
    assert (made.job.script, made.job.args, made.job.workdir) == ("train.py", ("--lr", "3e-4"), "")
    below = planned(request("eval.py"), cwd=f"{ROOT}/sub")
    assert (below.job.script, below.job.workdir, below.job.argv[1]) == ("sub/eval.py", "sub", "eval.py")
    above = planned(request("../train.py"), cwd=f"{ROOT}/sub")
    assert (above.job.script, above.job.argv[1]) == ("train.py", "../train.py")


def test_an_absolute_name_of_a_script_leads_into_the_checkout_not_back_to_the_working_tree() -> None:
    assert planned(request(f"{ROOT}/train.py")).job.argv[1] == "train.py"


def test_a_script_that_looks_like_an_option_is_no_option_of_the_interpreter() -> None:
    assert planned(request("./-x.py")).job.argv == ("/usr/bin/python", "./-x.py")


def test_a_command_is_taken_as_it_is() -> None:
    made = planned(request("torchrun", "--nnodes", "1", "train.py", command=True))
    assert made.python is None
    assert (made.job.argv, made.job.script) == (("torchrun", "--nnodes", "1", "train.py"), None)


def test_the_configured_interpreter_is_looked_up_and_python3_is_good_enough() -> None:
    assert planned(request("train.py", python="py"), programs={"py": "/opt/py"}).python == "/opt/py"
    assert planned(request("train.py"), programs={"python3": "/usr/bin/python3"}).python == "/usr/bin/python3"
    with pytest.raises(NotFound, match=r"^nowhere is not an executable program"):
        planned(request("train.py", python="nowhere"))
    with pytest.raises(NotFound, match="python3"):
        planned(request("train.py"), programs={})


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (request(), UsageError, "nothing to run"),
        (request(command=True), UsageError, "nothing to run"),
        (request(""), UsageError, "nothing to run"),
        (request("."), UsageError, ". is a folder, not a script"),
        (request("data"), UsageError, "data is a folder, not a script"),
        (request("none.py"), NotFound, "no none.py"),
        (request("torchrun"), NotFound, "mllaunch submit -- torchrun"),
        (request("notes.txt"), UsageError, "not a Python script"),
        (request("../other/train.py"), UsageError, "outside the repository"),
        (request("/etc/x.py"), UsageError, "outside the repository"),
        (request("train.py", data=(f"{ROOT}/none",)), NotFound, "no such file or folder"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(
    asked: Request, kind: type[MllaunchError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        planned(asked)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_data_is_named_relative_to_the_root_wherever_it_was_typed() -> None:
    made = planned(request("eval.py", data=(f"{ROOT}/sub/../data/train",)), cwd=f"{ROOT}/sub")
    assert made.job.data == ("data/train",)


def test_a_variable_named_alone_is_taken_from_the_environment_and_the_last_of_a_name_wins() -> None:
    wanted = (("SET", "1"), ("HF_HOME", None), ("ABSENT", None), ("SET", "2"))
    made = planned(request("train.py", environment=wanted), HF_HOME="/hf")
    assert made.job.environment == (("SET", "2"), ("HF_HOME", "/hf"))


def test_the_project_is_the_folder_unless_it_was_named() -> None:
    assert planned(request("train.py")).job.project == "digits"
    assert planned(request("train.py", project="other")).job.project == "other"
