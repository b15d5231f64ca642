"""Plans the enrichment of an index before anything is written: how long, how large, which risks."""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec
from opensearchpy import OpenSearch, TransportError

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import dialect_of, graph_bytes
from bridge.cluster.index import IndexState
from bridge.cluster.schema import Bm25, analysers, missing_fields, object_properties, pipeline_risks
from bridge.errors import AccessDenied, ClusterBlocked
from bridge.languages import unread_language
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.runs.way import Way
from ingest.sources.index import IndexDocuments
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models
from ingest.stages.stamps import ChangeFilter, recipe, stale, text_stamp
from ingest.writing.bulk import neural_object
from ingest.writing.pace import RetryLimits

_LONGEST_S = 60.0
_INDEXED_SHARE = 0.4
"""Bytes of an index of words to the characters of its texts."""


class Plan(msgspec.Struct, frozen=True):
    """What enriching an index would mean.

    `way`: in_place; beside, in the index `companion`; undo if the index or its companion was made for another profile.
    `reasons` say why this way, one sentence each. The index has `documents`, of which `stale` need work
    (estimated from the sample). `measured` documents of the sample went through the models at `documents_per_s`, from
    which `hours` follow. `store_bytes`: one copy of the index now, None if this user may not know;
    `index_growth_bytes`: our fields as stored. `vector_memory_bytes`: free memory that the graphs need on the nodes.
    `bm25`: how the index scores words; None if by another similarity. `mapping`: fields that are added to the index, or
    those of a new companion. `risks` are sentences.
    """

    index: str
    way: Literal["in_place", "beside", "undo"]
    reasons: list[str]
    companion: str | None
    documents: int
    stale: int
    sampled: int
    measured: int
    passages: int
    documents_per_s: float
    hours: float
    store_bytes: int | None
    index_growth_bytes: int
    vector_memory_bytes: int
    bm25: Bm25 | None
    mapping: dict[str, Any]
    risks: list[str]


def plan(
    way: Way,
    *,
    profile: IndexProfile,
    models: Models,
    client: OpenSearch,
    settings: IngestSettings,
    sample: int = 1000,
) -> Plan:
    """Reads settings and mapping, and enriches a sample of `sample` documents; nothing is written. `way`: see
    `ingest.runs.way.choose`.

    Raises:
        IndexUnsuitable: there is no such index, or nothing can be made of it beside.
        ClusterError: the cluster does not answer, or does not let this user read all of the index.
    """
    state = indices.look(client, way.index)
    profile = indices.fitted(client, profile)
    beside: IndexState | None = None
    if way.prefix is not None:
        beside = companion.of(client, state, profile, way.prefix)
        profile = msgspec.structs.replace(profile, beside=state.name)
    written = state if way.prefix is None else beside
    profile = indices.as_kept(profile, written) if written else profile
    contradictions = indices.contradictions(written, profile) if written else []
    made_by = recipe(profile, settings)
    texts = profile.text_fields
    source = IndexDocuments(
        client,
        state.name,
        [*texts, profile.stamp_field],
        text_fields=texts,
        image_field=profile.image_field,
        retry=RetryLimits(),
        stopped=threading.Event(),
    )
    documents = source.total()
    sampled = [item for item in source.sample(sample) if isinstance(item, Document)]
    if beside is None:
        needy = stale(sampled, profile, made_by)
    else:
        needy = ChangeFilter(client, beside.name, profile, made_by).changed(sampled)
    measured = measure_speed(needy, profile, models, settings, made_by)
    n_stale = round(documents * len(needy) / len(sampled)) if sampled else 0
    scale = n_stale / len(measured.documents) if measured.documents else 0.0
    n_passages = round(scale * sum(len(document.passages) for document in measured.documents))
    growth = sum(_stored_bytes(document, profile) for document in measured.documents)
    n_vectors = n_passages if profile.has_vectors else 0
    image_bytes = profile.image.dimension * profile.embedding_bytes // profile.dimension if profile.image else 0
    n_images = round(scale * sum(document.image is not None for document in measured.documents))
    chosen: Literal["in_place", "beside"] = "beside" if way.companion else "in_place"
    return Plan(
        index=state.name,
        way="undo" if contradictions else chosen,
        reasons=contradictions or list(way.reasons),
        companion=way.companion,
        documents=documents,
        stale=n_stale,
        sampled=len(sampled),
        measured=len(measured.documents),
        passages=n_passages,
        documents_per_s=round(measured.per_s, 1),
        hours=round(measured.hours(n_stale), 6),
        store_bytes=_store_bytes(client, state.name),
        index_growth_bytes=round(scale * growth) + n_vectors * profile.embedding_bytes + n_images * image_bytes,
        vector_memory_bytes=round(n_vectors * graph_bytes(profile) + n_images * graph_bytes(profile, image_bytes)),
        bm25=Bm25.of(state.settings),
        mapping=_added(client, state, written, profile),
        risks=_risks(sampled, written, models),
    )


def _stored_bytes(document: EnrichedDocument, profile: IndexProfile) -> float:
    """What a document takes in the index that is written, without its vectors."""
    if profile.beside is None:
        return len(neural_object(document, profile))
    # A companion leaves embeddings out of `_source`, and indexes texts without storing them.
    stored = msgspec.structs.replace(document, embeddings=document.embeddings[:0], image=None)
    return len(neural_object(stored, profile)) + _INDEXED_SHARE * sum(map(len, document.document.texts.values()))


def _store_bytes(client: OpenSearch, index: str) -> int | None:
    """Bytes on disk of one copy of an index; None if this user may not know."""
    try:
        stats = client.indices.stats(index=index, metric="store")
    except (AccessDenied, ClusterBlocked, TransportError):
        return None
    return int(stats["_all"]["primaries"]["store"]["size_in_bytes"])


def _added(client: OpenSearch, state: IndexState, written: IndexState | None, profile: IndexProfile) -> dict[str, Any]:
    """The fields that a run adds to the index that it writes, or those of the companion that it makes."""
    dialect = dialect_of(capabilities(client))
    if written is None:
        made: dict[str, Any] = companion.new_companion(state, profile, dialect)["mappings"]["properties"]
        return made
    if not missing_fields(profile, written.mapping):
        return {}
    return object_properties(profile, dialect, **analysers(state.mapping, profile))


def _risks(sampled: list[Document], written: IndexState | None, models: Models) -> list[str]:
    risks = []
    texts = ("\n".join(document.texts.values()) for document in sampled)
    if (unread := unread_language(texts, models.languages, models.encoder_reference.name)) is not None:
        risks.append(unread)
    empty = sum(not any(text.strip() for text in document.texts.values()) for document in sampled)
    if empty:
        risks.append(f"{empty:,} of {len(sampled):,} sampled documents have no text: they get no vector")
    return [*risks, *pipeline_risks(written.settings if written else {})]


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """Documents that went through the models, and the seconds that this took."""

    documents: list[EnrichedDocument]
    seconds: float

    @property
    def per_s(self) -> float:
        """Documents per second; 0 if there were none."""
        return len(self.documents) / self.seconds if self.seconds else 0.0

    def hours(self, n_documents: int) -> float:
        """Hours that so many documents would take; 0 if nothing is known."""
        return n_documents / self.per_s / 3600 if self.per_s else 0.0


def measure_speed(
    documents: Sequence[Document], profile: IndexProfile, models: Models, settings: IngestSettings, made_by: str
) -> ModelSpeed:
    """Enriches documents in random order as a run would, for a minute at most; nothing is written. `made_by`: see
    `ingest.stages.stamps.recipe`.

    Raises:
        ModelError: a model failed.
    """
    expand = Expansion.of(profile, models, settings)
    embed = Embedding.of(profile, models, partial(text_stamp, made_by))
    chosen = random.Random(0).sample(documents, len(documents))
    done: list[EnrichedDocument] = []
    began = time.monotonic()
    for begin in range(0, len(chosen), BATCH_DOCUMENTS):
        done += embed(expand(chosen[begin : begin + BATCH_DOCUMENTS]))
        if time.monotonic() - began >= _LONGEST_S:
            break
    return ModelSpeed(done, time.monotonic() - began)
