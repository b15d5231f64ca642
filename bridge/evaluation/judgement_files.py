"""Judgement formats of search teams: TREC topics and qrels, and judgement lists of Quepid and of OpenSearch's Search
Relevance Workbench."""

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bridge.errors import UsageError
from bridge.evaluation.collections import put_query, read_qrels, read_queries
from bridge.evaluation.judged_queries import HIGHEST_GRADE, JudgedQueries
from bridge.text import decode

_QUERY_COLUMNS = ("query", "query_text", "querytext", "search_query")
_DOCUMENT_COLUMNS = ("docid", "doc_id", "document_id", "documentid", "document")
_GRADE_COLUMNS = ("rating", "grade", "judgement", "judgment", "relevance")

_TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*(\S+?)\s*(?=<|\n|$)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:Topic:)?\s*(.*?)\s*(?=<|$)", re.DOTALL | re.IGNORECASE)


# The Workbench refuses names with these characters, and long ones.
_NOT_IN_NAMES = re.compile(r'["\\<>]')
_LONGEST_NAME = 50


class _Rating(msgspec.Struct, rename="camel"):
    doc_id: str | int
    rating: str | int | float


class _RatedQuery(msgspec.Struct):
    query: str
    ratings: list[_Rating]


class _JudgementList(msgspec.Struct, rename="camel"):
    """A judgement list of the Workbench's API."""

    judgment_ratings: list[_RatedQuery]


class _FoundList(msgspec.Struct):
    source: _JudgementList = msgspec.field(name="_source")


class _FoundLists(msgspec.Struct):
    hits: list[_FoundList]


class _Answer(msgspec.Struct):
    """The Workbench's answer to GET for one list, or for all of them."""

    hits: _FoundLists


def read_topics(queries: Path, qrels: Path) -> JudgedQueries:
    """Queries and judgements from two files.

    `queries`: TREC topics (`<top>`; the title is the query), BEIR's JSON lines, or lines of id, tab and text. `qrels`:
    TREC's four columns or BEIR's three.

    Raises:
        UsageError: a file cannot be read, or the two do not belong together.
    """
    _must_exist(queries, qrels)
    beginning = queries.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if beginning.startswith("{"):
        texts = read_queries(queries)
    elif "<top>" in beginning.lower():
        texts = _trec_topics(beginning, queries)
    else:
        texts = _tabbed(beginning, queries)
    return JudgedQueries.joined(f"{queries.name} with {qrels.name}", texts, read_qrels(qrels))


def read_judgement_list(file: Path) -> JudgedQueries:
    """A judgement list: CSV with the columns query, docid and rating (Quepid), or the JSON of the Search
    Relevance Workbench (`judgmentRatings`), as it is imported or as GET shows it. A query's text is its id.

    Raises:
        UsageError: it cannot be read; the line is named.
    """
    _must_exist(file)
    qrels = _from_workbench(file) if file.suffix.lower() == ".json" else _from_csv(file)
    return JudgedQueries.joined(file.name, {query: query for query in qrels}, qrels)


def _from_csv(file: Path) -> dict[str, dict[str, int]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _rated(csv.DictReader(lines, skipinitialspace=True), file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read: {error}; expected CSV in UTF-8") from error


def _rated(rows: "csv.DictReader[str]", file: Path) -> dict[str, dict[str, int]]:
    columns = {name.strip().lower(): name for name in rows.fieldnames or []}
    query, document, grade = (
        next((columns[name] for name in names if name in columns), None)
        for names in (_QUERY_COLUMNS, _DOCUMENT_COLUMNS, _GRADE_COLUMNS)
    )
    if query is None or document is None or grade is None:
        raise UsageError(f"{file}: its columns are {', '.join(columns) or 'none'}; expected query, docid, rating")
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        if row[grade] in (None, ""):
            continue  # Quepid writes hits that nobody has rated yet
        if row[query] is None or row[document] is None:
            raise UsageError(f"{file}:{rows.line_num}: expected {query}, {document} and {grade}, the line is short")
        rating = _whole(row[grade], f"{file}:{rows.line_num}")
        qrels.setdefault(row[query].strip(), {})[row[document].strip()] = rating
    return qrels


def _from_workbench(file: Path) -> dict[str, dict[str, int]]:
    content = file.read_bytes()
    try:
        lists = [decode(content, _JudgementList)]
    except msgspec.DecodeError as error:
        try:
            lists = [found.source for found in decode(content, _Answer).hits.hits]
        except msgspec.DecodeError:
            raise UsageError(f"{file}: no judgement list of the Search Relevance Workbench ({error})") from error
    if len(lists) != 1:
        raise UsageError(f"{file}: it holds {len(lists)} judgement lists: expected one")
    return {
        rated.query: {
            str(rating.doc_id): _whole(rating.rating, f"{file}, query {rated.query!r}") for rating in rated.ratings
        }
        for rated in lists[0].judgment_ratings
    }


def write_judgement_list(judged: JudgedQueries, file: Path) -> None:
    """Writes what `read_judgement_list` reads: CSV, as the Workbench's page and Quepid import it, or for `.json` the
    body of the Workbench's `PUT _plugins/_search_relevance/judgments`. Ratings are strings there, as it wants them.

    Queries of the same words become one; a document that both judge has the higher grade.

    Raises:
        UsageError: the file has another ending, or cannot be written.
    """
    ratings: dict[str, dict[str, int]] = {}
    for query_id, text in judged.queries.items():
        grades = ratings.setdefault(" ".join(text.split()), {})  # the Workbench reads CSV line by line
        for doc_id, grade in judged.qrels[query_id].items():
            grades[doc_id] = max(grade, grades.get(doc_id, grade))
    try:
        if file.suffix.lower() == ".csv":
            with file.open("w", encoding="utf-8", newline="") as lines:
                rows = csv.writer(lines)
                rows.writerow(["query", "docid", "rating"])
                rows.writerows(
                    [query, doc_id, grade] for query, grades in ratings.items() for doc_id, grade in grades.items()
                )
        elif file.suffix.lower() == ".json":
            file.write_bytes(msgspec.json.encode(_import_body(file.stem, ratings)))
        else:
            raise UsageError(f"{file}: no form of judgements has this ending: expected .csv or .json")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def _import_body(name: str, ratings: Mapping[str, Mapping[str, int]]) -> dict[str, object]:
    return {
        "name": _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME],
        "type": "IMPORT_JUDGMENT",
        "judgmentRatings": [
            {
                "query": query,
                "ratings": [{"docId": doc_id, "rating": str(grade)} for doc_id, grade in grades.items()],
            }
            for query, grades in ratings.items()
        ],
    }


def _trec_topics(text: str, file: Path) -> dict[str, str]:
    topics: dict[str, str] = {}
    for topic in _TOPIC.findall(text):
        number, title = _NUMBER.search(topic), _TITLE.search(topic)
        if number is None or title is None:
            raise UsageError(f"{file}: a topic lacks <num> or <title>: {' '.join(topic.split())[:80]!r}")
        put_query(topics, number[1], " ".join(title[1].split()), str(file))
    return topics


def _tabbed(text: str, file: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        query_id, tab, query = line.partition("\t")
        if line.strip():
            if not tab:
                raise UsageError(f"{file}:{number}: expected id, tab and text; or TREC topics, or JSON lines")
            put_query(queries, query_id.strip(), query.strip(), f"{file}:{number}")
    return queries


def _whole(grade: str | float, where: str) -> int:
    """Measures need integer grades: means of several judges or of clicks, such as 2.4, are rounded."""
    try:
        value = float(grade)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UsageError(f"{where}: rating {grade!r} is no number")
    if abs(value) > HIGHEST_GRADE:
        raise UsageError(f"{where}: rating {grade!r} is too high: expected one of at most {HIGHEST_GRADE:,}")
    return round(value)


def _must_exist(*files: Path) -> None:
    for file in files:
        if not file.is_file():
            raise UsageError(f"judgement file {file} does not exist or is no file")
