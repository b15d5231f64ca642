"""Paths, globs, URLs and `-` name files that can be read, or are refused before the run."""

import gzip
import io
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.records import Document
from ingest.sources.files import FileDocuments
from tests.ingest.sources.reading import FIELDS, LIMIT, written


def test_a_glob_reads_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(f'{{"_id": "{name}"}}')
    items = FileDocuments([f"{tmp_path}/*.jsonl"], FIELDS, max_doc_bytes=1000).items()
    assert [item.doc_id for item in items if isinstance(item, Document)] == ["a.jsonl", "b.jsonl"]


@pytest.mark.case("I36")
@pytest.mark.parametrize("pattern", ["missing.jsonl", "*.nothing", "."])
def test_a_source_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        FileDocuments([pattern], FIELDS, max_doc_bytes=1000)


@pytest.mark.case("I36")
def test_an_empty_pipe_has_no_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b""))))
    source = FileDocuments(["-"], FIELDS, max_doc_bytes=1000)
    assert list(source.items()) == []
    assert not source.resumable


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"_id": "1"}\n')
    before = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000).identity
    file.write_text('{"_id": "1"}\n{"_id": "2"}\n')
    assert FileDocuments([str(file)], FIELDS, max_doc_bytes=1000).identity != before


def test_urls_name_files_of_any_format_and_patterns_of_names(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    written(tmp_path, "b.jsonl.gz", gzip.compress(b'{"_id": "b"}'))
    written(tmp_path, "a.csv", b"_id\na\n")
    (tmp_path / "folder.csv").mkdir()
    source = FileDocuments([f"file://{tmp_path}/*.*"], FIELDS, max_doc_bytes=LIMIT)
    assert [item.doc_id for item in source.items()] == ["a", "b"]
    assert source.resumable


@pytest.mark.case("I36")
@pytest.mark.parametrize("name", ["missing.jsonl", "*.nothing", ""])
def test_a_url_that_names_no_file_is_a_usage_error(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    with pytest.raises(UsageError, match="names no file"):
        FileDocuments([f"file://{tmp_path}/{name}"], FIELDS, max_doc_bytes=LIMIT)
