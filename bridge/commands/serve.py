"""`neural-bridge serve`: the sidecar and the proxy, either or both."""

import signal
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import invocation_of, say, settings_of

if TYPE_CHECKING:
    from bridge.processes.services import Overrides
    from bridge.processes.supervisor import Service
    from bridge.settings import Settings


@click.group(name="serve", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Run the rerank sidecar and the query proxy.

    Without a subcommand both run, each as a process of its own that is restarted if it crashes. Stop them with
    SIGTERM or Ctrl-C.
    """
    if ctx.invoked_subcommand is not None:
        return
    from bridge.processes.services import sidecar_and_proxy, with_ports
    from bridge.settings import masked

    overrides = with_ports({}, settings_of(ctx))
    settings = settings_of(ctx, **overrides)
    services = sidecar_and_proxy(settings, config_file=invocation_of(ctx).config_file, overrides=overrides)
    proxy = settings.proxy
    _supervise(
        services, settings, f"the proxy answers on http://{proxy.host}:{proxy.port} for {masked(settings.cluster.url)}"
    )


@command.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option("--model", "rerank_model", help="Cross-encoder: path or built-in name.")
@click.option(
    "--cascade-model", help="Small cross-encoder of the cascade: path or built-in name; empty for no cascade."
)
@click.option("--encoder", help="Encoder for /embed: path or built-in name.")
@click.option(
    "--sparse-encoder",
    "sparse_encoders",
    multiple=True,
    help="Sparse encoder for /embed_sparse: path or built-in name; repeatable.",
)
@click.option(
    "--image-encoder",
    "image_encoders",
    multiple=True,
    help="Image encoder whose tower for texts embeds questions about pictures: path or hub name; repeatable.",
)
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all CPUs that the cgroup allows.")
@click.pass_context
def rerank(ctx: click.Context, /, **sidecar: Any) -> None:
    """Run the rerank sidecar (stop with SIGTERM or Ctrl-C).

    It scores pairs of query and passage, and embeds queries, over HTTP.
    """
    from rerank_server.server import run

    sidecar["sparse_encoders"] = list(sidecar["sparse_encoders"]) or None
    if image_encoders := list(sidecar.pop("image_encoders")):
        sidecar["more_encoders"] = [*settings_of(ctx).sidecar.more_encoders, *image_encoders]
    run(settings_of(ctx, sidecar=sidecar).sidecar)


@command.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--admin-host", help="Address of the admin listener.")
@click.option("--admin-port", type=int, help="Port of the admin listener; 0 takes a free one.")
@click.option("--cluster", "cluster_url", help="Address of the cluster, including the scheme.")
@click.option("--sidecar", "sidecar_url", help="Address of the rerank sidecar.")
@click.option("--budget-ms", type=int, help="Longest time that the bridge may add to one search.")
@click.option("--es-compat/--no-es-compat", default=None, help="Answer Elasticsearch clients as Elasticsearch does.")
@click.option("--workers", type=int, help="Number of processes that share the port.")
@click.pass_context
def proxy(ctx: click.Context, /, cluster_url: str | None, **proxy: Any) -> None:
    """Run the query proxy (stop with SIGTERM or Ctrl-C).

    Applications search through it as if it were the cluster. Every request that the bridge does not understand
    passes unchanged.
    """
    flags: Overrides = {"cluster": {"url": cluster_url}, "proxy": proxy}
    settings = settings_of(ctx, **flags)
    if settings.proxy.workers <= 1:
        from bridge.proxy.server import process  # aiohttp and numpy take a while, which `--help` has no use for

        process.run(settings)
        return
    from bridge.processes.services import proxy_workers

    overrides = {
        section: {key: value for key, value in of.items() if value is not None} for section, of in flags.items()
    }
    services = proxy_workers(settings, config_file=invocation_of(ctx).config_file, overrides=overrides)
    addresses = ", ".join(service.ready_url for service in services)
    _supervise(services, settings, f"{len(services)} proxies answer: {addresses}")


def _supervise(services: "list[Service]", settings: "Settings", message: str) -> None:
    from bridge.processes.lifecycle import ended_by_signals
    from bridge.processes.services import stop_timeout_s
    from bridge.processes.supervisor import Supervisor

    with ended_by_signals(), Supervisor(services, stop_timeout_s=stop_timeout_s(settings)) as supervisor:
        signal.signal(signal.SIGHUP, lambda *_: supervisor.hang_up())
        say(message, err=True)
        while True:
            signal.pause()
