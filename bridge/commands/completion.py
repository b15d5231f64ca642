"""`neural-bridge completion`: what a shell needs to complete commands and options."""

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SHELLS = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}


@click.command(name="completion")
@click.argument("shell", type=click.Choice(sorted(_SHELLS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that lets SHELL complete commands and options.

    bash: `neural-bridge completion bash > /etc/bash_completion.d/neural-bridge`; zsh: into a folder of
    `$fpath`, as `_neural-bridge`; fish: into `~/.config/fish/completions/neural-bridge.fish`.
    """
    program = ctx.find_root().command
    click.echo(_SHELLS[shell](program, {}, "neural-bridge", "_NEURAL_BRIDGE_COMPLETE").source())
