"""Judgements as search teams keep them: every format gives the same queries and grades."""

import json
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.judgement_files import read_judgement_list, read_topics, write_judgement_list

TOPICS = """
<top>
<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations.
</top>
<top>
<num> 302 </num>
<title> Poliomyelitis and
 Post-Polio </title>
</top>
"""


@pytest.mark.parametrize(
    "queries",
    [
        TOPICS,
        '{"_id":"301","text":"International Organized Crime"}\n{"_id":"302","text":"Poliomyelitis and Post-Polio"}\n',
        "301\tInternational Organized Crime\n\n302\tPoliomyelitis and Post-Polio\n",
    ],
    ids=["topics", "json-lines", "tabs"],
)
def test_queries_of_every_format_are_the_same(tmp_path: Path, queries: str) -> None:
    (tmp_path / "queries").write_text(queries, encoding="utf-8")
    (tmp_path / "qrels").write_text("301 0 FR-1 2\n302 0 FT 9 1\n".replace("FT 9", "FT9"), encoding="utf-8")
    judged = read_topics(tmp_path / "queries", tmp_path / "qrels")
    assert judged.queries == {"301": "International Organized Crime", "302": "Poliomyelitis and Post-Polio"}
    assert judged.qrels == {"301": {"FR-1": 2}, "302": {"FT9": 1}}


@pytest.mark.parametrize("heading", ["query,docid,rating", "Query, DocId, Grade", "rating_by,query,doc_id,rating"])
def test_a_csv_is_read_by_the_names_of_its_columns(tmp_path: Path, heading: str) -> None:
    row = {"query": '"tent, small"', "docid": "7", "doc_id": "7", "rating": "3", "grade": "3", "rating_by": "ann"}
    names = [name.strip().lower() for name in heading.split(",")]
    content = f"\ufeff{heading}\r\n{','.join(row[name] for name in names)}\r\n"
    (tmp_path / "judged.csv").write_text(content, encoding="utf-8", newline="")
    judged = read_judgement_list(tmp_path / "judged.csv")
    assert judged.queries == {"tent, small": "tent, small"}
    assert judged.qrels == {"tent, small": {"7": 3}}


def test_hits_that_nobody_rated_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "judged.csv").write_text("query,docid,rating\ntent,7,\ntent,8,0\n", encoding="utf-8")
    assert read_judgement_list(tmp_path / "judged.csv").qrels == {"tent": {"8": 0}}


def test_a_list_of_the_workbench_is_read(tmp_path: Path) -> None:
    ratings = [{"docId": "7", "rating": "2.6"}, {"docId": 8, "rating": 0}]
    content = {"name": "n", "type": "IMPORT_JUDGMENT", "judgmentRatings": [{"query": "tent", "ratings": ratings}]}
    (tmp_path / "judged.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_judgement_list(tmp_path / "judged.json").qrels == {"tent": {"7": 3, "8": 0}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "question,answer\nx,y\n", "columns are question, answer; expected query, docid, rating"),
        ("a.csv", "query,docid,rating\nx,y,good\n", r"a\.csv:2: rating 'good' is no number"),
        ("a.csv", "", "columns are none"),
        ("a.json", "[]", "no judgement list"),
        ("a.csv", "query,docid,rating\n", "none of its 0 queries"),
        ("a.csv", "query,docid,rating\nx,y,nan\n", r"a\.csv:2: rating 'nan' is no number"),
        ("a.csv", "query,docid,rating\nx,y,inf\n", r"a\.csv:2: rating 'inf' is too high: .* at most 1,000"),
        ("a.csv", "query,docid,rating\nx,y,1e300\n", "is too high"),
        ("a.csv", "rating,query,docid\n1,x\n", r"a\.csv:2: expected query, docid and rating, the line is short"),
        ("a.csv", f"query,docid,rating\n{'x' * 200_000},y,1\n", "field larger than field limit"),
        ("a.csv", "query,docid,rating\n,y,1\n", "none of its 1 judged queries has words"),
        ("a.csv", "query,docid,rating\nx\0,y,1\n", "NUL character"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_judgement_list(tmp_path / name)


@pytest.mark.case("M1")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"query,docid,rating\ncaf\xe9,7,1\n"),
        ("a.json", b'{"judgmentRatings": [{"query": "caf\xe9", "ratings": []}]}'),
    ],
)
def test_a_list_that_is_not_utf_8_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}.*utf-8"):
        read_judgement_list(tmp_path / name)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (b'{"_id": "1", "text": "caf\xe9"}\n', "queries:1: not a query .*UTF-8"),
        (b'{"_id": "1", "text": "cat"}\n{"_id": 1, "text": "dog"}\n', "queries:2: query 1 is there already"),
        (b"1\tcat\n1\tdog\n", "queries:2: query 1 is there already"),
        (b"<top><num>1</num><title>cat</title></top><top><num>1</num><title>dog</title></top>", "query 1 is there"),
        (b"1\t\n", "none of its 1 judged queries has words"),
    ],
)
def test_queries_that_cannot_be_told_apart_or_have_no_words_are_named(
    tmp_path: Path, queries: bytes, message: str
) -> None:
    (tmp_path / "queries").write_bytes(queries)
    (tmp_path / "qrels").write_text("1\t7\t1\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_topics(tmp_path / "queries", tmp_path / "qrels")


def test_queries_without_words_are_left_out_with_a_remark(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("1\t \n2\tcat\n2\tcat\n", encoding="utf-8")
    (tmp_path / "qrels").write_text("1\t7\t1\n2\t7\t1\n", encoding="utf-8")
    judged = read_topics(tmp_path / "queries", tmp_path / "qrels")
    assert (judged.queries, judged.remarks) == (
        {"2": "cat"},
        ["1 judged queries have no words and are left out, first 1"],
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv does not exist"):
        read_judgement_list(tmp_path / "gone.csv")


JUDGED = JudgedQueries(
    "log",
    {"1": 'two "person"\ntent', "2": "boot, rubber", "3": "boot, rubber"},
    {"1": {"a": 1, "b": 0}, "2": {"a": 2}, "3": {"a": 0, "é,": 1}},
)
WRITTEN = {'two "person" tent': {"a": 1, "b": 0}, "boot, rubber": {"a": 2, "é,": 1}}


@pytest.mark.parametrize("name", ["judged.csv", "judged.JSON"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_judgement_list(JUDGED, tmp_path / name)
    assert read_judgement_list(tmp_path / name).qrels == WRITTEN


def test_a_csv_has_a_judgement_a_line_as_the_workbenchs_page_reads_it(tmp_path: Path) -> None:
    write_judgement_list(JUDGED, tmp_path / "judged.csv")
    first, *lines = (tmp_path / "judged.csv").read_text(encoding="utf-8").splitlines()
    assert first == "query,docid,rating"
    assert lines == [
        '"two ""person"" tent",a,1',
        '"two ""person"" tent",b,0',
        '"boot, rubber",a,2',
        '"boot, rubber","é,",1',
    ]


def test_a_list_is_what_the_workbench_imports(tmp_path: Path) -> None:
    """It refuses ids and ratings that are no strings, and names with some characters or of more than 50."""
    file = tmp_path / f"clicks <of> {'November' * 10}.json"
    write_judgement_list(JUDGED, file)
    body = json.loads(file.read_bytes())
    assert body.keys() == {"name", "type", "judgmentRatings"}
    assert body["type"] == "IMPORT_JUDGMENT"
    assert body["name"].startswith("clicks _of_ November")
    assert len(body["name"]) == 50
    for rated in body["judgmentRatings"]:
        assert rated.keys() == {"query", "ratings"}
        for rating in rated["ratings"]:
            assert rating.keys() == {"docId", "rating"}
            assert {type(value) for value in rating.values()} == {str}
            float(rating["rating"])


def test_a_list_that_the_workbench_shows_is_read(tmp_path: Path) -> None:
    ratings = [{"docId": "7", "rating": "1.250"}]
    shown = {"id": "x", "status": "COMPLETED", "judgmentRatings": [{"query": "tent", "ratings": ratings}]}
    found = {"hits": {"total": {"value": 1}, "hits": [{"_id": "x", "_source": shown}]}}
    (tmp_path / "judged.json").write_text(json.dumps(found), encoding="utf-8")
    assert read_judgement_list(tmp_path / "judged.json").qrels == {"tent": {"7": 1}}
    found["hits"]["hits"] = [{"_source": shown}, {"_source": shown}]
    (tmp_path / "judged.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UsageError, match="holds 2 judgement lists: expected one"):
        read_judgement_list(tmp_path / "judged.json")


def test_another_ending_and_a_folder_that_is_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected \.csv or \.json"):
        write_judgement_list(JUDGED, tmp_path / "judged.tsv")
    with pytest.raises(UsageError, match=r"judged\.csv cannot be written: No such file"):
        write_judgement_list(JUDGED, tmp_path / "missing" / "judged.csv")
