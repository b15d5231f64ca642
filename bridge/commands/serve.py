"""`neural-bridge serve`: the sidecar and the proxy, one of them or both."""

from typing import TYPE_CHECKING

import click

from bridge.commands import Invocation, serve_proxy, serve_rerank, settings_of

if TYPE_CHECKING:
    from bridge.settings import Settings


@click.group(name="serve", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Run the rerank sidecar and the query proxy.

    Without a subcommand both run as processes of their own, and one that crashes is started again.
    """
    if ctx.invoked_subcommand is None:
        _serve_both(ctx, settings_of(ctx))


def _serve_both(ctx: click.Context, settings: "Settings") -> None:
    import signal

    from bridge.processes.services import sidecar_and_proxy, stop_timeout_s, with_ports
    from bridge.processes.supervisor import Supervisor, ended_by_signals

    config_file = (ctx.find_object(Invocation) or Invocation()).config_file
    overrides = with_ports({}, settings)
    settings = settings_of(ctx, **overrides)
    services = sidecar_and_proxy(settings, config_file=config_file, overrides=overrides)
    with ended_by_signals(), Supervisor(services, stop_timeout_s=stop_timeout_s(settings)):
        proxy = settings.proxy
        click.echo(f"the proxy answers on http://{proxy.host}:{proxy.port} for {settings.cluster.url}", err=True)
        while True:
            signal.pause()


command.add_command(serve_rerank.command)
command.add_command(serve_proxy.command)
