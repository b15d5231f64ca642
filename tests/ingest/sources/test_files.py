"""However files are cut, every document is in exactly one part, and none is lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import UsageError
from bridge.records import Document
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.source import Unreadable
from tests.ingest.sources.reading import outcome, read

FIELDS = FieldChoice(text_fields=["title"], id_field="id")


def files(paths: Sequence[Path | str], part_bytes: int = 100) -> FileDocuments:
    return FileDocuments([str(path) for path in paths], FIELDS, max_doc_bytes=60, part_bytes=part_bytes)


def found(source: FileDocuments) -> list[str]:
    """Ids of documents, and the kinds of what is none."""
    return [item.kind if isinstance(item, Unreadable) else item.doc_id for item in source.items()]


def test_skipping_counts_items_and_keeps_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'{"_id": "1"}\n\nno json\n{"_id": "4"}\n')
    assert [outcome(item) for item in read(file, skip=2)] == [(4, "4")]


_lines = st.lists(
    st.one_of(
        st.integers(0, 99).map(lambda n: b'{"id": "%d", "title": "\xc3\xa9"}' % n),
        st.sampled_from([b"", b"   ", b"no json", b'{"id": "7", "title": "' + b"x" * 80 + b'"}']),
    ),
    max_size=20,
)


@given(lines=_lines, ending=st.sampled_from([b"\n", b"\r\n"]), last=st.booleans(), part_bytes=st.integers(1, 300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_hold_every_line_once_wherever_they_are_cut(
    tmp_path: Path, lines: list[bytes], ending: bytes, last: bool, part_bytes: int
) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'{"id": "first"}' + ending + ending.join(lines) + (ending if last else b""))
    whole = files([file], part_bytes=1_000_000)
    assert len(whole.parts()) == 1
    cut = files([file], part_bytes)
    assert found(cut) == found(whole)
    assert [item.position for item in cut.items()] == [item.position for item in whole.items()]


def test_bytes_and_positions_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "n": 1.10}\n{"id":"b" }\n')
    first, second = files([file], part_bytes=10).items()
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.body, second.body) == (b'{"id": "a", "n": 1.10}', b'{"id":"b" }')
    assert second.position.offset == 26


def test_what_is_not_plain_lines_is_one_part(tmp_path: Path) -> None:
    array, table = tmp_path / "array.json", tmp_path / "table.csv"
    array.write_text('[{"id": "a"},\n{"id": "b"}]')
    table.write_text("id,title\nc,x\n")
    source = files([array, table], part_bytes=5)
    assert [(part.file.path, part.places) for part in source.parts()] == [(str(array), None), (str(table), None)]
    assert found(source) == ["a", "b", "c"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_parquet_is_cut_by_its_groups_of_rows(tmp_path: Path, scheme: str) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra: parquet)")
    from pyarrow import parquet

    file = tmp_path / "two words.parquet"
    ids = [f"d{i}" for i in range(25)]
    parquet.write_table(pa.table({"id": ids, "title": ["x"] * 25}), file, row_group_size=10)
    name = f"{scheme}{file}".replace(" ", "%20") if scheme else str(file)
    source = files([name])
    assert [part.row_group for part in source.parts()] == [0, 1, 2]
    assert found(source) == ids
    assert [item.position.offset for item in source.read(source.parts()[2])] == list(range(21, 26))


def test_standard_input_cannot_be_cut() -> None:
    with pytest.raises(UsageError, match="name files"):
        FileDocuments(["-"], FIELDS, max_doc_bytes=100, part_bytes=100)
