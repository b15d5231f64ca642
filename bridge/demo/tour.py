"""The whole bridge at work: fill an index, start the servers, search past the bridge and through it, measure every
stage, then gate and tune the index and measure it as it is served."""

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
from bridge.demo.collection import INDEX, application_query, make_index
from bridge.demo.comparison import QUESTIONS, compare, comparisons_table
from bridge.demo.documents import ENRICHED_FIELDS, DocumentationEntry, documents, standard_library
from bridge.demo.measurement import advice, measure, measure_served, measures_table, restricted
from bridge.demo.stack import PROFILE_TTL_S, folder_of, is_kept, running_node, running_servers
from bridge.errors import IngestError
from bridge.evaluation import gate
from bridge.evaluation.judged_queries import FEWEST_QUERIES, JudgedQueries
from bridge.evaluation.known_items import KnownItems, joined, known_items
from bridge.evaluation.stages import STAGES, StageResult
from bridge.evaluation.tuning.setting import Setting
from bridge.evaluation.tuning.tuner import Tuner, tuned
from bridge.model_servers.client import SidecarClient
from bridge.processes.background import Stack
from bridge.profile import IndexProfile
from bridge.settings import ClusterSettings, Settings
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import load_models, profile_for

OTHER_WORDS = 90
"""Questions in other words that are measured, of all that there are: reranking takes most of a demo's time."""

_GATED = ("lexical", "expansion", "hybrid", "smoothing", "rerank", "cascade")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a demo. `measures`: on the questions that chose nothing. `kept`: the stack that goes on, if any."""

    n_documents: int
    measures: Sequence[StageResult]
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
        cluster = running.enter_context(connect(ClusterSettings(url=node.url)))
        _fill(cluster, index, entries, settings, display)
        with display.step("Start the rerank sidecar and the query proxy"):
            servers = running_servers(settings, node, config_file=config_file, keep=keep)
            stack = running.enter_context(servers)
        proxy = running.enter_context(connect(ClusterSettings(url=stack.proxy_url)))
        with display.step(f"Ask {len(QUESTIONS)} questions, past the bridge and through it"):
            comparisons = [compare(proxy, index, question) for question in QUESTIONS]
        display.table(comparisons_table(comparisons))
        items = known_items({entry.name for entry in entries})
        measures = _Measuring(cluster, proxy, stack, index, items, display).run()
    return Outcome(len(entries), measures, time.perf_counter() - started, index, stack if keep else None)


@dataclass(frozen=True, slots=True)
class _Measuring:
    """Measures every stage; gates and tunes the index on one half of the questions, and shows the other half."""

    cluster: OpenSearch
    proxy: OpenSearch
    stack: Stack
    index: str
    items: KnownItems
    display: Display

    def run(self) -> list[StageResult]:
        """Prints both tables, and returns the figures of the first."""
        display, items = self.display, self.items
        chosen_by, shown = items.halves()
        other_words = items.in_other_words().spread(OTHER_WORDS)
        judged = joined(chosen_by, shown, other_words)
        with display.progress("Measure every stage", len(judged.queries) * len(STAGES)) as on_search:
            searches = count(1)
            results = measure(
                self.proxy, self.index, judged, STAGES, on_search=lambda: on_search(next(searches)), say=display.say
            )
        setting = self._serve_best(chosen_by, restricted(results, chosen_by))
        served = []
        if setting is not None:
            with display.step("Measure the index as it is served"):
                shown_too = joined(shown, other_words)
                served = [measure_served(self.proxy, self.index, shown_too, setting.stage, say=display.say)]
        results_in_other_words = restricted([*results, *served], other_words)
        results = restricted([*results, *served], shown)
        display.table(measures_table(f"{len(shown.queries)} questions as people type them", results))
        if setting is not None:
            display.say(f"Chosen by {len(chosen_by.queries)} other questions: {setting}.")
        if (line := advice(results)) is not None:
            display.say(line)
        if other_words.queries:
            display.table(
                measures_table(
                    f"{len(other_words.queries)} questions in words that no right document uses", results_in_other_words
                )
            )
        if items.dropped:
            display.say(f"{items.dropped} questions left out: this Python documents no answer.")
        return results

    def _serve_best(self, judged: JudgedQueries, results: Sequence[StageResult]) -> Setting | None:
        """Does what `neural-bridge gate` and `tune --apply` do, by some of the questions; None if they are too few."""
        if len(judged.queries) < FEWEST_QUERIES:
            self.display.say(f"{len(judged.queries)} questions are too few to gate and tune the index by.")
            return None

        def gated(profile: IndexProfile) -> IndexProfile:
            record = gate.judge(
                [result for result in results if result.stage in _GATED],
                tolerance=gate.TOLERANCE,
                measurement=judged.measurement(gate.MEASURE),
                serving=profile.stages,
            )
            return gate.gated(profile, record)

        profile = indices.put_profile(self.cluster, self.index, gated)
        with self.display.step("Tune the index"), SidecarClient(self.stack.sidecar_url) as sidecar:
            tuner = Tuner(
                self.cluster,
                sidecar,
                self.index,
                profile,
                judged,
                application_query,
                measure=gate.MEASURE,
                display=self.display,
            )
            # No slower than the slowest stage of the table, however busy the machine is.
            setting = tuner.choose(max(result.latencies()[1] for result in results)).setting
        indices.put_profile(self.cluster, self.index, lambda old: tuned(old, setting, None))
        time.sleep(PROFILE_TTL_S)  # then the proxy reads the new profile
        return setting


def _fill(
    cluster: OpenSearch, index: str, entries: Sequence[DocumentationEntry], settings: Settings, display: Display
) -> None:
    """Enriches and writes what the index does not hold yet."""
    with display.step("Load the models that enrich documents"):
        models = load_models(settings.ingest)
    profile = profile_for(models, ENRICHED_FIELDS)
    made_of = list(documents(entries))
    make_index(cluster, index, profile, models, doc_ids=[document.doc_id for document in made_of])
    with display.progress("Predict queries, embed, write", len(entries)) as on_progress:
        report = run_ingest(
            DocumentsInMemory(made_of, identity="the standard library's documentation"),
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
    present = indices.count(cluster, index)
    if report.exit_code or present != len(entries):
        raise IngestError(
            f"index {index} holds {present:,} of {len(entries):,} documents ({report.ledger}): "
            f"the dead letters say why: {report.dead_letters}"
        )
    if not report.ledger.written:
        display.done(f"{present:,} documents are in the index already: nothing to do", report.seconds)
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
