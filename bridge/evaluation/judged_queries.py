"""Queries with relevance judgements, the basis of every measurement."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bridge.errors import UsageError
from bridge.profile import Measurement

FEWEST_QUERIES = 20
"""With fewer, no figure tells a gain from chance: the gate decides nothing and tuning refuses."""


HIGHEST_GRADE = 1_000
"""Measures count by grades: scales of people and of clicks end far below."""


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
        """The queries that have judgements and words, in the order of `queries`; queries and judgements without a
        counterpart are left out.

        Raises:
            UsageError: no query has judgements and words.
        """
        judged = {query_id: text for query_id, text in queries.items() if query_id in qrels}
        if not judged:
            raise UsageError(
                f"{source}: none of its {len(queries):,} queries is among the {len(qrels):,} that are judged: do both "
                f"files belong together?"
            )
        if strange := next((each for each in judged if "\0" in each or "\0" in "".join(qrels[each])), None):
            raise UsageError(f"{source}: query {strange!r} or a document judged for it has a NUL character in its id")
        remarks = []
        if unknown := [query_id for query_id in qrels if query_id not in queries]:
            remarks.append(f"{len(unknown):,} judged queries have no text and are left out, first {unknown[0]}")
        if empty := [query_id for query_id, text in judged.items() if not text.strip()]:
            if len(empty) == len(judged):
                raise UsageError(f"{source}: none of its {len(judged):,} judged queries has words")
            remarks.append(f"{len(empty):,} judged queries have no words and are left out, first {empty[0]}")
            judged = {query_id: text for query_id, text in judged.items() if text.strip()}
        return cls(source, judged, {query_id: qrels[query_id] for query_id in judged}, remarks=remarks)

    def of_index(self, index: str, present: Collection[str]) -> "JudgedQueries":
        """The queries that can measure `index`, which holds the documents `present`: those with a relevant one there.

        Any ranking scores 0 on the others, so they would only hide differences; the remarks count what is left out.

        Raises:
            UsageError: the index holds no judged document, or no relevant one.
        """
        doc_ids = dict.fromkeys(doc_id for grades in self.qrels.values() for doc_id in grades)
        n_present = sum(doc_id in present for doc_id in doc_ids)
        if not n_present:
            example = f" (the first is {next(iter(doc_ids))!r})" if doc_ids else ""
            raise UsageError(
                f"{self.source}: 0 of {len(doc_ids):,} judged documents are in {index}: are these its _id?{example}"
            )
        answerable = [
            query_id
            for query_id in self.queries
            if any(grade > 0 and doc_id in present for doc_id, grade in self.qrels[query_id].items())
        ]
        if not answerable:
            raise UsageError(
                f"{self.source}: none of {len(self.queries):,} judged queries has a relevant document in {index}, so "
                f"every ranking would score 0: judge documents of this index, with a rating above 0 if relevant"
            )
        remarks = list(self.remarks)
        if n_present < len(doc_ids):
            remarks.append(f"{n_present:,} of {len(doc_ids):,} judged documents are in {index}")
        if left_out := len(self.queries) - len(answerable):
            remarks.append(f"{left_out:,} queries have no relevant document in {index} and are left out")
        return replace(self._restricted(answerable), remarks=tuple(remarks))

    def measurement(self, measure: str) -> Measurement:
        """The record of a measurement with these queries, dated now."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Measurement(self.source, len(self.queries), measure, now)

    def spread(self, n_queries: int | None) -> "JudgedQueries":
        """`n_queries` of the queries at even distances; all of them if there are no more, or for None."""
        query_ids = list(self.queries)
        if n_queries is None or n_queries >= len(query_ids):
            return self
        return self._restricted([query_ids[n * len(query_ids) // n_queries] for n in range(n_queries)])

    def _restricted(self, query_ids: Sequence[str]) -> "JudgedQueries":
        return replace(
            self,
            queries={query_id: self.queries[query_id] for query_id in query_ids},
            qrels={query_id: self.qrels[query_id] for query_id in query_ids},
        )
