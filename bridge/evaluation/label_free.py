"""Label-free questions: each is predicted anew from a document, which is its only right answer.

A known-item test (Azzopardi, de Rijke, Balog 2007, "Building simulated queries for known-item topics"). It favours the
generator's own words: the same model wrote the expansions, so stages that use them look better here than to people. The
figures show which of two stages is better, but not by how much.
"""

from collections.abc import Sequence

from opensearchpy import OpenSearch

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.models.artifact import resolve_identity
from bridge.models.query_generator import QueryGenerator
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from bridge.text import enriched_text, field_texts, value_at

_SEED = 20_001
"""Differs from ingest's, which would predict the queries that the index holds."""

_QUERIES_PER_DOCUMENT = 3
_QUERY_TOKENS = 20
_BEGINNING_CHARS = 1_500
"""The generator reads no more of a text."""

_BATCH = 16

CAVEAT = (
    "label-free: the questions were predicted by the model that also wrote the expansions, so they favour its words; "
    "trust the order of stages rather than the size of a difference, and expansion least"
)


def predict_questions(
    client: OpenSearch, index: str, profile: IndexProfile, settings: IngestSettings, *, n_questions: int
) -> JudgedQueries:
    """Up to `n_questions` questions, each with one relevant document; the same for the same index. `index` is the one
    that holds `profile`.

    `settings` locate a generator that is not built in. A question that the index already holds for its document is not
    used.

    Raises:
        UsageError: the index names no generator, or none of its documents gives a question.
        ModelError: the generator is not available.
    """
    if profile.generator is None:
        raise UsageError(f"index {index} was enriched without predicted queries: --label-free needs their generator")
    folder = resolve_identity(profile.generator.identity, settings.generator or "", setting="ingest.generator")
    generator = QueryGenerator.load(folder)
    documents = _sample(client, index, profile, n_questions)
    questions: dict[str, str] = {}
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        predicted = generator.generate(
            [text[:_BEGINNING_CHARS] for _, text, _ in batch],
            n_queries=_QUERIES_PER_DOCUMENT,
            max_new_tokens=_QUERY_TOKENS,
            seed=_SEED,
        )
        for (doc_id, _, known), queries in zip(batch, predicted, strict=True):
            held_out = next((query for query in queries if query and query not in known), None)
            if held_out is not None and held_out not in questions.values():
                questions[doc_id] = held_out
    if not questions:
        raise UsageError(f"index {index}: none of its documents gives a question of its own for --label-free")
    return JudgedQueries(
        source=f"label-free, {len(questions):,} predicted questions",
        queries={f"q-{doc_id}": question for doc_id, question in questions.items()},
        qrels={f"q-{doc_id}": {doc_id: 1} for doc_id in questions},
        remarks=[CAVEAT],
    )


def _sample(
    client: OpenSearch, index: str, profile: IndexProfile, n_documents: int
) -> Sequence[tuple[str, str, frozenset[object]]]:
    """doc_id, text and predicted queries of random documents, the same ones each time."""
    fields = profile.text_fields
    by_chance = {"random_score": {"seed": _SEED, "field": "_seq_no"}, "boost_mode": "replace"}
    answer = client.search(
        index=index,
        body={
            "size": n_documents,
            "query": {"function_score": {"query": {"exists": {"field": profile.stamp_field}}, **by_chance}},
            "_source": {"includes": [*fields, profile.predicted_queries_field]},
        },
    )
    hits = answer["hits"]["hits"]
    texts = {hit["_id"]: hit["_source"] for hit in hits}
    if profile.beside is not None:
        # A companion holds no texts.
        query = {"size": n_documents, "query": {"ids": {"values": list(texts)}}, "_source": {"includes": fields}}
        theirs = client.search(index=profile.beside, body=query)["hits"]["hits"]
        texts = {hit["_id"]: hit["_source"] for hit in theirs}
    sampled = []
    for hit in hits:
        text = enriched_text(field_texts(texts.get(hit["_id"], {}), fields))
        if text:
            known = value_at(hit["_source"], profile.predicted_queries_field) or []
            sampled.append((hit["_id"], text, frozenset(known if isinstance(known, list) else [known])))
    return sampled
