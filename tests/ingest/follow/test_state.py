"""How far a follower got survives it, and never leads it past a change."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.follow.state import FollowState


def state(folder: Path, *, index: str = "things (u1)", recipe: str = "r1") -> FollowState:
    return FollowState(folder, index=index, recipe=recipe)


def test_a_follower_goes_on_behind_what_it_had_seen(tmp_path: Path) -> None:
    first = state(tmp_path)
    assert first.seen(0) == -1
    first.advance(0, 41)
    first.advance(1, 7)
    first.save()
    again = state(tmp_path)
    assert (again.seen(0), again.seen(1), again.seen(2)) == (41, 7, -1)


def test_what_was_not_saved_is_seen_again(tmp_path: Path) -> None:
    first = state(tmp_path)
    first.advance(0, 41)
    assert state(tmp_path).seen(0) == -1


def test_numbers_never_go_back(tmp_path: Path) -> None:
    """After a fail-over a shard's checkpoint may be lower for a while than what was seen."""
    followed = state(tmp_path)
    followed.advance(0, 41)
    followed.advance(0, -2)
    assert followed.seen(0) == 41


@pytest.mark.parametrize(
    ("index", "recipe"),
    [pytest.param("things (u2)", "r1", id="index-made-anew"), pytest.param("things (u1)", "r2", id="other-models")],
)
def test_what_belongs_to_something_else_counts_for_nothing(tmp_path: Path, index: str, recipe: str) -> None:
    first = state(tmp_path)
    first.advance(0, 41)
    first.save()
    assert state(tmp_path, index=index, recipe=recipe).seen(0) == -1


def test_a_damaged_file_only_costs_a_look_at_everything(tmp_path: Path) -> None:
    first = state(tmp_path)
    first.advance(0, 41)
    first.save()
    file = tmp_path / "followed"
    file.write_bytes(file.read_bytes().replace(b"41", b"99"))
    with capture_logs() as lines:
        assert state(tmp_path).seen(0) == -1
    assert [(line["index"], line["consequence"]) for line in lines] == [("things (u1)", "reads all documents once")]


def test_a_sweep_that_was_cut_off_goes_on_and_a_later_deletion_asks_for_another(tmp_path: Path) -> None:
    first = state(tmp_path)
    assert (first.deletions, first.sweep) == (True, {}), "a state that was lost does not know"
    first.begin_sweep([0, 1])
    first.swept(0, 41)
    first.save()
    first.swept(0, 55)
    again = state(tmp_path)
    assert (again.deletions, again.sweep) == (False, {0: 41, 1: -1})
    again.note_deletions()
    again.swept(0, None)
    again.swept(1, None)
    again.save()
    assert (state(tmp_path).deletions, state(tmp_path).sweep) == (True, {})
