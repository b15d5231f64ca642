"""`neural-bridge demo`: the main job, end to end, on a real OpenSearch node and real documents."""

import json
from typing import TYPE_CHECKING

import click

from bridge.commands import invocation_of, needs_extra, settings_of
from bridge.commands.options.signature import cli_command, option

if TYPE_CHECKING:
    from bridge.demo.tour import Outcome


@cli_command("demo")
def command(
    ctx: click.Context,
    *,
    keep: bool = option("--keep", help="Leave node, sidecar and proxy running, and print what to try."),
    stop_kept: bool = option("--stop", help="Stop what --keep left running; the data stay."),
    check: bool = option("--check", help="End with one JSON line on stdout; everything else goes to stderr."),
    limit: int | None = option(
        "--limit", type=click.IntRange(min=1), help="Use at most this many documents, evenly spread."
    ),
) -> None:
    """Show the whole bridge at work on real documents.

    Starts an OpenSearch node, enriches the documentation of the Python standard library, starts the rerank
    sidecar and the query proxy, shows searches past the bridge and through it, and measures every stage on judged
    questions. One half of them gates and tunes the index, as `neural-bridge gate` and `tune` do; the table shows
    the other half. The first run takes some minutes; a later one finds the documents in the index.
    """
    settings = settings_of(ctx)
    if stop_kept:
        from bridge.demo.stack import stop

        click.echo("the demo's stack stopped" if stop(settings) else "the demo's stack was not running")
        return
    with needs_extra("the demo", "node,evaluate"):
        from bridge.console import Display, wide_console
        from bridge.demo.tour import run
        from bridge.processes.lifecycle import ended_by_signals

    display = Display(wide_console(stderr=check))
    with ended_by_signals():
        outcome = run(settings, display, config_file=invocation_of(ctx).config_file, keep=keep, limit=limit)
    if outcome.kept is not None:
        click.echo(_what_to_try(outcome.kept.proxy_url, outcome.index), err=check)
    if check:
        click.echo(json.dumps(_summary(outcome)))


def _summary(outcome: "Outcome") -> dict[str, float]:
    from bridge.demo.measurement import MRR

    return {
        "documents": outcome.n_documents,
        **{f"mrr_{each.name}": round(each.evaluation.mean(MRR), 4) for each in outcome.measures},
        "seconds": round(outcome.seconds, 1),
    }


def _what_to_try(proxy_url: str, index: str) -> str:
    body = '{"query": {"multi_match": {"query": "throw dice", "fields": ["name", "signature", "text"]}}}'
    return f"""
The stack is still running. Search through the proxy as you would search the cluster:

  curl -s '{proxy_url}/{index}/_search?pretty' -H 'content-type: application/json' -H 'x-bridge: explain' \\
    -d '{body}'

  python -c 'from opensearchpy import OpenSearch; print(OpenSearch("{proxy_url}").search(
    index="{index}", body={body})["hits"]["hits"][0]["_id"])'

Stop it:

  neural-bridge demo --stop
"""
