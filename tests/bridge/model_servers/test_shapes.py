"""What each kind of model server is sent, and what its answers mean."""

import math

import pytest

from bridge.model_servers.shapes import embed_api, rerank_api
from bridge.search.cascade import CascadeRequest
from bridge.settings import RerankerSettings


def test_the_sidecar_gets_the_cascade_and_gives_logits() -> None:
    api = rerank_api(RerankerSettings())
    body = api.body("cat", ["one", "two"], CascadeRequest(1, [0.5, 0.25], 0.6))
    assert body["texts"] == ["one", "two"]
    assert (body["cascade_depth"], body["prior_scores"], body["prior_weight"]) == (1, [0.5, 0.25], 0.6)
    [score] = api.scores(b'[{"index": 1, "score": -2.5, "text": "two"}]')
    assert (score.index, score.score) == (1, -2.5)


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
