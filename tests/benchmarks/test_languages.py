"""The gate judges no query by itself, and searches that a model cannot read are BM25's."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.languages import Ground, Reader, Served, cross_gated, measure
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.models.encoder import Encoder
from bridge.records import Hit
from tests.bridge.proxy.scripted_models import scripted_models
from tests.toys import WORDS, make_toy_encoder

N = 80


def _values(even: float, odd: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    values = np.where(np.arange(N) % 2 == 0, even, odd)
    return values + np.linspace(0, 0.01, N)  # an interval without width is no evidence


def test_a_half_of_the_queries_is_judged_by_the_other() -> None:
    lexical, hybrid = np.full(N, 0.5), _values(even=0.9, odd=0.1)
    gated, stages = cross_gated({"lexical": lexical, "hybrid": hybrid})
    assert stages == ["lexical", "hybrid"]
    assert gated[::2].tolist() == lexical[::2].tolist()
    assert gated[1::2].tolist() == hybrid[1::2].tolist()


def test_a_stage_that_harms_serves_no_query() -> None:
    lexical = np.full(N, 0.5)
    gated, stages = cross_gated({"lexical": lexical, "hybrid": _values(0.3, 0.3), "smoothing": _values(0.4, 0.4)})
    assert (gated.tolist(), stages) == (lexical.tolist(), ["lexical", "lexical"])


@pytest.fixture
def ground() -> Ground:
    """The text of each document is a word; the queries of the first half are words, of the second in another script.
    BM25 finds the right one second."""
    documents = {f"d{n}": word for n, word in enumerate(WORDS[:40])}
    queries = {f"q{n}": word if n < 20 else "крыло" for n, word in enumerate(WORDS[:40])}
    lexical = {
        f"q{n}": [Hit("bench-languages", f"d{(n + 1) % 40}", 2.0), Hit("bench-languages", f"d{n}", 1.0)]
        for n in range(40)
    }
    return Ground(documents, JudgedQueries("", queries, {f"q{n}": {f"d{n}": 1} for n in range(40)}), lexical, "")


def test_searches_that_the_models_cannot_read_are_bm25s(ground: Ground, tmp_path: Path) -> None:
    encoder = Encoder.load(make_toy_encoder(tmp_path / "encoder"), threads=1)

    own, without_scripts = (dict(measure(ground, [Reader("toy", encoder, scripts)])) for scripts in (["latin"], []))

    second = 1 / np.log2(3)
    assert own["BM25"].ndcg == pytest.approx(second, abs=1e-4)
    whole = "toy, hybrid, whatever the gate says"
    assert own[whole].ndcg == pytest.approx((1 + second) / 2, abs=1e-4)
    assert own[whole].difference[0] > 0
    assert own["toy, gated"].stages is not None
    assert without_scripts[whole].ndcg <= own[whole].ndcg


async def test_a_server_may_know_its_two_roles_by_two_names() -> None:
    async with scripted_models() as models:
        url = f"{models.url}/v1/embeddings"
        made = await asyncio.to_thread(
            lambda: Served(url, {"query": "q", "passage": "p"}).encode(["a", "b"], "passage")
        )
    assert made.tolist() == [pytest.approx([0.6, 0.0, 0.8, 0.0])] * 2
    assert [body["model"] for body in models.asked("/v1/embeddings")] == ["q", "p"]
