"""`neural-bridge serve proxy`: the query proxy alone."""

from typing import TYPE_CHECKING

import click

from bridge.commands import Invocation, settings_of

if TYPE_CHECKING:
    from bridge.processes.services import Overrides
    from bridge.settings import Settings


@click.command(name="proxy")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--admin-host", help="Address of the admin listener.")
@click.option("--admin-port", type=int, help="Port of the admin listener; 0 takes a free one.")
@click.option("--cluster", "cluster_url", help="Address of the cluster, scheme included.")
@click.option("--sidecar", "sidecar_url", help="Address of the rerank sidecar.")
@click.option("--budget-ms", type=int, help="Longest time that the bridge may add to one search.")
@click.option("--es-compat/--no-es-compat", default=None, help="Answer Elasticsearch's clients as Elasticsearch does.")
@click.option("--workers", type=int, help="Processes that answer applications on the one port.")
@click.pass_context
def command(
    ctx: click.Context,
    host: str | None,
    port: int | None,
    admin_host: str | None,
    admin_port: int | None,
    cluster_url: str | None,
    sidecar_url: str | None,
    budget_ms: int | None,
    es_compat: bool | None,
    workers: int | None,
) -> None:
    """Run the query proxy until it is told to stop.

    Applications search through it as if it were the cluster. Every request that the bridge does not
    understand passes unchanged.
    """
    flags: Overrides = {
        "cluster": {"url": cluster_url},
        "proxy": {
            "host": host,
            "port": port,
            "admin_host": admin_host,
            "admin_port": admin_port,
            "sidecar_url": sidecar_url,
            "budget_ms": budget_ms,
            "es_compat": es_compat,
            "workers": workers,
        },
    }
    settings = settings_of(ctx, **flags)
    if settings.proxy.workers > 1:
        _serve_workers(ctx, settings, flags)
        return
    from bridge.proxy.server import process  # aiohttp and numpy take a while, which `--help` has no use for

    process.run(settings)


def _serve_workers(ctx: click.Context, settings: "Settings", flags: "Overrides") -> None:
    import signal

    from bridge.processes.services import proxy_workers, stop_timeout_s
    from bridge.processes.supervisor import Supervisor, ended_by_signals

    config_file = (ctx.find_object(Invocation) or Invocation()).config_file
    given = {section: {key: value for key, value in of.items() if value is not None} for section, of in flags.items()}
    services = proxy_workers(settings, config_file=config_file, overrides=given)
    with ended_by_signals(), Supervisor(services, stop_timeout_s=stop_timeout_s(settings)):
        click.echo(f"{len(services)} proxies answer: {', '.join(service.ready_url for service in services)}", err=True)
        while True:
            signal.pause()
