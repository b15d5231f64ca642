"""The command as operators run it: a process of its own, killed and stopped at bad moments."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.settings import IngestSettings
from ingest.stages.models import planned_profile
from tests.bridge.commands import products
from tests.fake_bulk import FakeCluster, Recorded, Reply, error_body, fake_cluster, refusal
from tests.toys import make_toy_encoder

pytestmark = pytest.mark.slow

N_DOCUMENTS = 1000


class Command:
    """`neural-bridge ingest` with a toy encoder, on a fake cluster."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster = cluster
        self.corpus = folder / "corpus.jsonl"
        encoder = folder / "encoder"
        encoder.mkdir()
        make_toy_encoder(encoder)
        self.arguments = [
            *(sys.executable, "-m", "bridge.cli", "ingest", "things", str(self.corpus), "--cluster", cluster.url),
            *("--encoder", str(encoder), "--no-expansion", "--threads", "1", "--text-field", "text", "--json"),
            *("--state-folder", str(folder / "state")),
        ]
        profile = planned_profile(IngestSettings(encoder=str(encoder), generator=None), ["text"])
        cluster.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}
        lines = (json.dumps({"_id": f"d{i}", "text": f"wing {i}"}) for i in range(N_DOCUMENTS))
        self.corpus.write_text("\n".join(lines))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(self.arguments, capture_output=True, text=True, timeout=300, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report

    def slow(self, seconds: float) -> None:
        """Makes every bulk request take so long."""

        def wait(_: int, __: object) -> None:
            time.sleep(seconds)

        self.cluster.on_bulk = wait

    def wait_for_bulks(self, more: int) -> None:
        """Waits until so many more bulk requests have come."""
        wanted = len(self.cluster.bulk_requests()) + more
        deadline = time.monotonic() + 300
        while len(self.cluster.bulk_requests()) < wanted:
            assert time.monotonic() < deadline, "no bulk request came"
            time.sleep(0.01)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    with fake_cluster() as cluster:
        yield Command(cluster, tmp_path)


@pytest.mark.case("I9")
@pytest.mark.slow
def test_five_kills_lose_nothing_and_repeat_only_what_was_in_flight(command: Command) -> None:
    command.slow(0.15)
    moments = random.Random(9)
    for _ in range(5):
        process = command.start()
        with process:
            command.wait_for_bulks(1)
            time.sleep(moments.uniform(0, 0.4))
            process.kill()
    command.slow(0)
    code, report = command.finish()
    assert code == 0
    assert sorted(command.cluster.documents) == sorted(f"d{i}" for i in range(N_DOCUMENTS))
    ledger = report["ledger"]
    assert ledger["read"] == ledger["written"] + ledger["unchanged"] == N_DOCUMENTS
    sent = Counter(doc_id for ids in command.cluster.sent_ids() for doc_id in ids)
    in_flight_at_a_kill = 2 * 64
    assert sum(sent.values()) <= N_DOCUMENTS + 5 * in_flight_at_a_kill


@pytest.mark.case("I10")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_command_to_go_on(
    command: Command, sign: signal.Signals, code: int
) -> None:
    command.slow(0.2)
    with command.start() as process:
        command.wait_for_bulks(2)
        process.send_signal(sign)
        out, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "go on with: neural-bridge ingest things" in err
    first = json.loads(out)
    assert not first["complete"]
    command.slow(0)
    finished, second = command.finish()
    assert (finished, second["complete"], second["skipped"]) == (0, True, first["ledger"]["written"])
    assert len(command.cluster.documents) == N_DOCUMENTS


@pytest.mark.case("I32")
def test_no_cluster_is_exit_4_without_a_traceback(command: Command) -> None:
    command.cluster.on_request = lambda _: Reply(401, b"")
    done = subprocess.run(command.arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.case("I36")
def test_a_missing_file_is_exit_2(command: Command) -> None:
    command.corpus.unlink()
    done = subprocess.run(command.arguments, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist" in done.stderr


@pytest.mark.case("I36")
def test_an_empty_pipe_is_no_documents_and_exit_0(command: Command) -> None:
    arguments = ["-" if argument == str(command.corpus) else argument for argument in command.arguments]
    done = subprocess.run(arguments, input="", capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, json.loads(done.stdout)["ledger"]["read"]) == (0, 0)


@pytest.mark.case("I22")
def test_a_dry_run_of_a_table_says_what_a_run_would_do_and_writes_nothing(command: Command) -> None:
    table = command.corpus.with_suffix(".csv")
    table.write_text("sku,words\n1,wing\n2,\n3,one cell, too many\n")
    arguments = [str(table) if argument == str(command.corpus) else argument for argument in command.arguments]
    fields = ["--id-field", "sku", "--rename", "words=text"]
    done = subprocess.run([*arguments, *fields, "--dry-run"], capture_output=True, text=True, timeout=300, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["to_write"], told["without_text"]) == (0, 2, 1)
    assert told["dead_letters"] == {"invalid_row": 1}
    assert command.cluster.bulk_requests() == []


@pytest.mark.case("M4")
def test_a_misspelt_text_field_is_refused_before_the_index_is_made(command: Command) -> None:
    arguments = ["txet" if argument == "text" else argument for argument in command.arguments]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "has no field txet: did you mean text?" in done.stderr
    assert not [request for request in command.cluster.requests if request.method in ("PUT", "POST")]


@pytest.mark.case("M4")
@pytest.mark.parametrize(
    ("options", "name"),
    [(["--id-field", "skuu"], "skuu"), (["--id-field", "sku", "--routing-field", "shopp"], "shopp")],
)
def test_a_misspelt_field_of_ids_or_routing_is_refused_before_the_index_is_made(
    command: Command, options: list[str], name: str
) -> None:
    command.corpus.write_text('{"sku": "1", "shop": "a", "text": "wing"}\n')
    done = subprocess.run([*command.arguments, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert f"has no field {name}: did you mean {name[:-1]}?" in done.stderr
    assert not [request for request in command.cluster.requests if request.method in ("PUT", "POST")]


@pytest.mark.case("M4")
def test_a_misspelt_field_to_drop_is_named_and_the_right_one_is_dropped(command: Command) -> None:
    command.corpus.write_text('{"_id": "1", "text": "wing", "password": "x"}\n')
    options = ["--drop", "pasword", "--drop", "password", "--rename", "Text=title", "--dry-run"]
    done = subprocess.run([*command.arguments, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert [line.partition("has no field ")[2] for line in warned] == [
        "Text: did you mean text?",
        "pasword: did you mean password?",
    ]


@pytest.mark.case("I46")
def test_refused_documents_are_dead_letters_again_and_new_ones_are_written(command: Command) -> None:
    refused = {f"d{i}" for i in range(40)}
    poison = refusal(400, "mapper_parsing_exception", "failed to parse field [text]")
    command.cluster.on_item = lambda action, _: poison if action.doc_id in refused else None
    code, report = command.finish()
    assert (code, report["ledger"]["dead_lettered"], report["ledger"]["written"]) == (3, 40, N_DOCUMENTS - 40)
    with command.corpus.open("a") as file:
        file.writelines(f'\n{{"_id": "new{i}", "text": "tail {i}"}}' for i in range(5))
    code, report = command.finish()
    ledger = report["ledger"]
    assert (code, ledger["dead_lettered"], ledger["written"], ledger["unchanged"]) == (3, 40, 5, N_DOCUMENTS - 40)


@pytest.mark.case("I48")
def test_an_index_that_another_run_made_meanwhile_is_filled_all_the_same(command: Command) -> None:
    """Both find no index; the other one is the first to make it."""
    looks: list[str] = []

    def first_look(request: Recorded) -> Reply | None:
        if request.method == "GET" and request.path.split("?")[0] == "/things":
            looks.append(request.path)
            return Reply(404, error_body(404, "index_not_found_exception")) if len(looks) == 1 else None
        if request.method == "PUT" and request.path.split("?")[0] == "/things":
            return Reply(400, error_body(400, "resource_already_exists_exception"))
        return None

    command.cluster.on_request = first_look
    code, report = command.finish()
    assert (code, report["ledger"]["written"]) == (0, N_DOCUMENTS)


@pytest.mark.case("I48")
def test_a_second_run_says_that_another_one_is_at_it(command: Command) -> None:
    command.slow(0.3)
    with command.start() as first:
        command.wait_for_bulks(1)
        second = subprocess.run(command.arguments, capture_output=True, text=True, timeout=300, check=False)
        assert second.returncode == 2
        assert f"in use by process {first.pid}" in second.stderr
        assert "wait for it" in second.stderr
        command.slow(0)
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert len(command.cluster.documents) == N_DOCUMENTS


@pytest.mark.node
def test_an_index_that_is_enriched_beside_is_left_to_its_application(
    call: products.Call, opensearch: OpenSearch, products_beside: str, companion: str, tmp_path: Path
) -> None:
    (tmp_path / "new.jsonl").write_text('{"_id": "n", "title": "wing"}')
    refused = products.refusal(call("ingest", products_beside, str(tmp_path / "new.jsonl"), "--text-field", "title"))
    assert f"`neural-bridge backfill {products_beside}`" in refused
    assert f"`neural-bridge follow {products_beside}`" in refused
    refused = products.refusal(call("ingest", companion, str(tmp_path / "new.jsonl")))
    assert f"name {products_beside} instead" in refused
    assert opensearch.count(index=f"{products_beside},{companion}")["count"] == 60
