"""An index that is enriched beside gives tuning the hits, texts and passages that the same index gives in place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import pytest

from bridge.cluster.connection import connect
from bridge.errors import AnswerNotUnderstood
from bridge.evaluation.tuning.answers import ClusterAndSidecar, EncodedQuery
from bridge.evaluation.tuning.beside import CompanionAndSidecar, proxy_searches
from bridge.model_servers.client import SidecarClient
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, companion_of
from bridge.records import Terms
from bridge.search import legs
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest, words_request
from bridge.settings import ClusterSettings, Settings
from tests.proxy_stack import NESTED, PREFIX, proxy_stack
from tests.servers import client, unused_index_name
from tests.toys import WORDS

pytestmark = [pytest.mark.slow, pytest.mark.node]

DOCUMENTS = {
    f"d{n}": (
        {
            "title": WORDS[n % len(WORDS)],
            "body": f"{WORDS[n * 3 % len(WORDS)]} wing in a flow of red heat. {WORDS[n * 7 % len(WORDS)]} on a plate",
        },
        [f"{WORDS[n * 5 % len(WORDS)]} {WORDS[(n + 1) % len(WORDS)]}"],
    )
    for n in range(40)
}
REQUEST = words_request(f"{WORDS[3]} wing", ["title", "body"], size=10)


@dataclass
class Way:
    """One of the two ways, and the profile of its index."""

    source: ClusterAndSidecar
    profile: IndexProfile


def bodies(request: SearchRequest, profile: IndexProfile, embedding: list[float], terms: Terms) -> Mapping[str, Json]:
    return {
        "lexical": legs.lexical(request, profile),
        "expansion": legs.expansion(request, profile),
        "vector": legs.vector(request, profile, embedding),
        "sparse": legs.sparse(request, profile, terms),
    }


@pytest.fixture(scope="module")
def ways(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Way, Way]]:
    """The documents enriched in place and beside, with passages."""
    names = unused_index_name(), unused_index_name()
    settings = Settings(cluster=ClusterSettings(url=node.url))
    with (
        proxy_stack(settings.cluster, tmp_path_factory.mktemp("models")) as stack,
        connect(settings.cluster) as cluster,
        SidecarClient(stack.sidecar_url) as sidecar,
        proxy_searches(settings) as searches,
        client(node.url) as direct,
    ):
        for fill, name in zip((stack.fill, stack.fill_beside), names, strict=True):
            fill(direct, name, DOCUMENTS, passages=NESTED, window=20, sparse=stack.sparse())
        profile = stack.profile(
            passages=NESTED,
            window=20,
            vector_encoding="byte",
            expanded_fields=["title", "body"],
            sparse=stack.sparse(),
        )
        beside = msgspec.structs.replace(profile, beside=names[1])
        yield (
            Way(ClusterAndSidecar(cluster, sidecar, names[0], profile, {}), profile),
            Way(CompanionAndSidecar(cluster, sidecar, names[1], beside, {}, REQUEST, searches), beside),
        )
        direct.indices.delete(index=f"{names[0]},{names[1]},{companion_of(names[1], PREFIX)}")


@pytest.mark.parametrize("boost", [0.25, 4.0])
def test_every_leg_finds_the_same_with_the_same_scores_whatever_the_boost(ways: tuple[Way, Way], boost: float) -> None:
    found = []
    for way in ways:
        profile = msgspec.structs.replace(way.profile, expansion_boost=boost)
        embedding = way.source.embed(REQUEST.text)
        terms = way.source.weigh(REQUEST.text)
        assert embedding is not None
        assert terms
        hits_of = way.source.search(
            bodies(REQUEST, profile, list(embedding), terms), profile, EncodedQuery(embedding, terms)
        )
        found.append({leg: {hit.doc_id: hit.score for hit in hits} for leg, hits in hits_of.items()})
    in_place, beside = found
    assert set(beside) == {"lexical", "expansion", "vector", "sparse"}
    for leg, scores in in_place.items():
        assert len(scores) > 5
        # Of equal scores at the end of the window, any may be cut off.
        assert sorted(beside[leg].values()) == pytest.approx(sorted(scores.values()))
        last = min(scores.values()) * 1.0001
        assert {each for each, score in beside[leg].items() if score > last} == {
            each for each, score in scores.items() if score > last
        }


def test_the_same_passages_are_read(ways: tuple[Way, Way]) -> None:
    read = []
    for way in ways:
        keys = [(way.source.index, f"d{n}") for n in range(10)]
        passages = way.source.read(keys, way.source.embed(REQUEST.text), passages=2)
        read.append({doc_id: each for (_, doc_id), each in passages.items()})
    assert read[1] == read[0]
    assert len(read[0]) == 10
    assert {len(each) for each in read[0].values()} == {2}


def test_a_companion_that_is_gone_ends_the_tuning(ways: tuple[Way, Way]) -> None:
    way = ways[1]
    elsewhere = msgspec.structs.replace(way.profile, beside="of-nothing")
    embedding = way.source.embed(REQUEST.text)
    assert embedding is not None
    with pytest.raises(AnswerNotUnderstood, match="_leg_failed: "):
        way.source.search(bodies(REQUEST, elsewhere, list(embedding), {}), elsewhere, EncodedQuery(embedding))
