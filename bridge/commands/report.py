"""`neural-bridge report`: summarise shadow mode and interleaving."""

from pathlib import Path

import click

from bridge.commands import json_option, say, show

_COLUMNS = (
    *("searches", "overlap", "rank-biased overlap", "p50 ms", "p95 ms"),
    *("interleaved", "bridge wins", "own wins", "ties", "p"),
)


@click.command(name="report")
@click.argument("event_log", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
def command(event_log: Path, as_json: bool) -> None:
    """Summarise EVENT_LOG, the file that the setting proxy.event_log names.

    For each index: how far the bridge's ranking differs from the application's own, what it costs in time, and on
    interleaved pages whose documents users clicked more often.
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from bridge.console import safe_cell
    from bridge.proxy.experiments.event_report import read_events, report

    summary = report(read_events(event_log))
    if as_json:
        show(msgspec.to_builtins(summary), as_json=True)
        return
    table = Table("index")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for each in summary.indices:
        p_value = "" if each.p_value is None else f"{each.p_value:.4f}"
        cells = (each.searches, each.overlap, each.rank_biased_overlap, each.p50_ms, each.p95_ms)
        wins = (each.interleaved, each.bridge_wins, each.own_wins, each.ties, p_value)
        table.add_row(safe_cell(each.index), *map(str, (*cells, *wins)))
    Console().print(table)
    if summary.stray_clicks:
        say(f"{summary.stray_clicks} clicks name no page or document of this log", err=True)
