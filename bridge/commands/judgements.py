"""`neural-bridge judgements`: write judgements in the form that other tools import."""

from pathlib import Path

import click

from bridge.commands import CLUSTER, JSON, say, settings_of, show
from bridge.commands.options.judgements import JudgementSources
from bridge.commands.options.signature import FILE, argument, cli_command
from bridge.errors import UsageError


@cli_command("judgements")
def command(
    ctx: click.Context,
    *,
    output: Path = argument(type=FILE),
    sources: JudgementSources,
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Write judgements to OUTPUT, in a form that other tools import.

    OUTPUT ends in .csv (query, docid, rating: for Quepid and the page of the Search Relevance Workbench) or in .json
    (the body of the Workbench's PUT _plugins/_search_relevance/judgments).
    """
    sources.check()
    if sources.n_sources != 1:
        raise UsageError("give one kind of judgements: --queries with --qrels, --judgements, --clicks, or --ubi")
    if output in (sources.queries_file, sources.qrels_file, sources.judgements_file, sources.clicks_file):
        raise UsageError(f"{output} would be overwritten with what is read from it: name another file")
    judged = sources.read(settings_of(ctx, cluster={"url": cluster_url}))
    if judged is None:
        raise AssertionError("one kind of judgements is named")
    from bridge.evaluation.judgement_files import write_judgement_list

    write_judgement_list(judged, output)
    say(*judged.remarks, err=True)
    n_ratings = sum(map(len, judged.qrels.values()))
    show(
        {"source": judged.source, "queries": len(judged.queries), "ratings": n_ratings},
        f"{len(judged.queries):,} queries with {n_ratings:,} ratings from {judged.source} are in {output}",
        as_json=as_json,
    )
