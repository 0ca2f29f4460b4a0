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
    config = app.config(app.root, {})
    if as_json:
        import json

        click.echo(json.dumps(as_document(config), indent=2))
    else:
        click.echo(as_yaml(config, show_origin), nl=False)
