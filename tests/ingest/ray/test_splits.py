"""However files are cut, every document is in exactly one split."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import UsageError
from bridge.records import Document
from ingest.ray.splits import RowGroup, SplitFiles, WholeFile
from ingest.sources.field_choice import FieldChoice
from ingest.sources.opening import Unreadable

FIELDS = FieldChoice(text_fields=["title"], id_field="id")


def files(paths: Sequence[Path | str], split_bytes: int = 100) -> SplitFiles:
    return SplitFiles([str(path) for path in paths], FIELDS, max_doc_bytes=60, split_bytes=split_bytes)


def found(source: SplitFiles) -> list[str]:
    """Ids of documents, and the kinds of what is none."""
    return [item.kind if isinstance(item, Unreadable) else item.doc_id for item in source.items()]


_lines = st.lists(
    st.one_of(
        st.integers(0, 99).map(lambda n: b'{"id": "%d", "title": "\xc3\xa9"}' % n),
        st.sampled_from([b"", b"   ", b"no json", b'{"id": "7", "title": "' + b"x" * 80 + b'"}']),
    ),
    max_size=20,
)


@given(lines=_lines, ending=st.sampled_from([b"\n", b"\r\n"]), last=st.booleans(), split_bytes=st.integers(1, 300))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splits_hold_every_line_once_wherever_they_are_cut(
    tmp_path: Path, lines: list[bytes], ending: bytes, last: bool, split_bytes: int
) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'{"id": "first"}' + ending + ending.join(lines) + (ending if last else b""))
    whole = files([file], split_bytes=1_000_000)
    assert len(whole.splits) == 1
    cut = files([file], split_bytes)
    assert found(cut) == found(whole)
    assert [item.position for item in cut.items()] == [item.position for item in whole.items()]


def test_bytes_and_positions_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "n": 1.10}\n{"id":"b" }\n')
    first, second = files([file], split_bytes=10).items()
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.body, second.body) == (b'{"id": "a", "n": 1.10}', b'{"id":"b" }')
    assert second.position.offset == 26


def test_what_is_not_plain_lines_is_one_split(tmp_path: Path) -> None:
    array, table = tmp_path / "array.json", tmp_path / "table.csv"
    array.write_text('[{"id": "a"},\n{"id": "b"}]')
    table.write_text("id,title\nc,x\n")
    source = files([array, table], split_bytes=5)
    assert source.splits == [WholeFile(str(array)), WholeFile(str(table))]
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
    assert source.splits == [RowGroup(name, number) for number in range(3)]
    assert found(source) == ids
    assert [item.position.offset for item in source.read(RowGroup(name, 2))] == list(range(21, 26))


def test_standard_input_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="name files"):
        SplitFiles(["-"], FIELDS, max_doc_bytes=100)
