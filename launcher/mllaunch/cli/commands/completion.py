"""mllaunch completion"""

from __future__ import annotations

import click

_INSTALL = {
    "bash": "echo 'eval \"$(mllaunch completion bash 2>/dev/null)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(mllaunch completion zsh 2>/dev/null)\"' >> ~/.zshrc",
    "fish": "mllaunch completion fish > ~/.config/fish/completions/mllaunch.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_INSTALL)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes mllaunch's commands and options in SHELL."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # click.Choice let through only shells that click knows
    click.echo(complete(ctx.find_root().command, {}, "mllaunch", "_MLLAUNCH_COMPLETE").source())
    click.echo(f"install it with: {_INSTALL[shell]}", err=True)
