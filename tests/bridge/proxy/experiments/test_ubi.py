"""The event log in UBI's form: what its indices and the Workbench's reader accept, and nothing of the log is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.proxy.experiments.event_log import Click, Comparison, Event, EventLog, Impression
from bridge.proxy.experiments.event_report import read_events, report
from bridge.proxy.experiments.impressions import MAX_DOCUMENTS, Impressions
from bridge.proxy.experiments.ubi import (
    EVENTS,
    QUERIES,
    Behaviour,
    Query,
    clicked,
    impression,
    is_ubi,
    read_ubi,
    to_ubi,
)
from tests.ubi_standard import LONGEST, UNKNOWN_TO_THE_WORKBENCH, fields

NAMES = Impressions(b"k" * 32)


def page(words: str | None, own: list[str], bridge: list[str], *, first_rank: int = 1, name: str = "") -> Impression:
    shown = [("shop", doc_id) for pair in zip(own, bridge, strict=True) for doc_id in pair]
    name = name or NAMES.name([doc_id for _, doc_id in shown])
    ours, theirs = ([("shop", doc_id) for doc_id in side] for side in (own, bridge))
    return Impression(1732924832.5, name, "shop", "hybrid", ours, theirs, 0.5, 0.25, 10.0, words, first_rank, shown)


BOOTS = page("wet feet", ["a", "b"], ["c", "d"])
SECOND_PAGE = page("wet feet", ["e"], ["f"], first_rank=5)
WORDLESS = page(None, ["a"], ["b"])
LOG: list[Event] = [
    Click(1732924840.0, BOOTS.id, "c"),
    BOOTS,
    SECOND_PAGE,
    Click(1732924841.0, SECOND_PAGE.id, "f"),
    Click(1732924842.0, SECOND_PAGE.id, "f"),
    Click(1732924842.0, BOOTS.id, "not there"),
    WORDLESS,
    Click(1732924843.0, WORDLESS.id, "a"),
    Comparison(3.0, "shop", "hybrid", overlap=1.0, rank_biased_overlap=1.0, took_ms=30.0),
]


def loaded(events: list[Event]) -> dict[tuple[str, str], dict[str, Any]]:
    """The documents that `_bulk` leaves in the indices, by index and `_id`."""
    lines = [json.loads(line) for line in to_ubi(events)]
    actions = [action["index"] for action in lines[::2]]
    return {(each["_index"], each["_id"]): document for each, document in zip(actions, lines[1::2], strict=True)}


def test_documents_and_clicks_stand_where_readers_saw_them() -> None:
    documents = loaded(LOG)
    queries = [document for (index, _), document in documents.items() if index == QUERIES]
    assert [query["query_response_hit_ids"] for query in queries] == [["a", "c", "b", "d"], ["e", "f"]]
    assert [query["timestamp"] for query in queries] == ["2024-11-30T00:00:32.500Z"] * 2
    events = [
        (
            event["action_name"],
            event["event_attributes"]["object"]["object_id"],
            event["event_attributes"]["position"]["ordinal"],
        )
        for (index, _), event in documents.items()
        if index == EVENTS
    ]
    assert events == [
        *[("impression", doc_id, rank) for doc_id, rank in (("a", 1), ("c", 2), ("b", 3), ("d", 4))],
        *[("impression", "e", 5), ("impression", "f", 6), ("click", "c", 2), ("click", "f", 6)],
    ]


def test_every_event_belongs_to_its_query_and_carries_its_words() -> None:
    documents = loaded(LOG)
    words = {query["query_id"]: query["user_query"] for (index, _), query in documents.items() if index == QUERIES}
    assert len(words) == 2
    for (index, _), event in documents.items():
        if index == EVENTS:
            assert event["user_query"] == words[event["query_id"]]


def test_a_file_that_is_loaded_twice_adds_nothing() -> None:
    assert loaded([*LOG, *LOG]) == loaded(LOG)
    assert len({page("x", ["a"], ["b"]).id[:16] for _ in range(100)}) == 100


def test_nothing_stands_in_a_document_that_the_standard_or_the_workbench_does_not_know() -> None:
    """A page's name grows with its documents; a query_id of more than 100 characters is not indexed."""
    doc_ids = [f"d{n}" for n in range(MAX_DOCUMENTS)]
    big = page("wet feet", doc_ids[::2], doc_ids[1::2])
    assert len(big.id) > LONGEST["query_id"]
    for (index, _), document in loaded([*LOG, big]).items():
        assert set(fields(document)) <= LONGEST.keys() - UNKNOWN_TO_THE_WORKBENCH
        assert [name for name, value in fields(document).items() if len(str(value)) > LONGEST[name]] == []
        if index == QUERIES:
            assert {type(value) for value in document["query_attributes"].values()} == {str}


def test_the_report_says_of_ubi_what_it_says_of_the_pages_with_words(tmp_path: Path) -> None:
    log, exported = tmp_path / "events.jsonl", tmp_path / "events.ndjson"
    for event in LOG:
        EventLog(log).append(event)
    assert not is_ubi(log)
    exported.write_bytes(b"".join(to_ubi(read_events(log))))
    assert is_ubi(exported)
    with_words = [event for event in LOG if not isinstance(event, Comparison) and event != WORDLESS]
    [index] = report(read_events(exported)).indices
    assert [index] == report(with_words).indices
    assert (index.interleaved, index.bridge_wins, index.own_wins) == (2, 2, 0)


def test_what_other_collectors_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "collected.ndjson"
    click = {"action_name": "Click", "query_id": "q", "event_attributes": {"object": {"object_id": 7, "name": "boot"}}}
    documents: list[dict[str, Any]] = [
        {"create": {"_index": QUERIES}},
        {"query_id": "q", "user_query": "tent", "query_attributes": {}, "message": None},
        {"user_query": "of nobody"},
        {"action_name": "page_exit", "event_attributes": {"position": {}}},
        {"action_name": "impression", "query_id": "q", "event_attributes": {"object": {"object_id": "8"}}},
        click,
    ]
    file.write_text("".join(json.dumps(document) + "\n" for document in documents) + '{"action_na', encoding="utf-8")
    query, *events = read_ubi(file)
    assert isinstance(query, Query)
    assert query.user_query == "tent"
    behaviours = [event for event in events if isinstance(event, Behaviour)]
    assert [clicked(event) for event in behaviours] == [None, None, ("q", "7")]
    assert [impression(event) for event in behaviours] == [None, None, None]
    assert report(read_events(file)).indices == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1}', r"log:2 is no line of User Behavior Insights \(expected a document of ubi_queries"),
        ("[]", r"log:2 is no line"),
        ('{"action_name": "click", "event_attributes": {"object": 3}}', r"log:2 .*object"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "log").write_text('{"query_id": "q"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        list(read_ubi(tmp_path / "log"))


def test_a_page_whose_attributes_were_changed_is_named(tmp_path: Path) -> None:
    changed = {"query_id": "q", "query_attributes": {"drafted_by": "own"}}
    (tmp_path / "log").write_text(json.dumps(changed) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="query q of ubi_queries: its query_attributes were changed"):
        list(read_events(tmp_path / "log"))
