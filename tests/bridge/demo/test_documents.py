"""The standard library as a collection: what is in it, under which names, and what is left out."""

import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from bridge.demo.documents import ENRICHED_FIELDS, DocumentationEntry, documents, standard_library


@pytest.fixture(scope="module")
def entries() -> list[DocumentationEntry]:
    return standard_library()


@pytest.fixture(scope="module")
def by_name(entries: list[DocumentationEntry]) -> dict[str, DocumentationEntry]:
    return {entry.name: entry for entry in entries}


def test_collection_is_large_and_short(entries: list[DocumentationEntry]) -> None:
    words = sorted(len(entry.text.split()) for entry in entries)
    assert len(entries) > 4500
    assert words[len(words) // 2] < 60


def test_names_are_unique_and_in_order(entries: list[DocumentationEntry]) -> None:
    names = [entry.name for entry in entries]
    assert names == sorted(set(names))


def test_reading_twice_gives_the_same(entries: list[DocumentationEntry]) -> None:
    assert standard_library() == entries


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("json", "module"),
        ("os.path", "module"),
        ("collections.abc.Mapping", "class"),
        ("collections.OrderedDict", "class"),
        ("dict", "class"),
        ("open", "function"),
        ("asyncio.run", "function"),
        ("os.path.join", "function"),
        ("os.getcwd", "function"),
        ("functools.reduce", "function"),
        ("random.randint", "function"),
        ("unittest.TestCase.assertEqual", "method"),
        ("str.split", "method"),
        ("datetime.datetime.strptime", "method"),
    ],
)
def test_objects_are_known_by_the_name_that_people_use(
    by_name: dict[str, DocumentationEntry], name: str, kind: str
) -> None:
    assert by_name[name].kind == kind


@pytest.mark.parametrize(
    "name",
    [
        "asyncio.runners.run",  # asyncio.run
        "posixpath.join",  # os.path.join
        "builtins.open",  # open
        "io.open",  # open
        "random.Random.randint",  # random.randint
        "bisect.bisect",  # bisect.bisect_right
        "this",
        "antigravity",
        "tkinter.Tk",
        "unittest.__main__",
        "collections.OrderedDict.__init__",
    ],
)
def test_aliases_and_private_names_are_left_out(by_name: dict[str, DocumentationEntry], name: str) -> None:
    assert name not in by_name


def test_docstring_repeated_from_a_base_counts_once(entries: list[DocumentationEntry]) -> None:
    methods = [(entry.name.rpartition(".")[2], entry.text) for entry in entries if entry.kind == "method"]
    repeated = [key for key, n in Counter(methods).items() if n > 5]
    # Classes unrelated by inheritance do share some wording; a base and its subclasses must not.
    assert len(repeated) < 20
    assert "bool.bit_length" not in {entry.name for entry in entries}


def test_signature_comes_from_python_or_from_a_c_docstring(by_name: dict[str, DocumentationEntry]) -> None:
    assert by_name["textwrap.dedent"].signature == "dedent(text)"
    assert by_name["max"].signature.startswith("max(iterable")
    assert not by_name["max"].text.startswith("max(")


def test_signatures_hold_no_memory_addresses(entries: list[DocumentationEntry]) -> None:
    assert [entry.name for entry in entries if " at 0x" in entry.signature] == []


def test_entries_become_documents(entries: list[DocumentationEntry]) -> None:
    made = list(documents(entries))
    assert [document.doc_id for document in made] == [entry.name for entry in entries]
    body = msgspec.json.decode(made[0].body)
    assert set(body) == {"name", "kind", "signature", "text", "module"}
    assert list(made[0].texts) == list(ENRICHED_FIELDS)


def test_reading_prints_nothing_and_warns_of_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from bridge.demo.documents import *; standard_library()"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
