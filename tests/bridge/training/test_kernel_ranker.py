"""A kernel ranker fitted to a few lists, from the toy encoder's word table: each word is like no other but itself."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("transformers", reason="the extra train is not installed")

from bridge.errors import ModelError, UsageError
from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.training import kernel_ranker
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from tests.bridge.models.batching_provider import IN_BATCHES
from tests.rerank_server.running import running, toy_models
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder


def _candidates(n_lists: int) -> CandidateSet:
    """Passages of five words, of which only the judged one holds the two words of its query."""
    chosen = random.Random(5)
    passages: list[PooledPassage] = []
    lists: list[CandidateList] = []
    for _ in range(n_lists):
        first_word, second_word, *others = chosen.sample(WORDS, len(WORDS))
        query = [first_word, second_word]
        first = len(passages)
        passages.append(PooledPassage(" ".join([*query, *others[:3]]), "", "toys"))
        passages += [PooledPassage(" ".join(chosen.sample(others, 5)), "", "toys") for _ in range(7)]
        negatives = list(range(first + 1, first + 8))
        lists.append(CandidateList(" ".join(query), "toys", first, negatives, [], [], []))
    return CandidateSet(passages, lists)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("kernels")
    encoder = make_toy_encoder(folder / "encoder")
    return kernel_ranker.fit(encoder, _candidates(40), folder / "out", name="kernels")


def test_passages_with_more_of_the_querys_words_come_first(fitted: ModelFolder) -> None:
    passages = ["bird bee cow", "cat bee cow", "dog cow cat", "fish dog cat"]
    scores = CrossEncoder.load(fitted).score("cat dog fish", passages)
    assert np.argsort(scores).tolist() == [0, 1, 2, 3]


def test_a_rare_word_counts_more_than_a_common_one(tmp_path: Path) -> None:
    candidates = _candidates(40)
    common = [PooledPassage(f"{each.text} cat", "", "toys") for each in candidates.passages]
    made = kernel_ranker.fit(
        make_toy_encoder(tmp_path / "encoder"), CandidateSet(common, candidates.lists), tmp_path / "out", name="kernels"
    )
    scores = CrossEncoder.load(made).score("cat goat", ["cat", "goat"])
    assert scores[1] > scores[0]


@pytest.mark.parametrize("providers", [IN_BATCHES])
def test_a_pair_scores_alike_alone_and_in_a_batch(fitted: ModelFolder, providers: list[str]) -> None:
    ranker = CrossEncoder.load(fitted, providers=providers)
    pairs = ranker.pairs("cat dog", ["cat", "the red dress and the blue shoe", ""])
    assert ranker.score_pairs(pairs) == pytest.approx([ranker.score_pair(pair) for pair in pairs], abs=1e-5)


async def test_it_serves_as_the_first_stage_of_a_cascade(fitted: ModelFolder, tmp_path: Path) -> None:
    large = CrossEncoder.load(make_toy_cross_encoder(tmp_path / "fish", ["fish"], name="fish"))
    models = replace(toy_models(tmp_path), cross_encoder=large, cascade=CrossEncoder.load(fitted))
    async with running(models) as client:
        texts = ["bird", "cat", "cat fish", "dog"]
        answer = await client.post("/rerank", {"query": "cat fish", "texts": texts, "cascade_depth": 2})
        assert [hit["index"] for hit in answer.body[:2]] == [2, 1]
        assert await client.metric("bridge_rerank_batch_pairs_sum") == len(texts) + 2


def test_lists_without_enough_negatives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3 lists have 7 negatives"):
        kernel_ranker.fit(make_toy_encoder(tmp_path / "encoder"), _candidates(3), tmp_path / "out", name="kernels")


def test_a_graph_without_a_word_table_is_refused(tmp_path: Path) -> None:
    folder = make_toy_cross_encoder(tmp_path)
    with pytest.raises(ModelError, match="looks up input_ids in no table"):
        kernel_ranker.word_table(folder.model_file)
