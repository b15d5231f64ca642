"""Searches that name no fields are answered on every engine as before the index was enriched."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import requests
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.profile import DEFAULT_OBJECT, IndexProfile
from bridge.settings import IngestSettings
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.index import IndexDocuments
from tests.ingest.toys import toy_models
from tests.integration.compatibility.conftest import Engine
from tests.integration.compatibility.test_documents import MAPPING, SINGLE, application_index, backfill

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
    """The whole answer to each search but for its time and the index's name, in one order where scores tie."""
    url = f"{engine.url}/{index}/_search"
    tie = ["_score", {"stock": "asc"}]
    answers = [requests.post(url, json={"query": query, "size": 50, "sort": tie}, timeout=60) for query in QUERIES]
    answers += [requests.get(f"{url}?q={quote(words)}&sort=_score,stock&size=50", timeout=60) for words in WORDS]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    return [
        {key: value for key, value in json.loads(answer.text.replace(index, "INDEX")).items() if key != "took"}
        for answer in answers
    ]


def _explanations(client: OpenSearch, index: str) -> list[list[str]]:
    """What Lucene is asked to look for, by query; Elasticsearch names the fields in no certain order."""
    params = {"explain": "true", "rewrite": "true"}
    answers = [client.indices.validate_query(index=index, body={"query": query}, params=params) for query in QUERIES]
    explanations = [explained["explanation"] for answer in answers for explained in answer["explanations"]]
    return [sorted(re.findall(r"[^\s()|]+", explanation)) for explanation in explanations]


def _made_anew(client: OpenSearch, old: str, folder: Path, profile: IndexProfile) -> str:
    """An enriched index of the same documents. It is new: where documents were rewritten, the deleted versions count
    in scores until the cluster drops them, whoever rewrote them."""
    new = f"{old}-new"
    indices.create(client, new, profile, properties=MAPPING)
    settings = IngestSettings(object_field=profile.object_field)
    source = IndexDocuments(client, old, [], text_fields=profile.text_fields)
    assert run_ingest(source, Job(new, profile, toy_models(), client, settings, folder)).ledger.written == 12
    return new


def _without(answers: list[Any], object_field: str) -> int:
    """Takes our object out of the documents; how many had one."""
    hits = [hit for answer in answers for hit in answer["hits"]["hits"]]
    return sum(hit["_source"].pop(object_field, None) is not None for hit in hits)


@pytest.mark.feature("searches that name no fields are answered as before")
def test_an_enriched_index_answers_them_as_the_plain_one_did(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 12)
    before = _answers(engine, index_name)

    after = _answers(engine, _made_anew(client, index_name, tmp_path, SINGLE))

    assert SINGLE.object_field == IngestSettings().object_field == DEFAULT_OBJECT
    assert _without(after, DEFAULT_OBJECT) > 0
    assert after == before


@pytest.mark.feature("searches that name no fields are answered as before")
def test_enriching_in_place_changes_nothing_in_what_they_look_for(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 12)
    before, found = _explanations(client, index_name), _answers(engine, index_name)

    assert backfill(client, index_name, tmp_path).report.ledger.written == 12

    assert _explanations(client, index_name) == before
    totals = [[answer["hits"]["total"] for answer in each] for each in (found, _answers(engine, index_name))]
    assert totals[0] == totals[1]


@pytest.mark.feature("searches that name no fields are answered as before")
def test_an_object_without_an_underscore_would_be_searched_too(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 12)
    before = _answers(engine, index_name)

    visible = msgspec.structs.replace(SINGLE, object_field="visible")
    after = _answers(engine, _made_anew(client, index_name, tmp_path, visible))

    _without(after, "visible")
    assert after != before
