"""An index to measure: a collection is enriched once and kept, and an index of one's own has to be enriched."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from opensearchpy import OpenSearch
from rich.console import Console

from bridge.cluster.connection import connect
from bridge.cluster.index import look, put_profile
from bridge.console import Display
from bridge.errors import IndexUnsuitable, IngestError
from bridge.evaluation.collections import load_collection
from bridge.evaluation.stack import Filling, logs_folder, own_index
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, Measurement, TuningRecord
from bridge.settings import ClusterSettings, IngestSettings, NodeSettings, Settings
from tests.fake_bulk import fake_cluster
from tests.toys import make_toy_encoder

CORPUS: list[dict[str, object]] = [
    {"_id": "d1", "title": "wing pressure", "text": "pressure on a wing"},
    {"_id": 2, "text": "heat of a plate", "year": 1958},
    {"no": "id"},
]
TUNED = TuningRecord(Measurement("by hand", 20, "nDCG@10", "2026-01-01T00:00:00Z"), 5, None, 0.5, 0.6, 0.05, 0.15, [])

Fill = Callable[..., str]


@pytest.fixture
def fill(node: EmbeddedNode, fresh_index: str, tmp_path: Path) -> Fill:
    """Fills the fresh index with a collection; returns what was said meanwhile."""
    folder = tmp_path / "shop"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "wing"}\n')
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")

    def fill(*, corpus: list[dict[str, object]] = CORPUS, words: str = "wing pressure heat") -> str:
        (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(document)}\n" for document in corpus))
        encoder = make_toy_encoder(tmp_path / words.replace(" ", "-"), words.split()).path
        settings = Settings(ingest=IngestSettings(encoder=str(encoder), generator=None))
        said = io.StringIO()
        with connect(ClusterSettings(url=node.url)) as client:
            display = Display(Console(file=said, width=160))
            Filling(client, fresh_index, load_collection(folder), settings, tmp_path / "state", display).fill("english")
        return said.getvalue()

    return fill


def profile_in(opensearch: OpenSearch, index: str) -> IndexProfile:
    profile = look(opensearch, index).profile
    assert profile is not None
    return profile


def test_a_collection_is_enriched_once_and_kept(fill: Fill, opensearch: OpenSearch, fresh_index: str) -> None:
    said = fill()
    assert "1 documents could not be written" in said
    assert "2 documents, 2 of them written now" in said
    found = opensearch.search(index=fresh_index, body={"query": {"match": {"text": "plates"}}})["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["2"]  # by the analyzer, which strips the plural
    assert profile_in(opensearch, fresh_index).text_fields == ["title", "text"]
    assert "2 documents, 0 of them written now" in fill()


def test_an_index_of_another_model_is_made_anew(fill: Fill, opensearch: OpenSearch, fresh_index: str) -> None:
    fill()
    before = profile_in(opensearch, fresh_index)
    assert "2 documents, 2 of them written now" in fill(words="wing pressure")
    after = profile_in(opensearch, fresh_index)
    assert (before.dimension, after.dimension) == (3, 2)


@pytest.mark.parametrize(("tuning", "window"), [(None, 100), (TUNED, 7)])
def test_search_settings_are_brought_up_to_date_unless_somebody_tuned_them(
    tuning: TuningRecord | None, window: int, fill: Fill, opensearch: OpenSearch, fresh_index: str
) -> None:
    fill()
    put_profile(opensearch, fresh_index, lambda profile: msgspec.structs.replace(profile, window=7, tuning=tuning))
    assert "0 of them written now" in fill()
    assert profile_in(opensearch, fresh_index).window == window


def test_a_collection_of_which_nothing_can_be_written_is_an_error(fill: Fill) -> None:
    with pytest.raises(IngestError, match="collection shop: none of its 1 documents could be written"):
        fill(corpus=[{"no": "id"}])


def test_an_index_that_is_not_enriched_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    with fake_cluster() as cluster:
        settings = Settings(cluster=ClusterSettings(url=cluster.url), node=NodeSettings(cache_dir=tmp_path))
        said = io.StringIO()
        with (
            pytest.raises(IndexUnsuitable, match="neural-bridge backfill products"),
            own_index("products", settings, Display(Console(file=said)), config_file=None),
        ):
            pass
    assert said.getvalue() == ""


def test_logs_have_a_folder_in_the_cache(tmp_path: Path) -> None:
    folder = logs_folder(Settings(node=NodeSettings(cache_dir=tmp_path / "new")))
    assert folder.is_dir()
    assert folder.parent == tmp_path / "new"
