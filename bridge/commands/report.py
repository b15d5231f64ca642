"""`neural-bridge report`: summarise shadow mode and interleaving."""

from pathlib import Path

from bridge.commands import JSON, say, show
from bridge.commands.options.signature import EXISTING_FILE, argument, cli_command

_COLUMNS = (
    *("searches", "overlap", "rank-biased overlap", "p50 ms", "p95 ms"),
    *("interleaved", "bridge wins", "own wins", "ties", "p"),
)


@cli_command("report")
def command(*, event_log: Path = argument(type=EXISTING_FILE), as_json: bool = JSON) -> None:
    """Summarise EVENT_LOG, the file that the setting proxy.event_log names.

    For each index: how far the bridge's ranking differs from the application's own, what it costs in time, and on
    interleaved pages whose documents users clicked more often.
    """
    import msgspec
    from rich.table import Table

    from bridge.console import number_columns, safe_cell
    from bridge.proxy.experiments.event_report import read_events, report

    summary = report(read_events(event_log))
    table = Table("index", *number_columns(*_COLUMNS))
    for each in summary.indices:
        p_value = "" if each.p_value is None else f"{each.p_value:.4f}"
        cells = (each.searches, each.overlap, each.rank_biased_overlap, each.p50_ms, each.p95_ms)
        wins = (each.interleaved, each.bridge_wins, each.own_wins, each.ties, p_value)
        table.add_row(safe_cell(each.index), *map(str, (*cells, *wins)))
    show(msgspec.to_builtins(summary), table, as_json=as_json)
    if summary.stray_clicks and not as_json:
        say(f"{summary.stray_clicks} clicks name no page or document of this log", err=True)
