"""`neural-bridge config`: what is set, and what can be set."""

import click

from bridge.commands import settings_of


@click.group(name="config")
def command() -> None:
    """Show the settings in force, or list all settings."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
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
