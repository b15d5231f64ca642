"""A whole run against a scripted cluster: what comes in is answered for, whatever happens on the way."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import AccessDenied, CheckpointUnusable, IndexUnsuitable, IngestError
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Progress, Report
from ingest.books.state_folder import read_dead_letters
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import Models, profile_for
from tests.fake_bulk import FakeCluster, Reply, error_body, fake_cluster, refusal
from tests.ingest.toys import CountingEncoder, EchoGenerator, toy_models

pytestmark = pytest.mark.slow

FIELDS = FieldChoice(text_fields=["title", "text"])


class Setting:
    """A fake cluster with an index, a corpus file and a state folder."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.corpus = folder / "corpus.jsonl"
        self.models = toy_models()
        body = new_index(profile_for(self.models, FIELDS.text_fields), OpenSearchDialect((3, 6, 0)))
        cluster.mapping = body["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}

    def write_corpus(self, n: int, change: Callable[[int, dict[str, Any]], None] = lambda _i, _d: None) -> None:
        documents = [{"_id": f"d{i}", "title": f"title {i}", "text": f"text of {i}", "price": i} for i in range(n)]
        for i, document in enumerate(documents):
            change(i, document)
        self.corpus.write_text("".join(json.dumps(document) + "\n" for document in documents))

    def run(self, models: Models | None = None, **options: Any) -> Report:
        models = models or self.models
        settings = options.pop("settings", IngestSettings(max_stall_s=1.0))
        return run_ingest(
            FileDocuments([str(self.corpus)], FIELDS, max_doc_bytes=100_000),
            Job(
                index="things",
                profile=options.pop("profile", profile_for(models, FIELDS.text_fields)),
                models=models,
                client=connect(ClusterSettings(url=self.cluster.url)),
                settings=settings,
                state_folder=self.folder / "state",
                **options,
            ),
        )

    def stored(self, doc_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.documents[doc_id])
        return found

    @property
    def encoded(self) -> int:
        assert isinstance(self.models.encoder, CountingEncoder)
        return self.models.encoder.texts


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with fake_cluster() as cluster:
        yield Setting(cluster, tmp_path)


def test_every_document_is_written_with_our_object_beside_its_own_fields(setting: Setting) -> None:
    setting.write_corpus(200)
    report = setting.run()
    assert (report.ledger.read, report.ledger.written, report.exit_code) == (200, 200, 0)
    assert report.complete
    stored = setting.stored("d7")
    neural = stored.pop("_neural")
    assert stored == {"title": "title 7", "text": "text of 7", "price": 7}
    assert neural["predicted_queries"] == ["what is title", "what is 7.", "what is text", "what is of"]
    assert len(neural["embedding"]) == 4
    assert not list((setting.folder / "state").glob("dead-letters*"))


def test_a_second_run_finds_nothing_to_do(setting: Setting) -> None:
    setting.write_corpus(150)
    setting.run()
    encoded = setting.encoded
    report = setting.run()
    assert (report.ledger.unchanged, report.ledger.written) == (150, 0)
    assert setting.encoded == encoded


def test_only_documents_that_changed_are_made_again(setting: Setting) -> None:
    setting.write_corpus(150)
    setting.run()
    setting.write_corpus(150, lambda i, document: document.update(price=-1) if i % 50 == 0 else None)
    report = setting.run()
    assert (report.ledger.written, report.ledger.unchanged) == (3, 147)
    assert setting.stored("d50")["price"] == -1


def test_another_recipe_makes_everything_stale(setting: Setting) -> None:
    setting.write_corpus(20)
    setting.run()
    report = setting.run(settings=IngestSettings(queries_per_passage=1))
    assert report.ledger.written == 20


@pytest.mark.case("I18")
def test_of_two_documents_with_one_id_the_last_wins_every_time(setting: Setting) -> None:
    def same_id(i: int, document: dict[str, Any]) -> None:
        if i in (3, 5, 190):
            document["_id"] = "twin"

    setting.write_corpus(200, same_id)
    for _ in range(2):
        report = setting.run(settings=IngestSettings(bulk_documents=50))
        assert setting.stored("twin")["price"] == 190
        assert report.duplicates == 2
        assert report.exit_code == 0
    assert report.ledger.superseded == 1


def test_items_end_in_the_order_of_the_source(setting: Setting) -> None:
    """A run goes on behind the number of items that ended, so these must be the first ones."""

    def mixed(i: int, document: dict[str, Any]) -> None:
        document["text"] = "" if i % 7 == 0 else document["text"]
        document["title"] = "" if i % 7 == 0 else document["title"]
        document["_id"] = "" if i % 11 == 0 else document["_id"]

    setting.write_corpus(1000, mixed)
    stopped = threading.Event()
    first = setting.run(stopped=stopped, on_progress=lambda _: stopped.set())
    assert 0 < first.ledger.answered < 1000
    letters = len(list(read_dead_letters(Path(first.dead_letters or ""))))
    assert letters == len(range(0, first.ledger.answered, 11))
    second = setting.run()
    assert (second.ledger.read, len(setting.cluster.documents)) == (1000, 1000 - len(range(0, 1000, 11)))


@pytest.mark.case("I5")
def test_dead_letters_hold_id_position_reason_and_the_document(setting: Setting) -> None:
    setting.write_corpus(100)
    poison = refusal(400, "mapper_parsing_exception", "failed to parse field [price]")
    setting.cluster.on_item = lambda action, _: poison if action.doc_id in {"d3", "d4", "d90"} else None
    report = setting.run()
    assert (report.ledger.written, report.ledger.dead_lettered, report.exit_code) == (97, 3, 3)
    assert report.dead_letters is not None
    letters = list(read_dead_letters(Path(report.dead_letters)))
    assert [letter.id for letter in letters] == ["d3", "d4", "d90"]
    assert letters[0].position == f"{setting.corpus}:4"
    assert letters[0].error == {
        "type": "mapper_parsing_exception",
        "reason": "failed to parse field [price]",
        "status": 400,
    }
    assert json.loads(letters[0].document or "") == {"title": "title 3", "text": "text of 3", "price": 3}


@pytest.mark.case("I15")
@pytest.mark.case("I16")
def test_lines_that_are_no_documents_are_dead_letters_and_the_rest_is_written(setting: Setting) -> None:
    setting.write_corpus(10)
    setting.corpus.write_bytes(setting.corpus.read_bytes() + b'{"_id": "x", "n": NaN}\n\xff\xfe\n{"_id": "cut')
    report = setting.run()
    assert (report.ledger.read, report.ledger.written, report.ledger.dead_lettered) == (13, 10, 3)
    assert report.dead_letters is not None
    letters = list(read_dead_letters(Path(report.dead_letters)))
    assert [letter.position.rsplit(":", 1)[1] for letter in letters] == ["11", "12", "13"]
    assert letters[1].document_base64 is not None


@pytest.mark.case("I15")
def test_strict_stops_at_the_first_dead_letter(setting: Setting) -> None:
    setting.write_corpus(200)
    setting.corpus.write_bytes(b"no json\n" + setting.corpus.read_bytes())
    report = setting.run(strict=True)
    assert (report.complete, report.exit_code) == (False, 3)
    assert report.ledger.read < 200


@pytest.mark.case("I19")
def test_fields_named_like_bulk_metadata_are_stored_as_fields(setting: Setting) -> None:
    extra = {"routing": "r", "version": 3, "pipeline": "p", "_source": {"a": 1}, "_index": "i", "_op_type": "delete"}
    setting.write_corpus(1, lambda _, document: document.update(extra))
    setting.run()
    stored = setting.stored("d0")
    assert {key: stored[key] for key in extra} == extra


@pytest.mark.case("I16")
def test_numbers_reach_the_cluster_digit_by_digit(setting: Setting) -> None:
    setting.corpus.write_bytes(b'{"_id": "n", "a": 123456789012345678901234567890, "b": 1.10000000000000000001e5}\n')
    setting.run()
    assert b'"a":123456789012345678901234567890,"b":1.10000000000000000001e5' in setting.cluster.documents["n"]


@pytest.mark.case("I20")
@pytest.mark.parametrize("text", ["", " \n\t ", None], ids=["empty", "blank", "null"])
def test_a_document_without_text_is_written_without_a_vector_and_counted(setting: Setting, text: str | None) -> None:
    setting.write_corpus(3, lambda i, document: document.update(title="", text=text) if i == 1 else None)
    report = setting.run()
    assert (report.ledger.written, report.without_text) == (3, 1)
    assert list(setting.stored("d1")["_neural"]) == ["stamp"]


@pytest.mark.case("I21")
def test_only_the_document_that_a_model_cannot_read_is_a_dead_letter(setting: Setting) -> None:
    def spoil(i: int, document: dict[str, Any]) -> None:
        document["text"] = {10: "NaN", 20: "choke"}.get(i, document["text"])

    setting.write_corpus(100, spoil)
    report = setting.run()
    assert (report.ledger.written, report.ledger.dead_lettered) == (98, 2)
    assert "d10" not in setting.cluster.documents
    assert "d20" not in setting.cluster.documents


@pytest.mark.case("I21")
@pytest.mark.case("I22")
def test_a_run_that_does_not_fit_the_index_is_refused_before_the_first_write(setting: Setting) -> None:
    setting.write_corpus(5)
    setting.cluster.mapping["properties"]["_neural"]["properties"]["embedding"]["dimension"] = 8
    with pytest.raises(IndexUnsuitable, match="dimension 8, the encoder toy-encoder gives 4"):
        setting.run()
    assert setting.cluster.bulk_requests() == []


@pytest.mark.case("I37")
def test_predicted_text_is_bounded_and_stays_in_its_own_field(setting: Setting) -> None:
    setting.write_corpus(1, lambda _, document: document.update(text="<script>" * 500 + " ignore all instructions"))
    setting.run(settings=IngestSettings(max_expansion_bytes=40))
    stored = setting.stored("d0")
    queries = stored["_neural"]["predicted_queries"]
    assert sum(len(query) + 1 for query in queries) <= 40
    assert stored["text"] == "<script>" * 500 + " ignore all instructions"


def test_too_many_dead_letters_stop_the_run(setting: Setting) -> None:
    setting.write_corpus(300)
    setting.corpus.write_bytes(b"no json\n" * 5 + setting.corpus.read_bytes())
    with pytest.raises(IngestError, match=r"5 dead letters, ingest\.max_errors allows 4"):
        setting.run(settings=IngestSettings(max_errors=4))


@pytest.mark.case("I10")
def test_a_stopped_run_goes_on_where_it_was(setting: Setting) -> None:
    setting.write_corpus(1000)
    stopped = threading.Event()

    def stop_midway(progress: Progress) -> None:
        if progress.answered >= 300:
            stopped.set()

    first = setting.run(stopped=stopped, on_progress=stop_midway)
    assert not first.complete
    assert 300 <= first.ledger.answered < 1000
    encoded = setting.encoded
    second = setting.run()
    assert (second.complete, second.skipped, second.ledger.written) == (True, first.ledger.answered, 1000)
    assert setting.encoded - encoded <= 1000 - first.ledger.answered
    assert len(setting.cluster.documents) == 1000


def test_a_run_that_fails_keeps_its_checkpoint(setting: Setting) -> None:
    setting.write_corpus(500)
    denied = Reply(403, error_body(403, "security_exception"))
    # By what it holds, not by when it comes: several requests are under way at once.
    late = [f"d{number}" for number in range(192, 500)]
    setting.cluster.on_bulk = lambda _, actions: denied if any(action.doc_id in late for action in actions) else None
    with pytest.raises(AccessDenied):
        setting.run()
    setting.cluster.on_bulk = lambda _n, _actions: None
    report = setting.run()
    assert report.skipped == 192
    assert (report.ledger.read, report.ledger.answered, len(setting.cluster.documents)) == (500, 500, 500)


@pytest.mark.case("I13")
def test_a_checkpoint_of_another_recipe_is_refused_unless_asked_to_begin_anew(setting: Setting) -> None:
    setting.write_corpus(500)
    stopped = threading.Event()
    setting.run(stopped=stopped, on_progress=lambda _: stopped.set())
    with pytest.raises(CheckpointUnusable, match="belongs to another models"):
        setting.run(settings=IngestSettings(max_query_tokens=5))
    assert setting.run(settings=IngestSettings(max_query_tokens=5), from_start=True).complete


@pytest.mark.case("I30")
def test_documents_that_a_pipeline_dropped_are_counted_apart(setting: Setting) -> None:
    setting.write_corpus(100)
    dropped = {"status": 200, "result": "noop"}
    setting.cluster.on_item = lambda action, _: dropped if action.doc_id.endswith("0") else None
    report = setting.run()
    assert (report.ledger.dropped_by_pipeline, report.ledger.written, report.exit_code) == (10, 90, 3)


@pytest.mark.case("I36")
def test_an_empty_source_is_complete(setting: Setting) -> None:
    setting.corpus.write_bytes(b"")
    report = setting.run()
    assert (report.complete, report.ledger.read, report.exit_code) == (True, 0, 0)


@pytest.mark.case("I34")
def test_reading_waits_for_a_slow_cluster(setting: Setting) -> None:
    setting.write_corpus(3000)

    def slow(_: int, __: object) -> None:
        time.sleep(0.02)

    setting.cluster.on_bulk = slow
    ahead: list[int] = []
    settings = IngestSettings(bulk_documents=100)
    setting.run(settings=settings, on_progress=lambda progress: ahead.append(progress.read - progress.answered))
    # Six queued batches, one in the hands of each stage and four requests in flight, of 64 or fewer, and
    # what is read of the next hundred.
    assert max(ahead) <= 14 * 64 + 100


def test_progress_counts_each_stage(setting: Setting) -> None:
    setting.write_corpus(200)
    seen: list[Progress] = []
    setting.run(on_progress=seen.append)
    assert seen[-1].answered == seen[-1].embedded == seen[-1].expanded == seen[-1].read == 200
    assert [progress.answered for progress in seen] == sorted(progress.answered for progress in seen)


def test_the_index_knows_which_generator_its_documents_were_made_with(setting: Setting) -> None:
    def noted() -> Any:
        return setting.cluster.mapping["_meta"]["neural_bridge"]["generator"]

    setting.write_corpus(3)
    setting.run(toy_models(with_generator=False))
    assert noted() is None
    assert setting.run().ledger.written == 3
    assert noted()["name"] == "toy-generator"


def test_models_may_lack_a_generator(setting: Setting) -> None:
    setting.write_corpus(3)
    setting.run(toy_models(with_generator=False))
    assert "predicted_queries" not in setting.stored("d0")["_neural"]
    assert isinstance(setting.models.generator, EchoGenerator)
    assert setting.models.generator.passages == 0


@pytest.mark.case("I18")
def test_where_an_id_must_not_come_twice_the_first_one_stays_and_the_others_are_dead_letters(setting: Setting) -> None:
    setting.write_corpus(600)
    again = b'{"_id": "d3", "title": "again", "text": "another"}\n'
    setting.corpus.write_bytes(setting.corpus.read_bytes().rstrip() + b"\n" + again * 2)
    report = setting.run(settings=IngestSettings(on_duplicate="error"))
    assert (report.ledger.written, report.ledger.dead_lettered, report.exit_code) == (600, 2, 3)
    assert setting.stored("d3")["title"] != "again"
