"""`neural-bridge report`: summarise shadow mode and interleaving."""

from pathlib import Path
from typing import TYPE_CHECKING

from bridge.commands import JSON, say, show
from bridge.commands.options.signature import EXISTING_FILE, FILE, argument, cli_command, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.proxy.experiments.event_log import Event

_COLUMNS = (
    *("searches", "overlap", "rank-biased overlap", "p50 ms", "p95 ms"),
    *("interleaved", "bridge wins", "own wins", "ties", "p"),
)


@cli_command("report")
def command(
    *,
    event_log: Path = argument(type=EXISTING_FILE),
    to_ubi: Path | None = option(
        "--to-ubi",
        type=FILE,
        help="Write pages and clicks as User Behavior Insights, to load with _bulk into ubi_queries and ubi_events.",
    ),
    as_json: bool = JSON,
) -> None:
    """Summarise EVENT_LOG, the file that the setting proxy.event_log names, or one that --to-ubi wrote.

    For each index: how far the bridge's ranking differs from the application's own, what it costs in time, and on
    interleaved pages whose documents users clicked more often.
    """
    import msgspec
    from rich.table import Table

    from bridge.console import number_columns, safe_cell
    from bridge.proxy.experiments.event_report import read_events, report

    events = list(read_events(event_log))
    summary = report(events)
    if to_ubi is not None:
        _write_ubi(to_ubi, event_log, events)
    table = Table("index", *number_columns(*_COLUMNS))
    for each in summary.indices:
        p_value = "" if each.p_value is None else f"{each.p_value:.4f}"
        cells = (each.searches, each.overlap, each.rank_biased_overlap, each.p50_ms, each.p95_ms)
        wins = (each.interleaved, each.bridge_wins, each.own_wins, each.ties, p_value)
        table.add_row(safe_cell(each.index), *map(str, (*cells, *wins)))
    show(msgspec.to_builtins(summary), table, as_json=as_json)
    if summary.stray_clicks and not as_json:
        say(f"{summary.stray_clicks} clicks name no page or document of this log", err=True)


def _write_ubi(file: Path, event_log: Path, events: "list[Event]") -> None:
    """Raises:
    UsageError: there is nothing to write, or the file cannot be written.
    """
    from bridge.proxy.experiments.event_log import Impression
    from bridge.proxy.experiments.ubi import to_ubi

    if file.exists() and file.samefile(event_log):
        raise UsageError(f"--to-ubi {file} is the event log itself: name another file")
    pages = [event for event in events if isinstance(event, Impression)]
    wordless = sum(page.query is None for page in pages)
    if wordless == len(pages):
        raise UsageError(f"{event_log} holds no page with its query: set proxy.event_log_queries in the proxy")
    try:
        file.write_bytes(b"".join(to_ubi(events)))
    except OSError as error:
        raise UsageError(f"--to-ubi {file} cannot be written: {error.strerror}") from error
    if wordless:
        say(f"{wordless:,} of {len(pages):,} pages have no words and are left out of {file}", err=True)
