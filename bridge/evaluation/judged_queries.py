"""Queries with relevance judgements, the basis of every measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bridge.errors import UsageError
from bridge.profile import Measurement


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """Queries with judgements.

    `source`: where they come from, in words. `queries`: text by query_id. `qrels`: grade by query_id and doc_id; grades
    of 0 and below mean not relevant. `own_documents`: queries that are documents of the corpus under the same id; a
    query's own document does not count as a hit. `remarks`: warnings for the operator.
    """

    source: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    own_documents: frozenset[str] = frozenset()
    remarks: Sequence[str] = ()

    @classmethod
    def joined(cls, source: str, queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]) -> "JudgedQueries":
        """The queries that have judgements, in the order of `queries`; queries and judgements without a counterpart are
        left out.

        Raises:
            UsageError: no query has judgements.
        """
        judged = {query_id: text for query_id, text in queries.items() if query_id in qrels}
        if not judged:
            raise UsageError(
                f"{source}: none of its {len(queries):,} queries is among the {len(qrels):,} that are judged: do both "
                f"files belong together?"
            )
        remarks = []
        if unknown := [query_id for query_id in qrels if query_id not in queries]:
            remarks.append(f"{len(unknown):,} judged queries have no text and are left out, first {unknown[0]}")
        return cls(source, judged, {query_id: qrels[query_id] for query_id in judged}, remarks=remarks)

    def measurement(self, measure: str) -> Measurement:
        """The record of a measurement with these queries, dated now."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Measurement(self.source, len(self.queries), measure, now)

    def spread(self, n_queries: int | None) -> "JudgedQueries":
        """`n_queries` of the queries at even distances; all of them if there are no more, or for None."""
        query_ids = list(self.queries)
        if n_queries is None or n_queries >= len(query_ids):
            return self
        chosen = [query_ids[n * len(query_ids) // n_queries] for n in range(n_queries)]
        return replace(
            self,
            queries={query_id: self.queries[query_id] for query_id in chosen},
            qrels={query_id: self.qrels[query_id] for query_id in chosen},
        )
