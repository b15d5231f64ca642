"""Documents that come in slowly, as from a program that writes to a pipe."""

import json
import os
import threading
import time
from contextlib import suppress

from opensearchpy import OpenSearch


class Feed:
    """Writes documents to a pipe, some each second, until it is told to end."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.doc_ids: list[str] = []
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        # Whoever reads may end first.
        with suppress(BrokenPipeError), os.fdopen(self._pipe, "wb") as pipe:
            while not self._ended.is_set():
                doc_id = f"d{len(self.doc_ids)}"
                pipe.write(json.dumps({"_id": doc_id, "text": f"wing {doc_id}"}).encode() + b"\n")
                pipe.flush()
                self.doc_ids.append(doc_id)
                time.sleep(0.02)


def wait_until_written(client: OpenSearch, index: str) -> None:
    """Waits until a run has written something: only then what dies is something that dies during it."""
    deadline = time.monotonic() + 300
    while not client.count(index=index)["count"]:
        assert time.monotonic() < deadline, "nothing was written"
        client.indices.refresh(index=index)
        time.sleep(0.2)
