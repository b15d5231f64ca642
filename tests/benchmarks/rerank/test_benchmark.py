"""What the bench computes beside the clock."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.rerank import machine
from benchmarks.rerank.passages import passages, sections
from benchmarks.rerank.quality import Judged, judged_collection, ndcg, questions, worth
from bridge.errors import UsageError
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from tests.toys import make_toy_cross_encoder, make_toy_encoder

JUDGED: Judged = (["cat dog", "cat", "fish", "dog", "bird"], {"cat fish": {2: 1}, "dog": {3: 2, 0: 1}})


@pytest.mark.parametrize(
    ("scores", "grades", "expected"),
    [
        ([3.0, 2.0, 1.0], {7: 1}, 1.0),
        ([1.0, 3.0, 2.0], {7: 1}, 0.5),
        ([3.0, 2.0, 1.0], {7: 2, 9: 1}, (2 + 1 / 2) / (2 + 1 / 1.5849625)),
        ([3.0, 2.0, 1.0], {5: 1}, 0.0),
        ([3.0, 2.0, 1.0], {}, 0.0),
    ],
)
def test_ndcg_is_the_gain_of_the_ranking_by_that_of_the_best(
    scores: list[float], grades: dict[int, int], expected: float
) -> None:
    assert ndcg(scores, [7, 8, 9], grades) == pytest.approx(expected)


@pytest.mark.parametrize(("depth", "kept"), [(5, 1.0), (1, 0.5)])
def test_a_cascade_keeps_what_its_depth_lets_through(tmp_path: Path, depth: int, kept: float) -> None:
    """The small model knows no fish, so of the first question's passages it lets the cats through."""
    large = CrossEncoder.load(make_toy_cross_encoder(tmp_path / "large", ["fish"]))
    small = CrossEncoder.load(make_toy_cross_encoder(tmp_path / "small", ["cat"]))
    encoder = Encoder.load(make_toy_encoder(tmp_path / "encoder"))
    texts, questions_of = JUDGED
    judged = (texts, {"cat fish": questions_of["cat fish"]})
    asked = questions(judged, encoder, n_queries=1, n_candidates=3)
    found = worth(asked, large, small, None, depth=depth)
    assert found.cascade is not None
    assert found.cascade / found.ours == pytest.approx(kept, abs=0.2)


def test_every_model_is_measured_over_the_same_candidates(tmp_path: Path) -> None:
    """Ours leaves the candidates in their order, cat before fish and dog before cat dog; the peer turns it round."""
    encoder = Encoder.load(make_toy_encoder(tmp_path / "encoder"))
    large = CrossEncoder.load(make_toy_cross_encoder(tmp_path / "large"))
    asked = questions(JUDGED, encoder, n_queries=2, n_candidates=2)
    seen: list[tuple[str, Sequence[str]]] = []

    def peer(query: str, passages: Sequence[str]) -> list[float]:
        seen.append((query, passages))
        return [0.0, 1.0]

    found = worth(asked, large, None, peer, depth=1)
    assert seen == [("cat fish", ["cat", "fish"]), ("dog", ["dog", "cat dog"])]
    assert found.ours == pytest.approx((0.6309 + 1) / 2, abs=1e-4)
    assert found.peer == pytest.approx((1 + (1 + 2 * 0.6309) / (2 + 0.6309)) / 2, abs=1e-4)
    assert found.cascade is None


def test_operations_count_what_each_layer_reads() -> None:
    """Of rerank-base: six layers, of which the upper half reads two fifths of a passage, and the last ends with one
    token."""
    width = 384
    folder = resolve("rerank-base")
    pairs = CrossEncoder.load(folder).pairs("what swims", ["fish " * 100, "a fish"])
    expected = 0.0
    for pair in pairs:
        n_all, n_passage = pair["input_ids"].size, int(pair["token_type_ids"].sum())
        n_kept = n_all - n_passage + min(n_passage, max(16, math.ceil(0.4 * n_passage)))
        products = 28 * n_all + 34 * n_kept + 11  # squares of the width, of which a layer has twelve
        attention = 3 * n_all**2 + 2 * n_kept**2 + n_kept
        expected += 2 * products * width**2 + 4 * attention * width
    assert machine.operations(folder.model_file, pairs) == pytest.approx(expected, rel=1e-3)


def test_a_collection_is_read_as_beir_lays_it_out(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": "a", "title": "Cats", "text": "purr"}, {"_id": "b", "text": "dogs"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "cat"}\n{"_id": "r", "text": "dog"}\n')
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t2\nr\tgone\t1\nr\ta\t0\n")
    assert judged_collection(tmp_path) == (["Cats purr", "dogs"], {"cat": {0: 2}})


def test_a_folder_that_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks corpus\.jsonl"):
        judged_collection(tmp_path)


def test_passages_are_the_same_each_time_and_of_many_lengths() -> None:
    texts = passages(100)
    assert texts == passages(100)
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] < 20
    assert lengths[-1] > 100


def test_every_heading_asks_for_passages_of_its_own() -> None:
    texts, answers = sections()
    assert len(answers) > 50
    assert all(places and max(places) < len(texts) for places in answers.values())
