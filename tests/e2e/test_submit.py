"""`submit`: what it prints, what it refuses, what it takes from the code, and that --dry-run does nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result, until


def test_on_a_terminal_it_says_what_runs_and_where(
    mllaunch: Mllaunch, repo: Repo, terminal: Callable[..., Result]
) -> None:
    repo.script("print(1)")
    commit = repo.git("rev-parse", "HEAD")
    shown = terminal("submit", "train.py", env={"NO_COLOR": "1"})
    assert shown.rc == 0
    lines = shown.stdout.replace("\r\n", "\n").splitlines()
    assert lines[0] == f"✓ code   {commit[:7]} main (clean)"
    assert re.fullmatch(
        r"- image  none, a process of this machine: no container engine answers at \S+", lines[1]
    )
    assert re.fullmatch(r"✓ placed \S+ via local \(no GPU\)", lines[2])
    assert re.fullmatch(r"Run ([a-z]+-[a-z]+-\d+)   follow: mllaunch logs -f \1", lines[3])
    mllaunch.wait("@last")


def test_json_is_one_document_in_the_form_of_the_contract(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("print(1)")
    done = mllaunch("submit", "--json", "--procs-per-node", "2", "train.py", check=True)
    document = done.document
    assert done.stderr == ""
    assert document["run"].keys() == {"id", "name", "state"}
    assert document["run"]["state"] == "queued"
    assert document["snapshot"] == {"commit": repo.git("rev-parse", "HEAD"), "dirty": False}
    assert document["image"] is None
    assert [place.keys() for place in document["placement"]] == [{"node", "ranks", "gpus"}]
    assert document["placement"][0]["ranks"] == [0, 1]
    mllaunch.wait("@last")


def test_everything_after_the_script_is_the_scripts(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import sys\nprint(sys.argv[1:])")
    args = ["--name", "x", "--help", "-f", "--", "--gpus", "8", "", "a b", "$HOME", "-"]
    assert mllaunch("run", "train.py", *args, check=True).stdout == f"{args}\n"
    assert mllaunch("run", "--", "printf", "%s.", "--help", "", "a b", check=True).stdout == "--help..a b."


@pytest.mark.parametrize("text", ["\udcff\udcfe", "naïve ☃", "new\nline", "'\"\\"])
def test_arguments_and_variables_arrive_byte_for_byte(mllaunch: Mllaunch, text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    done = mllaunch("run", "--env", f"WORD={text}", "--", "sh", "-c", 'printf %s "$1$WORD"', "sh", raw)
    assert done.rc == 0, done.stderr
    assert mllaunch("logs", "@last", "--raw").stdout_bytes == raw * 2


def test_it_starts_in_the_folder_where_it_was_typed(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write("sub/deep/train.py", "import os\nprint(os.getcwd())\nprint(open('beside.txt').read())")
    repo.write("sub/deep/beside.txt", "here")
    repo.commit()
    done = mllaunch("run", "train.py", cwd=repo.root / "sub" / "deep", check=True)
    folder, beside = done.stdout.splitlines()
    assert folder.endswith("/work/sub/deep") and beside == "here"
    outer = mllaunch("run", "deep/train.py", cwd=repo.root / "sub")
    assert outer.rc == 1  # the script looks beside itself, and it was started one folder higher
    assert "beside.txt" in outer.stderr


def test_a_dry_run_says_what_would_be_done_and_does_nothing(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("print(1)")
    refs = repo.git("for-each-ref")
    shown = mllaunch("submit", "--dry-run", "train.py", "--lr", "3e-4", check=True)
    assert "train.py --lr 3e-4" in shown.stdout
    document = mllaunch("submit", "--dry-run", "--json", "train.py", check=True).document
    assert document["snapshot"]["commit"] == repo.git("rev-parse", "HEAD")
    assert document["job"]["script"] == "train.py"
    assert mllaunch("run", "--dry-run", "train.py", check=True).stdout.startswith("would run")
    assert not mllaunch.home.path.exists()
    assert repo.git("for-each-ref") == refs
    assert repo.git("status", "--porcelain") == ""


def test_a_dirty_tree_is_refused_with_its_files_named_unless_it_is_allowed(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script("print('committed')")
    repo.write("train.py", "print('edited')")
    repo.write("new.py", "")
    refused = mllaunch("submit", "train.py")
    assert refused.rc not in (0, 125)
    assert "train.py" in refused.stderr and "new.py" in refused.stderr and "--allow-dirty" in refused.stderr
    assert not mllaunch.home.path.exists()
    before = (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain"))
    done = mllaunch("run", "--allow-dirty", "train.py", check=True)
    assert done.stdout == "edited\n" and "2 uncommitted files" in done.stderr
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == before
    document = mllaunch("submit", "--json", "--allow-dirty", "--wait", "train.py", check=True).document
    assert document["snapshot"]["dirty"] is True
    assert document["snapshot"]["commit"] != before[0]


def test_edits_in_the_working_tree_change_nothing_in_a_run(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write("model.py", "print('model as committed')")
    repo.script(
        """
        import os, time
        print("begun")
        while not os.path.exists(os.environ["HOME"] + "/go"):
            time.sleep(0.02)
        import model
        print(open("model.py").read())
        """
    )
    started = mllaunch.start("run", "train.py")
    started.wait_for("begun")
    repo.write("model.py", "print('edited')")
    repo.git("commit", "-aqm", "edit")
    (mllaunch.home.user / "go").touch()
    done = started.end()
    assert done.stdout == "begun\nmodel as committed\nprint('model as committed')\n"


def test_in_place_runs_the_working_tree_itself_and_says_so(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import os\nprint(os.getcwd())\nopen('written.txt', 'w').close()")
    done = mllaunch("run", "--in-place", "train.py", check=True)
    assert done.stdout == f"{repo.root}\n"
    assert "run in place" in done.stderr
    assert (repo.root / "written.txt").exists()


def test_data_outside_the_commit_is_linked_where_the_script_expects_it(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.write(".gitignore", "data/\noutputs/\n")
    repo.script("print(open('data/train/numbers.txt').read())")
    repo.write("data/train/numbers.txt", "1 2 3")
    without = mllaunch("run", "train.py")
    assert without.rc == 1
    assert "--data data/train" in without.stderr and "data/train/numbers.txt" in without.stderr
    assert mllaunch("run", "--data", "data/train", "train.py", check=True).stdout == "1 2 3\n"
    missing = mllaunch("submit", "--data", "data/none", "train.py")
    assert missing.rc == 3 and "data/none" in missing.stderr


def test_a_module_that_was_never_added_is_named(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write(".gitignore", "helper.py\n")
    repo.script("import helper")
    repo.write("helper.py", "")
    done = mllaunch("run", "train.py")
    assert done.rc == 1
    assert "hint: helper.py is in your working tree but not in the commit: git add helper.py" in done.stderr


def test_names_notes_and_tags_are_kept_and_a_taken_name_is_refused(mllaunch: Mllaunch) -> None:
    mllaunch(
        "run", "--name", "first", "--note", "why\nnot", "--tag", "a", "--tag", "b", "--", "true", check=True
    )
    row = mllaunch.row("first")
    assert (row["note"], sorted(row["tags"])) == ("why\nnot", ["a", "b"])
    again = mllaunch("submit", "--name", "first", "--", "true")
    assert again.rc == 2 and "first" in again.stderr
    assert len(mllaunch("ps", "-a", "--json").document) == 1


def test_a_run_that_nobody_asks_about_is_collected_sealed_and_leaves_no_process(mllaunch: Mllaunch) -> None:
    run_id, _ = mllaunch.submit("--", "echo", "hello")
    until(lambda: not mllaunch.home.processes(), "every process of the home to end by itself")
    shutil.rmtree(mllaunch.home.path / "runs")  # so that nothing can be collected from now on
    row = mllaunch.row(run_id)
    assert (row["state"], row["seal"]) == ("succeeded", "sealed-complete")
    assert mllaunch("logs", "@last").stdout == "hello\n"


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["submit"], 2, "nothing to run"),
        (["submit", "--"], 2, "nothing to run"),
        (["submit", "--nonsense", "train.py"], 2, "--nonsense"),
        (["nonsense"], 2, "nonsense"),
        (["submit", "none.py"], 3, "none.py"),
        (["submit", "ls"], 3, "mllaunch submit -- ls"),
        (["submit", "--timeout", "4", "train.py"], 2, "--timeout"),
        (["submit", "--grace", "soon", "train.py"], 2, "--grace"),
        (["submit", "--max-retries", "-1", "train.py"], 2, "--max-retries"),
        (["submit", "--memory", "lots", "train.py"], 2, "--memory"),
        (["submit", "--backend", "ray", "train.py"], 2, "ray"),
        (["submit", "--runtime", "docker", "train.py"], 1, "no container engine answers"),
        (["submit", "--nodes", "2", "train.py"], 2, "--nodes"),
        (["submit", "--cpus", "100000", "train.py"], 2, "--cpus"),
        (["submit", "--memory", "900TiB", "train.py"], 2, "--memory"),
        (["submit", "--name", "../x", "train.py"], 2, "../x"),
        (["submit", "--python", "/none/python", "train.py"], 3, "/none/python"),
        (["submit", "../outside.py"], 2, "outside"),
        (["submit", "notes.txt"], 2, "not a Python script"),
        (["logs", "none"], 3, "none"),
        (["stop", "none"], 3, "none"),
        (["logs"], 2, "RUN"),
        (["ps", "--param", "lr"], 2, "--param"),
        (["completion", "tcsh"], 2, "tcsh"),
    ],
)
def test_a_refused_request_names_its_cause_and_leaves_nothing(
    mllaunch: Mllaunch, repo: Repo, args: list[str], code: int, word: str
) -> None:
    repo.write("notes.txt", "")
    repo.script("print(1)")
    refused = mllaunch(*args)
    assert refused.rc == code, refused
    assert refused.stdout == ""
    assert re.match(r"error\[[a-z_-]+\]: ", refused.stderr) and word in refused.stderr
    assert not (mllaunch.home.path / "runs").exists()


def test_no_module_of_the_users_repository_is_imported_by_what_submit_leaves_running(
    repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    marker = tmp_path / "imported"
    repo.write("json.py", f"open({str(marker)!r}, 'a').write(open('/proc/self/cmdline').read())\n")
    script = repo.script("print('done')", "job/train.py")
    mllaunch("submit", script, check=True)
    mllaunch.wait_sealed("@last")
    assert not marker.exists() or "collect-detached" not in marker.read_text()


def test_a_relative_interpreter_starts_at_the_root_when_configured_and_where_it_is_typed_as_an_option(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    for folder in ("", "sub/"):
        repo.write(f"{folder}venv/py", "#!/bin/sh\n").chmod(0o755)
    repo.write("mllaunch.yaml", "python: venv/py\n")
    repo.script("print(1)", "sub/train.py")
    below = repo.root / "sub"
    configured = mllaunch("submit", "--dry-run", "train.py", cwd=below, check=True).stdout
    assert configured.startswith(f"would run   {repo.root}/venv/py train.py\n")
    typed = mllaunch("submit", "--dry-run", "--python", "venv/py", "train.py", cwd=below, check=True).stdout
    assert typed.startswith(f"would run   {below}/venv/py train.py\n")


def test_an_interpreter_can_be_named_by_the_home_of_the_user(mllaunch: Mllaunch, repo: Repo) -> None:
    python = mllaunch.home.user / "venv" / "py"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    repo.write("mllaunch.yaml", "python: ~/venv/py\n")
    repo.script("print(1)")
    shown = mllaunch("submit", "--dry-run", "train.py", check=True).stdout
    assert shown.startswith(f"would run   {python} train.py\n")


def test_a_dry_run_in_place_promises_no_checkout(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("print(1)")
    shown = mllaunch("submit", "--in-place", "--dry-run", "train.py", check=True).stdout
    assert "in          your working tree, uncommitted edits included, folder ." in shown
    assert "checkout" not in shown


@pytest.mark.parametrize("options", [(), ("--max-retries", "0")])
def test_what_ctrl_c_interrupts_on_its_way_to_the_agent_is_withdrawn(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path, options: tuple[str, ...]
) -> None:
    script = repo.script("print('here')")
    git = tmp_path / "slow" / "git"
    git.parent.mkdir()
    git.write_text(
        f'#!/bin/sh\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.01; done\nexec {shutil.which("git")} "$@"\n'
    )
    git.chmod(0o755)
    path = f"{git.parent}:{mllaunch.home.environ['PATH']}"
    submitting = mllaunch.start("submit", *options, script, env={"PATH": path})
    agent = until(
        lambda: [pid for pid, what in mllaunch.home.processes().items() if "supervise" in what], "the agent"
    )[0]
    os.kill(agent, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        [row] = until(lambda: mllaunch("ps", "--json").document, "the run to be on record")
        submitting.interrupt()
        said = submitting.end()
    finally:
        os.kill(agent, signal.SIGCONT)
    assert said.rc == 130
    assert said.stderr.endswith(f"\nInterrupted; {row['name']} was withdrawn, and nothing was started\n")
    assert mllaunch.row(row["id"])["state"] == "cancelled"
    until(lambda: not mllaunch.home.processes(), "the agent to end")
    assert mllaunch("logs", row["id"]).stdout == ""
