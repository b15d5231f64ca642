"""Collections in BEIR's layout: what is read, and what is said of a file that is not as expected."""

from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.collections import load_collection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id":"d1","title":"T","text":"x"}\n', encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(
        '{"_id":"q1","text":"first"}\n\n{"_id":"q2","text":"unjudged"}\n{"_id":"q3","text":"third"}\n', encoding="utf-8"
    )
    (tmp_path / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq3\td1\t2\nq1\td1\t0\nq1\td2\t1\n", encoding="utf-8"
    )
    return tmp_path


def test_only_judged_queries_are_read_in_file_order(folder: Path) -> None:
    collection = load_collection(folder)
    assert list(collection.queries.items()) == [("q1", "first"), ("q3", "third")]
    assert collection.qrels == {"q1": {"d1": 0, "d2": 1}, "q3": {"d1": 2}}
    assert collection.corpus == folder / "corpus.jsonl"


def test_a_missing_split_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"qrels/dev\.tsv is missing.*splits there: test"):
        load_collection(folder, "dev")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("queries.jsonl", "no json\n", r"queries\.jsonl:1: not a query"),
        ("queries.jsonl", '{"text":"no id"}\n', r"queries\.jsonl:1: not a query"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1 d1 1\n", r"test\.tsv:2: expected query-id"),
        ("qrels/test.tsv", "q1\td1\thigh\n", r"test\.tsv:1: expected query-id"),
        ("qrels/test.tsv", "q9\td1\t1\n", "judges 1 queries that queries.jsonl lacks, first q9"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_collection(folder)
