"""An application that writes to an index while commands of the bridge run, and knows what the index must hold."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opensearchpy import OpenSearch

from tests.toys import WORDS

MAPPING: dict[str, Any] = {
    "title": {"type": "text"},
    "text": {"type": "text", "analyzer": "english"},
    "stock": {"type": "long"},
}
TEXT_FIELDS = ("title", "text")
RETRIES = 50
"""Of an update beside another writer; the cluster merges again."""


@dataclass
class Written:
    """A document as the application last wrote it; `whole` if it wrote all of it then, rather than some fields."""

    body: dict[str, Any]
    version: int
    whole: bool


class Application:
    """Changes documents by chance, one operation after another, from one thread.

    Attributes:
        documents: what the index must hold of the application's, by id.
        last_seq_no: the sequence number of its last operation.
        strangers: operations of others that stood between its own, by sequence numbers.
    """

    def __init__(
        self,
        client: OpenSearch,
        index: str,
        chance: random.Random,
        *,
        external: bool = False,
        updates: bool = True,
        prefix: str = "d",
        pause_s: float = 0.01,
    ) -> None:
        self._client, self._index, self._chance = client, index, chance
        self._external, self._updates = external, updates and not external
        self._prefix, self._pause_s = prefix, pause_s
        self._next_version = 10**9
        self.documents: dict[str, Written] = {}
        self.last_seq_no = -1
        self.strangers = 0
        self.operations = 0

    def create(self, n_documents: int, *, knn: bool) -> None:
        """Creates the index and fills it."""
        settings = {"index.number_of_replicas": 0, **({"index.knn": True} if knn else {})}
        self._client.indices.create(index=self._index, body={"settings": settings, "mappings": {"properties": MAPPING}})
        self._bulk([self._id(number) for number in range(n_documents)])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Writes on a thread until the block ends.

        Raises:
            RuntimeError: an operation of the application failed.
        """
        over = threading.Event()
        failed: list[Exception] = []

        def write() -> None:
            try:
                while not over.is_set():
                    self.step()
                    time.sleep(self._chance.uniform(0, 2 * self._pause_s))
            except Exception as error:  # noqa: BLE001 it belongs to whoever waits for the thread
                failed.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failed:
            raise RuntimeError(f"the application could not write: {failed[0]}") from failed[0]

    def step(self) -> None:
        """One operation."""
        kinds, weights = ("whole", "update", "delete", "bulk"), (4, 4 if self._updates else 0, 2, 1)
        kind = self._chance.choices(kinds, weights)[0]
        held = sorted(self.documents)
        if kind == "bulk":
            self._bulk([self._chosen(held) for _ in range(5)])
        elif kind == "delete" and held:
            doc_id = self._chance.choice(held)
            self._took(self._client.delete(index=self._index, id=doc_id, params=self._version()))
            del self.documents[doc_id]
        elif kind == "update" and held:
            doc_id = self._chance.choice(held)
            changed: dict[str, Any] = {"stock": self._chance.randrange(10**6)}
            if self._chance.random() < 0.5:
                changed |= {"text": self._words(12)}
            params = {"retry_on_conflict": RETRIES}
            answer = self._client.update(index=self._index, id=doc_id, body={"doc": changed}, params=params)
            self._took(answer)
            before = self.documents[doc_id]
            self.documents[doc_id] = Written({**before.body, **changed}, answer["_version"], whole=False)
        else:
            doc_id, body = self._chosen(held), self._body()
            answer = self._client.index(index=self._index, id=doc_id, body=body, params=self._version())
            self._took(answer)
            self.documents[doc_id] = Written(body, answer["_version"], whole=True)

    def _bulk(self, doc_ids: list[str]) -> None:
        made = {doc_id: self._body() for doc_id in doc_ids}
        lines: list[dict[str, Any]] = []
        for doc_id, body in made.items():
            lines += [{"index": {"_id": doc_id, **self._version()}}, body]
        for item in self._client.bulk(index=self._index, body=lines)["items"]:
            answer = item["index"]
            if "error" in answer:
                raise RuntimeError(str(answer["error"]))
            self._took(answer)
            self.documents[answer["_id"]] = Written(made[answer["_id"]], answer["_version"], whole=True)

    def _took(self, answer: dict[str, Any]) -> None:
        if answer["result"] == "noop":
            return
        self.operations += 1
        self.strangers += answer["_seq_no"] - self.last_seq_no - 1
        self.last_seq_no = answer["_seq_no"]

    def _version(self) -> dict[str, Any]:
        if not self._external:
            return {}
        self._next_version += self._chance.randrange(1, 1000)
        return {"version": self._next_version, "version_type": "external"}

    def _chosen(self, held: list[str]) -> str:
        return self._chance.choice(held) if held and self._chance.random() < 0.6 else self._id(self.operations + 1000)

    def _id(self, number: int) -> str:
        # Any bytes may stand in an id.
        return f"{self._prefix}{number}" + ("/ü %" if number % 7 == 0 else "")

    def _body(self) -> dict[str, Any]:
        return {"title": self._words(3), "text": self._words(12), "stock": self._chance.randrange(10**6)}

    def _words(self, count: int) -> str:
        return " ".join(self._chance.choices(WORDS, k=count))
