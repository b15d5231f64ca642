"""What a cluster can do, from what it says of itself. Pure: `bridge.cluster.connection` asks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.errors import AnswerNotUnderstood

_KNN = "opensearch-knn"
_FIRST_KNN_QUERY = (8, 12, 0)
"""Elasticsearch's `knn` query, which can stand in a `nested` query, with filters inside."""

_PRETENDED = (7, 10, 2)
"""What OpenSearch says to old clients where `compatibility.override_main_response_version` is set."""

_OLDEST = {"opensearch": (1, 3, 0), "elasticsearch": (7, 10, 0)}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a cluster is, and what follows from it.

    `distribution`: opensearch or elasticsearch. `plugins`: OpenSearch's, None where this user may not list
    them. `serverless`: a service that keeps nodes, shards and points in time to itself.
    """

    distribution: str
    version: tuple[int, int, int]
    plugins: frozenset[str] | None = frozenset()
    serverless: bool = False

    def __str__(self) -> str:
        return f"{self.distribution} {'.'.join(map(str, self.version))}{' serverless' if self.serverless else ''}"

    @property
    def has_knn(self) -> bool:
        """Whether vectors can be searched. OpenSearch whose plugins are not shown is taken for a usual one,
        which has the k-NN plugin."""
        if self.distribution == "elasticsearch":
            return self.serverless or self.version >= _FIRST_KNN_QUERY
        return self.plugins is None or _KNN in self.plugins

    @property
    def vector_engines(self) -> tuple[str, ...]:
        """The libraries that may build graphs of vectors, the preferred one first."""
        if not self.has_knn:
            return ()
        if self.distribution == "elasticsearch":
            return ("built in",)
        return ("lucene", "faiss") if self.version >= (2, 2, 0) else ("faiss",)

    @property
    def is_supported(self) -> bool:
        """Whether the version is one that the bridge is written for."""
        oldest = _OLDEST.get(self.distribution)
        return self.serverless or (oldest is not None and self.version >= oldest)


def read_capabilities(info: object, plugins: object) -> Capabilities:
    """From the answers to `GET /` and `GET /_cat/plugins?format=json`; `plugins` None where it was refused.

    Raises:
        AnswerNotUnderstood: `info` is neither OpenSearch's nor Elasticsearch's.
    """
    version = info.get("version") if isinstance(info, Mapping) else None
    number = _number(version.get("number")) if isinstance(version, Mapping) else None
    if number is None or not isinstance(version, Mapping):
        raise AnswerNotUnderstood(
            "the address answers, but not as OpenSearch or Elasticsearch do: check cluster.url and any "
            "gateway on the way"
        )
    distribution = str(version.get("distribution", "elasticsearch"))
    entries = [entry for entry in plugins if isinstance(entry, Mapping)] if isinstance(plugins, list) else []
    if distribution == "opensearch" and number == _PRETENDED:
        # Plugins carry the version of the OpenSearch that they are for.
        number = next(filter(None, (_number(entry.get("version")) for entry in entries)), _OLDEST[distribution])
    return Capabilities(
        distribution=distribution,
        version=number,
        plugins=None if plugins is None else frozenset(str(entry.get("component")) for entry in entries),
        serverless=version.get("build_flavor") == "serverless",
    )


def _number(version: object) -> tuple[int, int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(version))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
