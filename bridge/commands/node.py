"""`neural-bridge node`: a real OpenSearch on this machine, without Docker."""

import json
from typing import TYPE_CHECKING

import click

from bridge.commands import settings_of

if TYPE_CHECKING:
    from bridge.node.node import EmbeddedNode

name_option = click.option(
    "--name", default="default", show_default=True, help="Instance; each has its own data and port."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(name="node")
def command() -> None:
    """Run the embedded OpenSearch node.

    The first start fetches OpenSearch and its k-NN plugin (about 80 MB) as Maven artifacts and checks their
    digests; later starts need no network. The node listens on this machine only.
    """


@command.command()
@name_option
@click.option("--version", help="OpenSearch version; by default the newest that the Java here can run.")
@click.option("--port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one.")
@click.option("--heap-mb", type=click.IntRange(min=256), help="Java heap, in MiB.")
@json_option
@click.pass_context
def start(
    ctx: click.Context, name: str, version: str | None, port: int | None, heap_mb: int | None, as_json: bool
) -> None:
    """Start an instance and wait until it is ready; one that runs already is left as it is."""
    from bridge.node.node import EmbeddedNode

    settings = settings_of(ctx, node={"port": port, "heap_mb": heap_mb}).node
    _show(EmbeddedNode.start(name, settings, version), as_json)


@command.command()
@name_option
@json_option
@click.pass_context
def stop(ctx: click.Context, name: str, as_json: bool) -> None:
    """Stop an instance; its data stay."""
    from bridge.node import node

    ran = node.stop(name, settings_of(ctx).node)
    if as_json:
        click.echo(json.dumps({"name": name, "stopped": ran}))
    else:
        click.echo(f"node {name} stopped" if ran else f"node {name} was not running")


@command.command()
@name_option
@json_option
@click.pass_context
def status(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show where an instance answers; exit code 1 where it does not."""
    from bridge.node.node import EmbeddedNode, find_process

    settings = settings_of(ctx).node
    node = EmbeddedNode.find(name, settings)
    if node is not None:
        _show(node, as_json)
        return
    process = find_process(name, settings)
    if as_json:
        click.echo(json.dumps({"name": name, "ready": False, "pid": process.pid if process else None}))
    elif process is not None:
        click.echo(f"node {name} runs (pid {process.pid}) but does not answer; log: {process.log_file}")
    else:
        click.echo(f"node {name} is not running")
    ctx.exit(1)


@command.command()
@name_option
@json_option
@click.pass_context
def clean(ctx: click.Context, name: str, as_json: bool) -> None:
    """Stop an instance and remove its data and logs."""
    from bridge.node import node

    existed = node.clean(name, settings_of(ctx).node)
    if as_json:
        click.echo(json.dumps({"name": name, "removed": existed}))
    else:
        click.echo(f"node {name} removed" if existed else f"there is no node {name}")


def _show(node: "EmbeddedNode", as_json: bool) -> None:
    facts = {
        "name": node.name,
        "ready": True,
        "version": node.version,
        "url": node.url,
        "pid": node.pid,
        "log": str(node.log_file),
    }
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo(f"node {node.name}: OpenSearch {node.version} at {node.url} (pid {node.pid})")
        click.echo(f"log: {node.log_file}")
