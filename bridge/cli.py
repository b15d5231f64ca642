"""The command tree. Each command's module is loaded only when it is called, so `--help` stays quick."""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import click

from bridge import __version__
from bridge.commands import Invocation
from bridge.errors import BridgeError, exit_code


class LazyCommand(NamedTuple):
    """Where a command lives (its module's `command`), and its line in `neural-bridge --help`."""

    module: str
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "adapt": LazyCommand("bridge.commands.adapt", "Fine-tune the models on the documents of an index."),
    "backfill": LazyCommand("bridge.commands.backfill", "Enrich an index in place while it is in use."),
    "completion": LazyCommand("bridge.commands.completion", "Let a shell complete commands and options."),
    "bench": LazyCommand("bridge.commands.bench", "Measure how quick searches through the bridge are."),
    "config": LazyCommand("bridge.commands.config", "Show the settings in force, or list all settings."),
    "connector": LazyCommand("bridge.commands.connector", "Print what ML Commons needs to use the sidecar."),
    "copy": LazyCommand("bridge.commands.copy", "Copy an index into a new one, enriched, and move its alias."),
    "demo": LazyCommand("bridge.commands.demo", "Show the whole bridge at work on real documents."),
    "dlq": LazyCommand("bridge.commands.dlq", "Look at dead letters, and write them again."),
    "doctor": LazyCommand("bridge.commands.doctor", "Examine a cluster: what it can do, and what to put right."),
    "evaluate": LazyCommand("bridge.commands.evaluate", "Measure every stage on a collection with judgements."),
    "gate": LazyCommand("bridge.commands.gate", "Let only those stages serve an index that do no harm there."),
    "follow": LazyCommand("bridge.commands.follow", "Enrich what is written to an index, as it is written."),
    "generation": LazyCommand("bridge.commands.generation", "Change the models of an index, and back again."),
    "index": LazyCommand("bridge.commands.index", "Create, show and remove enriched indices."),
    "ingest": LazyCommand("bridge.commands.ingest", "Enrich documents from files and write them to an index."),
    "models": LazyCommand("bridge.commands.models", "Export, quantise, verify and list models."),
    "node": LazyCommand("bridge.commands.node", "Run the embedded OpenSearch node."),
    "plan": LazyCommand("bridge.commands.plan", "Look at an index before it is enriched; nothing is written."),
    "report": LazyCommand("bridge.commands.report", "Sum up what shadow mode and interleaving found out."),
    "search": LazyCommand("bridge.commands.search", "Search through the proxy and show what each stage did."),
    "serve": LazyCommand("bridge.commands.serve", "Run the rerank sidecar and the query proxy."),
    "train": LazyCommand("bridge.commands.train", "Train cross-encoders and query generators (extra: train)."),
    "tune": LazyCommand("bridge.commands.tune", "Find the settings that serve an index best within a time."),
    "undo": LazyCommand("bridge.commands.undo", "Take every trace of the bridge out of an index."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and summary, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(COMMANDS[cmd_name].module).command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}; there are: {', '.join(sorted(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in sorted(COMMANDS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="neural-bridge")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (YAML); BRIDGE_CONFIG names one too.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None, debug: bool) -> None:
    """Neural retrieval for the search cluster that you already run."""
    ctx.obj = Invocation(config_file=config_file, debug=debug)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command and exits: 0, or the code that `bridge.errors.EXIT_CODES` gives to its error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(cli.main(args=given, prog_name="neural-bridge", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BridgeError as error:
        if "--debug" in given:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(exit_code(error))
    except Exception as error:
        if "--debug" in given:
            raise
        told = f"{type(error).__name__}: {error}"
        click.echo(f"Error: this was not foreseen: {told}; with `neural-bridge --debug` it is told where", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
