from __future__ import annotations

from collections.abc import Callable

from tests.e2e.harness import Mllaunch, Repo, Result


def test_run_shows_what_the_script_prints_and_exits_with_its_code(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import sys\nprint('hello')\nprint('oops', file=sys.stderr)\nsys.exit(7)\n")
    done = mllaunch("run", "train.py")
    assert (done.rc, done.stdout) == (7, "hello\n")
    assert "oops\n" in done.stderr and done.run_name in done.stderr


def test_ctrl_c_on_a_terminal_detaches_and_says_so_and_the_run_goes_on(
    mllaunch: Mllaunch, repo: Repo, terminal: Callable[..., Result]
) -> None:
    repo.script(
        """
        import os, time
        print("begun")
        while not os.path.exists(os.environ["HOME"] + "/go"):
            time.sleep(0.02)
        print("done")
        """
    )
    shown = terminal("run", "--name", "lasting", "train.py", type_after=("begun", "\x03"))
    assert shown.rc == 130
    assert "Detached; lasting goes on" in shown.stdout
    assert mllaunch.row("lasting")["state"] == "running"
    (mllaunch.home.user / "go").touch()
    assert mllaunch.wait("lasting")["state"] == "succeeded"
    assert mllaunch("logs", "lasting").stdout == "begun\ndone\n"
