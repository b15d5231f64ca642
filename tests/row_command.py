"""`neural-bridge ingest --sql` as a process on a fake cluster: what tests of every kind of database share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
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

    def __init__(
        self, cluster: FakeCluster, folder: Path, address: str, text_fields: Sequence[str] = ("text",)
    ) -> None:
        self.cluster = cluster
        self.address = address
        encoder = folder / "encoder"
        encoder.mkdir()
        make_toy_encoder(encoder)
        self.arguments = [
            *(sys.executable, "-m", "bridge.cli", "ingest", "things", "--cluster", cluster.url, "--json"),
            *("--encoder", str(encoder), "--no-expansion", "--threads", "1", "--state-folder", str(folder / "state")),
            *("--sql", "SELECT * FROM item", "--id-field", "id", "--text-template", "{words}"),
        ]
        profile = planned_profile(IngestSettings(encoder=str(encoder), generator=None), text_fields)
        cluster.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}

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

    def slow(self, seconds: float) -> None:
        """Makes every bulk request take so long."""

        def wait(_: int, __: object) -> None:
            time.sleep(seconds)

        self.cluster.on_bulk = wait

    def wait_for_bulks(self, process: "subprocess.Popen[str]", n: int = 1) -> None:
        """Waits until so many more bulk requests have come."""
        wanted = len(self.cluster.bulk_requests()) + n
        deadline = time.monotonic() + 300
        while len(self.cluster.bulk_requests()) < wanted:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no bulk request came"
            time.sleep(0.01)

    def kill_after_bulks(self, n: int, *more: str) -> None:
        """Starts the command and kills it when so many more bulk requests have come."""
        with self.start(*more) as process:
            self.wait_for_bulks(process, n)
            process.kill()

    def written(self) -> dict[str, str]:
        """The texts in the index, by id."""
        return {doc_id: json.loads(body)["words"] for doc_id, body in self.cluster.documents.items()}
