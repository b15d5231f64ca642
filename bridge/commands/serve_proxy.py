"""`neural-bridge serve proxy`: the query proxy alone."""

import click

from bridge.commands import settings_of


@click.command(name="proxy")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--admin-host", help="Address of the admin listener.")
@click.option("--admin-port", type=int, help="Port of the admin listener; 0 takes a free one.")
@click.option("--cluster", "cluster_url", help="Address of the cluster, scheme included.")
@click.option("--sidecar", "sidecar_url", help="Address of the rerank sidecar.")
@click.option("--budget-ms", type=int, help="Longest time that the bridge may add to one search.")
@click.option("--es-compat/--no-es-compat", default=None, help="Answer Elasticsearch's clients as Elasticsearch does.")
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
) -> None:
    """Run the query proxy until it is told to stop.

    Applications search through it as if it were the cluster. Every request that the bridge does not
    understand passes unchanged.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        proxy={
            "host": host,
            "port": port,
            "admin_host": admin_host,
            "admin_port": admin_port,
            "sidecar_url": sidecar_url,
            "budget_ms": budget_ms,
            "es_compat": es_compat,
        },
    )
    from bridge.proxy import process  # aiohttp and numpy take a while, which `--help` has no use for

    process.run(settings)
