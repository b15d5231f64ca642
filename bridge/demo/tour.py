"""The whole bridge at work: fill an index, start the servers, search past the bridge and through it, measure."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.console import Display
from bridge.demo.collection import INDEX, make_index
from bridge.demo.comparison import QUESTIONS, compare
from bridge.demo.display import comparisons_table, measures_table, questions_line
from bridge.demo.documents import ENRICHED_FIELDS, DocumentationEntry, documents, standard_library
from bridge.demo.measurement import StageMeasure, measure, total_searches
from bridge.demo.stack import folder_of, is_kept, running_node, running_servers
from bridge.errors import IngestError
from bridge.evaluation.known_items import known_items
from bridge.processes.background import Stack
from bridge.settings import ClusterSettings, Settings
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import load_models, profile_for


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo found. `kept`: where the stack goes on, if it does."""

    n_documents: int
    results: Sequence[StageMeasure]
    seconds: float
    index: str
    kept: Stack | None


def run(settings: Settings, display: Display, *, config_file: Path | None, keep: bool, limit: int | None) -> Outcome:
    """Runs the demo from the first step to the last; `limit` takes fewer documents, evenly spread.

    A stack that an earlier demo kept is used, and goes on whatever `keep` says.

    Raises:
        BridgeError: a step failed; what the demo started has been stopped.
    """
    started = time.perf_counter()
    keep = keep or is_kept(settings.node)
    index = INDEX if limit is None else f"{INDEX}-{limit}"
    with ExitStack() as running:
        with display.step("Read the standard library's documentation"):
            entries = _spread(standard_library(), limit)
        with display.step("Start OpenSearch (the first time, fetch and assemble it)"):
            node = running.enter_context(running_node(settings.node, keep=keep))
        with connect(ClusterSettings(url=node.url)) as cluster:
            _fill(cluster, index, entries, settings, display)
        with display.step("Start the rerank sidecar and the query proxy"):
            servers = running_servers(settings, node, config_file=config_file, keep=keep)
            stack = running.enter_context(servers)
        with connect(ClusterSettings(url=stack.proxy_url)) as proxy:
            with display.step(f"Ask {len(QUESTIONS)} questions, past the bridge and through it"):
                comparisons = [compare(proxy, index, question) for question in QUESTIONS]
            display.table(comparisons_table(comparisons))
            items = known_items({entry.name for entry in entries})
            with display.progress("Measure every stage", total_searches(items)) as on_search:
                searches = count(1)
                results = measure(proxy, index, items, on_search=lambda: on_search(next(searches)), say=display.say)
            display.table(measures_table(results))
            display.say(questions_line(items))
    return Outcome(len(entries), results, time.perf_counter() - started, index, stack if keep else None)


def _fill(
    cluster: OpenSearch, index: str, entries: Sequence[DocumentationEntry], settings: Settings, display: Display
) -> None:
    """Enriches and writes what the index does not hold yet.

    Raises:
        IngestError: not every document is in the index afterwards.
    """
    with display.step("Load the models that enrich documents"):
        models = load_models(settings.ingest)
    profile = profile_for(models, ENRICHED_FIELDS)
    make_index(cluster, index, profile, n_documents=len(entries))
    with display.progress("Predict queries, embed, write", len(entries)) as on_progress:
        report = run_ingest(
            DocumentsInMemory(list(documents(entries)), identity="the standard library's documentation"),
            Job(
                index=index,
                profile=profile,
                models=models,
                client=cluster,
                settings=settings.ingest,
                state_folder=folder_of(settings.node) / "ingest",
                on_progress=lambda progress: on_progress(progress.answered),
            ),
        )
    kept = indices.count(cluster, index)
    if report.exit_code or kept != len(entries):
        raise IngestError(
            f"index {index} holds {kept:,} of {len(entries):,} documents ({report.ledger}): "
            f"the dead letters say why: {report.dead_letters}"
        )
    if not report.ledger.written:
        display.done(f"{kept:,} documents are in the index just so: nothing to do", report.seconds)
        return
    # One segment holds one graph of vectors: every later search walks the same.
    cluster.indices.forcemerge(index=index, max_num_segments=1)
    display.done(
        f"{report.ledger.written:,} documents enriched and written, {report.documents_per_s:.0f}/s", report.seconds
    )


def _spread(entries: Sequence[DocumentationEntry], limit: int | None) -> Sequence[DocumentationEntry]:
    """`limit` of the entries at even distances."""
    if limit is None or limit >= len(entries):
        return entries
    return [entries[n * len(entries) // limit] for n in range(limit)]
