"""Files in a state folder are whole or refused, and belong to one run at a time."""

from pathlib import Path

import msgspec
import pytest

from bridge.errors import CheckpointUnusable, IngestError
from bridge.records import Document, SourcePosition
from ingest.books.ledger import Failure, Ledger
from ingest.books.state_folder import Checkpoint, DeadLetters, load, read_dead_letters, save
from ingest.sources.source import Unreadable

CHECKPOINT = Checkpoint("run", "a source", "things (u1)", "recipe", Ledger(read=3, written=3), "dead-letters.jsonl")


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    assert load(tmp_path / "new" / "checkpoint") is None
    save(tmp_path / "new" / "checkpoint", CHECKPOINT)
    assert load(tmp_path / "new" / "checkpoint") == CHECKPOINT


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", msgspec.structs.replace(CHECKPOINT, version=2))
    with pytest.raises(CheckpointUnusable, match="has version 2, this program knows 1"):
        load(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("change", "name"),
    [({"source": "b"}, "source"), ({"index": "things (u2)"}, "index"), ({"recipe": "other"}, "models")],
)
def test_a_checkpoint_belongs_to_one_source_index_and_recipe(change: dict[str, str], name: str) -> None:
    own = {"source": "a source", "index": "things (u1)", "recipe": "recipe"}
    CHECKPOINT.belongs_to(**own)
    with pytest.raises(CheckpointUnusable, match=f"belongs to another {name}"):
        CHECKPOINT.belongs_to(**{**own, **change})


def test_dead_letters_have_the_document_or_its_bytes_with_the_reason(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead", "things")
    position = SourcePosition("file", 1)
    letters.add(Document("d", b'{"a": 1}', {}, position, "r"), Failure("mapper_parsing_exception", "why", 400))
    letters.add(Unreadable(position, "invalid_json", "why", b"\xff"), Failure("invalid_json", "why"))
    letters.flush()
    letters.close()
    first, second = read_dead_letters(tmp_path / "dead")
    assert (first.id, first.routing, first.document, first.error["status"]) == ("d", "r", '{"a": 1}', 400)
    assert (second.id, second.document, second.document_base64) == (None, None, "/w==")


def test_bytes_that_no_checkpoint_covers_are_removed_and_an_empty_file_too(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    path.write_bytes(b"torn")
    DeadLetters(path, "things").close()
    assert not path.exists()


@pytest.mark.case("I46")
def test_a_run_goes_on_though_its_dead_letters_were_taken_away(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead", "things", keep_bytes=1000)
    assert letters.size == 0
    letters.close()
    assert not (tmp_path / "dead").exists()


def test_a_line_that_is_no_dead_letter_is_named(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("{}\n")
    with pytest.raises(IngestError, match=r"dead:1 is no dead letter"):
        list(read_dead_letters(tmp_path / "dead"))
