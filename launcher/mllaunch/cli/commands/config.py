"""mllaunch config"""

from __future__ import annotations

import os

import click


@click.command()
@click.option("--show-origin", is_flag=True, help="Say where each value came from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(show_origin: bool, as_json: bool) -> None:
    """Show the configuration in effect here. Values that look secret are masked."""
    from mllaunch.config.display import as_document, as_yaml
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    config = app.config(_root(app.cwd), {})
    if as_json:
        import json

        click.echo(json.dumps(as_document(config), indent=2))
    else:
        click.echo(as_yaml(config, show_origin), nl=False)


def _root(cwd: str) -> str | None:
    """The root of the working tree; None outside of one, where only the user's own settings apply."""
    from mllaunch.capture.git import Git, GitFailed, explained

    try:
        return os.fsdecode(Git(cwd).run("rev-parse", "--show-toplevel")).removesuffix("\n")
    except GitFailed as error:
        failure = explained(error, cwd)
        if failure.code in ("no-repository", "bare-repository"):
            return None
        raise failure from error
