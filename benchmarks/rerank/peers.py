"""Other rerankers, in an environment and a process of their own, timed one run at a time."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "peer_models.py"
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class Peers:
    """The process of the peers, and the names of those that loaded."""

    def __init__(self, process: "subprocess.Popen[str]", task: dict[str, Any]) -> None:
        self._process = process
        self.names: list[str] = self._asked(task)["engines"]

    def run(self, name: str) -> float:
        """Seconds that `name` takes for all passages."""
        return float(self._asked({"run": name})["seconds"])

    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """The scores that the peers' model gives, in float32 by torch."""
        return list(map(float, self._asked({"query": query, "passages": passages})["scores"]))

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the peers were started without pipes")
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise ConnectionError(f"the peers' process ended with code {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def peers(task: dict[str, Any]) -> Iterator[Peers | None]:
    """The peers, loaded; None, with a line that says why, where they cannot run."""
    if not PYTHON.is_file():
        sys.stderr.write(f"no peers beside us: there is no {PYTHON.relative_to(ROOT)} (scripts/environment peers)\n")
        yield None
        return
    with TemporaryDirectory() as work:
        process = subprocess.Popen(
            [PYTHON, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        try:
            yield _loaded(process, {**task, "work": work})
        finally:
            process.kill()
            process.wait()


def _loaded(process: "subprocess.Popen[str]", task: dict[str, Any]) -> Peers | None:
    try:
        return Peers(process, task)
    except (ConnectionError, BrokenPipeError) as error:
        sys.stderr.write(f"no peers beside us: {error}\n")
        return None
