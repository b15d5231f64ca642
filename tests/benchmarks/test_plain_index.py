"""BM25 alone on a real node: its parameters and the field that is searched decide, as they should."""

import json
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from benchmarks.plain_index import ANSERINI, BOTH, fill, search, set_bm25
from bridge.cluster.schema import Bm25
from bridge.evaluation.application_query import multi_match

pytestmark = [pytest.mark.slow]

LINES = [
    {"_id": 1, "title": "wing", "text": "pressure"},
    {"_id": "long", "title": "", "text": "wing " + "and other words " * 50},
    {"_id": "other", "title": None, "text": "nothing of the kind"},
    {"no": "id"},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


def test_title_and_text_are_searched_as_one_field(opensearch: OpenSearch, fresh_index: str, corpus: Path) -> None:
    assert fill(opensearch, fresh_index, corpus, bm25=ANSERINI, analyzer="english") == 3
    both = {"q": "wing pressure"}
    [one_field] = search(opensearch, fresh_index, both, multi_match([BOTH])).values()
    [better] = search(opensearch, fresh_index, both, multi_match(["title", "text"])).values()
    assert [hit.doc_id for hit in one_field] == ["1", "long"]
    assert one_field[0].score > better[0].score


def test_long_documents_pay_for_their_length_as_b_says(opensearch: OpenSearch, fresh_index: str, corpus: Path) -> None:
    fill(opensearch, fresh_index, corpus, bm25=Bm25(1.2, 0.0), analyzer="english")
    [found] = search(opensearch, fresh_index, {"q": "wing"}, multi_match([BOTH])).values()
    assert found[0].score == pytest.approx(found[1].score)
    set_bm25(opensearch, fresh_index, Bm25(1.2, 1.0))
    [found] = search(opensearch, fresh_index, {"q": "wing"}, multi_match([BOTH])).values()
    assert [hit.doc_id for hit in found] == ["1", "long"]
    assert found[0].score > 2 * found[1].score
