"""`neural-bridge serve rerank`: the sidecar."""

import click

from bridge.commands import settings_of


@click.command(name="rerank")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option("--model", "rerank_model", help="Cross-encoder: path or built-in name.")
@click.option("--cascade-model", help="Small cross-encoder of a cascade: path or built-in name; empty loads none.")
@click.option("--encoder", help="Encoder for /embed: path or built-in name.")
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes the CPUs that the cgroup allows.")
@click.pass_context
def command(
    ctx: click.Context,
    host: str | None,
    port: int | None,
    rerank_model: str | None,
    cascade_model: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Score query-passage pairs and embed queries over HTTP, until SIGTERM or Ctrl-C."""
    from rerank_server.server import run

    flags = {
        "host": host,
        "port": port,
        "rerank_model": rerank_model,
        "cascade_model": cascade_model,
        "encoder": encoder,
        "threads": threads,
    }
    run(settings_of(ctx, sidecar=flags).sidecar)
