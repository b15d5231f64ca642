"""Queries for the documents of an index, of which no person wrote any: what its models can learn from.

Predicted queries that a cross-encoder believes (Nogueira et al. 2019; Gospodinov et al. 2023), the first of several
text fields as a weak query for the others, and what people clicked or judged where there is any.
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
"""Fewest and most words of a field that may stand for a query: a shorter one names nothing, a longer one is prose."""

_SEED = 30_001
"""Other than those of ingest and of the label-free questions, which must not be learnt."""

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
    """At most `n_queries` predicted queries for each passage, of which `keep` leaves those that it answers; their
    number so far goes to `on_passages`.

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
    """The first field as a query for the passage that the others make, where it is as long as queries are."""
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
    """Each judged query with the documents that are relevant to it; of a long one, the passage that `scorer`
    takes for the answer."""
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
    """The pairs whose queries are none of those that the models are measured with."""
    kept_back = {query.casefold().strip() for query in held_out.queries.values()}
    return [pair for pair in pairs if pair.query.casefold().strip() not in kept_back]


def write_pairs(pairs: Sequence[LabelledPair], file: Path) -> None:
    """One JSON object a line, as `neural-bridge train --data` reads them."""
    lines = ({"query": pair.query, "passage": pair.passage, "title": "", "label": 1} for pair in pairs)
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def _pair(query: str, passage: str, source: str) -> LabelledPair:
    return LabelledPair(query=query, passage=passage, title="", relevant=True, source=source)
