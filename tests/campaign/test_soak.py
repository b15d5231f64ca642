"""A soak in its short form, and what counts as a failed search."""

import json
import random
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.campaign.soak import AROUND_S, Outcome, Traffic

SHORT = ("sidecar_lies", "poisoned_connections", "disk_full", "rolling_restart")


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_search_fails_while_faults_come_and_go(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaign", "soak", "--seed", "1", "--minutes", "0.5", "--rate", "10"]
    for fault in SHORT:
        command += ["--fault", fault]

    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--json"], capture_output=True, text=True, timeout=800, check=False
    )

    summary = json.loads(done.stdout)
    # Memory and descriptors grow for longer than this takes.
    found = {kind: count for kind, count in summary["findings"].items() if not kind.endswith("grows")}
    assert found == {}, (tmp_path / "soak.jsonl").read_text("utf-8")
    assert summary["searches"] > 30
    assert summary["faults"]


async def test_a_search_failed_if_the_node_answered_all_around_it() -> None:
    async with aiohttp.ClientSession() as http:
        traffic = Traffic(http, "", "", random.Random(1))
    failed = Outcome(10.0, 11.0, ok=False, what="status 502")
    traffic.proxied = [Outcome(1.0, 2.0, ok=True, total=3), failed]
    traffic.direct = [Outcome(1.0, 2.0, ok=True, total=3), Outcome(10.0, 10.1, ok=True, total=3)]
    assert (traffic.harmed(), traffic.differing()) == ([failed], 0)

    traffic.direct.append(Outcome(9.0, 10.0 - AROUND_S / 2, ok=False))
    traffic.direct[0] = Outcome(1.0, 2.0, ok=True, total=4)
    traffic.proxied.append(Outcome(9.0, 9.5, ok=True))
    assert (traffic.harmed(), traffic.differing()) == ([], 1)
