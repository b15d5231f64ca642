"""Collections in BEIR's layout: what is read, what is put up with, and what is said of a file that cannot be read."""

from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.collections import load_collection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id":"d1","title":"T","text":"x"}\n{"_id":2,"text":""}\n', encoding="utf-8"
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"_id":"q1","text":"first"}\n\n{"_id":"q2","text":"unjudged"}\n{"_id":"q3","text":"third"}\n', encoding="utf-8"
    )
    (tmp_path / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq3\td1\t2\nq1\td1\t0\nq1\td2\t1\n", encoding="utf-8"
    )
    return tmp_path


def test_only_judged_queries_are_read_in_file_order(folder: Path) -> None:
    collection = load_collection(folder)
    assert list(collection.judged.queries.items()) == [("q1", "first"), ("q3", "third")]
    assert collection.judged.qrels == {"q1": {"d1": 0, "d2": 1}, "q3": {"d1": 2}}
    assert (collection.corpus, collection.n_documents) == (folder / "corpus.jsonl", 2)


@pytest.mark.parametrize(
    "content",
    [
        "q1\td1\t1\n",
        "\ufeffquery-id\tcorpus-id\tscore\nq1\td1\t1\n",
        "qid\tdoc\trelevance\r\nq1\td1\t1.0\r\n",
        "q1 0 d1 1\n",
        "q1\tQ0\td1\t1\n",
    ],
)
def test_judgements_come_with_other_headings_and_columns(folder: Path, content: str) -> None:
    (folder / "qrels/test.tsv").write_text(content, encoding="utf-8")
    assert load_collection(folder).judged.qrels == {"q1": {"d1": 1}}


def test_numbers_are_ids_too(folder: Path) -> None:
    (folder / "queries.jsonl").write_text('{"_id":1,"text":"first","metadata":{"x":[1]}}\n', encoding="utf-8")
    (folder / "qrels/test.tsv").write_text("1\t2\t1\n", encoding="utf-8")
    judged = load_collection(folder).judged
    assert judged.queries == {"1": "first"}
    assert judged.qrels == {"1": {"2": 1}}


def test_a_judged_query_without_text_is_left_out_and_named(folder: Path) -> None:
    (folder / "qrels/test.tsv").write_text("q9\td1\t1\nq1\td1\t1\n", encoding="utf-8")
    judged = load_collection(folder).judged
    assert list(judged.queries) == ["q1"]
    assert judged.remarks == ["1 judged queries have no text and are left out, first q9"]


def test_a_query_that_is_a_document_under_the_same_id_is_told(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text(
        '{"_id":"q1","text":"first"}\n{"_id":"q3","text":"something else"}\nno json\n', encoding="utf-8"
    )
    assert load_collection(folder).judged.own_documents == {"q1"}


def test_another_corpus_has_another_digest(folder: Path) -> None:
    before = load_collection(folder).digest
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write('{"_id":"d3"}\n')
    assert load_collection(folder).digest != before


def test_fewer_queries_are_spread_evenly(folder: Path) -> None:
    queries = "".join(f'{{"_id":"{n}","text":"t"}}\n' for n in range(10))
    (folder / "queries.jsonl").write_text(queries, encoding="utf-8")
    (folder / "qrels/test.tsv").write_text("".join(f"{n}\td1\t1\n" for n in range(10)), encoding="utf-8")
    judged = load_collection(folder).judged
    assert list(judged.spread(4).queries) == ["0", "2", "5", "7"]
    assert list(judged.spread(4).qrels) == ["0", "2", "5", "7"]
    assert judged.spread(99) is judged.spread(None) is judged


def test_a_missing_split_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"qrels/dev\.tsv is missing.*splits there: test"):
        load_collection(folder, "dev")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("queries.jsonl", "no json\n", r"queries\.jsonl:1: not a query"),
        ("queries.jsonl", '{"text":"no id"}\n', r"queries\.jsonl:1: not a query"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nd1 1\n", r"test\.tsv:2: expected query-id"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td1\thigh\n", r"test\.tsv:2: expected query-id.*high"),
        ("qrels/test.tsv", "q1\td1\t0.5\nq1\td1\t0.5\n", r"test\.tsv:2: expected query-id"),
        ("qrels/test.tsv", "q9\td1\t1\n", "none of its 3 queries is among the 1 that are judged"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_collection(folder)
