"""The sidecar as a process of its own, with the models that come with the program."""

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession

from bridge.models.artifact import BUILTIN, builtin_names
from tests.toys import WORDS, make_slow_cross_encoder, make_toy_encoder

pytestmark = pytest.mark.skipif(
    not {"rerank-base", "embed-base"} <= set(builtin_names()), reason="the built-in weights are not in this checkout"
)

START_TIMEOUT_S = 30.0


@contextmanager
def _process(log: Path, **settings: object) -> Iterator["subprocess.Popen[bytes]"]:
    """The sidecar on a free port, its stderr in `log`: a pipe that nobody reads would fill up and stop it."""
    environment = {f"BRIDGE_SIDECAR__{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "rerank_server"],
            env={**os.environ, "BRIDGE_SIDECAR__PORT": "0", **environment},
            stderr=errors,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _sidecar(log: Path, **settings: object) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A sidecar that listens, and its address."""
    with _process(log, **settings) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (found := re.search(r'"port": (\d+)', log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, f"http://127.0.0.1:{found[1]}"


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    with _sidecar(tmp_path_factory.mktemp("sidecar") / "log", threads=2) as running:
        yield running


async def _scores(session: ClientSession, url: str, query: str, texts: list[str]) -> list[float]:
    """Logits in input order."""
    async with session.post(f"{url}/rerank", json={"query": query, "texts": texts, "raw_scores": True}) as response:
        assert response.status == 200
        hits = await response.json()
    return [hit["score"] for hit in sorted(hits, key=lambda hit: hit["index"])]


async def test_the_answer_is_ranked_first(sidecar: tuple["subprocess.Popen[bytes]", str]) -> None:
    texts = [
        "An experimental study of a wing in a propeller slipstream was made.",
        "sorted(iterable, key=None): return a new sorted list from the items in iterable.",
        "Send a signal to a process.",
    ]
    async with ClientSession() as session:
        scores = await _scores(session, sidecar[1], "how do I sort a list by several keys", texts)
    assert max(range(3), key=scores.__getitem__) == 1


@pytest.mark.case("R22")
async def test_a_pair_scores_alike_alone_and_in_company(sidecar: tuple["subprocess.Popen[bytes]", str]) -> None:
    chosen = random.Random(7)
    texts = [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 150))) for _ in range(64)]
    async with ClientSession() as session:
        together = await _scores(session, sidecar[1], "red dress", texts)
        alone = [(await _scores(session, sidecar[1], "red dress", [text]))[0] for text in texts[::8]]
    assert alone == pytest.approx(together[::8], abs=1e-4)


@pytest.mark.slow
@pytest.mark.case("R12")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
async def test_memory_does_not_grow_with_the_variety_of_lengths(sidecar: tuple["subprocess.Popen[bytes]", str]) -> None:
    process, url = sidecar
    chosen = random.Random(11)

    async def ask(session: ClientSession, n_requests: int) -> int:
        for _ in range(n_requests):
            texts = [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 300))) for _ in range(2)]
            await _scores(session, url, " ".join(chosen.choices(WORDS, k=chosen.randint(1, 20))), texts)
        return _resident_kb(process.pid)

    async with ClientSession() as session:
        await _scores(session, url, "red " * 300, ["red " * 400] * 8)
        after_warm_up = await ask(session, 100)
        at_the_end = await ask(session, 200)
    assert at_the_end < after_warm_up * 1.1


@pytest.mark.case("R18")
async def test_sigterm_lets_accepted_requests_finish(tmp_path: Path) -> None:
    models = {
        "rerank_model": make_slow_cross_encoder(tmp_path / "slow").path,
        "encoder": make_toy_encoder(tmp_path / "encoder").path,
    }
    with _sidecar(tmp_path / "log", **models, threads=1) as (process, url):
        async with ClientSession() as session:
            requests = [asyncio.create_task(_scores(session, url, "cat", ["cat"] * 15)) for _ in range(4)]
            await _until_queued(session, url, 60)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*requests)
        assert [len(scores) for scores in answers] == [15] * 4
        assert await asyncio.to_thread(process.wait, 15) == 0


def _resident_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def _until_queued(session: ClientSession, url: str, pairs: int) -> None:
    async with asyncio.timeout(20):
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
    started = time.monotonic()
    with _process(tmp_path / "log", rerank_model=folder) as process:
        assert process.wait(START_TIMEOUT_S) == 1
    assert time.monotonic() - started < 10
    errors = (tmp_path / "log").read_text()
    assert reason in errors
    assert str(folder) in errors
    assert "Traceback" not in errors
