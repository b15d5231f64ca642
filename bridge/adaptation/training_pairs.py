"""Training pairs from the documents of an index without human queries.

Sources: predicted queries that pass the cross-encoder's filter (Nogueira et al. 2019; Gospodinov et al. 2023), the
first of several text fields as a weak query for the others, and clicks or judgements if there are any.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from bridge.adaptation.index_texts import IndexedText
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.models.protocols import QueryGenerator, Scorer
from bridge.text import enriched_text
from bridge.training.data import LabelledPair
from ingest.stages.expansion import Keep

TITLE_WORDS = (3, 20)
"""Lowest and highest number of words of a field used as a query: shorter fields name nothing, longer ones are prose."""

_SEED = 30_001
"""Differs from those of ingest and of the label-free questions, which must not be learnt."""

_QUERY_TOKENS = 20
_BATCH = 16


def predicted_pairs(
    documents: Sequence[IndexedText],
    generator: QueryGenerator,
    keep: Keep,
    *,
    n_queries: int,
    source: str,
    on_passages: Callable[[int], object],
) -> list[LabelledPair]:
    """At most `n_queries` predicted queries per passage, filtered by `keep`. Calls `on_passages` with the number of
    passages so far.

    Raises:
        ModelError: a model failed.
    """
    passages = [passage for document in documents for passage in document.passages]
    pairs: list[LabelledPair] = []
    for start in range(0, len(passages), _BATCH):
        batch = passages[start : start + _BATCH]
        predicted = generator.generate(batch, n_queries=n_queries, max_new_tokens=_QUERY_TOKENS, seed=_SEED + start)
        for passage, queries in zip(batch, keep(batch, predicted), strict=True):
            pairs += [_pair(query, passage, source) for query in queries]
        on_passages(start + len(batch))
    return pairs


def title_pairs(documents: Sequence[IndexedText], *, source: str) -> list[LabelledPair]:
    """The first field as a query for the passage of the other fields, if it has the length of a query."""
    pairs = []
    fewest, most = TITLE_WORDS
    for document in documents:
        title, *others = document.fields
        body = enriched_text({str(number): field for number, field in enumerate(others)})
        if body and fewest <= len(title.split()) <= most:
            pairs.append(_pair(title.strip(), body, source))
    return pairs


def judged_pairs(
    judged: JudgedQueries, documents: Mapping[str, IndexedText], scorer: Scorer, *, source: str
) -> list[LabelledPair]:
    """Each judged query with its relevant documents; of a long document the passage that `scorer` ranks first."""
    pairs = []
    for query_id, grades in judged.qrels.items():
        query = judged.queries[query_id]
        for doc_id, grade in grades.items():
            if grade > 0 and doc_id in documents:
                passages = documents[doc_id].passages
                best = int(scorer.score(query, passages).argmax()) if len(passages) > 1 else 0
                pairs.append(_pair(query, passages[best], source))
    return pairs


def without_queries(pairs: Sequence[LabelledPair], held_out: JudgedQueries) -> list[LabelledPair]:
    """The pairs without the held-out queries."""
    held_out_texts = {query.casefold().strip() for query in held_out.queries.values()}
    return [pair for pair in pairs if pair.query.casefold().strip() not in held_out_texts]


def write_pairs(pairs: Sequence[LabelledPair], file: Path) -> None:
    """Writes one JSON object per line, as `neural-bridge train --data` reads them."""
    lines = ({"query": pair.query, "passage": pair.passage, "title": "", "label": 1} for pair in pairs)
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def _pair(query: str, passage: str, source: str) -> LabelledPair:
    return LabelledPair(query=query, passage=passage, title="", relevant=True, source=source)
