"""Looks at an index before anything is written: which way, how long, how large, what could go wrong."""

import threading
from typing import Any

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import dialect_of
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.schema import field_mapping, in_place_obstacles, missing_fields, object_properties
from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.runs.measuring import measure
from ingest.sources.index import IndexDocuments
from ingest.stages.models import Models
from ingest.stages.stamps import recipe, stale
from ingest.writing.actions import neural_object
from ingest.writing.retry import RetryLimits

_GRAPH_LINKS = 16
_HNSW_OVERHEAD = 1.1
"""OpenSearch's own estimate of HNSW memory: 1.1 * (4 * dimension + 8 * m) bytes per vector."""


class Plan(msgspec.Struct, frozen=True):
    """What enriching an index would mean.

    `way`: in_place, or copy where `obstacles` forbid it. `documents` are in the index, `stale` of them
    need work (estimated from the sample). `measured` documents of the sample went through the models at
    `documents_per_s`; `hours` follows. `index_growth_bytes`: our fields as stored. `vector_memory_bytes`:
    what the nodes should have free for the graphs. `mapping`: what is added to it. `risks`: sentences.
    """

    index: str
    way: str
    obstacles: list[str]
    documents: int
    stale: int
    sampled: int
    measured: int
    passages: int
    documents_per_s: float
    hours: float
    index_growth_bytes: int
    vector_memory_bytes: int
    mapping: dict[str, Any]
    risks: list[str]


def plan(
    index: str,
    *,
    profile: IndexProfile,
    models: Models,
    client: OpenSearch,
    settings: IngestSettings,
    sample: int = 1000,
) -> Plan:
    """Reads settings, mapping and a sample of `sample` documents, and works on these; nothing is written.

    Raises:
        IndexUnsuitable: there is no such index.
        ClusterError: the cluster does not answer, or does not let this user read all of the index.
    """
    state = indices.look(client, index)
    refuse_restricted(client, state.name)
    profile = indices.fitted(client, profile)
    dialect = dialect_of(capabilities(client))
    obstacles = in_place_obstacles(profile, dialect, state.mapping, state.settings)
    made_by = recipe(profile, settings)
    texts = profile.text_fields
    source = IndexDocuments(
        client,
        state.name,
        [*texts, profile.stamp_field],
        text_fields=texts,
        retry=RetryLimits(),
        stopped=threading.Event(),
    )
    documents = source.total()
    sampled = [item for item in source.sample(sample) if isinstance(item, Document)]
    needy = stale(sampled, profile, made_by)
    measured = measure(needy, profile, models, settings, made_by)
    n_stale = round(documents * len(needy) / len(sampled)) if sampled else 0
    scale = n_stale / len(measured.documents) if measured.documents else 0.0
    n_passages = round(scale * sum(len(document.passages) for document in measured.documents))
    growth = sum(len(neural_object(document, profile)) for document in measured.documents)
    n_vectors = n_passages if profile.vector_type != "none" else 0
    analyzer = (field_mapping(state.mapping, texts[0]) or {}).get("analyzer")
    return Plan(
        index=state.name,
        way="copy" if obstacles else "in_place",
        obstacles=obstacles,
        documents=documents,
        stale=n_stale,
        sampled=len(sampled),
        measured=len(measured.documents),
        passages=n_passages,
        documents_per_s=round(measured.per_s, 1),
        hours=round(measured.hours(n_stale), 6),
        index_growth_bytes=round(scale * growth) + n_vectors * 4 * profile.dimension,
        vector_memory_bytes=round(n_vectors * _HNSW_OVERHEAD * (4 * profile.dimension + 8 * _GRAPH_LINKS)),
        mapping=object_properties(profile, dialect, analyzer=analyzer)
        if missing_fields(profile, state.mapping)
        else {},
        risks=_risks(sampled, state),
    )


def _risks(sampled: list[Document], state: indices.IndexState) -> list[str]:
    risks = []
    empty = sum(not any(text.strip() for text in document.texts.values()) for document in sampled)
    if empty:
        risks.append(f"{empty:,} of {len(sampled):,} sampled documents have no text: they get no vector")
    if state.settings.get("default_pipeline") or state.settings.get("final_pipeline"):
        risks.append("the index has an ingest pipeline: it sees our updates too, and may drop or change them")
    return risks
