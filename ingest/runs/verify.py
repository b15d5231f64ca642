"""May a generation serve searches? Whether it is whole, up to date, and its vectors are found."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import dialects
from bridge.cluster import index as indices
from bridge.cluster.generations import Generations
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.records import Document
from ingest.sources.index import IndexDocuments
from ingest.sources.json_bytes import within
from ingest.stages.stamps import ChangeFilter, is_current, recipe_of, stamp_within
from ingest.writing.pace import RetryLimits

_NEIGHBOURS = 10
_SAME_SCORE = 1e-5
"""Neighbours that are equally near may come in any order; scores are float32."""

_Embedding = list[float]


class Verification(msgspec.Struct, frozen=True):
    """What was found of one generation.

    Of `documents`, `enriched` carry its stamp, and `made_alike` of these were made by one recipe. Of
    `sampled` documents, `outdated` have a text that changed since, and `compared` have a vector: of the ten
    nearest neighbours of each by comparison with every vector, `recall` is the mean share that the k-NN search
    finds too; None if none has one. `problems`: why it should not serve searches, one sentence each.
    """

    index: str
    generation: int
    encoder: str
    documents: int
    enriched: int
    made_alike: int
    sampled: int
    outdated: int
    compared: int
    recall: float | None
    problems: list[str]


def verify(
    client: OpenSearch,
    generations: Generations,
    profile: IndexProfile,
    *,
    sample: int = 100,
    compared: int = 20,
    min_recall: float = 0.9,
    max_missing: int = 0,
) -> Verification:
    """Looks at the generation of `profile`; nothing is written.

    `sample` documents are read, and the neighbours of at most `compared` of them searched. `max_missing`
    documents may lack the generation's fields, or hold those of an older text, as some always do where an
    application writes all the time.

    Raises:
        AnswerNotUnderstood: the cluster could not search the whole index.
        ClusterError: it does not answer, or does not let this user read.
    """
    index, holder = generations.index, generations.holder(profile)
    client.indices.refresh(index=holder)
    documents = indices.count(client, index)
    enriched = indices.count_stamped(client, holder, profile)
    sampled = _sample(client, index, profile, sample)
    stamps = _stamps(client, holder, profile, sampled)
    recipes = {recipe_of(stamp) for stamp in stamps if stamp}
    made_alike = max((_count_made_by(client, holder, profile, recipe) for recipe in recipes), default=0)
    vectors = [vector for document in sampled if (vector := _embedding(document, profile))][:compared]
    recalls = [_recall(client, holder, profile, vector) for vector in vectors]
    found = Verification(
        index=index,
        generation=profile.generation,
        encoder=profile.encoder.identity,
        documents=documents,
        enriched=enriched,
        made_alike=made_alike,
        sampled=len(sampled),
        outdated=sum(map(_is_outdated, sampled, stamps)),
        compared=len(recalls),
        recall=sum(recalls) / len(recalls) if recalls else None,
        problems=[],
    )
    # A companion keeps no vector that could be read and compared.
    readable = profile.has_vectors and profile.beside is None
    problems = _problems(found, max_missing, min_recall, vectors=readable)
    return msgspec.structs.replace(found, problems=list(problems))


def _problems(found: Verification, max_missing: int, min_recall: float, *, vectors: bool) -> Iterator[str]:
    if (missing := found.documents - found.enriched) > max_missing:
        yield f"{missing:,} of {found.documents:,} documents lack its fields: fill it again"
    if (otherwise := found.enriched - found.made_alike) > max_missing:
        yield f"{otherwise:,} documents were made with other settings: fill it again"
    if found.sampled and found.outdated / found.sampled * found.documents > max_missing:
        yield (
            f"of {found.sampled:,} sampled documents {found.outdated:,} changed after they were enriched: fill it "
            f"again, or let `neural-bridge follow` keep up"
        )
    if vectors and found.sampled and found.recall is None:
        yield f"of {found.sampled:,} sampled documents none has a vector: have its text fields any text?"
    if found.recall is not None and found.recall < min_recall:
        yield (
            f"the k-NN search finds {found.recall:.0%} of the ten nearest neighbours, {min_recall:.0%} are asked for: "
            f"its graphs may still be built, or need more links"
        )


def _sample(client: OpenSearch, index: str, profile: IndexProfile, size: int) -> list[Document]:
    """Documents of the application's index, with what is made of them if it holds that."""
    texts = profile.text_fields
    source = IndexDocuments(
        client,
        index,
        [*texts, *([] if profile.beside else [profile.stamp_field, profile.embedding_field])],
        text_fields=texts,
        image_field=profile.image_field,
        retry=RetryLimits(),
        stopped=threading.Event(),
    )
    return [item for item in source.sample(size) if isinstance(item, Document)]


def _count_made_by(client: OpenSearch, index: str, profile: IndexProfile, recipe: str) -> int:
    query = {"query": {"prefix": {profile.stamp_field: f"{recipe}."}}}
    return int(client.count(index=index, body=query)["count"])


def _stamps(client: OpenSearch, holder: str, profile: IndexProfile, documents: Sequence[Document]) -> list[str | None]:
    if profile.beside is None:
        return [stamp_within(document.body, profile.stamp_field) for document in documents]
    return ChangeFilter(client, holder, profile, "").stamps(documents)


def _is_outdated(document: Document, stamp: str | None) -> bool:
    """Whether its fields were made from another text than it has now."""
    return stamp is not None and not is_current(stamp, recipe_of(stamp), document)


def _embedding(document: Document, profile: IndexProfile) -> _Embedding | None:
    """A document's embedding, that of its first passage if it has several."""
    if profile.passages.layout == "nested":
        passages = within(document.body, profile.passages_field)
        found = msgspec.json.decode(passages, type=list[dict[str, _Embedding]]) if passages else []
        return found[0]["embedding"] if found else None
    value = within(document.body, profile.embedding_field)
    return msgspec.json.decode(value, type=_Embedding) if value else None


def _recall(client: OpenSearch, index: str, profile: IndexProfile, embedding: Sequence[float]) -> float:
    """The share of the nearest neighbours that the k-NN search finds: those as near as the last true one."""
    exact = dialects.compared(profile, embedding)
    nearest = _search(client, index, exact)
    if not nearest:
        return 1.0
    approximate = dialects.nearest(profile, embedding, k=profile.window, allowed={})
    found = _search(client, index, approximate)
    # Scores of the two searches are of different kinds: those found are scored as the others were.
    restricted = {"bool": {"must": [exact], "filter": [{"ids": {"values": [doc_id for doc_id, _ in found]}}]}}
    last = nearest[-1][1]
    near = [score for _, score in _search(client, index, restricted) if score >= last - _SAME_SCORE]
    return len(near) / len(nearest)


def _search(client: OpenSearch, index: str, query: dict[str, Any]) -> list[tuple[str, float]]:
    body = {"size": _NEIGHBOURS, "query": query, "_source": False, "track_total_hits": False}
    answer = client.search(index=index, body=body)
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise AnswerNotUnderstood(
            f"a search of {index} did not reach every shard: see to the cluster's health, and verify again"
        )
    return [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]
