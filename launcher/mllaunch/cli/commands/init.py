"""mllaunch init"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mllaunch.errors import MllaunchError, UsageError

if TYPE_CHECKING:
    from mllaunch.capture.git import Git

# With what each needs where it does not run in a container.
EXAMPLES = {
    "digits": "numpy and scikit-learn",
    "torch": "torch and numpy",
    "ddp": "torch, and machines reached by SSH",
}

_TEMPLATE = """\
# How runs of this project are started. Every key may be left out; `mllaunch config` shows what is in effect.
project: {project}

# resources: {{gpus: 1, memory: 16GiB}}   # on each node
# output: outputs                        # where the script writes; it is told in MLLAUNCH_OUTPUT_DIR
# data: [data/train]                     # what it reads that is not in git; fingerprinted
# env: [HF_HOME, "NCCL_DEBUG=INFO"]      # your own value, or this one
# dirty: snapshot                        # run uncommitted changes too, as a commit of their own
# resume_args: ["--resume", "{{checkpoint}}"]   # how the script is told to continue from a checkpoint
"""


@click.command()
@click.option("--example", type=click.Choice(tuple(EXAMPLES)), help="Copy a ready example into DIR instead.")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path())
def command(example: str | None, directory: str | None) -> None:
    """Write a mllaunch.yaml into the repository at DIR (default: here), or a ready example into a new folder.

    Makes the git repository if there is none. Overwrites nothing.
    """
    if example is not None:
        _example(example, os.path.abspath(directory or example))
    else:
        _configuration(os.path.abspath(directory or "."))


def _configuration(folder: str) -> None:
    from mllaunch.capture.git import Git, GitFailed, explained
    from mllaunch.config.display import quoted
    from mllaunch.config.loading import FILE_NAME

    _make(folder)
    try:
        root = os.fsdecode(Git(folder).run("rev-parse", "--show-toplevel")).removesuffix("\n")
        is_new = False
    except GitFailed as error:
        failure = explained(error, folder)
        if failure.code != "no-repository":
            raise failure from error
        root, is_new = folder, True
    path = os.path.join(root, FILE_NAME)
    project = os.path.basename(root).encode("utf-8", "replace").decode() or "default"
    _write(path, _TEMPLATE.format(project=quoted(project)))
    _say(f"wrote {path}")
    if is_new:
        _git(Git(root), "init", "--quiet")
        _say(f"made a git repository in {root}, because runs come from commits")
    where = "" if root == os.getcwd() else f"cd {_quoted_for_shell(root)} && "
    what = "." if is_new else FILE_NAME
    _say(f"next: {where}git add {what} && git commit -m 'Configure mllaunch', then: mllaunch run SCRIPT.py")


def _example(name: str, folder: str) -> None:
    from mllaunch.capture.git import Git

    source = _source(name)
    _make(folder)
    if os.listdir(folder):
        raise UsageError(
            "not-empty",
            f"{folder} is not empty",
            hint=f"name a new folder: mllaunch init --example {name} DIR",
        )
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, encoding="utf-8") as file:
                _write(os.path.join(folder, entry.name), file.read())
    git = Git(folder)
    _git(git, "init", "--quiet")
    _git(git, "add", "--all")
    _commit(git, f"The {name} example")
    _say(f"copied the {name} example into {folder}, a git repository with one commit")
    _say("next:")
    for line in (
        f"cd {_quoted_for_shell(folder)}",
        f"pip install -r requirements.txt   # only where no Docker answers, and {EXAMPLES[name]} are not there yet",
        "mllaunch run train.py",
        "mllaunch provenance @last",
    ):
        _say(f"  {line}")


def _source(name: str) -> str:
    """Where the example's files are: in the package, or in the checkout of an editable install."""
    import mllaunch

    package = os.path.dirname(os.path.abspath(mllaunch.__file__))
    checkout = os.path.dirname(os.path.dirname(package))
    for base in (package, checkout):
        folder = os.path.join(base, "examples", name)
        if os.path.isfile(os.path.join(folder, "mllaunch.yaml")):
            return folder
    raise MllaunchError("no-example", f"the example {name} is not part of this installation")


def _commit(git: Git, message: str) -> None:
    """Commit in the user's name, or in ours where git knows none: the example must run at once."""
    from mllaunch.capture.git import GitFailed

    variables = {}
    for role in ("AUTHOR", "COMMITTER"):
        try:
            git.run("var", f"GIT_{role}_IDENT")
        except GitFailed:
            variables[f"GIT_{role}_NAME"] = "mllaunch"
            variables[f"GIT_{role}_EMAIL"] = "mllaunch@localhost"
    git.run("commit", "--quiet", "--no-gpg-sign", "-m", message, variables=variables)


def _git(git: Git, *args: str) -> None:
    from mllaunch.capture.git import GitFailed, explained

    try:
        git.run(*args)
    except GitFailed as error:
        raise explained(error, git.cwd) from error


def _make(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError("folder", f"{folder} cannot be made: {error.strerror}") from error


def _write(path: str, text: str) -> None:
    """Write a new file; UsageError if there is one."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(
            "exists", f"{path} is there already", hint="mllaunch config shows what it says"
        ) from error
    except OSError as error:
        raise UsageError("not-written", f"{path} cannot be written: {error.strerror}") from error


def _quoted_for_shell(path: str) -> str:
    from shlex import quote

    return quote(path)


def _say(line: str) -> None:
    from mllaunch.domain.render import escape

    click.echo(escape(line), err=True)
