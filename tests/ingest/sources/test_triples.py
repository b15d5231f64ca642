"""Triples are read as the W3C writes them, statement by statement; what is none is named with its line."""

import gzip
from pathlib import Path

import pytest

from bridge.errors import UsageError
from ingest.sources.file_access import source_files
from ingest.sources.source import Unreadable
from ingest.sources.triples import Triple, triples_of


def read(path: Path, content: bytes, number: int = 0) -> list[Triple | Unreadable]:
    path.write_bytes(content)
    (file,) = source_files([str(path)])
    return list(triples_of(file, number, 1000, 10_000))


def one(folder: Path, line: str) -> Triple | Unreadable:
    (found,) = read(folder / "a.nt", line.encode())
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("<x:a> <x:b> <x:c> .", Triple("x:a", "x:b", "x:c", "iri")),
        ("<x:a><x:b><x:c>.", Triple("x:a", "x:b", "x:c", "iri")),
        ("\t<x:a> \t<x:b> <x:c> . # why", Triple("x:a", "x:b", "x:c", "iri")),
        ('<x:a> <x:b> "c" .', Triple("x:a", "x:b", "c", "text", "und")),
        ('<x:a> <x:b> "" .', Triple("x:a", "x:b", "", "text", "und")),
        ('<x:a> <x:b> "c"@en-GB .', Triple("x:a", "x:b", "c", "text", "en-gb")),
        ('<x:a> <x:b> "01"^^<x:int> .', Triple("x:a", "x:b", "01", "text", "und")),
        ('<x:a> <x:b> "a. # <b>" .', Triple("x:a", "x:b", "a. # <b>", "text", "und")),
        (r'<x:a> <x:b> "\t\\\"\n\u00e9\U0001F600" .', Triple("x:a", "x:b", '\t\\"\né😀', "text", "und")),
        (r"<x:\u00e9> <x:b> <x:é> .", Triple("x:é", "x:b", "x:é", "iri")),
        ("_:b.1 <x:b> _:c- .", Triple("_:0:b.1", "x:b", "_:0:c-", "blank")),
    ],
)
def test_a_statement_is_read(tmp_path: Path, line: str, expected: Triple) -> None:
    assert one(tmp_path, line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "<x:a> <x:b> <x:c>",
        "<a> <x:b> <x:c> .",
        "<x:a> _:b <x:c> .",
        '"a" <x:b> <x:c> .',
        "<x:a> <x:b> 'c' .",
        '<x:a> <x:b> "c .',
        r'<x:a> <x:b> "\x" .',
        r'<x:a> <x:b> "\uD800" .',
        r'<x:a> <x:b> "\U00110000" .',
        "<x:a b> <x:b> <x:c> .",
        "<x:a> <x:b> <x:c> . <x:d> <x:e> <x:f> .",
        "@prefix x: <x:> .",
    ],
)
def test_what_is_no_statement_is_named(tmp_path: Path, line: str) -> None:
    found = one(tmp_path, line)
    assert isinstance(found, Unreadable)
    assert (found.kind, found.position.offset, found.raw) == ("invalid_triple", 1, line.encode())


def test_comments_blank_lines_and_wrong_lines_stop_nothing(tmp_path: Path) -> None:
    found = read(tmp_path / "a.nt", b"# why\n\n<x:a> <x:b> <x:c> .\r\n\xff\n<x:d> <x:e> <x:f> .")
    assert [each.position.offset if isinstance(each, Unreadable) else each.subject for each in found] == [
        "x:a",
        4,
        "x:d",
    ]


def test_blank_nodes_of_two_files_are_two(tmp_path: Path) -> None:
    (first,) = read(tmp_path / "a.nt", b"_:a <x:b> <x:c> .", 0)
    (second,) = read(tmp_path / "b.nt", b"_:a <x:b> <x:c> .", 1)
    assert first != second


def test_a_compressed_file_is_known_by_its_name(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.nt.gz", gzip.compress(b"<x:a> <x:b> <x:c> .\n"))) == 1


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.rdf: expected N-Triples \(\.nt\) or Turtle \(\.ttl\)"):
        read(tmp_path / "a.rdf", b"")


def test_turtle_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("rdflib", reason="needs the sources extra")
    integer = "<http://www.w3.org/2001/XMLSchema#integer>"
    turtle = '@prefix x: <http://x/> . x:a x:b x:c, "c"@EN, "1.50"^^x:money ; x:d [ x:e "f" ] . <rel> x:b x:c . '
    turtle += f'x:a x:b "01"^^{integer} .'
    found = read(tmp_path / "a.ttl", turtle.encode())
    assert all(isinstance(each, Triple) for each in found)
    known = {(each.predicate, each.object, each.language) for each in found if isinstance(each, Triple)}
    assert known >= {
        ("http://x/b", "http://x/c", None),
        ("http://x/b", "c", "en"),
        ("http://x/b", "01", "und"),
        ("http://x/b", "1.50", "und"),
        ("http://x/e", "f", "und"),
    }
    (blank,) = (each for each in found if isinstance(each, Triple) and each.kind == "blank")
    assert blank.object in {each.subject for each in found if isinstance(each, Triple)}


@pytest.mark.parametrize("content", [b"<x:a> <x:b>", b"<x:a> ??? <x:b> .", b"\xff", b"x:a x:b x:c ."])
def test_what_is_no_turtle_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("rdflib", reason="needs the sources extra")
    with pytest.raises(UsageError, match=r"a\.ttl is no Turtle: "):
        read(tmp_path / "a.ttl", content)
