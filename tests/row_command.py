"""`neural-bridge ingest --sql` as a process: what tests of every kind of database share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.settings import IngestSettings
from ingest.stages.models import planned_profile
from tests.fake_bulk import FakeCluster
from tests.toys import make_toy_encoder


class RowCommand:
    """The command, whose rows have the columns `id`, `words` and `changed`."""

    def __init__(self, cluster_url: str, index: str, folder: Path, address: str) -> None:
        self.address = address
        self.state = folder / "state"
        self.encoder = folder / "encoder"
        self.encoder.mkdir()
        make_toy_encoder(self.encoder)
        self.arguments = [
            *(sys.executable, "-m", "bridge.cli", "ingest", index, "--cluster", cluster_url, "--json"),
            *("--encoder", str(self.encoder), "--no-expansion", "--threads", "1", "--state-folder", str(self.state)),
            *("--sql", "SELECT * FROM item", "--id-field", "id", "--text-template", "{words}"),
        ]

    def start(self, *more: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "BRIDGE_INGEST_DATABASE": self.address}
        arguments = [*self.arguments, *more]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *more: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        with self.start(*more) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def finish(self, *more: str) -> dict[str, Any]:
        """The report of a run that ends well."""
        code, out, err = self.run(*more)
        assert code == 0, err
        report: dict[str, Any] = json.loads(out)
        return report

    def kill_when(self, reached: Callable[[], bool], *more: str) -> None:
        """Starts the command and kills it in the middle, as soon as `reached` says so."""
        with self.start(*more) as process:
            self.wait(process, reached)
            process.kill()

    def wait(self, process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> None:
        """Waits for what happens while the process runs."""
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.01)


class FakeRowCommand(RowCommand):
    """The command on a fake cluster, which can be slow."""

    def __init__(
        self, cluster: FakeCluster, folder: Path, address: str, text_fields: Sequence[str] = ("text",)
    ) -> None:
        super().__init__(cluster.url, "things", folder, address)
        self.cluster = cluster
        profile = planned_profile(IngestSettings(encoder=str(self.encoder), generator=None), text_fields)
        cluster.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}

    def slow(self, seconds: float) -> None:
        """Makes every bulk request take so long."""

        def wait(_: int, __: object) -> None:
            time.sleep(seconds)

        self.cluster.on_bulk = wait

    def bulks(self, n: int = 1) -> Callable[[], bool]:
        """Whether so many more bulk requests have come since now."""
        wanted = len(self.cluster.bulk_requests()) + n
        return lambda: len(self.cluster.bulk_requests()) >= wanted

    def written(self) -> dict[str, str]:
        """The texts in the index, by id."""
        return {doc_id: json.loads(body)["words"] for doc_id, body in self.cluster.documents.items()}
