"""Models beside each other over the same BM25: toy models, whose rankings a reader can foresee."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.models import INDEX, PROFILE, Ground, Rankings, compared_with
from benchmarks.plain_index import values, worth
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.profile import RerankSettings
from bridge.records import Hit, RankedHit
from tests.toys import (
    make_negated_cross_encoder,
    make_toy_cross_encoder,
    make_toy_encoder,
    make_toy_sparse_encoder,
    make_toy_static_encoder,
)

DOCUMENTS = {
    "wing": "wing pressure of a supersonic wing",
    "heat": "heat flow in a boundary layer",
    "dress": "a cheap red dress",
}
QUERIES = {"q": "cheap red shoe", "heat": "heat flow in a boundary layer"}
QRELS = {"q": {"dress": 1}, "heat": {"wing": 1}}
JUDGED = JudgedQueries("by hand", QUERIES, QRELS, own_documents=frozenset({"heat"}))


RERANKED = msgspec.structs.replace(PROFILE, rerank=RerankSettings(depth=3, blend=0.0))


def hits(*doc_ids: str) -> list[Hit]:
    return [Hit(INDEX, doc_id, float(len(doc_ids) - n)) for n, doc_id in enumerate(doc_ids)]


@pytest.fixture
def ground() -> Ground:
    """BM25 finds the right document of the first query second."""
    return Ground(DOCUMENTS, JUDGED, {"q": hits("wing", "dress"), "heat": hits("heat", "wing")})


def order(rankings: Rankings) -> list[str]:
    return [hit.doc_id for hit in rankings["q"]]


def test_a_query_that_is_a_document_does_not_find_itself(ground: Ground) -> None:
    assert worth(JUDGED, ground.lexical) == pytest.approx((0.6309 + 1) / 2, abs=1e-4)


def test_every_ranking_is_told_with_what_made_it(ground: Ground, tmp_path: Path) -> None:
    encoder = str(make_toy_encoder(tmp_path / "encoder").path)
    honest = str(make_toy_cross_encoder(tmp_path / "honest").path)
    negated = str(make_negated_cross_encoder(tmp_path / "negated").path)
    sparse = str(make_toy_sparse_encoder(tmp_path / "sparse").path)
    compared = dict(ground.compared([encoder], [honest, negated], RERANKED, [sparse]))

    assert list(compared) == [
        "BM25",
        encoder,
        f"BM25 and {encoder}",
        f"BM25 and {encoder}, smoothed",
        sparse,
        f"BM25 and {sparse}",
        f"BM25 and {sparse}, smoothed",
        f"BM25, {encoder} and {sparse}",
        f"BM25 and {encoder}, {honest}",
        f"BM25 and {encoder}, {negated}",
    ]
    figures = {name: worth(JUDGED, rankings) for name, rankings in compared.items()}
    assert figures[f"BM25 and {encoder}, {honest}"] > figures["BM25"]
    assert order(compared[sparse]) == ["dress"]
    assert ground.texts_per_second[sparse] > 0
    for name, legs in ((f"BM25 and {sparse}", {"sparse"}), (f"BM25, {encoder} and {sparse}", {"sparse", "vector"})):
        [dress] = [hit for hit in compared[name]["q"] if hit.doc_id == "dress"]
        assert isinstance(dress, RankedHit)
        assert dress.legs.keys() == {"lexical", *legs}
    assert figures[f"BM25 and {encoder}, {negated}"] < figures[f"BM25 and {encoder}, {honest}"]


def test_encoders_of_both_kinds_rank_alike_and_their_speed_is_told(ground: Ground, tmp_path: Path) -> None:
    encoders = [str(make(tmp_path / make.__name__).path) for make in (make_toy_encoder, make_toy_static_encoder)]
    compared = dict(ground.compared(encoders, []))
    by_network, by_table = (order(compared[encoder]) for encoder in encoders)
    assert by_network == by_table
    assert by_table[0] == "dress"
    assert set(ground.texts_per_second) == set(encoders)
    assert min(ground.texts_per_second.values()) > 0


def test_rankings_are_compared_query_by_query_over_all_collections(ground: Ground) -> None:
    assert values(JUDGED, ground.lexical).tolist() == pytest.approx([0.6309, 1.0], abs=1e-4)
    by_query = {"BM25": [np.array([0.0, 0.5]), np.array([1.0])], "better": [np.array([0.25, 0.75]), np.array([1.25])]}
    assert compared_with(["BM25"], by_query) == {"better": ["+0.2500 [+0.2500, +0.2500] to BM25"]}
