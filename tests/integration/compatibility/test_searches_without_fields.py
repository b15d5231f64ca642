"""Searches that name no fields are answered on every engine as before the index was enriched."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import requests
from opensearchpy import OpenSearch

from bridge.profile import DEFAULT_OBJECT, IndexProfile
from bridge.settings import IngestSettings
from ingest.backfill import run_backfill
from tests.ingest.toys import toy_models
from tests.integration.compatibility.conftest import Engine
from tests.integration.compatibility.test_documents import SINGLE, application_index

WORDS = ["what", "title", "is 7", "what is text", "title 3 what"]
"""The toy predicts for each document `what is` and one of its words."""

QUERIES: list[dict[str, Any]] = [
    *({"multi_match": {"query": words}} for words in WORDS),
    *({"multi_match": {"query": words, "fields": ["*"], "type": "cross_fields"}} for words in WORDS),
    *({"multi_match": {"query": words, "fields": ["*"], "lenient": True, "operator": "and"}} for words in WORDS),
    *({"query_string": {"query": words}} for words in WORDS),
    *({"query_string": {"query": words, "fields": ["*"], "type": "most_fields"}} for words in WORDS),
    *({"simple_query_string": {"query": words, "default_operator": "and"}} for words in WORDS),
    {"query_string": {"query": '"what is text"'}},
    {"query_string": {"query": "wha*"}},
    {"simple_query_string": {"query": "what~1 | titl*"}},
    {"bool": {"must_not": [{"query_string": {"query": "what"}}]}},
]


def _answers(engine: Engine, index: str) -> list[Any]:
    """The whole answer to each search, without its time, in one order where scores tie."""
    url = f"{engine.url}/{index}/_search"
    tie = ["_score", {"stock": "asc"}]
    answers = [requests.post(url, json={"query": query, "size": 50, "sort": tie}, timeout=60) for query in QUERIES]
    answers += [requests.get(f"{url}?q={quote(words)}&sort=_score,stock&size=50", timeout=60) for words in WORDS]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    return [{key: value for key, value in answer.json().items() if key != "took"} for answer in answers]


def _enriched(client: OpenSearch, index: str, folder: Path, profile: IndexProfile) -> None:
    done = run_backfill(
        index,
        profile=profile,
        models=toy_models(),
        client=client,
        settings=IngestSettings(object_field=profile.object_field),
        state_folder=folder,
    )
    assert (done.report.ledger.written, done.report.exit_code) == (12, 0)
    # Deleted versions of documents count in scores until segments are merged, whoever rewrote them.
    client.indices.forcemerge(index=index, params={"max_num_segments": 1})
    client.indices.refresh(index=index)


def _without_ours(answers: list[Any], object_field: str) -> int:
    """Takes our object out of the documents; how many had one."""
    hits = [hit for answer in answers for hit in answer["hits"]["hits"]]
    return sum(hit["_source"].pop(object_field, None) is not None for hit in hits)


@pytest.mark.feature("searches that name no fields are answered as before")
def test_enriching_changes_no_answer_to_a_search_without_fields(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 12)
    before = _answers(engine, index_name)

    _enriched(client, index_name, tmp_path, SINGLE)

    after = _answers(engine, index_name)
    assert SINGLE.object_field == IngestSettings().object_field == DEFAULT_OBJECT
    assert _without_ours(after, DEFAULT_OBJECT) > 0
    assert after == before


@pytest.mark.feature("searches that name no fields are answered as before")
def test_an_object_without_an_underscore_would_be_searched_too(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 12)
    before = _answers(engine, index_name)

    _enriched(client, index_name, tmp_path, msgspec.structs.replace(SINGLE, object_field="visible"))

    after = _answers(engine, index_name)
    _without_ours(after, "visible")
    assert after != before
