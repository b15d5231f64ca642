"""The sidecar as a process of its own, with the models that come with the program."""

import asyncio
import os
import random
import re
import resource
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, TCPConnector

from bridge.models.artifact import BUILTIN, builtin_names
from tests.rerank_server.process import START_TIMEOUT_S, Process, listening, started, until_logged
from tests.toys import WORDS, make_slow_cross_encoder, make_toy_cross_encoder, make_toy_encoder

pytestmark = pytest.mark.skipif(
    not {"rerank-base", "embed-base"} <= set(builtin_names()), reason="the built-in weights are not in this checkout"
)

N_REQUESTS = int(os.environ.get("BRIDGE_TEST_SIDECAR_REQUESTS", "200"))
"""Requests of random lengths that memory must not grow with; 10,000 take a quarter of an hour."""


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with listening(tmp_path_factory.mktemp("sidecar") / "log", threads=2) as running:
        yield running


async def _scores(session: ClientSession, url: str, query: str, texts: list[str]) -> list[float]:
    """Logits in input order."""
    async with session.post(f"{url}/rerank", json={"query": query, "texts": texts, "raw_scores": True}) as response:
        assert response.status == 200
        hits = await response.json()
    return [hit["score"] for hit in sorted(hits, key=lambda hit: hit["index"])]


async def test_the_answer_is_ranked_first(sidecar: Process) -> None:
    texts = [
        "An experimental study of a wing in a propeller slipstream was made.",
        "sorted(iterable, key=None): return a new sorted list from the items in iterable.",
        "Send a signal to a process.",
    ]
    async with ClientSession() as session:
        scores = await _scores(session, sidecar.url, "how do I sort a list by several keys", texts)
    assert max(range(3), key=scores.__getitem__) == 1


@pytest.mark.case("R22")
async def test_a_pair_scores_alike_alone_and_in_company(sidecar: Process) -> None:
    chosen = random.Random(7)
    texts = [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 150))) for _ in range(64)]
    async with ClientSession() as session:
        together = await _scores(session, sidecar.url, "red dress", texts)
        alone = [(await _scores(session, sidecar.url, "red dress", [text]))[0] for text in texts[::8]]
    assert alone == pytest.approx(together[::8], abs=1e-4)


@pytest.mark.slow
@pytest.mark.case("R12")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
async def test_memory_does_not_grow_with_the_variety_of_lengths(sidecar: Process) -> None:
    url = sidecar.url
    chosen = random.Random(11)

    async def ask(session: ClientSession, n_requests: int) -> int:
        for _ in range(n_requests):
            texts = [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 300))) for _ in range(2)]
            await _scores(session, url, " ".join(chosen.choices(WORDS, k=chosen.randint(1, 20))), texts)
        return _resident_kb(sidecar.popen.pid)

    async with ClientSession() as session:
        await _scores(session, url, "red " * 300, ["red " * 400] * 8)
        after_warm_up = await ask(session, 100)
        at_the_end = await ask(session, N_REQUESTS)
    assert at_the_end < after_warm_up * 1.1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
async def test_the_built_in_models_fit_beside_a_cluster(sidecar: Process) -> None:
    """300 MB with both rerankers and the encoder loaded, after work for each of them."""
    texts = [" ".join(WORDS * 8)] * 30
    async with ClientSession() as session:
        for path, body in (
            ("/rerank", {"query": "red dress", "texts": texts, "cascade_depth": 10}),
            ("/embed", {"inputs": texts}),
        ):
            async with session.post(f"{sidecar.url}{path}", json=body) as response:
                assert response.status == 200
    assert _resident_kb(sidecar.popen.pid) < 300_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's time from /proc")
async def test_an_idle_sidecar_costs_nothing(sidecar: Process) -> None:
    """No thread spins while it waits: a hundredth of a processor is left for timers."""
    before_s = _processor_s(sidecar.popen.pid)
    await asyncio.sleep(3)
    assert _processor_s(sidecar.popen.pid) - before_s < 0.03


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _toys(folder: Path) -> dict[str, object]:
    """Settings that name toy models, the cross-encoder a slow one."""
    return {
        "rerank_model": make_slow_cross_encoder(folder / "slow").path,
        "encoder": make_toy_encoder(folder / "encoder").path,
        "cascade_model": "",
        "threads": 1,
    }


@pytest.mark.case("R18")
async def test_sigterm_lets_accepted_requests_finish(tmp_path: Path) -> None:
    with listening(tmp_path / "log", **_toys(tmp_path)) as process:
        async with ClientSession() as session:
            requests = [asyncio.create_task(_scores(session, process.url, "cat", ["cat"] * 15)) for _ in range(4)]
            await _until_queued(session, process.url, 60)
            process.popen.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*requests)
        assert [len(scores) for scores in answers] == [15] * 4
        assert await asyncio.to_thread(process.popen.wait, 30) == 0


@pytest.mark.case("R18")
async def test_sigterm_under_load_loses_no_accepted_request(tmp_path: Path) -> None:
    """Whatever the sidecar began to answer is answered, to clients that never stop asking."""
    with listening(tmp_path / "log", **_toys(tmp_path)) as process:
        answered: list[int] = []
        under_load = asyncio.Event()

        async def ask_until_refused(session: ClientSession) -> None:
            body = {"query": "cat", "texts": ["cat"] * 3}
            try:
                while True:
                    async with session.post(f"{process.url}/rerank", json=body) as response:
                        await response.read()
                        answered.append(response.status)
                        if len(answered) == 20:
                            under_load.set()
            except ClientConnectionError:
                return  # the sidecar listens no more, or stopped before it took this connection

        # A connection each: one kept alive might be closed just when the next request is sent through it.
        connector = TCPConnector(force_close=True)
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=60)) as session:
            clients = [asyncio.create_task(ask_until_refused(session)) for _ in range(8)]
            await under_load.wait()
            process.popen.send_signal(signal.SIGTERM)
            await asyncio.gather(*clients)
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
    logged = re.findall(r'"route": "/rerank", "status": (\d+)', process.log.read_text())
    assert answered == [200] * len(logged)
    assert set(logged) == {"200"}


async def test_new_models_are_taken_without_a_request_being_lost(tmp_path: Path) -> None:
    settings = _toys(tmp_path)
    with listening(tmp_path / "log", **settings) as process:
        async with ClientSession() as session:
            before = await _model(session, process.url)
            begun = asyncio.create_task(_scores(session, process.url, "fish", ["fish"] * 30))
            await _until_queued(session, process.url, 30)
            make_toy_cross_encoder(Path(str(settings["rerank_model"])), ["cat"], name="newer")
            process.popen.send_signal(signal.SIGHUP)
            await asyncio.to_thread(until_logged, process.popen, process.log, '"event": "reloaded"')
            assert await _scores(session, process.url, "cat fish", ["fish", "cat"]) == [0.0, 1.0]
            assert await begun == [1.0] * 30
            assert (await _model(session, process.url)).startswith("newer@") != before.startswith("newer@")


async def test_models_that_cannot_be_loaded_change_nothing(tmp_path: Path) -> None:
    settings = _toys(tmp_path)
    with listening(tmp_path / "log", **settings) as process:
        async with ClientSession() as session:
            (Path(str(settings["rerank_model"])) / "model.onnx").write_bytes(b"")
            process.popen.send_signal(signal.SIGHUP)
            found = await asyncio.to_thread(until_logged, process.popen, process.log, ".*not reloaded.*")
            assert "is empty" in found[0]
            assert await _scores(session, process.url, "cat", ["cat", "dog"]) == [1.0, 0.0]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of loopback; its key is `key.pem` beside it."""
    file = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", file], check=True, capture_output=True)
    return file


async def test_with_a_certificate_it_speaks_tls_only(tmp_path: Path, certificate: Path) -> None:
    tls = {"tls_certificate_file": certificate, "tls_key_file": certificate.with_name("key.pem")}
    with listening(tmp_path / "log", **_toys(tmp_path), **tls) as process:
        trusted = TCPConnector(ssl=ssl.create_default_context(cafile=certificate))
        async with ClientSession(connector=trusted) as session:
            assert await _scores(session, process.url, "cat", ["cat"]) == [1.0]
            with pytest.raises(ClientConnectionError):
                await _scores(session, process.url.replace("https", "http"), "cat", ["cat"])


def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_text("no certificate")
    with started(tmp_path / "log", **_toys(tmp_path), tls_certificate_file=tmp_path / "certificate.pem") as process:
        assert process.wait(START_TIMEOUT_S) == 2
    assert "sidecar.tls_certificate_file" in (tmp_path / "log").read_text()


def test_a_provider_that_is_not_here_ends_the_start(tmp_path: Path) -> None:
    with started(tmp_path / "log", **_toys(tmp_path), providers='["CUDAExecutionProvider9"]') as process:
        assert process.wait(START_TIMEOUT_S) == 2
    assert "sidecar.providers: there is no CUDAExecutionProvider9 here, but " in (tmp_path / "log").read_text()


async def _model(session: ClientSession, url: str) -> str:
    async with session.get(f"{url}/info") as response:
        return str((await response.json())["model_id"])


def _spent_by_children_s() -> float:
    """Processor time: the clock tells more of what else the machine does."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _resident_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def _until_queued(session: ClientSession, url: str, pairs: int) -> None:
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/metrics") as response:
                found = re.search(r"^bridge_rerank_queue_size (\S+)$", await response.text(), re.MULTILINE)
            if found and float(found[1]) >= pairs:
                return
            await asyncio.sleep(0.01)


@pytest.mark.case("R13")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "is missing"),
        ("lfs", "is a git-lfs pointer"),
        ("truncated", "is truncated or no ONNX model"),
        ("no_folder", "neither a folder"),
    ],
)
def test_a_model_that_cannot_be_used_ends_the_start(tmp_path: Path, damage: str, reason: str) -> None:
    folder = tmp_path / "model"
    if damage != "no_folder":
        shutil.copytree(BUILTIN / "rerank-base", folder)
    file = folder / "model.onnx"
    if damage == "missing":
        file.unlink()
    elif damage == "lfs":
        file.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    spent_before_s = _spent_by_children_s()
    with started(tmp_path / "log", rerank_model=folder) as process:
        assert process.wait(START_TIMEOUT_S) == 1
    assert _spent_by_children_s() - spent_before_s < 10
    errors = (tmp_path / "log").read_text()
    assert reason in errors
    assert str(folder) in errors
    assert "Traceback" not in errors
