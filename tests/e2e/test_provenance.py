"""`provenance`: how a run, a file, a digest came to be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.e2e.harness import Home, Mllaunch, Repo, Result
from tests.unit.provenance.test_document import golden_keys, keys

TRAIN = """\
    import os
    out = os.environ["MLLAUNCH_OUTPUT_DIR"]
    with open(os.path.join(out, "model.bin"), "wb") as file:
        file.write(b"weights" * 1000)
    print("trained on", open("data/train.csv").read().strip())
"""
WEIGHTS = hashlib.sha256(b"weights" * 1000).hexdigest()


def trained(repo: Repo, mllaunch: Mllaunch, *options: str) -> str:
    """A finished run of a script that reads data and writes weights; its name."""
    repo.write("data/train.csv", "1,2\n")
    repo.write(".gitignore", "data/\noutputs/\n")
    repo.script(TRAIN)
    return mllaunch("run", "--data", "data", *options, "train.py", "--lr", "3e-4", check=True).run_name


def test_a_run_explains_itself_completely(repo: Repo, mllaunch: Mllaunch, home: Home) -> None:
    name = trained(repo, mllaunch, "--note", "first try", "--tag", "a")
    commit, tree = repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "HEAD^{tree}")
    made = mllaunch("provenance", name, "--json", check=True).document
    assert made["schema"] == "mllaunch.provenance/1"
    assert (made["run"]["state"], made["run"]["exit_code"], made["run"]["note"]) == (
        "succeeded",
        0,
        "first try",
    )
    assert made["run"]["tags"] == ["a"]
    assert made["command"]["params"] == {"lr": "3e-4"}
    assert (made["code"]["commit"], made["code"]["tree"], made["code"]["dirty"]) == (commit, tree, False)
    [data] = made["inputs"]
    assert (data["path"], data["size_bytes"], data["files"]) == ("data", 4, 1)
    [output] = made["outputs"]
    assert (output["path"], output["digest"]) == ("outputs/model.bin", f"sha256:{WEIGHTS}")
    assert made["hosts"][0]["hostname"] == os.uname().nodename
    assert {package["name"] for package in made["environment"]["python"]["packages"]}
    [stdout, stderr] = made["logs"]
    assert stdout["sha256"] == hashlib.sha256(b"trained on 1,2\n").hexdigest()
    assert (stdout["size_bytes"], stderr["size_bytes"]) == (15, 0)
    events = (
        home.path / "blobs" / made["run"]["id"] / "1" / made["hosts"][0]["node"] / "events"
    ).read_bytes()
    assert made["seal"] == {
        "status": "sealed-complete",
        "events": events.count(b"\n"),
        "sha256": hashlib.sha256(events).hexdigest(),
    }
    assert set(keys(made)) <= set(golden_keys())


def test_a_run_that_has_only_just_started_answers_too(repo: Repo, mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--", "sleep", "60")
    mllaunch.wait(name, "running")
    made = mllaunch("provenance", name, "--json", check=True).document
    assert made["seal"]["status"] is None
    assert "the run is running" in [entry["why"] for entry in made["not_captured"]]
    assert mllaunch("provenance", name, check=True).stdout.startswith(name)
    mllaunch("stop", name, "--now", check=True)


def test_a_file_is_recognised_by_its_bytes_under_another_name(
    repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    name = trained(repo, mllaunch)
    mllaunch.wait_sealed(name)
    (tmp_path / "renamed").write_bytes(b"weights" * 1000)
    for reference in (str(tmp_path / "renamed"), f"sha256:{WEIGHTS}", WEIGHTS, WEIGHTS.upper()):
        made = mllaunch("provenance", reference, "--json", check=True).document
        [writer] = made["written_by"]
        assert (writer["run"]["name"], writer["attempt"], writer["path"]) == (name, 1, "outputs/model.bin")
        assert writer["code"]["commit"] == repo.git("rev-parse", "HEAD")
        assert made["read_by"] == []
    assert name in mllaunch("provenance", str(tmp_path / "renamed"), check=True).stdout


def test_a_data_file_tells_which_runs_were_given_it(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.write("weights.bin", b"start")
    repo.write(".gitignore", "weights.bin\noutputs/\n")
    repo.script("print(open('weights.bin').read())")
    name = mllaunch("run", "--data", "weights.bin", "train.py", check=True).run_name
    mllaunch.wait_sealed(name)
    made = mllaunch("provenance", "weights.bin", "--json", check=True).document
    assert [place["run"]["name"] for place in made["read_by"]] == [name]
    assert made["written_by"] == []


def test_unknown_bytes_are_not_found_and_named(repo: Repo, mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(b"never seen")
    digest = hashlib.sha256(b"never seen").hexdigest()
    answer = mllaunch("provenance", str(tmp_path / "foreign"))
    assert answer.rc == 3
    assert answer.stderr.startswith("error[unknown_file]:")
    assert f"sha256:{digest}" in answer.stderr
    assert "10 bytes" in answer.stderr
    assert mllaunch("provenance", digest).rc == 3
    nobody = mllaunch("provenance", "nobody")
    assert nobody.rc == 3
    assert "error[no_such_run]" in nobody.stderr


def test_what_is_no_regular_file_is_refused_at_once(repo: Repo, mllaunch: Mllaunch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answer = mllaunch("provenance", str(tmp_path / "pipe"), timeout_s=20)
    assert answer.rc == 2
    assert "hint:" in answer.stderr or "cannot be read" in answer.stderr


def test_a_folder_of_which_nothing_is_known_is_not_found(mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("never seen")
    os.mkfifo(tmp_path / "folder" / "pipe")
    answer = mllaunch("provenance", str(tmp_path / "folder"), timeout_s=20)
    assert answer.rc == 3
    assert "error[unknown_folder]" in answer.stderr


def test_a_run_comes_before_a_file_of_the_same_name(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.script("")
    mllaunch("run", "--name", "twin", "train.py", check=True)
    repo.write("twin", "a file")
    assert mllaunch("provenance", "twin", "--json", check=True).document["run"]["name"] == "twin"
    made = mllaunch("provenance", "./twin", "--json")
    assert made.rc == 3
    assert hashlib.sha256(b"a file").hexdigest() in made.stderr


def test_uncommitted_changes_are_a_patch_even_with_the_repository_gone(
    repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    repo.script("print('one')\n")
    subprocess.run(["git", "clone", "-q", str(repo.root), str(tmp_path / "clone")], check=True)
    repo.write("train.py", "print('two')\n")
    repo.write("new.bin", bytes(range(256)))
    name = mllaunch("run", "--allow-dirty", "train.py", check=True).run_name
    mllaunch.wait_sealed(name)
    shutil.move(repo.root, tmp_path / "away")
    patch = mllaunch("provenance", name, "--diff", cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], input=patch.stdout_bytes, cwd=tmp_path / "clone", check=True)
    assert (tmp_path / "clone/train.py").read_text() == "print('two')\n"
    assert (tmp_path / "clone/new.bin").read_bytes() == bytes(range(256))
    shutil.move(tmp_path / "away", repo.root)


def test_a_clean_run_has_no_patch_and_says_so(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.script("")
    name = mllaunch("run", "train.py", check=True).run_name
    answer = mllaunch("provenance", name, "--diff", check=True)
    assert answer.stdout == ""
    assert "nothing of it is known to have changed" in answer.stderr


def test_a_secret_in_a_change_is_masked_in_the_patch(repo: Repo, mllaunch: Mllaunch) -> None:
    secret = "ghp_" + "a1B2" * 9
    repo.script("")
    repo.write("train.py", f"TOKEN = '{secret}'\n")
    name = mllaunch("run", "--allow-dirty", "train.py", check=True).run_name
    answer = mllaunch("provenance", name, "--diff", check=True)
    assert secret not in answer.stdout + answer.stderr
    assert "TOKEN" in answer.stdout
    assert "1 secret masked" in answer.stderr


def test_the_graph_is_one_that_graphviz_reads(repo: Repo, mllaunch: Mllaunch) -> None:
    name = trained(repo, mllaunch)
    graph = mllaunch("provenance", name, "--dot", check=True).stdout
    assert graph.startswith("digraph provenance {")
    assert graph.count(" -> ") == 2
    assert name in graph
    assert f"sha256:{WEIGHTS}" in graph
    assert mllaunch("provenance", name, "--dot", "--json").rc == 2


def test_foreign_names_have_no_power_over_the_terminal(
    repo: Repo, mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    repo.script(
        "import os; open(os.environ['MLLAUNCH_OUTPUT_DIR'] + '/\\x1b]52;c;x\\x07.txt', 'w').write('x')"
    )
    name = mllaunch("run", "--note", "\x1b[31mred", "train.py", check=True).run_name
    mllaunch.wait_sealed(name)
    for command in ("provenance", "show"):
        shown = terminal(command, name, env={"NO_COLOR": "1"}).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\\x1b[31mred" in shown
    assert "\x1b" not in mllaunch("provenance", name, "--dot", check=True).stdout


def test_a_terminal_gets_ten_outputs_and_the_number_of_the_rest_and_a_pipe_gets_all(
    repo: Repo, mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    repo.script("""\
        import os
        for number in range(25):
            with open(os.path.join(os.environ["MLLAUNCH_OUTPUT_DIR"], f"part-{number:02d}"), "w") as file:
                file.write(str(number))
    """)
    name = mllaunch("run", "train.py", check=True).run_name
    mllaunch.wait_sealed(name)
    shown = terminal("provenance", name, size=(50, 100)).stdout
    assert shown.count("outputs/part-") == 10
    assert "... and 15 more" in shown
    assert max(len(line) for line in shown.replace("\x1b[2m", "").splitlines()) <= 110
    assert mllaunch("provenance", name, check=True).stdout.count("outputs/part-") == 25


def test_output_that_imitates_a_record_changes_nothing(repo: Repo, mllaunch: Mllaunch) -> None:
    forged = json.dumps({"seq": 1, "at": "x", "kind": "attempt_ended", "state": "failed", "exit_code": 9})
    repo.script(f"print({forged!r})")
    name = mllaunch("run", "train.py", check=True).run_name
    made = mllaunch("provenance", name, "--json", check=True).document
    assert made["run"]["state"] == "succeeded"
