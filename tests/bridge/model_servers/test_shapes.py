"""What each kind of model server is sent, and what its answers mean."""

import math

import msgspec
import pytest

from bridge.model_servers.shapes import Score, embed_api, in_order, query_terms, rerank_api, terms_body
from bridge.profile import ModelReference, SparseSettings
from bridge.search.cascade import CascadeRequest
from bridge.settings import RerankerSettings


def test_the_sidecar_gets_the_cascade_and_gives_logits() -> None:
    api = rerank_api(RerankerSettings())
    body = api.body("cat", ["one", "two"], CascadeRequest(1, [0.5, 0.25], 0.6))
    assert body["texts"] == ["one", "two"]
    assert (body["cascade_depth"], body["prior_scores"], body["prior_weight"]) == (1, [0.5, 0.25], 0.6)
    [score] = api.scores(b'[{"index": 1, "score": -2.5, "text": "two"}]')
    assert (score.index, score.score) == (1, -2.5)


def test_a_query_has_the_terms_that_the_profile_wants() -> None:
    sparse = SparseSettings(ModelReference("sparse-tiny", "0" * 12), queries="model")
    assert terms_body("red shoes", sparse) == {
        "inputs": ["red shoes"],
        "role": "query",
        "model": "sparse-tiny@000000000000",
        "queries": "model",
    }
    row = b'{"index": 7, "value": 2.5, "token": "shoe"}, {"index": 9, "value": 0.5, "token": "##s"}'
    assert query_terms(b"[[%b]]" % row) == {"shoe": 2.5, "##s": 0.5}
    assert query_terms(b"[[]]") == {}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"[]", id="no text"),
        pytest.param(b"[[], []]", id="two texts"),
        pytest.param(b'[[{"index": 7, "value": 0, "token": "shoe"}]]', id="no weight"),
        pytest.param(b'[[{"index": 7, "value": -1.5, "token": "shoe"}]]', id="a weight below zero"),
        pytest.param(b'[[{"index": 7, "value": 1e300, "token": "shoe"}]]', id="a weight that no cluster takes"),
        pytest.param(b'[[{"index": 7, "value": 1, "token": "s.hoe"}]]', id="a dot"),
        pytest.param(b'[[{"index": 7, "value": 1, "token": ""}]]', id="no term"),
        pytest.param(b'[[{"index": 7, "value": 1}]]', id="another server's"),
    ],
)
def test_terms_that_no_query_can_have_cannot_be_read(answer: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        query_terms(answer)


def test_probabilities_become_logits_and_other_scores_stay() -> None:
    api = rerank_api(RerankerSettings(api="cohere", url="http://x/v2/rerank", model="m"))
    assert api.body("cat", ["one"], None) == {"model": "m", "query": "cat", "documents": ["one"], "top_n": 1}
    answer = b'{"results": [{"index": 0, "relevance_score": %s}, {"index": 1, "relevance_score": 0.5}]}'
    assert [score.score for score in api.scores(answer % b"7.5")] == [7.5, 0.5]
    certain, even = (score.score for score in api.scores(answer % b"1"))
    assert (math.isfinite(certain), even) == (True, 0.0)


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("sidecar", b"[[0.6, 0.8], [1, 0]]"),
        ("tei", b"[[3, 4], [2, 0]]"),
        ("openai", b'{"data": [{"index": 1, "embedding": [2, 0]}, {"index": 0, "embedding": [3, 4]}]}'),
    ],
)
def test_embeddings_have_unit_length_in_the_order_of_the_texts(api: str, answer: bytes) -> None:
    shape = embed_api(api, model="m", prompt="query: ")  # type: ignore[arg-type]
    assert shape.embeddings(answer) == [pytest.approx([0.6, 0.8]), pytest.approx([1.0, 0.0])]


def test_a_prompt_stands_before_each_text_but_for_the_sidecar_which_has_its_own() -> None:
    texts = ["cat", "dog"]
    assert embed_api("sidecar", model=None, prompt="query: ").body(texts, "query", model="e@1") == {
        "inputs": texts,
        "role": "query",
        "model": "e@1",
    }
    prompted = ["query: cat", "query: dog"]
    assert embed_api("tei", model=None, prompt="query: ").body(texts, "query", model=None)["inputs"] == prompted
    assert embed_api("openai", model="m", prompt="query: ").body(texts, "query", model=None)["input"] == prompted


@pytest.mark.case("R29")
@pytest.mark.parametrize("number", [b"1e308", b"-1e308"])
def test_embeddings_of_huge_numbers_have_unit_length(number: bytes) -> None:
    [embedding] = embed_api("tei", model=None, prompt=None).embeddings(b"[[%s, %s]]" % (number, number))
    assert math.hypot(*embedding) == pytest.approx(1.0)


@pytest.mark.case("R29")
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e400", b"null", b'"1"'])
def test_a_score_or_an_embedding_that_is_no_number_cannot_be_read(number: bytes) -> None:
    cohere = rerank_api(RerankerSettings(api="cohere", url="http://x/v2/rerank", model="m"))
    with pytest.raises(msgspec.DecodeError):
        rerank_api(RerankerSettings()).scores(b'[{"index": 0, "score": %s}]' % number)
    with pytest.raises(msgspec.DecodeError):
        cohere.scores(b'{"results": [{"index": 0, "relevance_score": %s}]}' % number)
    for api in ("sidecar", "tei", "openai"):
        answer = b'{"data": [{"embedding": [%s]}]}' if api == "openai" else b"[[%s]]"
        with pytest.raises(msgspec.DecodeError):
            embed_api(api, model="m", prompt=None).embeddings(answer % number)


def test_scores_come_in_the_order_of_the_passages() -> None:
    assert in_order([Score(1, -2.5), Score(0, 1.5)], 2) == [1.5, -2.5]


@pytest.mark.parametrize("places", [[0], [0, 0], [0, 2], [0, -1], [0, 1, 1]])
def test_scores_that_name_a_passage_twice_or_not_cannot_be_read(places: list[int]) -> None:
    with pytest.raises(msgspec.ValidationError, match="usable scores for 2 passages"):
        in_order([Score(place, 0.5) for place in places], 2)


def test_embeddings_without_places_are_in_the_order_of_the_texts() -> None:
    openai = embed_api("openai", model="m", prompt=None)
    assert openai.embeddings(b'{"data": [{"embedding": [1, 0]}, {"embedding": [0, 1]}]}') == [[1, 0], [0, 1]]


@pytest.mark.parametrize("places", [(0, 0, 1), (1, 2, 3), (0, 1, -1)])
def test_embeddings_that_name_a_text_twice_or_not_cannot_be_read(places: tuple[int, ...]) -> None:
    data = [{"index": place, "embedding": [1.0, 0.0]} for place in places]
    with pytest.raises(msgspec.ValidationError, match="twice, or leave one out"):
        embed_api("openai", model="m", prompt=None).embeddings(msgspec.json.encode({"data": data}))
