"""Each made-up question has one right answer, and half of them do not use the document's words."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.pictures.made import SCENES
from benchmarks.sources import OTHER, SAME, SEEN, UNSEEN, make_pictures, make_rows, make_things


def test_each_question_about_rows_asks_for_one_row(tmp_path: Path) -> None:
    questions = make_rows(tmp_path / "tickets.sqlite", 300, 40)
    with closing(sqlite3.connect(tmp_path / "tickets.sqlite")) as database:
        rows = {row[0]: row[1:4] for row in database.execute("SELECT * FROM ticket")}
    assert len(set(rows.values())) == len(rows) == 300
    assert [each.words for each in questions] == [SAME] * 20 + [OTHER] * 20
    for question in questions:
        matching = {key for key, values in rows.items() if all(value in question.text for value in values)}
        assert matching == ({question.doc_id} if question.words == SAME else set())
        assert rows[question.doc_id][0] in question.text


def test_each_question_about_things_asks_for_one_thing(tmp_path: Path) -> None:
    questions = make_things(tmp_path / "things.nt", 300, 40)
    facts: dict[str, list[str]] = {}
    for line in (tmp_path / "things.nt").read_text().splitlines():
        subject, _, value = line.removesuffix(" .").split(" ", 2)
        facts.setdefault(subject.strip("<>"), []).append(value.removesuffix("@en").rpartition("/")[2].strip('<>"'))
    for question in questions:
        name, kind, city, founder, _ = facts[question.doc_id]
        matching = {key for key, values in facts.items() if len(values) == 5 and {kind, city, founder} <= set(values)}
        assert matching == {question.doc_id}
        assert name not in question.text
        assert (kind in question.text.split()) == (question.words == SAME)


def test_each_question_about_pictures_asks_for_one_picture_of_which_no_document_speaks(tmp_path: Path) -> None:
    questions = make_pictures(tmp_path / "pictures", 60)
    lines = (tmp_path / "pictures" / "posters.jsonl").read_text().splitlines()
    posters = {poster.pop("_id"): poster for poster in map(json.loads, lines)}
    assert len(posters) == len(SCENES)
    assert all((tmp_path / "pictures" / poster["photo"]).is_file() for poster in posters.values())
    assert [each.words for each in questions] == [SEEN] * 30 + [UNSEEN] * 30
    assert len({each.doc_id for each in questions}) == 60
    for question in questions:
        assert set(question.text.split()).isdisjoint(posters[question.doc_id]["title"].split())
