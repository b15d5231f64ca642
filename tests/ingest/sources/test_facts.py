"""Facts as documents: one for each subject, wherever its triples stand, in words that people read."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bridge.records import Document
from ingest.sources.documents import FieldChoice
from ingest.sources.facts import TEXT_FIELDS, FactDocuments
from ingest.sources.source import SourceItem, Unreadable

X = "http://example.org/"
LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
FRANCE = f"""
<{X}Q142> <{LABEL}> "France"@en .
<{X}Q142> <{LABEL}> "Frankreich"@de .
<{X}Q142> <{X}capital> <{X}Q90> .
<{X}Q142> <{X}officialLanguage> <{X}french_language> .
<{X}Q142> <{X}population> "68000000" .
<{X}Q142> <{X}motto> "Liberté"@fr .
<{X}Q142> <{X}seat> _:s .
_:s <{X}street> "Rue du Faubourg" .
_:s <{X}city> <{X}Q90> .
<{X}Q90> <{LABEL}> "Paris" .
<{X}capital> <{LABEL}> "capital city"@en .
""".strip().split("\n")


def source(folder: Path, lines: list[str], **options: Any) -> FactDocuments:
    (folder / "facts.nt").write_text("\n".join(lines))
    return FactDocuments(
        [str(folder / "facts.nt")], FieldChoice(TEXT_FIELDS), max_doc_bytes=2000, max_expanded_bytes=10_000, **options
    )


def bodies(items: list[SourceItem]) -> dict[str, dict[str, Any]]:
    return {item.doc_id: json.loads(item.body) for item in items if isinstance(item, Document)}


def test_a_subject_is_a_document_with_labels_and_facts_in_words(tmp_path: Path) -> None:
    found = bodies(list(source(tmp_path, FRANCE).items()))
    assert sorted(found) == [f"{X}Q142", f"{X}Q90", f"{X}capital"]
    assert found[f"{X}Q142"] == {
        "name": "France",
        "label": {"en": "France", "de": "Frankreich"},
        "facts": [
            "capital city: Paris",
            "motto: Liberté",
            "official language: french language",
            "population: 68000000",
            "seat: (city: Paris; street: Rue du Faubourg)",
        ],
    }
    assert found[f"{X}Q90"] == {"name": "Paris", "label": {"und": "Paris"}, "facts": []}


def test_the_order_of_the_triples_changes_nothing(tmp_path: Path) -> None:
    expected = [item.body for item in source(tmp_path, FRANCE).items() if isinstance(item, Document)]
    shuffled = FRANCE * 2
    random.Random(7).shuffle(shuffled)
    assert [item.body for item in source(tmp_path, shuffled).items() if isinstance(item, Document)] == expected


def test_languages_are_chosen_best_first(tmp_path: Path) -> None:
    found = bodies(list(source(tmp_path, FRANCE, languages=["de"]).items()))
    assert (found[f"{X}Q142"]["name"], found[f"{X}Q142"]["label"]) == ("Frankreich", {"de": "Frankreich"})
    assert "motto: Liberté" not in found[f"{X}Q142"]["facts"]
    assert "capital: Paris" in found[f"{X}Q142"]["facts"]
    assert f"{X}capital" in found


def test_a_language_stands_for_its_regions(tmp_path: Path) -> None:
    lines = [f'<{X}a> <{LABEL}> "Colour"@en-GB .', f'<{X}a> <{LABEL}> "Farbe"@de .']
    found = bodies(list(source(tmp_path, lines, languages=["EN"]).items()))
    assert found[f"{X}a"]["label"] == {"en-gb": "Colour"}


def test_two_labels_of_one_language_are_both_there(tmp_path: Path) -> None:
    lines = [f'<{X}a> <{LABEL}> "{name}"@en .' for name in ("b", "a")]
    (body,) = bodies(list(source(tmp_path, lines).items())).values()
    assert body == {"name": "a", "label": {"en": ["a", "b"]}, "facts": []}


def test_blank_nodes_that_name_each_other_end(tmp_path: Path) -> None:
    lines = [f"<{X}a> <{X}b> _:c .", f"_:c <{X}d> _:e .", f"_:e <{X}f> _:c .", f'_:c <{X}g> "h" .']
    assert bodies(list(source(tmp_path, lines).items()))[f"{X}a"]["facts"] == ["b: (g: h)"]


def test_problems_come_first_and_items_in_one_order_so_that_a_run_can_go_on(tmp_path: Path) -> None:
    lines = [f"<{X}b> <{X}p> <{X}c> .", "no triple", f"<{X}a> <{X}p> <{X}c> .", "neither"]
    facts = source(tmp_path, lines)
    items = list(facts.items())
    assert [i.position.offset if isinstance(i, Unreadable) else i.doc_id for i in items] == [2, 4, f"{X}a", f"{X}b"]
    assert facts.resumable
    assert list(facts.items(3)) == items[3:]


def test_a_subject_that_is_too_large_is_named(tmp_path: Path) -> None:
    lines = [f'<{X}a> <{X}p> "{n:0100}" .' for n in range(40)] + [f'<{X}b> <{X}p> "c" .']
    large, small = source(tmp_path, lines).items()
    assert isinstance(large, Unreadable)
    assert (large.kind, small.doc_id) == ("document_too_large", f"{X}b")


def test_more_triples_than_are_put_into_the_database_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.facts._INSERTED", 3)
    lines = [f'<{X}{n % 5}> <{X}p> "{n}" .' for n in range(31)]
    found = bodies(list(source(tmp_path, lines).items()))
    assert sum(len(body["facts"]) for body in found.values()) == 31


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    items = source(tmp_path, FRANCE).items()
    next(iter(items))
    assert list((tmp_path / "tmp").iterdir())
    list(items)
    assert not list((tmp_path / "tmp").iterdir())


def test_turtle_gives_the_same_documents(tmp_path: Path) -> None:
    pytest.importorskip("rdflib", reason="needs the sources extra")
    expected = bodies(list(source(tmp_path, FRANCE).items()))
    (tmp_path / "facts.ttl").write_text("\n".join(FRANCE))
    turtle = FactDocuments(
        [str(tmp_path / "facts.ttl")], FieldChoice(TEXT_FIELDS), max_doc_bytes=2000, max_expanded_bytes=10_000
    )
    assert bodies(list(turtle.items())) == expected
