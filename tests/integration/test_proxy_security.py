"""Who may see what, through the proxy: the same as without it, on every path of a search."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
import requests
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from opensearchpy import OpenSearch
from pydantic import SecretStr

from bridge.profile import RerankSettings
from bridge.settings import ClusterSettings
from tests.proxy_stack import ProxyStack, proxy_stack
from tests.secured_node import SecuredNode, role

pytestmark = [pytest.mark.slow, pytest.mark.node]

INDEX = "papers"
READ = {"index_patterns": [INDEX], "allowed_actions": ["read"]}
SEARCHER = ("cluster_composite_ops_ro",)
STAGES = ["off", "lexical", "expansion", "vector", "hybrid", "cascade", "rerank"]

# The secret documents are the nearest to the question in every way: by words, by predicted queries and
# by vector. The visible ones follow.
SECRETS: dict[str, tuple[dict[str, Any], list[str]]] = {
    f"secret-{i}": (
        {"title": "wing pressure flow", "body": "wing pressure flow supersonic", "public": False, "n": i},
        ["wing pressure flow"],
    )
    for i in range(60)
}
VISIBLE: dict[str, tuple[dict[str, Any], list[str]]] = {
    f"public-{i}": ({"title": "plate", "body": f"{words} layer", "public": True, "n": 100 + i}, [predicted])
    for i, (words, predicted) in enumerate(
        [("wing heat", "red shoe"), ("flow heat", "blue dress"), ("heat heat", "wing pressure"), ("pressure", "cat")]
        * 3
    )
}
QUESTION: dict[str, Any] = {"multi_match": {"query": "wing pressure flow", "fields": ["title", "body"]}}


@pytest.fixture(scope="module")
def secured(
    secured_node: SecuredNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SecuredNode, ProxyStack]]:
    mapping_only = {"index_patterns": ["*"], "allowed_actions": ["indices:admin/mappings/get"]}
    public = json.dumps({"term": {"public": True}})
    lookup = json.dumps({"terms": {"n": {"index": "allowed", "id": "1", "path": "numbers"}}})
    both = {"index_patterns": [INDEX, "allowed"], "allowed_actions": ["read"]}
    users = {
        "mapper": role(mapping_only),
        "dls": role(READ | {"dls": public}, cluster=SEARCHER),
        "bare": role(READ | {"dls": public}),
        "tlq": role(both | {"dls": lookup}, cluster=SEARCHER),
        "fls": role(READ | {"fls": ["~body", "~_neural", "~_neural.*"]}, cluster=SEARCHER),
        "fls_leaky": role(READ | {"fls": ["~body"]}, cluster=SEARCHER),
        "no_n": role(READ | {"fls": ["~n"]}, cluster=SEARCHER),
        "mask": role(READ | {"masked_fields": ["title"]}, cluster=SEARCHER),
        "nothing": role(cluster=SEARCHER),
    }
    secured_node.add_users(users)
    cluster = ClusterSettings(url=secured_node.url, username="mapper", password=SecretStr(secured_node.password))
    settings: dict[str, Any] = {"budget_ms": 60_000, "profile_ttl_s": 0, "ranking_ttl_s": 3600}
    with proxy_stack(cluster, tmp_path_factory.mktemp("models"), **settings) as stack:
        with secured_node.client() as admin:
            stack.fill(
                admin,
                INDEX,
                SECRETS | VISIBLE,
                settings={"number_of_replicas": 0},
                window=20,
                rerank=RerankSettings(depth=20),
            )
            numbers = [document["n"] for document, _ in VISIBLE.values()]
            admin.index(index="allowed", id="1", body={"numbers": numbers}, refresh=True)
        yield secured_node, stack
        with secured_node.client() as admin:
            admin.indices.delete(index=f"{INDEX},allowed")
        secured_node.remove_user(*users)


def ask(
    secured: tuple[SecuredNode, ProxyStack],
    user: str,
    body: dict[str, Any],
    *,
    stage: str = "rerank",
    direct: bool = False,
    explain: bool = True,
) -> requests.Response:
    """An answer; one that is explained is always made anew."""
    node, stack = secured
    return requests.post(
        f"{node.url if direct else stack.url}/{INDEX}/_search",
        json=body,
        headers={"x-bridge": f"{stage}, explain" if explain else stage},
        auth=(user, node.password),
        timeout=30,
    )


def ids(answered: requests.Response) -> list[str]:
    assert answered.status_code == 200, answered.text
    return [hit["_id"] for hit in answered.json()["hits"]["hits"]]


def test_suggestions_come_from_documents_and_fields_that_the_caller_sees(
    secured: tuple[SecuredNode, ProxyStack],
) -> None:
    node, stack = secured
    found: dict[str, list[dict[str, str]]] = {}
    for user in ("no_n", "dls", "fls"):
        answered = requests.get(
            f"{stack.admin_url}/_bridge/suggest",
            params={"index": INDEX, "prefix": "wing pre"},
            auth=(user, node.password),
            timeout=60,
        )
        assert answered.status_code == 200, answered.text
        found[user] = answered.json()["suggestions"]

    assert [each["text"] for each in found["no_n"]] == ["wing pressure flow", "wing pressure"]
    assert [each["text"] for each in found["dls"]] == ["wing pressure"]
    assert found["dls"][0]["doc_id"] in VISIBLE
    assert found["fls"] == []


REPAIRS = {"supersnoic heat": "supersnoic>supersonic", "presure heat": "presure>pressure", "supersonic heat": None}
"""`supersonic` stands in hidden documents alone, `pressure` in visible ones too."""


@pytest.mark.parametrize("typed", REPAIRS)
def test_a_word_of_hidden_documents_is_to_the_caller_as_one_that_stands_nowhere(
    secured: tuple[SecuredNode, ProxyStack], typed: str
) -> None:
    assert_words_are_those_of_visible_documents(secured, typed, seeing="no_n")


def assert_words_are_those_of_visible_documents(
    secured: tuple[SecuredNode, ProxyStack], typed: str, *, seeing: str
) -> None:
    """Of two users that ask the same, `seeing` sees all documents, and `dls` the visible ones."""
    body = {"query": {"multi_match": {"query": typed, "fields": ["title", "body"]}}, "size": 50}

    seen, hidden = (ask(secured, user, body, stage="hybrid, repair") for user in (seeing, "dls"))

    expected = REPAIRS[typed]
    assert (f"repaired={expected};" if expected else "hybrid; took_ms") in seen.headers["X-Bridge"]
    if expected == "presure>pressure":
        assert f"repaired={expected};" in hidden.headers["X-Bridge"]
    else:
        assert hidden.headers["X-Bridge"].startswith("hybrid; took_ms=")
        assert "supersonic" not in hidden.text
    assert set(ids(hidden)) <= VISIBLE.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_groups_are_of_what_the_caller_sees(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    """No hidden document is among inner hits; and documents whose field is hidden are one group."""
    inner = {"name": "all", "size": 100, "_source": ["title"]}
    body = {"query": QUESTION, "collapse": {"field": "n", "inner_hits": inner}, "size": 50}

    allowed, without_field = (ask(secured, user, body, stage=stage) for user in ("dls", "no_n"))
    direct = ask(secured, "no_n", body, direct=True).json()["hits"]["hits"]

    with_words = {doc_id for doc_id, (document, _) in VISIBLE.items() if document["body"] != "heat heat layer"}
    # By its own words alone, the question finds only documents that have one of them.
    assert set(ids(allowed)) == (with_words if stage in ("off", "lexical") else VISIBLE.keys())
    assert "secret" not in allowed.text
    hits = without_field.json()["hits"]["hits"]
    assert [hit["inner_hits"] for hit in hits] == [hit["inner_hits"] for hit in direct]


@pytest.mark.case("S1")
@pytest.mark.parametrize("user", ["dls", "bare", "tlq"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_hidden_document_is_found_on_any_page(
    secured: tuple[SecuredNode, ProxyStack], user: str, stage: str
) -> None:
    found = [
        doc_id
        for start in range(0, 24, 4)
        for doc_id in ids(ask(secured, user, {"query": QUESTION, "from": start, "size": 4}, stage=stage))
    ]

    assert found
    assert set(found) <= VISIBLE.keys()
    assert len(found) == len(set(found))
    matching = ids(ask(secured, user, {"query": QUESTION, "size": 50}, direct=True))
    assert set(matching) <= set(found)


def in_other_ways(url: str, caller: tuple[str, str]) -> dict[str, list[requests.Response]]:
    """The same search by every other way that there is, pages and all."""

    def send(path: str, body: Any, method: str = "POST") -> requests.Response:
        text = "".join(json.dumps(line) + "\n" for line in body) if isinstance(body, list) else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        return requests.request(method, url + path, data=text, headers={"Content-Type": kind}, auth=caller, timeout=60)

    search = {"query": QUESTION, "size": 50}
    pages = [send(f"/{INDEX}/_search?scroll=1m", {**search, "size": 5})]
    while pages[-1].status_code == 200 and pages[-1].json()["hits"]["hits"]:
        pages.append(send("/_search/scroll", {"scroll": "1m", "scroll_id": pages[-1].json()["_scroll_id"]}))
    opened = send(f"/{INDEX}/_search/point_in_time?keep_alive=1m", {})
    pit = {"id": opened.json().get("pit_id", ""), "keep_alive": "1m"}
    words = QUESTION["multi_match"]["query"]
    template = {
        "source": {"query": {"multi_match": {**QUESTION["multi_match"], "query": "{{w}}"}}},
        "params": {"w": words},
    }
    return {
        "msearch": [send(f"/{INDEX}/_msearch", [{}, search, {}, {**search, "from": 5}])],
        "scroll": pages,
        "point in time": [opened, send("/_search", {**search, "pit": pit})],
        "template": [send(f"/{INDEX}/_search/template", template)],
        "in the URL": [requests.get(f"{url}/{INDEX}/_search?q={words}&size=50", auth=caller, timeout=60)],
        "count": [send(f"/{INDEX}/_count", {"query": QUESTION})],
        "again": [send(f"/{INDEX}/_search", search), send(f"/{INDEX}/_search", search)],
    }


@pytest.mark.case("S1")
@pytest.mark.parametrize("user", ["dls", "bare", "tlq", "nothing"])
def test_no_hidden_document_is_found_in_any_other_way(secured: tuple[SecuredNode, ProxyStack], user: str) -> None:
    node, stack = secured
    # Whatever is kept of an administrator's search is kept for him alone.
    in_other_ways(stack.url, ("admin", node.password))

    through, direct = (in_other_ways(url, (user, node.password)) for url in (stack.url, node.url))

    for way, answers in through.items():
        assert [each.status_code for each in answers] == [each.status_code for each in direct[way]], way
        shown = {doc_id for each in answers for doc_id in re.findall(r'"_id":"([^"]+)"', each.text)}
        expected = {doc_id for each in direct[way] for doc_id in re.findall(r'"_id":"([^"]+)"', each.text)}
        assert expected <= shown <= VISIBLE.keys(), way
        counts = [[each.json().get("count") for each in ways[way]] for ways in (through, direct)]
        assert counts[0] == counts[1], way
        totals = [[each.json().get("hits", {}).get("total") for each in ways[way]] for ways in (through, direct)]
        assert totals[0] == totals[1], way


def retrieve(secured: tuple[SecuredNode, ProxyStack], user: str) -> requests.Response:
    node, stack = secured
    return requests.post(
        f"{stack.admin_url}/_bridge/retrieve",
        json={"index": INDEX, "queries": ["wing pressure flow"], "size": 50},
        auth=(user, node.password),
        timeout=120,
    )


@pytest.mark.case("S1")
@pytest.mark.parametrize("user", ["dls", "tlq"])
def test_no_passage_of_a_hidden_document_is_retrieved(secured: tuple[SecuredNode, ProxyStack], user: str) -> None:
    answered = retrieve(secured, user)

    assert answered.status_code == 200, answered.text
    [result] = answered.json()["results"]
    assert result["passages"]
    assert {passage["doc_id"] for passage in result["passages"]} <= VISIBLE.keys()


@pytest.mark.case("S1")
@pytest.mark.filterwarnings("ignore")  # of other people's libraries
async def test_a_language_model_sees_of_an_index_what_its_user_does(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, stack = secured
    asked = {"index": INDEX, "question": "wing pressure flow"}

    async def tools(user: str) -> list[CallToolResult]:
        async with (
            httpx2.AsyncClient(auth=(user, node.password), timeout=120) as http,
            Client(streamable_http_client(f"{stack.admin_url}/_bridge/mcp", http_client=http)) as session,
        ):
            return [
                await session.call_tool("passages", asked),
                await session.call_tool("search", {**asked, "size": 50, "max_tokens": 100_000}),
                await session.call_tool("describe_index", {"index": INDEX}),
            ]

    passages, documents, described = [each.structured_content for each in await tools("dls")]
    assert passages["passages"]
    assert {each["doc_id"] for each in passages["passages"]} <= VISIBLE.keys()
    assert {each["doc_id"] for each in documents["documents"]} == VISIBLE.keys()
    assert described["documents"] == len(VISIBLE)
    assert all(each.is_error and not each.structured_content for each in await tools("nothing"))

    basic = base64.b64encode(f"dls:{node.password}".encode()).decode()
    url = f"{stack.admin_url}/_bridge/openai/v1"
    with openai.OpenAI(api_key="any", base_url=url, default_headers={"Authorization": f"Basic {basic}"}) as through:
        found = through.vector_stores.search(INDEX, query="wing pressure flow", max_num_results=50)
    assert {each.file_id for each in found.data} == VISIBLE.keys()


@pytest.mark.case("S3")
def test_passages_hold_no_text_of_hidden_fields(secured: tuple[SecuredNode, ProxyStack]) -> None:
    answered = retrieve(secured, "fls")

    assert answered.status_code == 200, answered.text
    titles = {document["title"] for document, _ in (SECRETS | VISIBLE).values()}
    assert {passage["text"] for passage in answered.json()["results"][0]["passages"]} <= titles


@pytest.mark.case("S3")
def test_predicted_queries_that_are_hidden_are_not_told(secured: tuple[SecuredNode, ProxyStack]) -> None:
    told = {
        user: [
            hit["_bridge"].get("predicted_queries")
            for hit in ask(secured, user, {"query": QUESTION}).json()["hits"]["hits"]
        ]
        for user in ("fls", "dls")
    }

    assert not any(told["fls"])
    assert any(told["dls"])


@pytest.mark.parametrize("user", ["nothing", "bare"])
def test_who_may_not_search_or_not_by_msearch_may_not_retrieve(
    secured: tuple[SecuredNode, ProxyStack], user: str
) -> None:
    answered = retrieve(secured, user)

    assert (answered.status_code, answered.json()["error"]["type"]) == (403, "security_exception")


@pytest.mark.case("S2")
@pytest.mark.parametrize("stage", STAGES)
def test_no_count_term_or_explanation_comes_from_hidden_documents(
    secured: tuple[SecuredNode, ProxyStack], stage: str
) -> None:
    body = {
        "query": QUESTION,
        "aggs": {"n": {"max": {"field": "n"}}, "of": {"terms": {"field": "public"}}},
        "suggest": {"s": {"text": "supersonik", "term": {"field": "body"}}},
        "highlight": {"fields": {"*": {}}},
        "size": 50,
    }

    answered, expected = ask(secured, "dls", body, stage=stage), ask(secured, "dls", body, direct=True)
    assert answered.status_code == expected.status_code == 200, expected.text
    through, direct = answered.json(), expected.json()

    assert through["hits"]["total"] == direct["hits"]["total"]
    assert through["aggregations"] == direct["aggregations"]
    assert through["suggest"] == direct["suggest"]
    assert {hit["_id"] for hit in through["hits"]["hits"]} <= VISIBLE.keys()
    ranks = [
        told["rank"] for hit in through["hits"]["hits"] for told in hit.get("_bridge", {}).get("legs", {}).values()
    ]
    assert all(rank <= len(VISIBLE) for rank in ranks)


@pytest.mark.case("S3")
@pytest.mark.parametrize("user", ["fls", "fls_leaky"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_hidden_field_is_shown(secured: tuple[SecuredNode, ProxyStack], user: str, stage: str) -> None:
    body = {"query": QUESTION, "fields": ["*"], "highlight": {"fields": {"*": {}}}, "_source": ["*"], "size": 50}

    answered = ask(secured, user, body, stage=stage)

    assert answered.status_code == 200
    for hit in answered.json()["hits"]["hits"]:
        assert "body" not in hit.get("_source", {})
        assert "body" not in hit.get("fields", {})
        assert "body" not in hit.get("highlight", {})
        if stage not in ("off", "lexical"):
            assert "_neural" not in hit["_source"]
    assert "supersonic" not in answered.text


@pytest.mark.case("S4")
@pytest.mark.parametrize("stage", ["expansion", "vector", "hybrid", "cascade", "rerank"])
@pytest.mark.parametrize("words", ["supersonic", "red shoe"])
def test_words_of_a_hidden_field_find_nothing_where_the_rule_covers_our_fields(
    secured: tuple[SecuredNode, ProxyStack], stage: str, words: str
) -> None:
    """`supersonic` stands in the hidden text, `red shoe` in what was predicted from it."""
    body = {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, "size": 50}

    answered = ask(secured, "fls", body, stage=stage)

    assert ids(answered) == ids(ask(secured, "fls", body, direct=True)) == []
    assert ids(ask(secured, "admin", body, stage=stage))


@pytest.mark.case("S5")
def test_reranking_reads_masked_text_only(secured: tuple[SecuredNode, ProxyStack]) -> None:
    body = {"query": {"match": {"body": "heat"}}, "size": 50}

    answered = ask(
        secured, "mask", {"query": {"multi_match": {"query": "plate heat", "fields": ["title", "body"]}}, "size": 50}
    )
    unmasked = ask(
        secured, "admin", {"query": {"multi_match": {"query": "plate heat", "fields": ["title", "body"]}}, "size": 50}
    )

    # The toy cross-encoder counts the question's words: "plate" stands in the masked title alone.
    def scores(answer: requests.Response) -> dict[str, float]:
        return {
            hit["_id"]: hit["_bridge"]["rerank_score"]
            for hit in answer.json()["hits"]["hits"]
            if "rerank_score" in hit["_bridge"]
        }

    masked_scores, full_scores = scores(answered), scores(unmasked)
    assert masked_scores
    assert full_scores["public-0"] == masked_scores["public-0"] + 1
    assert all(hit["_source"]["title"] != "plate" for hit in answered.json()["hits"]["hits"])
    assert ids(ask(secured, "mask", body)) != []


@pytest.mark.case("S5")
@pytest.mark.parametrize("source", [True, False, ["n"]], ids=["whole", "none", "another field"])
def test_no_sentence_is_of_a_text_that_the_caller_may_not_see(
    secured: tuple[SecuredNode, ProxyStack], source: Any
) -> None:
    """Where the question's words are not, the whole text is a sentence."""
    public = {"bool": {"must": [QUESTION], "filter": [{"term": {"public": True}}]}}

    def highlights(user: str, query: dict[str, Any]) -> str:
        body = {"query": query, "highlight": {"fields": {"*": {}}}, "_source": source, "size": 50}
        answered = ask(secured, user, body, stage="rerank, sentences")
        assert answered.headers["X-Bridge"].startswith("hybrid")
        return json.dumps([hit.get("highlight") for hit in answered.json()["hits"]["hits"]])

    shown = highlights("admin", public)
    without_secrets = highlights("dls", QUESTION)
    without_body, without_title = (highlights(user, public) for user in ("fls_leaky", "mask"))

    assert ("<em>plate</em>" in shown, "<em>heat heat layer</em>" in shown) == (True, True)
    assert ("<em>heat heat layer</em>" in without_secrets, "supersonic" in without_secrets) == (True, False)
    assert ("<em>plate</em>" in without_body, "layer" in without_body) == (True, False)
    assert ("<em>heat heat layer</em>" in without_title, "plate" in without_title) == (True, False)


@pytest.mark.case("S6")
def test_filter_level_security_works_or_degrades(secured: tuple[SecuredNode, ProxyStack]) -> None:
    answered = ask(secured, "tlq", {"query": QUESTION, "size": 50}, stage="hybrid")

    assert answered.status_code == 200
    assert set(ids(answered)) <= VISIBLE.keys()


@pytest.mark.case("S7")
def test_a_revoked_role_is_revoked_at_once(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, stack = secured
    node.add_user("leaving", READ, cluster=SEARCHER)
    body = {"query": QUESTION}

    def unexplained() -> requests.Response:
        url = f"{stack.url}/{INDEX}/_search"
        return requests.post(url, json=body, auth=("leaving", node.password), timeout=30)

    kept = [unexplained() for _ in range(2)]
    assert "; kept;" in kept[1].headers["X-Bridge"]
    assert ids(ask(secured, "leaving", body)) == ids(kept[1])

    node.add_user("leaving", {"index_patterns": ["other"], "allowed_actions": ["read"]}, cluster=SEARCHER)

    through, direct = ask(secured, "leaving", body), ask(secured, "leaving", body, direct=True)
    again = unexplained()
    node.remove_user("leaving")
    assert through.status_code == again.status_code == direct.status_code == 403
    assert through.content == again.content == direct.content


def asked_twice(
    secured: tuple[SecuredNode, ProxyStack], user: str, body: dict[str, Any], *, stage: str = "rerank"
) -> requests.Response:
    """The second answer, from the ranking that was kept for this user."""
    first = ask(secured, user, body, stage=stage, explain=False)
    second = ask(secured, user, body, stage=stage, explain=False)
    assert "kept" in second.headers["X-Bridge"]
    assert _scored(second) == _scored(first)
    return second


@pytest.mark.case("S1")
@pytest.mark.case("P11")
@pytest.mark.parametrize("user", ["dls", "tlq"])
@pytest.mark.parametrize("stage", ["expansion", "vector", "hybrid", "cascade", "rerank"])
def test_no_kept_ranking_shows_a_hidden_document(
    secured: tuple[SecuredNode, ProxyStack], user: str, stage: str
) -> None:
    body = {"query": QUESTION, "size": 8}
    assert set(ids(asked_twice(secured, "admin", body, stage=stage))) & SECRETS.keys()

    first = ids(asked_twice(secured, user, body, stage=stage))
    second = ids(ask(secured, user, {**body, "from": 8}, stage=stage, explain=False))

    assert first
    assert {*first, *second} <= VISIBLE.keys()
    assert not set(first) & set(second)


@pytest.mark.case("S3")
def test_no_kept_ranking_shows_a_hidden_field(secured: tuple[SecuredNode, ProxyStack]) -> None:
    body = {"query": QUESTION, "fields": ["*"], "highlight": {"fields": {"*": {}}}, "size": 50}
    asked_twice(secured, "admin", body)

    assert "supersonic" not in asked_twice(secured, "fls", body).text


@pytest.mark.case("S7")
def test_no_kept_ranking_outlives_a_permission(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, _ = secured
    body = {"query": QUESTION, "size": 8}
    node.add_user("narrowed", READ, cluster=SEARCHER)
    before = ids(asked_twice(secured, "narrowed", body))

    node.add_user("narrowed", READ | {"dls": json.dumps({"term": {"public": True}})}, cluster=SEARCHER)
    narrowed = ids(ask(secured, "narrowed", body, explain=False))
    node.add_user("narrowed", {"index_patterns": ["other"], "allowed_actions": ["read"]}, cluster=SEARCHER)
    revoked = ask(secured, "narrowed", body, explain=False)

    node.remove_user("narrowed")
    assert set(before) & SECRETS.keys()
    assert narrowed
    assert set(narrowed) <= VISIBLE.keys()
    assert revoked.status_code == 403


@pytest.mark.case("S8")
@pytest.mark.parametrize("stage", STAGES)
def test_a_hidden_near_duplicate_moves_nothing(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    node, stack = secured
    body = {"query": QUESTION, "size": 50}
    before = _scored(ask(secured, "dls", body, stage=stage))
    with node.client() as admin:
        twin = {"title": "wing pressure flow", "body": "wing pressure flow heat", "public": False, "n": 999}
        admin.index(
            index=INDEX, id="twin", body=stack.enriched(twin, ["wing pressure flow"], nested=False), refresh=True
        )

    after = _scored(ask(secured, "dls", body, stage=stage))

    with node.client() as admin:
        admin.delete(index=INDEX, id="twin", refresh=True)
    assert [doc_id for doc_id, _ in after] == [doc_id for doc_id, _ in before]


@pytest.mark.case("S9")
@pytest.mark.parametrize("stage", ["vector", "hybrid", "rerank"])
def test_restrictive_rules_leave_enough_to_find(secured: tuple[SecuredNode, ProxyStack], stage: str) -> None:
    answered = ask(secured, "dls", {"query": QUESTION, "size": 10}, stage=stage)

    assert len(ids(answered)) >= 10
    by_vector = [hit for hit in answered.json()["hits"]["hits"] if "vector" in hit["_bridge"]["legs"]]
    assert len(by_vector) >= 10


@pytest.mark.case("P12")
@pytest.mark.parametrize("user", ["stranger", "nothing"])
def test_refusals_are_the_clusters_own(secured: tuple[SecuredNode, ProxyStack], user: str) -> None:
    through, direct = (ask(secured, user, {"query": QUESTION}, direct=direct) for direct in (False, True))

    assert through.status_code in (401, 403)
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert through.headers.get("WWW-Authenticate") == direct.headers.get("WWW-Authenticate")


def test_a_caller_without_msearch_gets_the_own_answer(secured: tuple[SecuredNode, ProxyStack]) -> None:
    answered = ask(secured, "bare", {"query": QUESTION})

    assert answered.headers["X-Bridge"].startswith("lexical; degraded=legs_forbidden")
    assert set(ids(answered)) <= VISIBLE.keys()


def test_the_configured_identity_reads_mappings_and_never_searches(secured: tuple[SecuredNode, ProxyStack]) -> None:
    node, _ = secured

    with OpenSearch(node.url, http_auth=("mapper", node.password), max_retries=0) as mapper:
        assert mapper.indices.get_mapping(index=INDEX)
    assert ask(secured, "mapper", {"query": QUESTION}).status_code == 403


def _scored(answered: requests.Response) -> list[tuple[str, float]]:
    return [(hit["_id"], hit["_score"]) for hit in answered.json()["hits"]["hits"]]
