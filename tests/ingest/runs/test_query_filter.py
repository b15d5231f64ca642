"""Predicted queries filtered by a share of all: the score is found once, and then holds for every document."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bridge.errors import IndexUnsuitable, UsageError
from bridge.profile import IndexProfile
from bridge.records import Document, SourcePosition
from bridge.settings import IngestSettings
from ingest.runs.query_filter import sample_of_files, with_filter_threshold
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.source import SourceItem
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models, profile_for
from ingest.stages.stamps import recipe
from tests.ingest.toys import LengthScorer, toy_models

MODELS: Models = replace(toy_models(), scorer=LengthScorer())
PROFILE = profile_for(MODELS, ["text"])
SETTINGS = IngestSettings(filter_model="by-length", filter_percentile=75, queries_per_passage=1)


def documents(*words: str) -> list[Document]:
    """Documents of one word; the toy predicts `what is WORD`, and its length is the score."""
    return [Document(word, b"{}", {"text": word}, SourcePosition("memory", i)) for i, word in enumerate(words)]


SAMPLE = documents("a", "bb", "ccc", "dddd")


def settled(settings: IngestSettings = SETTINGS, kept: IndexProfile | None = None) -> IndexProfile:
    return with_filter_threshold(PROFILE, kept, MODELS, settings, lambda: SAMPLE)


def test_the_share_of_the_sample_that_is_asked_for_is_dropped() -> None:
    profile = settled()
    assert profile.filter_threshold is not None
    assert profile.filter_threshold.score == len("what is dddd")
    expand = Expansion.of(profile, MODELS, SETTINGS)
    kept = {each.document.doc_id: list(each.predicted_queries) for each in expand(documents("a", "dddd", "eeeee"))}
    assert kept == {"a": [], "dddd": ["what is dddd"], "eeeee": ["what is eeeee"]}


def test_what_the_index_knows_is_not_found_out_again() -> None:
    def no_sample() -> Iterator[SourceItem]:
        raise AssertionError("the index knows it already")

    first = settled()
    again = with_filter_threshold(PROFILE, first, MODELS, SETTINGS, no_sample)
    assert again == first
    assert recipe(again, SETTINGS) == recipe(first, SETTINGS)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"filter_percentile": 25}, id="another share"),
        pytest.param({"filter_model": "another"}, id="another model"),
    ],
)
def test_another_filter_is_found_out_anew_and_makes_documents_stale(other: dict[str, object]) -> None:
    first, settings = settled(), SETTINGS.model_copy(update=other)
    with pytest.raises(IndexUnsuitable, match="neural-bridge backfill"):
        recipe(first, settings)
    second = settled(settings, kept=first)
    assert second.filter_threshold != first.filter_threshold
    assert msgspec.structs.replace(second, filter_threshold=None) == PROFILE


def test_a_fixed_score_needs_no_sample() -> None:
    fixed = IngestSettings(filter_model="by-length", filter_threshold=11)
    assert with_filter_threshold(PROFILE, settled(), MODELS, fixed, lambda: SAMPLE) == PROFILE


def test_a_sample_without_a_query_or_that_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no query was predicted"):
        with_filter_threshold(PROFILE, None, MODELS, SETTINGS, lambda: documents(""))
    with pytest.raises(UsageError, match="standard input can be read only once"):
        sample_of_files(FileDocuments(["-"], FieldChoice(["text"]), max_doc_bytes=1000))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "a", "text": "wing"}\n')
    [item] = sample_of_files(FileDocuments([str(corpus)], FieldChoice(["text"]), max_doc_bytes=1000))
    assert isinstance(item, Document)
