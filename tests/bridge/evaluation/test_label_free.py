"""Questions that are predicted from documents lead back to them, and are none that the index holds already."""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations

import msgspec
import pytest
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.label_free import CAVEAT, predict_questions
from bridge.models.artifact import ModelFolder
from bridge.profile import IndexProfile, ModelReference
from bridge.settings import ClusterSettings, IngestSettings
from tests.fake_bulk import FakeCluster, Reply, fake_cluster
from tests.toys import WORDS, make_toy_query_generator

PAIRS = list(combinations(WORDS[:6], 2))
DOCUMENTS = {f"d{n}": {"title": " ".join(pair), "body": f"{pair[0]} {pair[1]} cat"} for n, pair in enumerate(PAIRS)}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    pytest.importorskip("ctranslate2")
    return make_toy_query_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        yield running


def profile_by(generator: ModelReference | None) -> IndexProfile:
    return IndexProfile(
        text_fields=["title", "body"], encoder=ModelReference("e", "0" * 12), generator=generator, dimension=2
    )


def predicted(
    client: OpenSearch, index: str, generator: ModelFolder, n_questions: int, *, beside: str | None = None
) -> JudgedQueries:
    made_by = ModelReference("toy-query-generator", generator.digest)
    profile = msgspec.structs.replace(profile_by(made_by), beside=beside)
    settings = IngestSettings(generator=str(generator.path))
    return predict_questions(client, index, profile, settings, n_questions=n_questions)


def predicted_from(documents: Mapping[str, object], cluster: FakeCluster, generator: ModelFolder) -> JudgedQueries:
    hits = [{"_id": doc_id, "_source": source} for doc_id, source in documents.items()]
    cluster.on_request = lambda _: Reply(body=json.dumps({"hits": {"hits": hits}}).encode())
    with connect(ClusterSettings(url=cluster.url)) as client:
        return predicted(client, "products", generator, 10)


def check_questions(judged: JudgedQueries) -> None:
    """Up to ten, each in words of its document, and none that the index holds for it."""
    assert 1 <= len(judged.queries) <= 10
    for query_id, question in judged.queries.items():
        [(doc_id, grade)] = judged.qrels[query_id].items()
        assert grade == 1
        assert set(question.split()) <= set(DOCUMENTS[doc_id]["body"].split())
        assert question != DOCUMENTS[doc_id]["title"]


def test_questions_are_of_random_documents_and_the_same_each_time(
    generator: ModelFolder, opensearch: OpenSearch, fresh_index: str
) -> None:
    fields = {"predicted_queries": {"type": "text"}, "stamp": {"type": "keyword"}}
    opensearch.indices.create(index=fresh_index, body={"mappings": {"properties": {"_neural": {"properties": fields}}}})
    lines: list[Mapping[str, object]] = [{"index": {"_id": "without a stamp"}}, {"title": "dog", "body": "dog"}]
    for doc_id, document in DOCUMENTS.items():
        enriched = {"predicted_queries": [document["title"]], "stamp": "s"}
        lines += [{"index": {"_id": doc_id}}, {**document, "_neural": enriched}]
    assert not opensearch.bulk(index=fresh_index, body=lines, refresh=True)["errors"]

    judged = predicted(opensearch, fresh_index, generator, 10)
    check_questions(judged)
    assert judged.remarks == [CAVEAT]
    assert predicted(opensearch, fresh_index, generator, 10) == judged

    ours: list[Mapping[str, object]] = [
        {name: value for name, value in line.items() if name not in ("title", "body")} for line in lines
    ]
    companion = f"ours-{fresh_index}"
    opensearch.bulk(index=companion, body=ours, refresh=True)
    try:
        # A companion holds no texts: they are read where they are.
        check_questions(predicted(opensearch, companion, generator, 10, beside=fresh_index))
    finally:
        opensearch.indices.delete(index=companion)


def test_a_question_that_the_index_holds_for_its_document_is_not_asked(
    cluster: FakeCluster, generator: ModelFolder
) -> None:
    documents = dict(list(DOCUMENTS.items())[:3])
    asked = predicted_from(documents, cluster, generator)
    assert asked.queries
    known = {
        doc_id: {**document, "_neural": {"predicted_queries": asked.queries.get(f"q-{doc_id}", "")}}
        for doc_id, document in documents.items()
    }
    known["other"] = {"title": "horse sheep"}
    for query_id, question in predicted_from(known, cluster, generator).queries.items():
        assert question != asked.queries.get(query_id)


def test_no_question_is_asked_twice(cluster: FakeCluster, generator: ModelFolder) -> None:
    alike = {f"d{n}": {"title": "wing pressure"} for n in range(3)}
    questions = list(predicted_from(alike, cluster, generator).queries.values())
    assert len(questions) == len(set(questions)) >= 1


def test_documents_without_text_give_no_question(cluster: FakeCluster, generator: ModelFolder) -> None:
    with pytest.raises(UsageError, match="index products: none of its documents gives a question"):
        predicted_from({"d1": {"title": ""}, "d2": {}}, cluster, generator)


def test_an_index_without_a_generator_is_refused_before_anything_is_asked(cluster: FakeCluster) -> None:
    with (
        connect(ClusterSettings(url=cluster.url)) as client,
        pytest.raises(UsageError, match="index products was enriched without predicted queries"),
    ):
        predict_questions(client, "products", profile_by(None), IngestSettings(), n_questions=1)
    assert cluster.requests == []
