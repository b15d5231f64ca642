"""`neural-bridge config` and `completion`: what is set, what can be set, and a shell that completes it."""

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from bridge.commands import JSON, settings_of
from bridge.commands.options.signature import argument, cli_command

_SHELLS = {"bash": BashComplete, "fish": FishComplete, "zsh": ZshComplete}


@click.group(name="config")
def command() -> None:
    """Show the settings in force, or list all settings."""


@cli_command(of=command)
def show(ctx: click.Context, *, as_json: bool = JSON) -> None:
    """Print the settings in force; secrets are masked."""
    settings = settings_of(ctx)
    if as_json:
        click.echo(settings.model_dump_json(indent=2))
        return
    import yaml  # only this branch needs it

    click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)


@command.command()
def reference() -> None:
    """List every setting with its default and meaning, as Markdown."""
    from bridge.settings import settings_reference

    click.echo(settings_reference(), nl=False)


@cli_command()
def completion(ctx: click.Context, *, shell: str = argument(type=click.Choice(sorted(_SHELLS)))) -> None:
    """Print a script that lets SHELL complete commands and options.

    \b
    bash: neural-bridge completion bash \\
            > /etc/bash_completion.d/neural-bridge
    zsh:  as _neural-bridge, into a folder of $fpath
    fish: into ~/.config/fish/completions/neural-bridge.fish
    """
    program = ctx.find_root().command
    click.echo(_SHELLS[shell](program, {}, "neural-bridge", "_NEURAL_BRIDGE_COMPLETE").source())
