"""Bad and hostile input through the real command line; each test says its number in docs/bad-inputs.md."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, Result, until


def assert_refused(refused: Result, home: Home, *words: str, rc: int | None = None) -> None:
    """One cause, no traceback, and nothing was made."""
    assert refused.rc not in (0, 125, 130), refused
    assert rc is None or refused.rc == rc, refused
    assert refused.stdout == ""
    assert re.match(r"error\[[a-z_-]+\]: ", refused.stderr), refused
    assert "Traceback" not in refused.stderr
    for word in words:
        assert word in refused.stderr, refused
    assert not (home.path / "runs").exists()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(BOMB, ["mllaunch.yaml:"], id="1-alias-bomb"),
        pytest.param(
            "project: !!python/object/apply:os.system ['touch /tmp/x']\n", ["1:"], id="2-python-object"
        ),
        pytest.param("project: a\nproject: b\n", ["mllaunch.yaml:2:1"], id="3-duplicate-key"),
        pytest.param("projct: a\nkep: 3d\n", ["mllaunch.yaml:1:1", "mllaunch.yaml:2:1"], id="3-unknown-keys"),
        *(
            pytest.param(
                f"resources: {{gpus: {value}}}\n", ["mllaunch.yaml:1:19", "0 to 1024"], id=f"4-gpus-{value}"
            )
            for value in ("NaN", ".nan", "-1", "1e99", '"four"')
        ),
        pytest.param("server: https://runs.example\n", ["servers are not in this version"], id="server"),
        pytest.param("project: a\n".encode("utf-16"), ["mllaunch.yaml"], id="5-utf-16"),
        pytest.param(b"\x00\xff", ["mllaunch.yaml"], id="5-binary"),
    ],
)
def test_a_bad_configuration_is_refused_at_its_place(
    home: Home, mllaunch: Mllaunch, repo: Repo, content: str | bytes, words: list[str]
) -> None:
    repo.write("mllaunch.yaml", content)
    repo.script("")
    assert_refused(mllaunch("submit", "train.py"), home, *words, rc=2)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="5-empty"),
        pytest.param(b"\xef\xbb\xbfproject: marked\n", id="5-byte-order-mark"),
    ],
)
def test_an_empty_or_marked_configuration_is_a_configuration(
    mllaunch: Mllaunch, repo: Repo, content: bytes
) -> None:
    repo.write("mllaunch.yaml", content)
    repo.script("")
    done = mllaunch("run", "--name", "configured", "train.py")
    assert done.rc == 0
    project = mllaunch.row("configured")["project"]
    assert project == "marked" if content else project != "marked"


@pytest.mark.parametrize("name", ["--help.py", "-x.py", "new\nline.py", 'it\'s "quoted".py', "$(touch x).py"])
def test_6_a_script_may_have_any_name(mllaunch: Mllaunch, repo: Repo, name: str) -> None:
    repo.script("import sys\nprint(ascii(sys.argv))", name)
    done = mllaunch("run", f"./{name}", "arg", check=True)
    assert done.stdout == ascii([name if not name.startswith("-") else f"./{name}", "arg"]) + "\n"
    listed = mllaunch("ps", check=True).stdout
    assert listed.count("\n") == 2 and "\x1b" not in listed


@pytest.mark.parametrize("name", ["--help", "-x"])
def test_6_a_script_that_looks_like_an_option_is_run_after_a_dash(
    mllaunch: Mllaunch, repo: Repo, name: str
) -> None:
    file = repo.write(name, "#!/bin/sh\necho me $1\n")
    file.chmod(0o755)
    repo.commit()
    assert mllaunch("run", "--", f"./{name}", "--gpus", check=True).stdout == "me --gpus\n"


def test_7_what_is_no_repository_is_refused(
    home: Home, mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "train.py").write_text("")
    assert_refused(mllaunch("submit", "train.py", cwd=plain), home, "git init")
    repo.git("clone", "--quiet", "--bare", str(repo.root), str(tmp_path / "bare.git"))
    assert_refused(mllaunch("submit", "train.py", cwd=tmp_path / "bare.git"), home, "bare")
    repo.git("init", "--quiet", str(tmp_path / "unborn"))
    (tmp_path / "unborn" / "train.py").write_text("")
    assert_refused(mllaunch("submit", "train.py", cwd=tmp_path / "unborn"), home, "commit")


def test_7_shallow_and_detached_repositories_run(mllaunch: Mllaunch, repo: Repo, tmp_path: Path) -> None:
    repo.script("print('ran')")
    shallow = tmp_path / "shallow"
    repo.git("clone", "--quiet", "--depth", "1", f"file://{repo.root}", str(shallow))
    assert mllaunch("run", "train.py", cwd=shallow, check=True).stdout == "ran\n"
    repo.git("checkout", "--quiet", "--detach")
    done = mllaunch("run", "train.py", check=True)
    assert done.stdout == "ran\n" and "detached HEAD" in done.stderr


def test_7_staged_and_conflicted_trees_are_refused(home: Home, mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("a")
    repo.write("staged.py", "")
    repo.git("add", "staged.py")
    assert_refused(mllaunch("submit", "train.py"), home, "staged.py", "--allow-dirty")
    repo.git("rm", "-f", "--quiet", "staged.py")
    repo.git("checkout", "--quiet", "-b", "other")
    repo.script("b")
    repo.git("checkout", "--quiet", "main")
    repo.script("c")
    with pytest.raises(AssertionError):
        repo.git("merge", "other")
    assert_refused(mllaunch("submit", "--allow-dirty", "train.py"), home, "train.py", "conflict")


def test_8_odd_file_names_are_carried_exactly_and_shown_harmlessly(
    home: Home, mllaunch: Mllaunch, repo: Repo
) -> None:
    names = [
        b"\xff\xfe.txt",
        "\u202eevil\u202c.txt".encode(),
        b"bell\x07\x1b[31m.txt",
        "naïve ☃.txt".encode(),
    ]
    repo.script("import os\nfor name in sorted(os.listdir(b'.')):\n    print(name)")
    for name in names:
        (repo.root / os.fsdecode(name)).write_text("x")
    refused = mllaunch("submit", "train.py")
    assert_refused(refused, home)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", refused.stderr)
    repo.commit()
    shown = mllaunch("run", "train.py", check=True).stdout
    for name in names:
        assert repr(name) in shown


def test_9_10_links_out_of_the_repository_and_loops_stay_what_they_are(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    (repo.root / "out").symlink_to(outside)
    (repo.root / "loop").symlink_to("loop")
    (repo.root / "around").symlink_to(".")
    repo.script("import os\nprint([os.readlink(name) for name in ('out', 'loop', 'around')])")
    done = mllaunch("run", "train.py", check=True)
    assert done.stdout == f"{[str(outside), 'loop', '.']}\n"
    assert outside.read_text() == "outside"


def test_11_pipes_sockets_and_devices_neither_hang_nor_count(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import os\nprint(sorted(os.listdir()))")
    os.mkfifo(repo.root / "pipe")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(repo.root)  # the path of a socket has 108 bytes at most
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        done = mllaunch("run", "train.py", check=True)
    assert done.stdout == "['.gitignore', 'outputs', 'train.py']\n"


def test_12_a_git_file_that_points_elsewhere_is_followed_or_explained(
    home: Home, mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    astray = tmp_path / "astray"
    astray.mkdir()
    (astray / "train.py").write_text("")
    (astray / ".git").write_text("gitdir: /nowhere/at/all\n")
    assert_refused(mllaunch("submit", "train.py", cwd=astray), home, "/nowhere/at/all")
    repo.script("print('ran')")
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    assert mllaunch("run", "train.py", cwd=tmp_path / "linked", check=True).stdout == "ran\n"


def test_13_a_submodule_with_an_ext_url_executes_nothing(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script("print('ran')")
    repo.write(
        ".gitmodules", f'[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch% {tmp_path}/executed"\n'
    )
    commit = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},s")
    repo.git("add", ".gitmodules")
    repo.git("commit", "--quiet", "--message", "hostile")
    (repo.root / "s").mkdir()
    mllaunch("run", "--allow-dirty", "train.py")
    assert not (tmp_path / "executed").exists()


def test_15_a_branch_may_look_like_an_option(mllaunch: Mllaunch, repo: Repo, tmp_path: Path) -> None:
    repo.script("print('ran')")
    commit = repo.git("rev-parse", "HEAD")
    (repo.root / ".git" / "refs" / "heads" / f"--upload-pack=touch {tmp_path}".replace("/", "_")).touch()
    branch = repo.root / ".git" / "refs" / "heads" / "--upload-pack=x"
    for file in branch.parent.glob("--upload-pack=touch*"):
        file.unlink()
    branch.write_text(commit + "\n")
    (repo.root / ".git" / "HEAD").write_text("ref: refs/heads/--upload-pack=x\n")
    done = mllaunch("run", "train.py", check=True)
    assert done.stdout == "ran\n" and "--upload-pack=x (clean)" in done.stderr


def test_16_paths_that_differ_only_in_case_both_run(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write("Model.py", "print('large')")
    repo.write("model.py", "print('small')")
    repo.script("import Model, model")
    assert mllaunch("run", "train.py", check=True).stdout == "large\nsmall\n"


def test_18_nul_and_invalid_utf8_are_kept_exactly_and_shown_harmlessly(mllaunch: Mllaunch) -> None:
    data = b"a\x00b\xff\xfe\xc3(\xed\xa0\x80\xf0\x90\n"
    done = mllaunch("run", "--", "printf", "".join(f"\\{byte:03o}" for byte in data), check=True)
    assert "\x00" not in done.stdout and "a\\x00b" in done.stdout
    assert mllaunch("logs", "--raw", "@last").stdout_bytes == data


def test_19_a_flood_of_escape_sequences_and_bars_is_shown_harmlessly(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        r"""
        import sys
        for n in range(20_000):
            sys.stdout.write(f"\x1b]52;c;{n}\x07\x1b]8;;x\x1b\\{n}\r")
        print("\x1b[31mend")
        """
    )
    done = mllaunch("run", "train.py", check=True)
    # Colours are for terminals.
    assert done.stdout == mllaunch("logs", "@last").stdout == "end\n"


def test_20_output_that_imitates_our_own_records_stays_output(mllaunch: Mllaunch, repo: Repo) -> None:
    event = '{"seq":1,"at":"2026-01-01T00:00:00.000Z","boot_s":1,"kind":"attempt_ended","state":"failed",'
    event += '"exit_code":9,"reason":null}'
    repo.script(f"import sys\nprint({event!r})\nprint('12345 stdout.0 99999')\nsys.stderr.write({event!r})")
    run_id, _ = mllaunch.submit("train.py")
    row = mllaunch.wait_sealed(run_id)
    assert (row["state"], row["exit_code"], row["seal"]) == ("succeeded", 0, "sealed-complete")
    assert sorted(mllaunch("logs", run_id).stdout.splitlines()) == sorted(
        [event, event, "12345 stdout.0 99999"]
    )


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_21_stored_bytes_that_were_damaged_are_told_and_the_rest_is_shown(
    mllaunch: Mllaunch, damage: str
) -> None:
    """What has been collected but is not sealed yet is proven by length and digest at the seal."""
    _, name = mllaunch.submit(
        "--", "sh", "-c", "echo first; until [ -e $HOME/go ]; do sleep 0.05; done; echo last"
    )
    until(lambda: mllaunch("logs", name).stdout == "first\n", "the first line to be collected")
    on_node = mllaunch.home.path / "runs"
    (stored,) = (path for path in mllaunch.home.path.rglob("stdout.0") if on_node not in path.parents)
    stored.write_bytes(b"f1rst\n" if damage == "flipped" else b"fi")
    (mllaunch.home.user / "go").touch()
    row = mllaunch.wait_sealed(name)
    shown = mllaunch("logs", name, check=True).stdout
    if damage == "cut":
        # A shorter copy is completed from the node, which still has everything.
        assert (row["seal"], shown) == ("sealed-complete", "first\nlast\n")
    else:
        assert (row["seal"], shown) == ("sealed-with-gaps", "f1rst\nlast\n")


@pytest.mark.parametrize(
    "reference",
    [
        "../../x",
        "%2e%2e",
        "#",
        "",
        "x" * 10_000,
        "a/b",
        ".",
        "..",
        "\n",
        "@",
        "@{",
        "@{-1}",
        "@{99999999999}",
        "*",
        "'",
    ],
)
@pytest.mark.parametrize("verb", ["logs", "stop"])
def test_28_a_strange_reference_names_no_run(
    home: Home, mllaunch: Mllaunch, verb: str, reference: str
) -> None:
    mllaunch("run", "--name", "there", "--", "true", check=True)
    refused = mllaunch(verb, "--", reference)
    assert refused.rc in (2, 3), refused
    assert re.match(r"error\[[a-z_]+\]: ", refused.stderr) and len(refused.stderr) < 500
    assert not re.search("[\x00-\x09\x0b-\x1f]", refused.stderr)


def test_30_a_clock_that_is_wrong_or_runs_backwards_changes_no_order(mllaunch: Mllaunch, repo: Repo) -> None:
    """The files that a task leaves carry times of 1970 and 2100; order in the logs is by boot time alone."""
    repo.script(
        """
        import os, time
        print("first")
        for n, at in enumerate((0, -86400, 2**31 + 5, 4102444800)):
            os.makedirs("outputs", exist_ok=True)
            open(f"outputs/{n}", "w").close()
            os.utime(f"outputs/{n}", (at, at))
        print("second")
        """
    )
    run_id, _ = mllaunch.submit("train.py")
    row = mllaunch.wait_sealed(run_id)
    assert (row["state"], row["seal"]) == ("succeeded", "sealed-complete")
    assert mllaunch("logs", run_id).stdout == "first\nsecond\n"


def test_34_more_gpus_than_there_are_is_refused(home: Home, mllaunch: Mllaunch) -> None:
    for wanted in ("3", "1024"):
        refused = mllaunch("submit", "--gpus", wanted, "--", "true", env={"MLLAUNCH_FAKE_GPUS": "2"})
        assert_refused(refused, home, f"--gpus {wanted}", "2 GPUs", rc=2)
    for wanted in ("-1", "NaN", "1e99", "four", "1000000"):
        refused = mllaunch("submit", "--gpus", wanted, "--", "true", env={"MLLAUNCH_FAKE_GPUS": "2"})
        assert_refused(refused, home, "gpus", rc=2)


def test_35_a_script_that_exits_at_once_is_recorded_in_full(mllaunch: Mllaunch) -> None:
    for code in (0, 1):
        run_id, _ = mllaunch.submit("--", "sh", "-c", f"exit {code}")
        row = mllaunch.wait_sealed(run_id)
        assert (row["exit_code"], row["seal"]) == (code, "sealed-complete")


def test_35_a_script_that_closes_its_output_keeps_its_exit_code(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        "import os, time\nprint('said')\nfor fd in range(256):\n    try:\n        os.close(fd)\n"
        "    except OSError:\n        pass\ntime.sleep(1)\nos._exit(5)"
    )
    done = mllaunch("run", "train.py")
    assert (done.rc, done.stdout) == (5, "said\n")


def test_35_a_script_that_deletes_its_own_run_folder_loses_no_exit_code(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(
        """
        import os, shutil, sys, time
        print("said")
        time.sleep(1)  # so that it has been read
        shutil.rmtree(os.path.dirname(os.getcwd()), ignore_errors=True)
        sys.exit(6)
        """
    )
    started = mllaunch.start("run", "--name", "destroyer", "train.py")
    started.wait_for("said")
    done = started.end()
    row = mllaunch.wait("destroyer")
    # What was collected stays; what is gone is said. An exit code that nobody could keep is not made up.
    assert "said" in mllaunch("logs", "destroyer").stdout
    assert row["exit_code"] in (6, None), row
    assert done.rc in (6, 1)
    assert row["state"] == "failed" and row["reason"]


def test_35_a_script_that_forks_a_thousand_children_leaves_none(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import os, time
        for n in range(1000):
            if os.fork() == 0:
                os.setsid()
                time.sleep(1000)
        print("forked")
        """
    )
    run_id, _ = mllaunch.submit("--grace", "1s", "train.py")
    row = mllaunch.wait_sealed(run_id)
    assert (row["state"], row["exit_code"]) == ("succeeded", 0)
    left = mllaunch.home.attempt(row["id"])
    marked = [pid for pid, what in mllaunch.home.processes().items() if "train.py" in what]
    assert not marked and left.exists()


def test_a_home_that_is_no_folder_and_a_damaged_run_log_are_said(
    home: Home, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    blocked = mllaunch("submit", "--", "true", env={"MLLAUNCH_HOME": str(file / "below")})
    assert blocked.rc == 125 and "error[" in blocked.stderr and str(file) in blocked.stderr
    mllaunch("run", "--", "true", check=True)
    until(lambda: not home.processes(), "the collector to end")
    database = home.path / "runlog.sqlite3"
    for extra in home.path.glob("runlog.sqlite3-*"):
        extra.unlink()
    database.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    damaged = mllaunch("ps")
    assert damaged.rc == 125 and database.name in damaged.stderr and "hint: " in damaged.stderr


@pytest.mark.real("root")
def test_another_users_home_is_not_permitted(home: Home, mllaunch: Mllaunch) -> None:
    """Exit code 4. The command runs as a user who may enter nothing of ours."""
    mllaunch("run", "--", "true", check=True)
    code = "import os, sys; from mllaunch.cli import main; import mllaunch.cli.listing, mllaunch.wiring, "
    code += "mllaunch.runlog.sqlite; os.setresuid(65534, 65534, 65534); sys.argv[1:] = ['ps']; main.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=home.environ, cwd="/", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (4, "") and done.stderr.startswith("error[")
