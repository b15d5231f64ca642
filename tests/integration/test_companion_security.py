"""Who may see what of an index with a companion: the bridge reads the companion by its own rights, and still nobody
sees, counts or has ranked what the application's index does not return to him."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from bridge.profile import RerankSettings
from bridge.settings import ClusterSettings
from tests.integration.test_proxy_security import (
    INDEX,
    QUESTION,
    READ,
    REPAIRS,
    SEARCHER,
    SECRETS,
    VISIBLE,
    ask,
    assert_words_are_those_of_visible_documents,
    ids,
)
from tests.proxy_stack import PREFIX, ProxyStack, proxy_stack
from tests.secured_node import SecuredNode, role

pytestmark = [pytest.mark.slow, pytest.mark.node]

UPGRADED = ["expansion", "vector", "hybrid", "smoothing", "cascade", "rerank"]
PROPERTIES = {"public": {"type": "boolean"}, "n": {"type": "integer"}}
ALIAS = "public-papers"
PUBLIC = {"term": {"public": True}}


@pytest.fixture(scope="module")
def secured(
    secured_node: SecuredNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SecuredNode, ProxyStack]]:
    companions = {
        "index_patterns": [f"{PREFIX}*"],
        "allowed_actions": ["indices:admin/mappings/get", "indices:data/read/search", "indices:data/read/msearch"],
    }
    users: dict[str, dict[str, Any]] = {
        "dls": READ | {"dls": json.dumps(PUBLIC)},
        "fls": READ | {"fls": ["~body"]},
        "mask": READ | {"masked_fields": ["title"]},
        "no_n": READ | {"fls": ["~n"]},
        "reader": READ,
    }
    roles = {
        "companions": role(companions, cluster=("indices:data/read/msearch",)),
        "nothing": role(cluster=SEARCHER),
        **{user: role(rights, cluster=SEARCHER) for user, rights in users.items()},
    }
    secured_node.add_users(roles)
    cluster = ClusterSettings(url=secured_node.url, username="companions", password=SecretStr(secured_node.password))
    folder = tmp_path_factory.mktemp("models")
    with proxy_stack(cluster, folder, budget_ms=60_000, profile_ttl_s=0, ranking_ttl_s=3600) as stack:
        with secured_node.client() as admin:
            stack.fill_beside(
                admin, INDEX, SECRETS | VISIBLE, properties=PROPERTIES, window=20, rerank=RerankSettings(depth=20)
            )
            admin.indices.put_alias(index=INDEX, name=ALIAS, body={"filter": PUBLIC})
        yield secured_node, stack
        with secured_node.client() as admin:
            admin.indices.delete(index=f"{INDEX},{PREFIX}{INDEX}")
        secured_node.remove_user(*roles)


@pytest.mark.parametrize("stage", UPGRADED)
def test_no_hidden_document_is_found_on_any_page(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    pages = [
        ask(secured, "dls", {"query": QUESTION, "from": start, "size": 4}, stage=stage) for start in range(0, 24, 4)
    ]

    found = [doc_id for page in pages for doc_id in ids(page)]
    assert all(page.headers["X-Bridge"].startswith(("hybrid", "expansion", "vector")) for page in pages)
    assert set(found) == VISIBLE.keys()
    assert len(found) == len(set(found))
    assert set(ids(ask(secured, "reader", {"query": QUESTION, "size": 50}, stage=stage))) & SECRETS.keys()


@pytest.mark.parametrize("stage", UPGRADED)
def test_no_count_rank_or_explanation_comes_from_hidden_documents(
    secured: tuple[SecuredNode, ProxyStack], stage: str
) -> None:
    body = {"query": QUESTION, "aggs": {"n": {"max": {"field": "n"}}}, "highlight": {"fields": {"*": {}}}, "size": 50}

    answered, direct = ask(secured, "dls", body, stage=stage), ask(secured, "dls", body, direct=True).json()

    through = answered.json()
    assert through["hits"]["total"] == direct["hits"]["total"]
    assert through["aggregations"] == direct["aggregations"]
    assert "secret" not in answered.text
    legs = [hit["_bridge"]["legs"] for hit in through["hits"]["hits"]]
    assert all(leg["rank"] <= len(VISIBLE) for each in legs for leg in each.values())


@pytest.mark.parametrize("stage", UPGRADED)
def test_a_filtered_alias_filters(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    node, stack = secured

    answered = requests.post(
        f"{stack.url}/{ALIAS}/_search",
        json={"query": QUESTION, "size": 50},
        headers={"x-bridge": stage},
        auth=("admin", node.password),
        timeout=60,
    )

    assert answered.headers["X-Bridge"].startswith(("hybrid", "expansion", "vector"))
    assert set(ids(answered)) == VISIBLE.keys()


@pytest.mark.parametrize("user", ["fls", "nothing", "stranger"])
@pytest.mark.parametrize("stage", ["hybrid", "rerank"])
def test_who_does_not_see_every_text_is_answered_as_without_us(
    secured: tuple[SecuredNode, ProxyStack], user: str, stage: str
) -> None:
    body = {"query": QUESTION, "size": 50}

    through, direct = ask(secured, user, body, stage=stage), ask(secured, user, body, direct=True)

    assert through.status_code == direct.status_code
    assert _untimed(through) == _untimed(direct)
    if user == "fls":
        assert through.headers["X-Bridge"] == "pass; reason=fields_hidden"


@pytest.mark.parametrize("stage", UPGRADED)
def test_who_does_not_see_the_collapse_field_gets_the_groups_that_the_cluster_gives_him(
    secured: tuple[SecuredNode, ProxyStack], stage: str
) -> None:
    body = {"query": QUESTION, "collapse": {"field": "n", "inner_hits": {"name": "all", "size": 100}}, "size": 50}

    through, direct = ask(secured, "no_n", body, stage=stage), ask(secured, "no_n", body, direct=True).json()

    hits = through.json()["hits"]["hits"]
    assert len(hits) == len(direct["hits"]["hits"])
    assert [hit["inner_hits"] for hit in hits] == [hit["inner_hits"] for hit in direct["hits"]["hits"]]
    assert len(ask(secured, "reader", body, stage=stage).json()["hits"]["hits"]) > 1


@pytest.mark.parametrize("stage", UPGRADED)
def test_whose_texts_are_masked_is_answered_as_without_us(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    body = {"query": QUESTION, "size": 50}

    through = ask(secured, "mask", body, stage=stage, explain=False)
    direct = ask(secured, "mask", body, direct=True)

    assert through.headers["X-Bridge"].startswith("lexical; degraded=texts_differ")
    assert through.json()["hits"] == direct.json()["hits"]
    titles = {document["title"] for document, _ in (SECRETS | VISIBLE).values()}
    assert not titles & {hit["_source"]["title"] for hit in through.json()["hits"]["hits"]}


@pytest.mark.parametrize("source", [True, False], ids=["whole", "none"])
def test_no_sentence_is_of_a_text_that_the_caller_may_not_see(
    secured: tuple[SecuredNode, ProxyStack], source: bool
) -> None:
    public = {"bool": {"must": [QUESTION], "filter": [PUBLIC]}}

    def answer(user: str, query: dict[str, Any]) -> str:
        body = {"query": query, "highlight": {"fields": {"*": {}}}, "_source": source, "size": 50}
        return ask(secured, user, body, stage="rerank, sentences").text

    shown, without_secrets = answer("reader", public), answer("dls", QUESTION)
    without_body, without_title = (answer(user, public) for user in ("fls", "mask"))

    assert ("<em>plate</em>" in shown, "<em>heat heat layer</em>" in shown) == (True, True)
    assert ("<em>heat heat layer</em>" in without_secrets, "supersonic" in without_secrets) == (True, False)
    assert "layer" not in without_body
    assert "plate" not in without_title


def test_what_was_predicted_of_a_masked_text_is_not_explained(secured: tuple[SecuredNode, ProxyStack]) -> None:
    body = {"query": QUESTION, "size": 50}

    assert "predicted_queries" in ask(secured, "reader", body).text
    assert "predicted_queries" not in ask(secured, "mask", body).text


def test_no_passage_of_a_masked_text_is_retrieved(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, stack = secured
    wanted = {"index": INDEX, "queries": ["wing pressure flow"], "size": 50}

    answered = requests.post(
        f"{stack.admin_url}/_bridge/retrieve", json=wanted, auth=("mask", node.password), timeout=60
    )

    assert [each["passages"] for each in answered.json()["results"]] == [[]]


def test_passages_come_from_visible_documents(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, stack = secured

    answered = requests.post(
        f"{stack.admin_url}/_bridge/retrieve",
        json={"index": INDEX, "queries": ["wing pressure flow"], "size": 50},
        auth=("dls", node.password),
        timeout=60,
    )

    assert answered.status_code == 200, answered.text
    passages = answered.json()["results"][0]["passages"]
    assert passages
    assert {passage["doc_id"] for passage in passages} <= VISIBLE.keys()


def test_suggestions_come_from_visible_documents(secured: tuple[SecuredNode, ProxyStack]) -> None:
    seen, hidden, masked, nobody = (_suggestions(secured, user) for user in ("reader", "dls", "mask", "nothing"))

    assert [each["text"] for each in seen] == ["wing pressure flow", "wing pressure"]
    assert seen[0]["doc_id"] in SECRETS
    assert [each["text"] for each in hidden] == ["wing pressure"]
    assert hidden[0]["doc_id"] in VISIBLE
    assert masked == nobody == []


def _suggestions(secured: tuple[SecuredNode, ProxyStack], user: str) -> list[dict[str, str]]:
    """What the user gets, nothing if the cluster refuses him."""
    node, stack = secured
    answered = requests.get(
        f"{stack.admin_url}/_bridge/suggest",
        params={"index": INDEX, "prefix": "wing pre"},
        auth=(user, node.password),
        timeout=60,
    )
    assert answered.status_code in ((200,) if user != "nothing" else (400, 403)), answered.text
    found: list[dict[str, str]] = answered.json().get("suggestions", [])
    return found


@pytest.mark.parametrize("typed", REPAIRS)
def test_a_word_of_hidden_documents_is_to_the_caller_as_one_that_stands_nowhere(
    secured: tuple[SecuredNode, ProxyStack], typed: str
) -> None:
    assert_words_are_those_of_visible_documents(secured, typed, seeing="reader")


def test_a_kept_ranking_serves_its_caller_alone(secured: tuple[SecuredNode, ProxyStack]) -> None:
    body = {"query": QUESTION, "size": 8}
    for user in ("reader", "reader", "dls", "dls"):
        answered = ask(secured, user, body, explain=False)

    assert "kept" in answered.headers["X-Bridge"]
    assert set(ids(answered)) <= VISIBLE.keys()


@pytest.mark.parametrize("user", ["reader", "dls"])
def test_nobody_needs_a_right_on_the_companion(secured: tuple[SecuredNode, ProxyStack], user: str) -> None:
    node, _ = secured

    answered = requests.get(f"{node.url}/{PREFIX}{INDEX}/_search", auth=(user, node.password), timeout=60)

    assert answered.status_code == 403


def test_the_bridges_own_rights_read_nothing_of_the_application(secured: tuple[SecuredNode, ProxyStack]) -> None:
    assert ask(secured, "companions", {"query": QUESTION}).status_code == 403


def _untimed(answered: requests.Response) -> str:
    return re.sub(r'"took":\d+', "", answered.text)
