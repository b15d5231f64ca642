"""Requests that more than one model answers, or more than one window of a document."""

from pathlib import Path

import pytest

from rerank_server.metrics import Metrics
from rerank_server.models import Models
from rerank_server.scoring import ScoreCache
from tests.rerank_server.running import running, toy_cascade, toy_models
from tests.toys import WORDS

QUERY = "cat dog fish"
PASSAGES = ["cat", "fish", "cat dog", "nothing", "cat fish", "dog fish"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return toy_cascade(tmp_path_factory.mktemp("cascade"))


async def test_the_large_model_reads_the_best_of_the_small_one_and_they_come_first(models: Models) -> None:
    async with running(models) as client:
        answer = await client.post(
            "/rerank", {"query": QUERY, "texts": PASSAGES, "cascade_depth": 3, "raw_scores": True}
        )
        # The small one: 1 0 2 0 1 1; so 2, 0 and 4 are read, of which only 4 holds a fish.
        assert [hit["index"] for hit in answer.body] == [4, 0, 2, 5, 1, 3]
        assert [hit["score"] for hit in answer.body] == [1.0, 0.0, 0.0, -1.0, -2.0, -2.0]
        assert await client.metric("bridge_rerank_batch_pairs_sum") == len(PASSAGES) + 3


async def test_the_search_that_found_them_has_a_say_in_what_the_large_model_reads(models: Models) -> None:
    request = {"query": QUERY, "texts": PASSAGES, "cascade_depth": 2, "raw_scores": True}
    # The small model finds a cat or a dog in all but 1 and 3; the search put these first.
    prior = {"prior_scores": [0, 10, 0, 9, 0, 0]}
    async with running(models) as client:
        read = {}
        for weight in (0, 0.9):
            answer = await client.post("/rerank", request | prior | {"prior_weight": weight})
            read[weight] = {hit["index"] for hit in answer.body[:2]}
    assert read == {0: {0, 2}, 0.9: {1, 3}}


async def test_as_many_prior_scores_as_passages_are_needed(models: Models) -> None:
    async with running(models) as client:
        answer = await client.post("/rerank", {"query": QUERY, "texts": PASSAGES, "prior_scores": [1.0]})
        assert answer.status == 422
        assert "`prior_scores` has 1 numbers for 6 passages" in answer.body["error"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/opensearch/rerank"])
async def test_a_cascade_answers_in_every_dialect_with_every_document(models: Models, path: str) -> None:
    async with running(models) as client:
        answer = await client.post(path, {"query": QUERY, "documents": PASSAGES, "cascade_depth": 3})
        hits = answer.body if isinstance(answer.body, list) else answer.body["results"]
        assert [hit["index"] for hit in hits] == [4, 0, 2, 5, 1, 3]
        shown = [hit["relevance_score"] for hit in hits]
        assert shown == sorted(shown, reverse=True)
        assert shown[2] > shown[3]


async def test_a_depth_beyond_all_passages_is_the_large_model_alone(models: Models) -> None:
    async with running(models) as client:
        request = {"query": QUERY, "texts": PASSAGES, "raw_scores": True}
        deep = await client.post("/rerank", request | {"cascade_depth": 100})
        assert deep.body == (await client.post("/rerank", request)).body


async def test_the_margin_spares_the_large_model_what_cannot_come_first(models: Models) -> None:
    async with running(models) as client:
        request = {"query": QUERY, "texts": PASSAGES, "cascade_depth": 6, "top_n": 1, "cascade_margin": 1}
        assert (await client.post("/rerank", request)).body[0]["index"] == 4
        assert await client.metric("bridge_rerank_batch_pairs_sum") == len(PASSAGES) + 4


async def test_each_model_remembers_its_own_scores(models: Models) -> None:
    async with running(models, cached_pairs=100) as client:
        request = {"query": QUERY, "texts": PASSAGES, "cascade_depth": 3, "raw_scores": True}
        first = await client.post("/rerank", request)
        assert (await client.post("/rerank", request)).body == first.body
        assert await client.metric("bridge_rerank_batch_pairs_sum") == len(PASSAGES) + 3
        await client.post("/rerank", request | {"cascade_depth": 4})
        assert await client.metric("bridge_rerank_batch_pairs_sum") == len(PASSAGES) + 4


@pytest.mark.parametrize(("depth", "field"), [(0, "cascade_depth"), (-1, "cascade_depth"), ("3", "cascade_depth")])
async def test_a_depth_is_a_number_above_zero(models: Models, depth: object, field: str) -> None:
    async with running(models) as client:
        answer = await client.post("/rerank", {"query": QUERY, "texts": PASSAGES, "cascade_depth": depth})
        assert (answer.status, answer.body["field"]) == (422, field)


async def test_without_a_cascade_model_a_cascade_is_refused_and_all_else_served(tmp_path: Path) -> None:
    async with running(toy_models(tmp_path)) as client:
        answer = await client.post("/rerank", {"query": QUERY, "texts": PASSAGES, "cascade_depth": 3})
        assert (answer.status, answer.body["error_type"], answer.body["field"]) == (404, "not_served", "cascade_depth")
        assert "sidecar.cascade_model" in answer.body["error"]
        assert (await client.get("/info")).body["cascade_model_id"] is None
        assert (await client.post("/rerank", {"query": QUERY, "texts": PASSAGES})).status == 200


@pytest.mark.parametrize(
    ("asked", "served"),
    [(None, "fish"), ("fish", "fish"), ("half", "half"), ("half@DIGEST", "half"), ("rerank-v3.5", "fish")],
)
async def test_a_model_is_asked_for_by_name_and_the_answer_says_which_it_was(
    models: Models, asked: str | None, served: str
) -> None:
    async with running(models) as client:
        listed = {each.partition("@")[0]: each for each in (await client.get("/info")).body["rerank_model_ids"]}
        name = listed["half"] if asked == "half@DIGEST" else asked
        answer = await client.post("/v2/rerank", {"query": QUERY, "documents": PASSAGES, "model": name})
        assert answer.body["model"] == listed[served]
        assert answer.body["results"][0]["index"] == {"fish": 1, "half": 2}[served]


async def test_a_long_document_counts_as_its_best_window(tmp_path: Path) -> None:
    async with running(toy_models(tmp_path), max_pair_tokens=16) as client:
        words = [word for word in WORDS if word not in QUERY.split()]
        texts = [" ".join([*words[:30], "cat dog fish"]), " ".join(["cat", *words[:30], "dog"]), "cat dog"]
        request = {"query": QUERY, "texts": texts, "raw_scores": True}
        short = {hit["index"]: hit["score"] for hit in (await client.post("/rerank", request)).body}
        assert short == {0: 0.0, 1: 1.0, 2: 2.0}
        whole = await client.post("/rerank", request | {"max_tokens_per_doc": 100})
        assert {hit["index"]: hit["score"] for hit in whole.body} == {0: 3.0, 1: 1.0, 2: 2.0}
        cut = await client.post("/rerank", request | {"max_tokens_per_doc": 31})
        assert {hit["index"]: hit["score"] for hit in cut.body} == {0: 1.0, 1: 1.0, 2: 2.0}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"texts": ["cat", "cat " * 11]}, "texts.1: it has more than 10 tokens"),
        ({"documents": [{"text": "cat " * 11}], "texts": None}, "documents.0: it has more than 10 tokens"),
        ({"query": "cat " * 7}, "query: it has more than 6 tokens"),
        ({"texts": ["cat " * 31], "max_tokens_per_doc": 30}, "texts.0: it has more than 30 tokens"),
        ({"texts": ["cat " * 10]}, None),
        ({"texts": ["cat " * 30], "max_tokens_per_doc": 30}, None),
        ({"texts": ["cat " * 11], "truncate": True}, None),
    ],
)
async def test_what_must_not_be_cut_and_is_too_long_is_refused_by_name(
    models: Models, change: dict[str, object], named: str | None
) -> None:
    """16 tokens are room for three special ones and 13 of query and passage."""
    async with running(models, max_pair_tokens=16) as client:
        request = {"query": QUERY, "texts": ["cat"], "truncate": False} | change
        answer = await client.post("/rerank", request)
        assert answer.status == (413 if named else 200)
        if named:
            assert named in answer.body["error"]
            assert "leave `truncate: false` out" in answer.body["error"]


async def test_the_large_model_reads_one_window_of_each_document(models: Models) -> None:
    async with running(models, max_pair_tokens=16) as client:
        filler = " ".join(word for word in WORDS if word not in QUERY.split())
        texts = [f"{filler} cat dog fish", "fish", "cat"]
        request = {"query": QUERY, "texts": texts, "max_tokens_per_doc": 100, "cascade_depth": 1, "raw_scores": True}
        answer = await client.post("/rerank", request)
        assert answer.body[0] == {"index": 0, "score": 1.0}
        all_of_the_large = await client.metric("bridge_rerank_batch_pairs_sum")
        await client.post("/rerank", request | {"cascade_depth": 2})
        assert await client.metric("bridge_rerank_batch_pairs_sum") == 2 * all_of_the_large + 1


async def test_a_request_that_never_fits_the_queue_is_too_large(models: Models) -> None:
    async with running(models, max_queued_pairs=5) as client:
        answer = await client.post("/rerank", {"query": QUERY, "texts": PASSAGES})
        assert (answer.status, answer.body["error_type"]) == (413, "too_large")


def _cache(max_pairs: int) -> ScoreCache:
    return ScoreCache(max_pairs=max_pairs, metrics=Metrics())


def test_a_score_belongs_to_model_query_and_passage() -> None:
    cache = _cache(10)
    cache.remember("model@1", "query", ["a", "b"], [1.0, 2.0])
    assert cache.known("model@1", "query", ["b", "c", "a"]) == [2.0, None, 1.0]
    assert cache.known("model@2", "query", ["a"]) == [None]
    assert cache.known("model@1", "query2", ["a"]) == [None]
    assert cache.known("model@1", "quer", ["ya"]) == [None]


def test_the_pair_that_was_not_asked_for_longest_is_forgotten() -> None:
    cache = _cache(2)
    cache.remember("m", "q", ["a", "b"], [1.0, 2.0])
    cache.known("m", "q", ["a"])
    cache.remember("m", "q", ["c"], [3.0])
    assert cache.known("m", "q", ["a", "b", "c"]) == [1.0, None, 3.0]


def test_a_cache_of_nothing_remembers_nothing() -> None:
    cache = _cache(0)
    cache.remember("m", "q", ["a"], [1.0])
    assert cache.known("m", "q", ["a"]) == [None]


def test_texts_without_utf8_form_are_told_apart() -> None:
    cache = _cache(10)
    cache.remember("m", "q", ["\ud800"], [1.0])
    assert cache.known("m", "q", ["\ud800", "\ud801", "?"]) == [1.0, None, None]
