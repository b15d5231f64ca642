"""`neural-bridge node`: a real OpenSearch node on this machine, without Docker."""

from typing import TYPE_CHECKING

import click

from bridge.commands import JSON, settings_of, show
from bridge.commands.options.signature import cli_command, option

if TYPE_CHECKING:
    from bridge.node.node import EmbeddedNode

_NAME = option("--name", default="default", help="Instance; each has its own data and port.")


@click.group(name="node")
def command() -> None:
    """Run an embedded OpenSearch node.

    The first start downloads OpenSearch and its k-NN plugin (about 80 MB) as Maven artifacts and checks their
    digests; later starts need no network. The node listens on this machine only.
    """


@cli_command(of=command)
def start(
    ctx: click.Context,
    *,
    name: str = _NAME,
    version: str | None = option(
        "--version", help="OpenSearch version. Defaults to the newest that the installed Java can run."
    ),
    port: int | None = option("--port", type=click.IntRange(0, 65535), help="HTTP port; 0 takes a free one."),
    heap_mb: int | None = option("--heap-mb", type=click.IntRange(min=256), help="Java heap, in MiB."),
    as_json: bool = JSON,
) -> None:
    """Start an instance and wait until it is ready; a running one is left as it is."""
    from bridge.node.node import EmbeddedNode

    settings = settings_of(ctx, node={"port": port, "heap_mb": heap_mb}).node
    _show_node(EmbeddedNode.start(name, settings, version), as_json=as_json)


@cli_command(of=command)
def stop(ctx: click.Context, *, name: str = _NAME, as_json: bool = JSON) -> None:
    """Stop an instance; its data stay."""
    from bridge.node import node

    ran = node.stop(name, settings_of(ctx).node)
    line = f"node {name} stopped" if ran else f"node {name} was not running"
    show({"name": name, "stopped": ran}, line, as_json=as_json)


@cli_command(of=command)
def status(ctx: click.Context, *, name: str = _NAME, as_json: bool = JSON) -> None:
    """Show an instance's address; exit code 1 if it does not answer."""
    from bridge.node.node import EmbeddedNode, find_process

    settings = settings_of(ctx).node
    node = EmbeddedNode.find(name, settings)
    if node is not None:
        _show_node(node, as_json=as_json)
        return
    process = find_process(name, settings)
    line = f"node {name} is not running"
    if process is not None:
        line = f"node {name} runs (pid {process.pid}) but does not answer; log: {process.log_file}"
    show({"name": name, "ready": False, "pid": process.pid if process else None}, line, as_json=as_json)
    ctx.exit(1)


@cli_command(of=command)
def clean(ctx: click.Context, *, name: str = _NAME, as_json: bool = JSON) -> None:
    """Stop an instance and remove its data and logs."""
    from bridge.node import node

    existed = node.clean(name, settings_of(ctx).node)
    line = f"node {name} removed" if existed else f"there is no node {name}"
    show({"name": name, "removed": existed}, line, as_json=as_json)


def _show_node(node: "EmbeddedNode", *, as_json: bool) -> None:
    show(
        {
            "name": node.name,
            "ready": True,
            "version": node.version,
            "url": node.url,
            "pid": node.pid,
            "log": str(node.log_file),
        },
        f"node {node.name}: OpenSearch {node.version} at {node.url} (pid {node.pid})",
        f"log: {node.log_file}",
        as_json=as_json,
    )
