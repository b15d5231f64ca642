"""The command tree. A command's module is loaded only when it is called, so `--help` stays quick."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import click

from bridge import __version__
from bridge.commands import Invocation, say
from bridge.errors import BridgeError, exit_code


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command's line in `neural-bridge --help`, and its name in `module` of `bridge.commands`."""

    summary: str
    module: str
    attribute: str = "command"

    def load(self) -> click.Command:
        """Imports it."""
        module = importlib.import_module(f"bridge.commands.{self.module}")
        return cast(click.Command, getattr(module, self.attribute))


GROUPS: dict[str, dict[str, LazyCommand]] = {
    "Try": {
        "demo": LazyCommand("Show the whole bridge at work on real documents.", "demo"),
        "search": LazyCommand("Search through the proxy and show what each stage did.", "search"),
    },
    "Enrich": {
        "plan": LazyCommand("Look at an index before enriching it; writes nothing.", "plan"),
        "ingest": LazyCommand("Enrich documents from files and write them to an index.", "ingest"),
        "backfill": LazyCommand("Enrich an index while it is in use, in place or beside it.", "backfill"),
        "follow": LazyCommand("Enrich documents as applications write them.", "follow"),
        "undo": LazyCommand("Remove every trace of the bridge from an index.", "undo"),
    },
    "Serve": {
        "serve": LazyCommand("Run the rerank sidecar and the query proxy.", "serve"),
        "index": LazyCommand("Create, show and delete enriched indices; set proxy rules.", "index"),
        "connector": LazyCommand("Print what ML Commons needs to use the sidecar.", "connector"),
    },
    "Measure": {
        "evaluate": LazyCommand("Measure every stage with judged queries.", "evaluate"),
        "gate": LazyCommand("Enable only the stages that do no harm to an index.", "gate"),
        "tune": LazyCommand("Find the best settings for an index in a time budget.", "tune"),
        "bench": LazyCommand("Measure how fast searches through the bridge are.", "bench"),
        "judgements": LazyCommand("Write judgements in the form that other tools import.", "judgements"),
        "report": LazyCommand("Summarise shadow mode and interleaving.", "report"),
    },
    "Models": {
        "models": LazyCommand("Fetch, export, quantise, verify and list models.", "models"),
        "train": LazyCommand("Train models on your own data (extra: train).", "train"),
        "adapt": LazyCommand("Fine-tune the models on the documents of an index.", "adapt"),
        "generation": LazyCommand("Change the models of an index, and change back.", "generation"),
    },
    "Operate": {
        "doctor": LazyCommand("Check a cluster: what it can do and what to fix.", "doctor"),
        "node": LazyCommand("Run an embedded OpenSearch node.", "node"),
        "dlq": LazyCommand("Inspect dead letters and write them again.", "dlq"),
        "config": LazyCommand("Show the settings in force, or list all settings.", "config"),
        "completion": LazyCommand("Print a completion script for your shell.", "config", "completion"),
    },
}
"""The commands, by a person's day."""

COMMANDS: dict[str, LazyCommand] = {name: lazy for group in GROUPS.values() for name, lazy in group.items()}


class LazyGroup(click.Group):
    """A group that knows its commands by name and summary, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return COMMANDS[cmd_name].load() if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}; there are: {', '.join(sorted(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(len(name) for name in COMMANDS)
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), lazy.summary) for name, lazy in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="neural-bridge")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (YAML); the variable BRIDGE_CONFIG can name it too.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None, debug: bool) -> None:
    """Neural retrieval for the search cluster that you already run."""
    from bridge.logs import write_warnings

    write_warnings()
    ctx.obj = Invocation(config_file=config_file, debug=debug)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command and exits: 0, or the code that `bridge.errors.EXIT_CODES` maps its error to."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(cli.main(args=words, prog_name="neural-bridge", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in words:
            raise
        if isinstance(error, BridgeError):
            say(f"Error: {error}", err=True)
            sys.exit(exit_code(error))
        message = f"{type(error).__name__}: {error}"
        say(f"Error: unexpected error: {message}; rerun with `neural-bridge --debug` for the traceback", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
