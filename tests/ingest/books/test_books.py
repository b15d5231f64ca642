"""Books survive crashes: whatever happens, a run that completes has accounted for every item once."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opensearchpy import OpenSearch

from bridge.errors import CheckpointUnusable, IngestError, LedgerUnbalanced
from bridge.records import Document, SourcePosition
from bridge.settings import IngestSettings
from ingest.books.books import CHECKPOINT, Books
from ingest.books.ledger import Failure, Outcome, OutcomeKind
from ingest.books.state_folder import load, read_dead_letters
from ingest.job import Job
from ingest.sources.source import DocumentsInMemory, SourceItem
from ingest.stages.models import profile_for
from tests.ingest.toys import toy_models

KINDS: list[OutcomeKind] = ["written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered"]


DEAD: list[OutcomeKind] = ["dead_lettered"] * 19


class Resumable(DocumentsInMemory):
    """Documents that come in the same order every time."""

    resumable = True


def source(n: int, identity: str = "a source") -> Resumable:
    return Resumable([Document(str(i), b"{}", {}, SourcePosition("memory", i)) for i in range(n)], identity=identity)


def books_of(folder: Path, items: Resumable, *, from_start: bool = False, recipe: str = "r", **settings: int) -> Books:
    models = toy_models()
    profile = profile_for(models, ["title"])
    job = Job("i", profile, models, OpenSearch(), IngestSettings(**settings), folder, from_start=from_start)
    return Books(job, items, index_identity="i (u)", recipe=recipe, save_every_s=3600)


def ended(items: list[SourceItem], kinds: list[OutcomeKind]) -> list[tuple[SourceItem, Outcome]]:
    failure = Failure("mapper_parsing_exception", "why", 400)
    return [(item, Outcome(kind, failure)) for item, kind in zip(items, kinds, strict=True)]


class Bookkeeping(RuleBasedStateMachine):
    """Runs that book batches, save, crash and go on, beside a model that knows what must be true."""

    @initialize(n=st.integers(min_value=1, max_value=40))
    def begin(self, n: int) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.source = source(n)
        self.kinds: list[OutcomeKind] = []
        self.saved = 0
        self._open()

    def _open(self) -> None:
        self.books = books_of(self.folder, self.source)
        self.books.__enter__()
        assert self.books.skipped == self.saved
        del self.kinds[self.saved :]
        self.items = list(self.source.items(self.saved))

    @precondition(lambda self: self.items)
    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7))
    def book(self, kinds: list[OutcomeKind]) -> None:
        batch, self.items = self.items[: len(kinds)], self.items[len(kinds) :]
        self.books.book(ended(batch, kinds[: len(batch)]))
        self.kinds += kinds[: len(batch)]

    @rule()
    def save(self) -> None:
        self.books.save()
        self.saved = len(self.kinds)

    @rule(torn=st.binary(max_size=20), half_written=st.binary(max_size=20))
    def crash_and_go_on(self, torn: bytes, half_written: bytes) -> None:
        """The process ends between two lines of code; a write that was under way is left half done."""
        with self.books.dead_letters.open("ab") as file:
            file.write(torn)
        (self.folder / f"{CHECKPOINT}.new").write_bytes(half_written)
        # What the kernel does for a process that is gone:
        self.books._letters._file.close()
        self.books._lock.__exit__(None, None, None)
        self._open()

    @precondition(lambda self: not self.items)
    @rule()
    def complete(self) -> None:
        self.books.count_read(len(self.kinds) - self.books.skipped)
        self.books.complete()
        self.books.__exit__(None, None, None)
        assert load(self.folder / CHECKPOINT) is None
        self.saved = 0
        self._open()

    @invariant()
    def every_item_is_booked_once(self) -> None:
        for kind in KINDS:
            assert getattr(self.books.ledger, kind) == self.kinds.count(kind)

    @invariant()
    def dead_letters_are_those_that_were_booked(self) -> None:
        letters = [letter.id for letter in read_dead_letters(self.books.dead_letters)]
        assert letters == [str(i) for i, kind in enumerate(self.kinds) if kind == "dead_lettered"]

    def teardown(self) -> None:
        self.books.__exit__(None, None, None)
        self.temporary.cleanup()


TestBookkeeping = pytest.mark.case("I9")(Bookkeeping.TestCase)
TestBookkeeping.settings = settings(max_examples=30, stateful_step_count=25)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A state folder whose run was cut off after three of five items."""
    items = source(5)
    with books_of(tmp_path, items) as books:
        books.book(ended(list(items.items())[:3], ["written", "dead_lettered", "written"]))
        books.save()
    return tmp_path


@pytest.mark.case("I12")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-5], id="truncated"),
        pytest.param(lambda content: content[:80] + bytes([content[80] ^ 1]) + content[81:], id="bit-flipped"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_never_guessed(saved: Path, damage: object) -> None:
    file = saved / CHECKPOINT
    assert callable(damage)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointUnusable, match=r"checkpoint is damaged.*--from-start"), books_of(saved, source(5)):
        pass
    with books_of(saved, source(5), from_start=True) as books:
        assert books.skipped == 0


@pytest.mark.case("I13")
def test_a_checkpoint_of_another_source_or_recipe_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointUnusable, match="belongs to another source"), books_of(saved, source(5, "b")):
        pass
    with pytest.raises(CheckpointUnusable, match="belongs to another models"), books_of(saved, source(5), recipe="s"):
        pass


@pytest.mark.case("I14")
def test_a_second_run_on_the_same_folder_is_refused_and_told_who_holds_it(saved: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom ingest.books.state_folder import locked\n"
         "with locked(Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()", str(saved)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointUnusable, match=f"in use by process {holder.pid}"), books_of(saved, source(5)):
            pass
        holder.kill()
    with books_of(saved, source(5)) as books:
        assert books.skipped == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; skips where it may not be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(filler: Path) -> None:
    """Writes until the disk is full."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(os.urandom(4096)):
            pass


@pytest.mark.case("I11")
def test_a_full_disk_stops_before_anything_is_acknowledged(small_disk: Path) -> None:
    items = source(5)
    with books_of(small_disk, items) as books:
        books.book(ended(list(items.items())[:2], ["dead_lettered", "written"]))
        books.save()
        before = (small_disk / CHECKPOINT).read_bytes()
        filler = small_disk / "filler"
        fill(filler)
        body = b'{"a": "' + b"x" * 50_000 + b'"}'
        large = Document("large", body, {}, SourcePosition("memory", 9))
        with pytest.raises(IngestError, match=r"dead letters .* cannot be written"):
            books.book(ended([large], ["dead_lettered"]))
        assert books.ledger.answered == 2
        with pytest.raises(IngestError, match=r"checkpoint .* cannot be written"):
            books.save()
        assert (small_disk / CHECKPOINT).read_bytes() == before
        filler.unlink()
    with books_of(small_disk, items) as books:
        assert books.skipped == 2
        assert [letter.id for letter in read_dead_letters(books.dead_letters)] == ["0"]


def book_on_a_full_disk(books: Books, filler: Path, document: Document) -> None:
    with books:
        fill(filler)
        books.book(ended([document], ["dead_lettered"]))


@pytest.mark.case("I47")
@pytest.mark.parametrize("when", ["before it starts", "in the middle"])
def test_a_full_disk_is_named_with_its_path_and_a_remedy_and_the_next_run_goes_on(small_disk: Path, when: str) -> None:
    items = source(5)
    documents = list(items.items())
    folder, filler = small_disk / "state", small_disk / "filler"
    with books_of(folder, items) as books:
        books.book(ended(documents[:2], ["written", "written"]))
        books.save()
    large = Document("large", b'{"a": "' + b"x" * 50_000 + b'"}', {}, SourcePosition("memory", 9))
    if when == "before it starts":
        fill(filler)
    with pytest.raises(IngestError, match=rf"{folder}.*No space left.*free the disk or name another") as failed:
        book_on_a_full_disk(books_of(folder, items), filler, large)
    assert failed.value.__context__ is not None
    filler.unlink()
    with books_of(folder, items) as books:
        assert books.skipped == 2


def test_a_run_with_items_unaccounted_for_is_not_complete(saved: Path) -> None:
    with books_of(saved, source(5)) as books:
        books.count_read(2)
        with pytest.raises(LedgerUnbalanced, match=r"5 items were read, 3 accounted"):
            books.complete()
    assert load(saved / CHECKPOINT) is not None


def test_a_run_stops_if_the_index_refuses_its_first_documents_all_for_one_reason(tmp_path: Path) -> None:
    items = source(20)
    failure = Failure("mapper_parsing_exception", "failed to parse. Preview of field's value: 'secret'", 400)
    refused = [(item, Outcome("dead_lettered", failure)) for item in items.items()]
    with books_of(tmp_path, items) as books:
        with pytest.raises(IngestError, match="all 20 documents") as stopped:
            books.book(refused)
        assert "secret" not in str(stopped.value)
        assert books.ledger.answered == 0


@pytest.mark.case("I46")
def test_refused_documents_are_dead_letters_once_the_index_has_taken_others(tmp_path: Path) -> None:
    items = source(40)
    documents = list(items.items())
    with books_of(tmp_path, items) as books:
        books.book(ended(documents[:1], ["unchanged"]))
        books.book(ended(documents[1:20], DEAD))
    with books_of(tmp_path / "other", items) as books:
        books.book(ended(documents[:20], [*DEAD, "unchanged"]))
        assert books.ledger.dead_lettered == 19


def test_lines_that_are_no_documents_do_not_stop_a_run(tmp_path: Path) -> None:
    items = source(20)
    unreadable = [(item, Outcome("dead_lettered", Failure("invalid_json", "why"))) for item in items.items()]
    with books_of(tmp_path, items) as books:
        books.book(unreadable)
        assert books.ledger.dead_lettered == 20


def test_more_dead_letters_than_allowed_end_the_run(tmp_path: Path) -> None:
    items = source(3)
    with (
        books_of(tmp_path, items, max_errors=1) as books,
        pytest.raises(IngestError, match=r"2 dead letters, ingest\.max_errors allows 1"),
    ):
        books.book(ended(list(items.items()), ["written", "dead_lettered", "dead_lettered"]))


def marked(n: int) -> Resumable:
    """Items whose positions have marks, but for every third one."""
    positions = [SourcePosition("table", i, None if i % 3 == 2 else f"int {i}") for i in range(n)]
    return Resumable([Document(str(at.offset), b"{}", {}, at) for at in positions], identity="a table")


def test_a_run_that_was_cut_off_goes_on_at_the_mark_of_the_last_item_that_was_booked(tmp_path: Path) -> None:
    items = list(marked(6).items())
    with books_of(tmp_path, marked(6)) as books:
        assert books.mark is None
        # Within a batch, items that needed no work come first.
        books.book(ended([items[1], items[0]], ["unchanged", "written"]))
        books.save()
        books.book(ended(items[2:5], ["written"] * 3))
    with books_of(tmp_path, marked(6)) as books:
        assert (books.mark, books.skipped) == ("int 1", 2)


def test_a_run_begins_at_the_watermark_of_the_last_complete_one(tmp_path: Path) -> None:
    items = list(marked(6).items())
    with books_of(tmp_path, marked(6)) as books:
        books.book(ended(items, ["written"] * 6))
        books.count_read(6)
        books.complete()
        assert books.report().watermark == "int 4"
    with books_of(tmp_path, marked(6)) as books:
        assert (books.mark, books.skipped, books.ledger.read) == ("int 4", 0, 0)
        books.complete()
    with books_of(tmp_path, marked(6), recipe="s") as books:
        assert books.mark is None
        books.complete()
    with books_of(tmp_path, marked(6), from_start=True) as books:
        assert books.mark is None
        books.complete()
    with books_of(tmp_path, source(6)) as books:
        assert books.mark is None


def test_a_run_that_was_stopped_leaves_the_watermark_as_it_was(tmp_path: Path) -> None:
    items = list(marked(6).items())
    with books_of(tmp_path, marked(6)) as books:
        books.book(ended(items[:2], ["written"] * 2))
        books._job.stopped.set()
        books.complete()
    assert not list(tmp_path.glob("watermark-*"))
