"""`scripts/bench diverse COLLECTION...`: rankings with more and less likeness among their documents.

Each collection is searched as it is, and with five variants of each document (`benchmarks.collapse`). There alpha-nDCG
counts what each further variant of one relevant document is worth: half of the one before.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.collapse import PAGE, enrich, fill, first_documents, groups_of, hits_of, query, variants
from benchmarks.companion import remembering
from bridge.cluster.connection import connect
from bridge.commands import progress_display
from bridge.console import Display
from bridge.evaluation.collections import load_collection
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval, evaluate
from bridge.evaluation.stack import NODE_START_TIMEOUT_S, MeasuredIndex, own_index
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, load_settings
from ingest.stages.models import load_models

STAGES = ("hybrid", "rerank")
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
ALPHA = 0.5
"""The default of TREC's web tracks."""


class Figures(msgspec.Struct):
    """Of one share: nDCG@10 of the collection as it is, and alpha-nDCG@10 with variants; means, and the paired
    differences from share 0 with their 95 % intervals."""

    ndcg: float
    ndcg_difference: tuple[float, float, float]
    alpha_ndcg: float
    alpha_difference: tuple[float, float, float]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), default=100, show_default=True, help="Evenly spread.")
@click.option("--max-documents", type=click.IntRange(min=1), help="The first of the collection; by default all.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(folders: tuple[Path, ...], split: str, max_queries: int, max_documents: int | None, as_json: bool) -> None:
    """Prints nDCG@10 and alpha-nDCG@10 by the share that likeness counts."""
    settings, display = load_settings(node={"start_timeout_s": NODE_START_TIMEOUT_S}), progress_display()
    figures: dict[str, dict[str, dict[float, Figures]]] = {}
    with ExitStack() as running:
        node = running.enter_context(EmbeddedNode.owned("diverse-benchmark", settings.node))
        settings = settings.model_copy(update={"cluster": ClusterSettings(url=node.url)})
        client = running.enter_context(connect(settings.cluster))
        models = remembering(load_models(settings.ingest))
        for folder in folders:
            collection = load_collection(folder, split)
            documents = first_documents(collection, max_documents)
            judged = collection.judged.of_index(collection.name, documents).spread(max_queries)
            names = f"{collection.name.lower()}-once", f"{collection.name.lower()}-variants"
            for name, made in zip(names, (_once, variants), strict=True):
                fill(client, name, documents, made=made)
                enrich(client, name, models, settings, beside=False, display=display)
            with ExitStack() as served:
                once, varied = (
                    served.enter_context(own_index(name, settings, display, config_file=None)) for name in names
                )
                click.echo(f"{collection.name}: {len(documents):,} documents, {len(judged.queries)} queries")
                figures[collection.name] = {stage: measure(once, varied, judged, stage, display) for stage in STAGES}
            _show(figures[collection.name])
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures, str_keys=True)))


def _once(title: str, text: str) -> list[dict[str, str]]:
    return [{"title": title, "text": text}]


def measure(
    once: MeasuredIndex, varied: MeasuredIndex, judged: JudgedQueries, stage: str, display: Display
) -> dict[float, Figures]:
    """Share → figures of a stage."""
    values: dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    with display.progress(f"Search {once.name}, {stage}", len(SHARES) * len(judged.queries)) as show:
        for n, share in enumerate(SHARES):
            runs: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
            for m, (query_id, words) in enumerate(judged.queries.items(), start=1):
                for run, index in zip(runs, (once, varied), strict=True):
                    run[query_id] = _found(index, words, f"{stage}, diverse={share}")
                show(n * len(judged.queries) + m)
            ndcg = evaluate(judged.qrels, runs[0], ["nDCG@10"]).values["nDCG@10"]
            alpha = np.array([alpha_ndcg(runs[1][query_id], judged.qrels[query_id]) for query_id in judged.queries])
            values[share] = ndcg, alpha
    plain = values[SHARES[0]]
    return {
        share: Figures(
            float(ndcg.mean()), _difference(ndcg - plain[0]), float(alpha.mean()), _difference(alpha - plain[1])
        )
        for share, (ndcg, alpha) in values.items()
    }


def alpha_ndcg(groups: Sequence[str], judgements: Mapping[str, int]) -> float:
    """alpha-nDCG@10 of a ranking in which each group of variants is one intent: of a group's variants each is worth
    1 - alpha times the one before (Clarke et al. 2008, https://doi.org/10.1145/1390334.1390446); graded by the
    judgements of the groups."""
    gains = {group: float(grade) for group, grade in judgements.items() if grade > 0}
    seen: Counter[str] = Counter()
    found = 0.0
    for rank, group in enumerate(groups[:PAGE]):
        found += gains.get(group, 0.0) * (1 - ALPHA) ** seen[group] / math.log2(rank + 2)
        seen[group] += 1
    worth = sorted(
        (gain * (1 - ALPHA) ** n for gain in gains.values() for n in range(len(variants("", "")))), reverse=True
    )
    best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(worth[:PAGE]))
    return found / best if best else 0.0


def _difference(values: NDArray[np.float64]) -> tuple[float, float, float]:
    estimate = bootstrap_interval(values)
    return estimate.mean, estimate.low, estimate.high


def _found(index: MeasuredIndex, words: str, control: str) -> list[str]:
    """The groups of a search's first page."""
    return groups_of(hits_of(index.proxy, index.name, {**query(words), "size": PAGE}, control))


def _show(figures: Mapping[str, Mapping[float, Figures]]) -> None:
    click.echo(
        f"  {'stage':<8} {'share':>5} {'nDCG@10':>8} {'difference':>26} {'alpha-nDCG@10':>14} {'difference':>26}"
    )
    for stage, by_share in figures.items():
        for share, each in by_share.items():
            click.echo(
                f"  {stage:<8} {share:>5} {each.ndcg:>8.4f} {_interval(each.ndcg_difference):>26} "
                f"{each.alpha_ndcg:>14.4f} {_interval(each.alpha_difference):>26}"
            )


def _interval(difference: tuple[float, float, float]) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*difference)
