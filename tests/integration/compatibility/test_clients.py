"""Elasticsearch's own clients through the proxy, before each engine: from 8 on they write media types of their own."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.settings import ClusterSettings
from tests.integration.compatibility.conftest import Engine
from tests.proxy_stack import ProxyStack, proxy_stack

ROWS = {f"row-{i}": {"title": f"row {i}", "body": "wing", "number": i} for i in range(25)}


@pytest.fixture(scope="module")
def welcoming(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    """The proxy as such clients need it: nothing to set before Elasticsearch, `es_compat` before OpenSearch."""
    cluster = ClusterSettings(url=engine.url)
    folder = tmp_path_factory.mktemp("clients")
    with proxy_stack(cluster, folder, budget_ms=60_000, es_compat=not engine.is_elasticsearch) as running:
        yield running


@pytest.fixture(params=[7, 8, 9])
def major(request: pytest.FixtureRequest, engine: Engine) -> int:
    """A client's version; the cluster refuses media types that are newer than itself."""
    version: int = request.param
    if engine.is_elasticsearch and version > engine.found.version[0]:
        pytest.skip(f"Elasticsearch {engine.found.version[0]} takes no client of version {version}")
    return version


@pytest.mark.feature("elasticsearch-py 7, 8 and 9 (before OpenSearch with proxy.es_compat)")
def test_elasticsearchs_clients_write_read_and_search(
    welcoming: ProxyStack, client: OpenSearch, index_name: str, major: int
) -> None:
    module = f"elasticsearch{major}"
    elasticsearch = pytest.importorskip(module)
    helpers = importlib.import_module(f"{module}.helpers")
    welcoming.fill(client, index_name, {"wing": ({"title": "wing", "body": "flow"}, ["plate heat"])})
    timeout = {"timeout": 90} if major == 7 else {"request_timeout": 90}
    through: Any = elasticsearch.Elasticsearch(welcoming.url, max_retries=0, **timeout)
    try:
        actions = [{"_index": index_name, "_id": doc_id, **row} for doc_id, row in ROWS.items()]
        assert helpers.bulk(through, actions, refresh=True) == (len(ROWS), [])
        assert len(list(helpers.scan(through, index=index_name, size=10))) == len(ROWS) + 1
        assert through.get(index=index_name, id="row-3")["_source"] == ROWS["row-3"]
        found = through.search(index=index_name, query={"multi_match": {"query": "heat", "fields": ["title", "body"]}})
        both = (
            through.msearch(searches=[{"index": index_name}, {"query": {"match": {"title": "row"}}, "size": 1}] * 2)
            if major > 7
            else None
        )
    finally:
        through.close()
    assert found["hits"]["hits"][0]["_id"] == "wing"
    assert both is None or [len(each["hits"]["hits"]) for each in both["responses"]] == [1, 1]
