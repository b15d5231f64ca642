import gzip
import json
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.training.data import (
    SOURCES,
    JudgedCollection,
    LabelledPair,
    development_queries,
    pairs_of,
    read_pairs,
    read_value,
    sample_per_source,
    sentence_queries,
    write_value,
)

COLLECTION = JudgedCollection(
    name="toy",
    documents={"d1": ("Wings", "A wing lifts."), "d2": ("", "Heat flows.")},
    queries={"q1": "lift", "q2": "heat", "q3": "flow"},
    judgements={"q1": {"d1": 1}, "q2": {"d2": 2, "d1": 0}, "q3": {"d2": 1, "gone": 1}},
)


def test_pairs_are_read_by_file_name_from_plain_and_compressed_files(tmp_path: Path) -> None:
    line = {"query": " lift ", "passage": "A wing lifts.", "title": "Wings", "label": 1, "kind": "question"}
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps(line) + "\n\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({**line, "label": 0, "title": ""}) + "\n")
    assert read_pairs(tmp_path) == [
        LabelledPair("lift", "A wing lifts.", "", relevant=False, source="a"),
        LabelledPair("lift", "A wing lifts.", "Wings", relevant=True, source="b"),
    ]


@pytest.mark.parametrize("line", ["{", "[1]", '{"query": "no passage"}', '{"query": 1, "passage": "p"}'])
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "q", "passage": "p"}\n' + line + "\n")
    with pytest.raises(UsageError, match=r"a\.jsonl:2"):
        read_pairs(tmp_path)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training pairs"):
        read_pairs(tmp_path)


def test_held_out_queries_give_no_pairs() -> None:
    assert development_queries(COLLECTION, 1) == ["q1"]
    assert {pair.query for pair in pairs_of(COLLECTION, held_out=1)} == {"heat", "flow"}


def test_only_relevant_documents_that_exist_give_pairs() -> None:
    pairs = pairs_of(COLLECTION, held_out=0)
    assert [(pair.query, pair.passage) for pair in pairs] == [
        ("lift", "A wing lifts."),
        ("heat", "Heat flows."),
        ("flow", "Heat flows."),
    ]


def test_equal_seeds_draw_equal_samples_and_limits_hold() -> None:
    pairs = [LabelledPair(f"q{n}", "p", "", relevant=True, source=f"s{n % 2}") for n in range(40)]
    sample = sample_per_source(pairs, {"s0": 5}, seed=3)
    assert sample == sample_per_source(pairs, {"s0": 5}, seed=3)
    assert sample != sample_per_source(pairs, {"s0": 5}, seed=4)
    assert [pair.source for pair in sample].count("s0") == 5
    assert [pair.source for pair in sample].count("s1") == 20


def test_a_sentence_of_the_second_half_asks_for_the_rest() -> None:
    filling = " ".join(f"word{number}" for number in range(40))
    late = "We show that the lift of a wing grows with its angle."
    passage = f"Wings are old and have been studied for long by many people. It was so. {late} Indeed {filling}."
    pairs = [LabelledPair("Wings", passage, "Wings", relevant=True, source="s")]
    [made] = sentence_queries(pairs, {"s": 3}, seed=1)
    assert made.query == late
    assert made.passage == passage.replace(f" {late}", "")
    assert (made.title, made.source, made.relevant) == ("Wings", "s", True)


@pytest.mark.parametrize(
    "passage",
    ["One. Two words. Three.", "A first sentence that is here. " + "A second one which has enough words to ask with."],
    ids=["no sentence is long enough", "too little is left"],
)
def test_a_passage_that_a_sentence_cannot_ask_for_is_passed_over(passage: str) -> None:
    assert sentence_queries([LabelledPair("q", passage, "", relevant=True, source="s")], {}, seed=1) == []


def test_every_source_states_its_licence() -> None:
    assert all(source.licence for source in SOURCES.values())


@pytest.mark.parametrize("name", ["value.json", "value.json.gz"])
def test_a_value_survives_the_disk_and_is_gzip_if_its_file_is_named_so(name: str, tmp_path: Path) -> None:
    write_value([[0.5, -1.25], [3.0]], tmp_path / name)
    assert read_value(tmp_path / name, list[list[float]]) == [[0.5, -1.25], [3.0]]
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
