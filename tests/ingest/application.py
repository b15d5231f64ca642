"""An index as an application makes it that never heard of the bridge, and its documents."""

import json
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.generations import next_generation
from bridge.profile import IndexProfile, PassageSettings
from bridge.settings import IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.plan import Plan, plan
from ingest.runs.way import Wanted, begun, choose
from ingest.stages.models import Models, profile_for

TEXT_FIELDS = ["title", "text"]
MAPPING: dict[str, Any] = {
    "title": {"type": "text"},
    "text": {"type": "text", "analyzer": "english"},
    "stock": {"type": "long"},
}


def old_application(client: OpenSearch, index: str, n: int, *, knn: bool = True, **body: Any) -> None:
    """Creates an index as an application does that never heard of the bridge, and fills it."""
    settings = {"index.number_of_replicas": 0, **({"index.knn": True} if knn else {})}
    client.indices.create(index=index, body={"settings": settings, "mappings": {"properties": MAPPING, **body}})
    lines = []
    for i in range(n):
        lines += [{"index": {"_id": f"d{i}"}}, {"title": f"title {i}", "text": f"text of {i}", "stock": 0}]
    if lines:
        client.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})


def source(client: OpenSearch, index: str, doc_id: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get(index=index, id=doc_id, params=params)["_source"]
    return found


def backfilled(client: OpenSearch, index: str, models: Models, profile: IndexProfile, state_folder: Path) -> Report:
    """Enriches the index in place; searches see the outcome."""
    report = run_backfill(
        Job(
            index,
            profile=profile,
            models=models,
            client=client,
            settings=IngestSettings(),
            state_folder=state_folder,
        ),
    ).report
    client.indices.refresh(index=index)
    return report


def planned(
    client: OpenSearch,
    index: str,
    models: Models,
    profile: IndexProfile,
    *,
    wanted: Wanted | None = None,
    prefix: str = "neural-bridge.",
    settings: IngestSettings | None = None,
    sample: int = 1000,
) -> Plan:
    """The plan for the way that is chosen for the index."""
    settings = settings or IngestSettings()
    state = indices.look(client, index)
    kept = begun(client, state, prefix)
    way = choose(client, state, profile, settings, kept=kept, wanted=wanted, prefix=prefix)
    return plan(way, profile=profile, models=models, client=client, settings=settings, sample=sample)


def fill_generation(
    client: OpenSearch, index: str, models: Models, folder: Path, *, passages: PassageSettings | None = None
) -> Report:
    """Fills the generation that the models are for: the first one, or one beside it."""
    state = indices.look(client, index)
    wanted = profile_for(models, TEXT_FIELDS, passages=passages)
    profile = next_generation(state, wanted) if state.profile else wanted
    return backfilled(client, index, models, profile, folder / str(profile.generation))
