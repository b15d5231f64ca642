"""`scripts/bench NAME [--json]`: tables on stdout; with `--json` the last line is one JSON object.

docs/explanation/benchmarks.md has measured figures.
"""

import importlib
from typing import cast

import click

PROGRAMS = {
    "Searches": {
        "proxy": "benchmarks.proxy",
        "beside": "benchmarks.beside",
        "rerank": "benchmarks.rerank.engines",
        "replicas": "benchmarks.replicas",
        "collapse": "benchmarks.collapse",
        "diverse": "benchmarks.diverse",
        "typing": "benchmarks.typing",
        "confidence": "benchmarks.confidence",
        "sentences": "benchmarks.sentences",
    },
    "Documents": {
        "documents": "benchmarks.documents",
        "ray": "benchmarks.ray",
        "follow": "benchmarks.follow",
        "plan": "benchmarks.plan",
        "companion": "benchmarks.companion",
        "scale": "benchmarks.scale",
        "sources": "benchmarks.sources",
    },
    "Models": {
        "expansion": "benchmarks.expansion",
        "bm25": "benchmarks.bm25",
        "models": "benchmarks.models",
        "languages": "benchmarks.languages",
        "vectors": "benchmarks.vectors",
    },
}
"""The module of each benchmark, by what is measured."""

MODULES = {name: module for modules in PROGRAMS.values() for name, module in modules.items()}


class Benchmarks(click.Group):
    """Imports a benchmark when it is called: each needs packages that others do not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        return cast(click.Command, importlib.import_module(MODULES[cmd_name]).command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Benchmarks"):
            formatter.write_dl([(title, ", ".join(modules)) for title, modules in PROGRAMS.items()])


@click.group(cls=Benchmarks)
def main() -> None:
    """Measures the bridge on this machine."""


if __name__ == "__main__":
    main(prog_name="scripts/bench")
