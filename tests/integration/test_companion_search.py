"""The same documents, enriched in place and beside: the proxy ranks them alike, whatever a search demands of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings, RerankSettings
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.stages.models import Models
from tests.ingest.toys import word_spans
from tests.proxy_stack import NESTED, PREFIX, ProxyStack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

WORDS = ["wing", "flow", "pressure", "plate", "heat", "shock", "layer", "shoe", "red", "blue", "dress", "file", "read"]
KINDS = ["paper", "note", "ad"]


def _document(i: int) -> tuple[dict[str, Any], list[str]]:
    title = f"{WORDS[i % 13]} {WORDS[i // 3 % 13]}"
    body = " ".join(WORDS[(i * k + k) % 13] for k in range(1, 4 + i % 5))
    predicted = [f"{WORDS[(i + 5) % 13]} {WORDS[(i * 3) % 13]}"] if i % 3 else []
    document = {"title": title, "body": body, "kind": KINDS[i % 3], "n": i, "rare": i % 37 == 0}
    return document | ({"variant_of": i // 5} if i % 8 else {}), predicted


DOCUMENTS = {f"d{i}": _document(i) for i in range(240)}
PROPERTIES = {
    "kind": {"type": "keyword"},
    "n": {"type": "integer"},
    "rare": {"type": "boolean"},
    "variant_of": {"type": "long"},
}
JSON = {"Content-Type": "application/json"}
STAGES = [
    "expansion",
    "vector",
    "sparse",
    "hybrid",
    "hybrid, sparse=0.5",
    "smoothing",
    "smoothing, diverse=0.5",
    "cascade",
    "rerank",
]

WING = {"multi_match": {"query": "wing flow", "fields": ["title", "body"]}}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"query": WING},
    "one field": {"query": {"match": {"title": "blue dress"}}},
    "filter": {"query": {"bool": {"must": [WING], "filter": [{"term": {"kind": "paper"}}]}}},
    "rare": {"query": {"bool": {"must": [WING], "filter": [{"term": {"rare": True}}]}}},
    "none": {"query": {"bool": {"must": [WING], "filter": [{"term": {"kind": "void"}}]}}},
    "must_not": {"query": {"bool": {"must": WING, "must_not": {"terms": {"kind": ["ad", "note"]}}}}},
    "scoring condition": {"query": {"bool": {"must": [WING, {"range": {"n": {"lte": 200, "boost": 3}}}]}}},
    "post_filter": {"query": WING, "post_filter": {"term": {"kind": "paper"}}},
    "function_score": {
        "query": {
            "function_score": {
                "query": {"bool": {"must": [WING]}},
                "functions": [{"field_value_factor": {"field": "n", "modifier": "ln2p"}}],
            }
        }
    },
    "should": {
        "query": {
            "bool": {
                "should": [{"match": {"title": "wing flow"}}, {"match": {"body": "wing flow"}}],
                "minimum_should_match": 1,
                "filter": {"range": {"n": {"gte": 20}}},
            }
        }
    },
    "dis_max": {"query": {"dis_max": {"queries": [{"match": {"title": "heat"}}, {"match": {"body": "heat"}}]}}},
    "min_score": {"query": WING, "min_score": 0.5},
    "collapse": {"query": WING, "collapse": {"field": "variant_of", "inner_hits": {"name": "all", "size": 5}}},
    "collapse and filter": {
        "query": {"bool": {"must": [WING], "filter": [{"term": {"kind": "paper"}}]}},
        "collapse": {"field": "kind"},
    },
}


@pytest.fixture(scope="module", params=["single", "nested", "two shards", "scored apart"])
def ways(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An index that is enriched in place, and one that has a companion."""
    names = unused_index_name(), unused_index_name()
    more: dict[str, Any] = {
        "passages": NESTED if request.param == "nested" else PassageSettings(),
        "rerank": RerankSettings(depth=20),
        "window": 30,
        "sparse": stack.sparse(),
    }
    # Another analyser than that of the predicted queries: then they are scored by themselves.
    plain = {"body": {"type": "text", "analyzer": "standard"}}
    properties = PROPERTIES | (plain if request.param == "scored apart" else {})
    settings = {"number_of_shards": 2 if request.param == "two shards" else 1, "number_of_replicas": 0}
    with client(node.url) as direct:
        for fill, name in zip((stack.fill, stack.fill_beside), names, strict=True):
            fill(direct, name, DOCUMENTS, properties=properties, settings=settings, **more)
        yield names
        direct.indices.delete(index=f"{names[0]},{names[1]},{PREFIX}{names[1]}")


def search(stack: ProxyStack, index: str, body: dict[str, Any], control: str) -> tuple[str, dict[str, Any]]:
    answered = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": control}, timeout=60)
    answer: dict[str, Any] = answered.json()
    return answered.headers["X-Bridge"].split("; took")[0], answer


def ranked(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def scores(answer: dict[str, Any]) -> list[float]:
    return [hit["_score"] for hit in answer["hits"]["hits"]]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_both_ways_rank_alike(stack: ProxyStack, ways: tuple[str, str], stage: str, body: dict[str, Any]) -> None:
    in_place, beside = (search(stack, index, {**body, "size": 60}, stage) for index in ways)

    assert beside[0] == in_place[0]
    assert scores(beside[1]) == pytest.approx(scores(in_place[1]))
    assert ranked(beside[1]) == pytest.approx(ranked(in_place[1]))
    assert beside[1]["hits"]["total"] == in_place[1]["hits"]["total"]


@pytest.mark.parametrize("stage", ["hybrid", "smoothing", "rerank"])
@pytest.mark.parametrize("body", ["plain", "filter", "collapse"])
def test_pages_are_parts_of_the_whole(stack: ProxyStack, ways: tuple[str, str], stage: str, body: str) -> None:
    _, whole = search(stack, ways[1], {**BODIES[body], "size": 60}, stage)

    pages = [
        search(stack, ways[1], {**BODIES[body], "from": start, "size": 12}, stage)[1] for start in range(0, 60, 12)
    ]

    assert [doc_id for page in pages for doc_id in ranked(page)] == list(ranked(whole))


def test_both_ways_show_the_same_sentences(stack: ProxyStack, ways: tuple[str, str]) -> None:
    """Texts without full stops are cut between words."""
    wanted = {"fields": {"title": {}, "body": {"fragment_size": 12, "pre_tags": ["["], "post_tags": ["]"]}}}
    body = {"query": {"match": {"title": "blue dress"}}, "highlight": wanted, "size": 30}

    marks, answers = zip(*(search(stack, index, body, "rerank, sentences") for index in ways), strict=True)
    _, own = search(stack, ways[1], body, "off")

    in_place, beside = ({hit["_id"]: hit["highlight"] for hit in answer["hits"]["hits"]} for answer in answers)
    assert marks == ("hybrid+rerank", "hybrid+rerank")
    both = in_place.keys() & beside.keys()
    assert len(both) > 20
    assert {doc_id: beside[doc_id] for doc_id in both} == {doc_id: in_place[doc_id] for doc_id in both}
    for doc_id, highlight in beside.items():
        [fragment] = highlight["body"]
        assert (fragment[0], len(fragment) <= 14, fragment[-1]) == ("[", True, "]")
        assert fragment[1:-1] in DOCUMENTS[doc_id][0]["body"]
    of_the_cluster = {hit["_id"]: hit["highlight"]["title"] for hit in own["hits"]["hits"]}
    assert all(beside[doc_id]["title"] == title for doc_id, title in of_the_cluster.items() if doc_id in beside)


@pytest.fixture(scope="module")
def several(node: EmbeddedNode, stack: ProxyStack) -> Iterator[tuple[str, str]]:
    """Two indices that are enriched in place, and two that have companions, in which some ids are the same."""
    parts = {
        "1": {doc_id: DOCUMENTS[doc_id] for doc_id in list(DOCUMENTS)[:140]},
        "2": {f"d{i - 100}": DOCUMENTS[f"d{i}"] for i in range(140, 240)},
    }
    # Equal scores are ordered by the indices' names: both pairs have to be in one order.
    pairs = [[f"{name}-{part}" for part in parts] for name in (unused_index_name(), unused_index_name())]
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    more: dict[str, Any] = {"properties": PROPERTIES, "rerank": RerankSettings(depth=20), "window": 30}
    with client(node.url) as direct:
        for fill, names in zip((stack.fill, stack.fill_beside), pairs, strict=True):
            for name, documents in zip(names, parts.values(), strict=True):
                fill(direct, name, documents, settings=settings, **more)
        direct.indices.put_alias(index=pairs[1], name="both", body={"filter": {"range": {"n": {"gte": 20}}}})
        yield ",".join(pairs[0]), ",".join(pairs[1])
        direct.indices.delete(index=",".join([*pairs[0], *pairs[1], *(PREFIX + name for name in pairs[1])]))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("body", [BODIES[name] for name in ("plain", "filter", "rare", "min_score")])
def test_several_companions_rank_as_several_indices_in_place(
    stack: ProxyStack, several: tuple[str, str], stage: str, body: dict[str, Any]
) -> None:
    in_place, beside = (search(stack, names, {**body, "size": 60}, stage) for names in several)

    assert beside[0] == in_place[0]
    found, expected = ({key[1:]: score for key, score in by_key(answer).items()} for _, answer in (beside, in_place))
    assert found == pytest.approx(expected)
    pages = [search(stack, several[1], {**body, "from": start, "size": 12}, stage)[1] for start in range(0, 60, 12)]
    assert [key for page in pages for key in by_key(page)] == list(by_key(beside[1]))


def by_key(answer: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """Scores by the index, the last letter of its name, and the id."""
    return {(hit["_index"], hit["_index"][-1], hit["_id"]): hit["_score"] for hit in answer["hits"]["hits"]}


def test_an_alias_of_several_indices_is_searched_in_every_way(stack: ProxyStack, several: tuple[str, str]) -> None:
    mark, answer = search(stack, "both", {"query": WING, "size": 60}, "rerank, explain")
    assert mark == "hybrid+rerank"
    assert all(hit["_source"]["n"] >= 20 for hit in answer["hits"]["hits"])
    assert {hit["_index"] for hit in answer["hits"]["hits"]} == set(several[1].split(","))
    assert any("predicted_queries" in hit["_bridge"] for hit in answer["hits"]["hits"])

    lines = [{"index": "both"}, {"query": WING, "size": 60}, {"index": several[1].split(",")}, {"query": WING}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    answered = requests.post(f"{stack.url}/_msearch", data=body, headers=JSON | {"x-bridge": "rerank"}, timeout=60)
    assert answered.headers["X-Bridge"].startswith("upgraded=2/2; took")
    assert list(by_key(answered.json()["responses"][0])) == list(by_key(answer))

    template = {"source": {"query": WING, "size": 60}}
    answered = requests.post(
        f"{stack.url}/both/_search/template", json=template, headers={"x-bridge": "rerank"}, timeout=60
    )
    assert list(by_key(answered.json())) == list(by_key(answer))

    wanted = {"index": "both", "queries": ["wing flow"], "size": 9}
    retrieved = requests.post(f"{stack.admin_url}/_bridge/retrieve", json=wanted, timeout=60).json()["results"][0]
    assert (retrieved["degraded"], len(retrieved["passages"])) == ([], 9)


def test_if_one_of_several_has_no_companion_the_search_passes(
    stack: ProxyStack, several: tuple[str, str], changing: tuple[OpenSearch, str]
) -> None:
    direct, index = changing
    direct.indices.delete(index=f"{PREFIX}{index}")

    mark, _ = search(stack, f"{several[1]},{index}", {"query": WING}, "hybrid")

    assert mark == "pass; reason=profiles_differ"
    direct.indices.create(index=f"{PREFIX}{index}")


@pytest.mark.filterwarnings("ignore:index template .* matching patterns from existing older templates")
def test_a_data_stream_is_searched_with_the_companions_of_its_indices(node: EmbeddedNode, stack: ProxyStack) -> None:
    stream = unused_index_name()
    texts = {name: {"type": "text", "analyzer": "english"} for name in ("title", "body")}
    template = {"mappings": {"properties": texts}, "settings": {"number_of_replicas": 0}}
    parts = [{"a": DOCUMENTS["d0"], "b": DOCUMENTS["d7"]}, {"c": DOCUMENTS["d13"], "a": DOCUMENTS["d26"]}]
    with client(node.url) as direct:
        made = {"index_patterns": [stream], "data_stream": {}, "template": template}
        direct.indices.put_index_template(name=stream, body=made)
        try:
            backing = []
            for part in parts:
                for doc_id, (document, _) in part.items():
                    body = {**document, "@timestamp": "2026-01-01T00:00:00Z"}
                    written = direct.create(index=stream, id=doc_id, body=body, refresh=True)
                backing.append(written["_index"])
                state = indices.look(direct, written["_index"])
                companion.create(direct, state, stack.profile(), PREFIX)
                stack.enrich_beside(direct, state.name, part)
                direct.indices.rollover(alias=stream)
            last = direct.indices.get_data_stream(name=stream)["data_streams"][0]["indices"][-1]["index_name"]
            companion.create(direct, indices.look(direct, last), stack.profile(), PREFIX)
            backing.append(last)

            mark, answer = search(stack, stream, {"query": WING, "size": 50}, "vector")

            assert (mark, len(answer["hits"]["hits"])) == ("vector", 4)
        finally:
            for name in backing:
                companion.remove(direct, name, PREFIX)
            direct.indices.delete_data_stream(name=stream)
            direct.indices.delete_index_template(name=stream)


def test_an_index_with_a_name_beyond_ascii_is_searched_with_its_companion(
    node: EmbeddedNode, stack: ProxyStack
) -> None:
    name = f"bücher-{unused_index_name()}"
    with client(node.url) as direct:
        stack.fill_beside(direct, name, {"a": DOCUMENTS["d0"], "b": DOCUMENTS["d7"]}, passages=NESTED)
        try:
            mark, answer = search(stack, name, {"query": WING}, "rerank, explain")
            assert mark == "hybrid+rerank"
            assert set(ranked(answer)) == {"a", "b"}
        finally:
            direct.indices.delete(index=f"{name},{PREFIX}{name}")


def test_what_a_run_beside_writes_is_searched(node: EmbeddedNode, stack: ProxyStack, tmp_path: Path) -> None:
    name = unused_index_name()
    profile = stack.profile(generator=None)
    models = Models(stack.encoder, profile.encoder, word_spans)
    with client(node.url) as direct:
        for n in range(9):
            direct.index(index=name, id=f"d{n}", body={"title": WORDS[n % 13], "body": "plate", "n": n})
        direct.indices.refresh(index=name)
        try:
            run = Job(name, profile, models, connect(ClusterSettings(url=node.url)), IngestSettings(), tmp_path)
            assert run_beside(run, PREFIX).report.ledger.written == 9
            before = scores(search(stack, name, {"query": WING}, "hybrid")[1])
            assert len(found(stack, name, "vector")) == 9

            everything = {"script": {"source": "ctx._source.n = 100"}, "query": {"match_all": {}}}
            direct.update_by_query(index=name, body=everything, refresh=True)
            assert scores(search(stack, name, {"query": WING}, "hybrid")[1]) == pytest.approx(before)
            assert len(found(stack, name, "vector")) == 9

            direct.update(index=name, id="d3", body={"doc": {"title": "another"}}, refresh=True)
            direct.delete(index=name, id="d4", refresh=True)
            assert not {"d3", "d4"} & set(found(stack, name, "vector"))

            assert run_beside(run, PREFIX).report.ledger.written == 1
            assert len(found(stack, name, "vector")) == 8
        finally:
            direct.indices.delete(index=f"{name},{PREFIX}{name}")


@pytest.fixture
def changing(node: EmbeddedNode, stack: ProxyStack) -> Iterator[tuple[OpenSearch, str]]:
    """An index with a companion, for a test that changes its documents."""
    name = unused_index_name()
    documents = {
        "words": ({"title": "wing flow", "body": "plate"}, []),
        "predicted": ({"title": "shoe", "body": "red"}, ["wing flow"]),
        "other": ({"title": "dress", "body": "blue"}, []),
    }
    with client(node.url) as direct:
        stack.fill_beside(direct, name, documents, settings={"number_of_replicas": 0})
        yield direct, name
        direct.indices.delete(index=f"{name},{PREFIX}{name}")


def found(stack: ProxyStack, index: str, stage: str = "expansion") -> list[str]:
    mark, answer = search(stack, index, {"query": WING}, stage)
    assert mark == stage
    return list(ranked(answer))


def test_a_deleted_document_is_gone_at_once(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing
    assert set(found(stack, index)) == {"words", "predicted"}

    direct.delete(index=index, id="predicted", refresh=True)

    assert found(stack, index) == ["words"]
    assert set(found(stack, index, "vector")) == {"words", "other"}


def test_a_changed_document_is_found_by_its_new_text_alone(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing
    enriched = {"predicted": ({"title": "shoe", "body": "green"}, ["wing flow"])}

    direct.index(index=index, id="predicted", body=enriched["predicted"][0], refresh=True)
    before = found(stack, index)
    by_vector = found(stack, index, "vector")
    stack.enrich_beside(direct, index, enriched)

    assert before == ["words"]
    assert "predicted" not in by_vector
    assert set(found(stack, index)) == {"words", "predicted"}


def test_an_index_made_anew_has_of_the_companion_what_is_as_it_was(
    stack: ProxyStack, changing: tuple[OpenSearch, str]
) -> None:
    direct, index = changing
    mapping = direct.indices.get_mapping(index=index)[index]["mappings"]
    direct.indices.delete(index=index)
    direct.indices.create(index=index, body={"mappings": mapping})
    for doc_id, document in (
        ("words", {"title": "shoe", "body": "red"}),
        ("predicted", {"title": "shoe", "body": "red"}),
        ("other", {"title": "wing flow", "body": "plate"}),
    ):
        direct.index(index=index, id=doc_id, body=document, refresh=True)

    assert set(found(stack, index)) == {"other", "predicted"}
    _, answer = search(stack, index, {"query": WING}, "vector, explain")
    by_vector = [hit["_id"] for hit in answer["hits"]["hits"] if "vector" in hit["_bridge"]["legs"]]
    assert by_vector == ["predicted"]


def test_texts_count_however_a_document_spells_them(node: EmbeddedNode, stack: ProxyStack, tmp_path: Path) -> None:
    name = unused_index_name()
    profile = stack.profile(generator=None, text_fields=["title", "part.body"])
    documents = [
        b'{"title": ["wing", null, ["flow"]], "part": [{"body": "plate"}, {"body": ["heat", ""]}]}',
        b'{"title": null, "part.body": "wing"}',
        b'{"title": 1.5, "part": {"body": 1000}}',
        b'{"title": "wing \\ud83d", "part": {"body": null}}',
        b'{"n": 1}',
    ]
    mapping = {"properties": {"title": {"type": "text"}, "part": {"properties": {"body": {"type": "text"}}}}}
    with client(node.url) as direct:
        direct.indices.create(index=name, body={"mappings": mapping})
        for n, document in enumerate(documents):
            put = requests.put(f"{node.url}/{name}/_doc/{n}?refresh=true", data=document, headers=JSON, timeout=60)
            assert put.status_code == 201, put.text
        try:
            models = Models(stack.encoder, profile.encoder, word_spans)
            run = Job(name, profile, models, connect(ClusterSettings(url=node.url)), IngestSettings(), tmp_path)
            run_beside(run, PREFIX)

            everything = {"script": {"source": "ctx._source.n = 2"}, "query": {"match_all": {}}}
            direct.update_by_query(index=name, body=everything, refresh=True)
            mark, answer = search(stack, name, {"query": {"match": {"title": "wing"}}}, "vector")

            assert (mark, set(ranked(answer))) == ("vector", {"0", "1", "2", "3"})
        finally:
            direct.indices.delete(index=f"{name},{PREFIX}{name}")


def test_without_its_companion_an_index_is_searched_as_ever(
    stack: ProxyStack, changing: tuple[OpenSearch, str]
) -> None:
    direct, index = changing
    direct.indices.delete(index=f"{PREFIX}{index}")

    mark, answer = search(stack, index, {"query": WING}, "hybrid")

    assert mark == "pass; reason=no_profile"
    assert list(ranked(answer)) == ["words"]
    direct.indices.create(index=f"{PREFIX}{index}")


def test_no_search_writes_to_the_applications_index(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing

    def state() -> Any:
        shards = direct.indices.stats(index=index, level="shards")["indices"][index]["shards"]["0"]
        return direct.indices.get(index=index), [shard["seq_no"]["max_seq_no"] for shard in shards]

    before = state()
    found(stack, index, "hybrid")
    assert state() == before
