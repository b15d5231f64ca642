"""Files are named by paths, globs, URLs and `-`, and compressed ones read as plain ones; damage is no silent end."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.records import Document
from ingest.sources.file_access import zstd
from ingest.sources.files import FileDocuments
from tests.ingest.sources.reading import FIELDS, LIMIT, outcome, read, written


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


def test_gzip_is_read_as_plain_text_is(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"_id": "1"}\n{"_id": "2"}'))
    assert [outcome(item) for item in read(file)] == [(1, "1"), (2, "2")]


@pytest.mark.case("I17")
def test_a_bomb_is_read_as_a_stream_and_stopped_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "bomb.jsonl.gz"
    with gzip.open(file, "wb") as bomb:
        bomb.write(b'{"_id": "1"}\n')
        for _ in range(64):
            bomb.write(bytes(1_000_000))
    source = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000, max_expanded_bytes=20_000_000)
    items = source.items()
    assert outcome(next(items)) == (1, "1")
    tracemalloc.start()
    with pytest.raises(UsageError, match="grows beyond 20,000,000 bytes"):
        next(items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_gzip_that_was_cut_off_is_no_silent_end(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"_id": "%d"}\n' % i for i in range(5000)))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="damaged or cut off"):
        read(file)


def test_zstd_is_read_as_plain_text_is_also_in_several_frames(tmp_path: Path) -> None:
    content = zstd.compress(b"_id,text\n1,a\n") + zstd.compress(b"2,b\n")
    assert [outcome(item) for item in read(written(tmp_path, "corpus.csv.zst", content))] == [(2, "1"), (3, "2")]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_compressed_array_that_was_cut_off_is_no_silent_end(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    whole = compress(json.dumps([{"_id": str(i), "text": f"{i * 7919}"} for i in range(20_000)]).encode())
    with pytest.raises(UsageError, match="damaged or cut off"):
        read(written(tmp_path, "corpus.json", whole[: len(whole) // 2]))


@pytest.mark.case("I17")
def test_a_zstd_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    file = written(tmp_path, "bomb.jsonl.zst", zstd.compress(b'{"_id": "1"}\n' + bytes(50_000_000)))
    assert file.stat().st_size < 10_000
    source = FileDocuments([str(file)], FIELDS, max_doc_bytes=1000, max_expanded_bytes=20_000_000)
    with pytest.raises(UsageError, match="grows beyond 20,000,000 bytes"):
        list(source.items())


@pytest.mark.case("S19")
@pytest.mark.parametrize(
    "url",
    [
        "https://u:s3cret@h/docs.jsonl",
        "https://h/docs.jsonl?sig=s3cret",
        "nothing://u:s3cret@h/*.jsonl?key=s3cret",
        "file://u:s3cret@/docs.jsonl",
    ],
)
def test_an_address_that_cannot_be_reached_is_shown_without_its_secrets(url: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be reached|names no file") as refused:
        FileDocuments([url], FIELDS, max_doc_bytes=1000)
    assert "s3cret" not in str(refused.value)
