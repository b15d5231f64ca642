"""Records are values: what stands in them does not change, and documents are known by index and id."""

import msgspec
import pytest

from bridge.records import Hit, RankedHit, SourcePosition


def test_a_document_has_one_key_in_every_ranking() -> None:
    assert Hit("shoes", "7", 1.5).key == RankedHit("shoes", "7", 0.2).key == ("shoes", "7")
    assert Hit("shoes", "7", 1.5).key != Hit("hats", "7", 1.5).key


def test_records_are_frozen() -> None:
    hit = Hit("shoes", "7", 1.5)

    with pytest.raises(AttributeError):
        hit.score = 2.0  # type: ignore[misc]
    assert msgspec.structs.replace(hit, score=2.0) == Hit("shoes", "7", 2.0)


def test_a_position_reads_as_editors_and_shells_write_it() -> None:
    assert str(SourcePosition("corpus.jsonl", 12)) == "corpus.jsonl:12"
