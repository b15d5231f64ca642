"""The stack that a measurement runs on: an index, and a sidecar and proxy of its own before the cluster.

The index is either the operator's own, or a collection on the embedded node, which keeps it for the next measurement.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.console import Display
from bridge.errors import CheckpointUnusable, IngestError
from bridge.evaluation.collections import Collection
from bridge.node.assembly import cache_folder
from bridge.node.node import EmbeddedNode
from bridge.processes.services import MeasuringServers, Overrides
from bridge.profile import IndexProfile, PassageSettings
from bridge.settings import ClusterSettings, Settings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import Models, load_models, profile_for, profile_like

NODE = "evaluation"
"""Name of the embedded node's instance and of its folder in the cache."""

FIELDS = ("title", "text")
"""The text fields of a collection in BEIR's layout."""

NODE_START_TIMEOUT_S = 600.0
"""The machine may be busy with another measurement."""

MERGE_TIMEOUT_S = 3600.0

_UNSAFE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class MeasuredIndex:
    """A running index to measure. `profile_in` is the index whose mapping has the profile, itself or its companion.
    `cluster` is a client of its cluster, `proxy` a client of the measuring proxy, both with the user of the settings;
    `servers` are that proxy and its sidecar. `settings` name its cluster."""

    name: str
    n_documents: int
    profile: IndexProfile
    profile_in: str
    cluster: OpenSearch
    proxy: OpenSearch
    servers: MeasuringServers
    settings: Settings


@contextmanager
def collection_index(
    collection: Collection,
    settings: Settings,
    display: Display,
    *,
    config_file: Path | None,
    analyzer: str = "english",
    servers: Overrides | None = None,
) -> Iterator[MeasuredIndex]:
    """Starts the embedded node with the collection, enriched, and serves it. Only the data outlive the block.

    `servers` overrides settings of the sidecar and the proxy.

    Raises:
        BridgeError: a server does not start, or documents cannot be written.
    """
    folder = logs_folder(settings)
    node_settings = settings.node.model_copy(
        update={"start_timeout_s": max(settings.node.start_timeout_s, NODE_START_TIMEOUT_S)}
    )
    name = "-".join([NODE, _UNSAFE.sub("-", collection.name.lower()).strip("-")[:80], collection.digest])
    if analyzer != "english":
        name = f"{name}-{_UNSAFE.sub('-', analyzer.lower())}"
    with ExitStack() as running:
        with display.step("Start OpenSearch (the first time, fetch and assemble it)"):
            node = running.enter_context(EmbeddedNode.kept(NODE, node_settings))
        at = ClusterSettings(url=node.url, timeout_s=settings.cluster.timeout_s)
        with connect(at) as client:
            Filling(client, name, collection, settings, folder / name, display).fill(analyzer)
        served = settings.model_copy(update={"cluster": at})
        yield running.enter_context(
            own_index(name, served, display, config_file=config_file, folder=folder, servers=servers)
        )


def logs_folder(settings: Settings) -> Path:
    """The folder for logs, checkpoints and plots of measurements; created if missing."""
    folder = cache_folder(settings.node.cache_dir) / NODE
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def own_index(
    name: str,
    settings: Settings,
    display: Display,
    *,
    config_file: Path | None,
    folder: Path | None = None,
    servers: Overrides | None = None,
) -> Iterator[MeasuredIndex]:
    """Serves an index of the cluster in the settings, read-only. `servers` as in `collection_index`; `folder` for logs.

    Raises:
        IndexUnsuitable: the index does not exist or is not enriched.
        BridgeError: sidecar or proxy do not start.
    """
    folder = folder or logs_folder(settings)
    with ExitStack() as running:
        client = running.enter_context(connect(settings.cluster))
        state = companion.enriched(client, name, settings.companion.prefix)
        with display.step("Start the rerank sidecar and the query proxy"):
            planned = MeasuringServers.before(settings.cluster.url, config_file, log_folder=folder, more=servers)
            running.enter_context(planned.supervised())
        through = settings.cluster.model_copy(update={"url": planned.proxy_url})
        proxy = running.enter_context(connect(through))
        n_documents = indices.count(client, name)
        yield MeasuredIndex(name, n_documents, state.required_profile, state.name, client, proxy, planned, settings)


@dataclass(frozen=True, slots=True)
class Filling:
    """Writes the documents of a collection that its index lacks."""

    client: OpenSearch
    name: str
    collection: Collection
    settings: Settings
    state_folder: Path
    display: Display

    def fill(self, analyzer: str) -> None:
        """Enriches and writes the missing documents.

        Raises:
            IngestError: no document could be written.
        """
        with self.display.step("Load the models that enrich documents"):
            models = load_models(self.settings.ingest)
        state = indices.find(self.client, self.name)
        earlier = state.profile if state is not None else None
        profile = profile_for(models, FIELDS, passages=PassageSettings(layout="nested"), kept=earlier)
        self._make_index(state, profile, models, analyzer)
        n_documents = self.collection.n_documents
        with self.display.progress(f"Enrich {self.collection.name}", n_documents) as show:
            report = self._ingest(profile, models, show)
        n_present = indices.count(self.client, self.name)
        if not n_present:
            raise IngestError(
                f"collection {self.collection.name}: none of its {n_documents:,} documents could be written "
                f"({report.ledger}): the dead letters say why: {report.dead_letters}"
            )
        if report.ledger.dead_lettered:
            self.display.say(
                f"{report.ledger.dead_lettered:,} documents could not be written and are missing from the index: "
                f"{report.dead_letters} says why"
            )
        # One segment holds one graph of vectors: every later search walks the same. A run that was cut off merged
        # nothing.
        with self.display.step("Merge the index into one segment"):
            self.client.indices.forcemerge(index=self.name, max_num_segments=1, request_timeout=MERGE_TIMEOUT_S)
        self.display.done(f"{n_present:,} documents, {report.ledger.written:,} of them written now", report.seconds)

    def _make_index(
        self, state: indices.IndexState | None, profile: IndexProfile, models: Models, analyzer: str
    ) -> None:
        """Recreates an index of other models, which belongs to the measurement. Updates other search settings, unless
        somebody tuned the index."""
        if state is not None and (state.profile is None or profile_like(state.profile, models) != state.profile):
            indices.delete(self.client, self.name)
            state = None
        properties = {field: {"type": "text", "analyzer": analyzer} for field in FIELDS}
        if state is None:
            indices.create(
                self.client,
                self.name,
                profile,
                properties=properties,
                settings={"number_of_shards": 1, "number_of_replicas": 0},
                # Other fields of a collection may differ in type from document to document.
                dynamic="false",
            )
        elif not _was_chosen(state.profile):
            wanted = indices.new_profile(self.client, profile, properties=properties)
            indices.put_profile(self.client, self.name, lambda _: indices.as_kept(wanted, state))

    def _ingest(self, profile: IndexProfile, models: Models, show: Callable[[int], None]) -> Report:
        source = FileDocuments(
            [str(self.collection.corpus)],
            FieldChoice(text_fields=list(FIELDS)),
            max_doc_bytes=self.settings.ingest.max_doc_bytes,
        )
        # One wrong line in a thousand is no reason to measure nothing.
        settings = self.settings.ingest.model_copy(
            update={"max_errors": max(self.settings.ingest.max_errors, self.collection.n_documents)}
        )
        job = Job(
            index=self.name,
            profile=profile,
            models=models,
            client=self.client,
            settings=settings,
            state_folder=self.state_folder,
            on_progress=lambda progress: show(progress.answered),
        )
        try:
            return run_ingest(source, job)
        except CheckpointUnusable:
            # It is from other models or settings, or from a deleted index. A new run skips unchanged documents.
            return run_ingest(source, replace(job, from_start=True))


def _was_chosen(profile: IndexProfile | None) -> bool:
    """Whether somebody gated or tuned the index; then its settings stay."""
    return profile is not None and (profile.gate is not None or profile.tuning is not None)
