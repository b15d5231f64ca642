"""Misspelt words and suggestions on a real node, in place and beside: English analysers cut words to their stems."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bridge.node.node import EmbeddedNode
from bridge.profile import RerankSettings
from tests.proxy_stack import PREFIX, ProxyStack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

TEXTS = {
    "wing": (
        "wing pressure",
        "Pressures on a wing in supersonic flow.",
        ["pressure of a wing", "why does a wing lift"],
    ),
    "tail": ("tail pressure", "The pressure on the boundary layer behind a wing.", ["pressure behind a wing"]),
    "shock": ("shock heat", "Supersonic flows make shock waves.", ["what makes a shock", "supersonic shock heat"]),
    "plate": ("flat plate", "The boundary layer of a plate in a supersonic flow.", ["boundary layer of a plate"]),
    "shoe": ("red shoe", "Cheap shoes for the database of a house.", ["cheap red shoes"]),
    "dress": ("blue dress", "A dress in the database of a shop.", ["blue dress for summer"]),
    "file": ("read a file", "Open the file path and close it.", ["how to open a file", "how to read a line of a file"]),
    "path": ("write a path", "Copy the file path to a folder.", ["how to copy a file"]),
    "kite": ("A kite is of paper. Pressure lifts it.", "Children run with it.", ["paper kite"]),
}
DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    key: ({"title": title, "body": body, "kind": "odd" if n % 2 else "even"}, queries)
    for n, (key, (title, body, queries)) in enumerate(TEXTS.items())
}
PROPERTIES = {"kind": {"type": "keyword"}}
SYNONYMS = {
    "analysis": {
        "filter": {"other_words": {"type": "synonym_graph", "synonyms": ["sneaker => shoe"]}},
        "analyzer": {"asked": {"tokenizer": "standard", "filter": ["lowercase", "other_words", "porter_stem"]}},
    }
}


@pytest.fixture(scope="module", params=["in place", "beside"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    name = unused_index_name()
    fill = stack.fill_beside if request.param == "beside" else stack.fill
    settings = {"number_of_shards": 2, "number_of_replicas": 0}
    with client(node.url) as direct:
        fill(
            direct, name, DOCUMENTS, properties=PROPERTIES, settings=settings, window=20, rerank=RerankSettings(depth=8)
        )
        yield name
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def ask(stack: ProxyStack, index: str, words: str, control: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """The `X-Bridge` header and the answer."""
    body = {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, **more}
    answered = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": control}, timeout=60)
    answered.raise_for_status()
    return answered.headers["X-Bridge"], answered.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


REPAIRED = {
    "presure wing": ("pressure wing", "presure>pressure"),
    "supersnoic flow": ("supersonic flow", "supersnoic>supersonic"),
    "bondary layer": ("boundary layer", "bondary>boundary"),
    "file paht": ("file path", "paht>path"),
    "data base": ("database", "data%20base>database"),
    "boundarylayer": ("boundary layer", "boundarylayer>boundary%20layer"),
}


@pytest.mark.parametrize("stage", ["expansion", "vector", "hybrid", "rerank"])
@pytest.mark.parametrize("typed", REPAIRED)
def test_a_misspelt_search_ranks_as_the_correct_one(stack: ProxyStack, index: str, typed: str, stage: str) -> None:
    meant, told = REPAIRED[typed]

    mark, found = ask(stack, index, typed, f"{stage}, repair")
    _, correct = ask(stack, index, meant, stage)

    assert f"; repaired={told};" in mark
    assert "degraded" not in mark
    assert ids(found)[:3] == ids(correct)[:3]


@pytest.mark.parametrize("words", ["pressure of a wing", "supersonic flows", "red shoe", "zzzyx", "file 12345"])
def test_other_searches_are_answered_as_without_repair(stack: ProxyStack, index: str, words: str) -> None:
    mark, found = ask(stack, index, words, "rerank, repair")
    _, without = ask(stack, index, words, "rerank")

    assert "repaired" not in mark
    assert "degraded" not in mark
    assert found["hits"] == without["hits"]


def test_the_own_request_stays_as_it_was_typed(stack: ProxyStack, index: str) -> None:
    more = {"aggs": {"kinds": {"terms": {"field": "kind"}}}, "highlight": {"fields": {"body": {}}}}

    _, own = ask(stack, index, "presure wing", "off", **more)
    mark, found = ask(stack, index, "presure wing", "hybrid, repair, explain", **more)

    assert "repaired" in mark
    assert found["_bridge"]["repaired"] == {"presure": "pressure"}
    assert found["aggregations"] == own["aggregations"]
    assert found["hits"]["total"] == own["hits"]["total"]
    highlights = {hit["_id"]: hit.get("highlight") for hit in own["hits"]["hits"]}
    shown = {hit["_id"]: hit.get("highlight") for hit in found["hits"]["hits"]}
    assert {key: shown[key] for key in highlights} == highlights


def test_a_misspelt_search_is_answered_by_the_sentence_that_was_meant(stack: ProxyStack, index: str) -> None:
    more: dict[str, Any] = {"highlight": {"fields": {"title": {}}}}

    _, found = ask(stack, index, "presure", "hybrid, sentences, repair", **more)

    [kite] = [hit for hit in found["hits"]["hits"] if hit["_id"] == "kite"]
    assert kite["highlight"] == {"title": ["<em>Pressure lifts it.</em>"]}


def test_the_applications_conditions_hold_for_repaired_words(stack: ProxyStack, index: str) -> None:
    words = {"multi_match": {"query": "presure", "fields": ["title", "body"]}}
    query = {"bool": {"must": [words], "filter": [{"term": {"kind": "odd"}}]}}

    mark, found = ask(stack, index, "", "expansion, repair", query=query)

    assert "repaired=presure>pressure" in mark
    assert ids(found) == ["tail"]


def test_a_search_with_a_tolerance_of_its_own_is_repaired_for_the_models_too(stack: ProxyStack, index: str) -> None:
    query = {"match": {"body": {"query": "bondary layer", "fuzziness": "AUTO"}}}

    mark, found = ask(stack, index, "", "hybrid, repair", query=query)

    assert "repaired=bondary>boundary" in mark
    assert set(ids(found)[:2]) == {"plate", "tail"}


def test_the_profile_turns_it_on_and_a_request_off(
    node: EmbeddedNode, stack: ProxyStack, index: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, first = ask(stack, index, "presure", "expansion, repair", size=1)
    mark, _ = ask(stack, index, "presure", "expansion, repair=off", size=1)
    assert ids(first)
    assert "repaired" not in mark


def suggestions(stack: ProxyStack, index: str, typed: str) -> list[dict[str, str]]:
    wanted = {"index": index, "prefix": typed}
    answered = requests.get(f"{stack.admin_url}/_bridge/suggest", params=wanted, timeout=60)
    answered.raise_for_status()
    found: list[dict[str, str]] = answered.json()["suggestions"]
    return found


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("how to", ["how to copy a file", "how to open a file", "how to read a line of a file"]),
        ("how to re", ["how to read a line of a file"]),
        ("pressure", ["pressure behind a wing", "pressure of a wing"]),
        ("pressur", ["pressure behind a wing", "pressure of a wing"]),
        ("wing pre", ["pressure behind a wing", "pressure of a wing"]),
        ("sho", ["cheap red shoes", "supersonic shock heat", "what makes a shock"]),
        ("summe", ["blue dress for summer"]),
        ("nothing", []),
    ],
)
def test_what_is_typed_may_begin_any_word(stack: ProxyStack, index: str, typed: str, expected: list[str]) -> None:
    assert sorted(each["text"] for each in suggestions(stack, index, typed)) == expected


def test_each_suggestion_names_a_document_that_answers_it(stack: ProxyStack, index: str) -> None:
    assert suggestions(stack, index, "blue") == [{"text": "blue dress for summer", "index": index, "doc_id": "dress"}]


@pytest.mark.parametrize("way", ["in place", "beside"])
def test_text_legs_know_the_synonyms_of_the_fields_search_analyser(
    node: EmbeddedNode, stack: ProxyStack, way: str
) -> None:
    name = unused_index_name()
    text = {"type": "text", "analyzer": "english", "search_analyzer": "asked"}
    fill = stack.fill_beside if way == "beside" else stack.fill
    with client(node.url) as direct:
        properties = {"title": text, "body": text}
        fill(direct, name, DOCUMENTS, properties=properties, settings={"number_of_replicas": 0, **SYNONYMS}, window=20)
        try:
            mark, found = ask(stack, name, "cheap sneaker", "expansion, repair, explain")
            _, correct = ask(stack, name, "cheap shoe", "expansion, explain")
        finally:
            direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})

    assert "repaired" not in mark
    legs = [[hit["_bridge"]["legs"] for hit in answer["hits"]["hits"]] for answer in (found, correct)]
    assert ids(found) == ids(correct) == ["shoe"]
    assert legs[0] == legs[1]
