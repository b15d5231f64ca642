"""`neural-bridge demo` as people run it, on fewer documents: what it prints, and that nothing outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.models.artifact import builtin_names
from bridge.settings import load_settings

NEEDED_MODELS = {"embed-base", "rerank-base", "doc2query-small"}
DOCUMENTS = 150
DEMO = [sys.executable, "-m", "bridge.cli", "demo", "--limit", str(DOCUMENTS)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    pytest.mark.timeout(1300),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.skipif(
        not set(builtin_names()) >= NEEDED_MODELS, reason=f"needs the built-in models {sorted(NEEDED_MODELS)}"
    ),
]


@pytest.fixture(autouse=True)
def _no_stack_is_kept() -> Iterator[None]:
    pytest.importorskip("ir_measures")
    from bridge.demo.stack import is_kept

    if is_kept(load_settings().node):
        pytest.skip("a kept demo runs on this machine: neural-bridge demo --stop")
    yield
    assert not is_kept(load_settings().node)


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=600, check=False)


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if _state(pid) not in ("", "Z")}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_check_ends_with_one_json_line_and_a_second_run_finds_nothing_to_do() -> None:
    first = run_demo("--check")
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert list(summary) == [
        "documents",
        "mrr_bm25",
        "mrr_expansion",
        "mrr_vector",
        "mrr_hybrid",
        "mrr_smoothing",
        "mrr_rerank",
        *(["mrr_cascade"] if "rerank-tiny" in builtin_names() else []),
        "seconds",
    ]
    assert summary["documents"] == DOCUMENTS
    assert all(0 <= value <= 1 for name, value in summary.items() if name.startswith("mrr_"))
    assert "questions as people type them" in first.stderr

    second = run_demo("--check")
    assert second.returncode == 0, second.stderr
    assert "nothing to do" in second.stderr
    assert json.loads(second.stdout)["mrr_rerank"] == pytest.approx(summary["mrr_rerank"], abs=0.02)


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_outlives_a_demo_that_is_interrupted(kind: signal.Signals, code: int, tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    with said.open("wb") as output, subprocess.Popen([*DEMO, "--check"], stdout=output, stderr=output) as demo:
        deadline = time.monotonic() + 500
        while "✓ Start the rerank sidecar" not in said.read_text() and time.monotonic() < deadline:
            assert demo.poll() is None, said.read_text()
            time.sleep(0.2)
        started = descendants(demo.pid)
        assert len(started) >= 4  # guard, Java, sidecar, proxy
        demo.send_signal(kind)
        assert demo.wait(90) == code
    deadline = time.monotonic() + 40
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(started) == set()


def test_kept_stack_answers_until_it_is_stopped() -> None:
    from bridge.demo.stack import is_kept

    kept = run_demo("--check", "--keep")
    try:
        assert kept.returncode == 0, kept.stderr
        assert is_kept(load_settings().node)
        curl = next(line for line in kept.stderr.splitlines() if line.strip().startswith("curl"))
        url = curl.split("'")[1]
        searched = subprocess.run(
            [sys.executable, "-c", f"import urllib.request; print(urllib.request.urlopen({url!r}).status)"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "no_proxy": "*"},
        )
        assert searched.stdout.strip() == "200", searched.stderr
    finally:
        stopped = subprocess.run([*DEMO[:4], "--stop"], capture_output=True, text=True, timeout=120, check=False)
    assert "stopped" in stopped.stdout
    assert not is_kept(load_settings().node)
