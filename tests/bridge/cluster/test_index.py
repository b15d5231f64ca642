"""Indices as the cluster describes them, and what is refused before anything is written."""

import json
from typing import Any

import msgspec
import pytest

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import IndexUnsuitable
from bridge.profile import META_KEY, ImageSettings, IndexProfile, ModelReference, SparseSettings
from bridge.settings import ClusterSettings
from tests.fake_bulk import FakeCluster, Recorded, Reply, fake_cluster

PROFILE = IndexProfile(["title"], ModelReference("toy", "0" * 12), 4)
OTHER = IndexProfile(["body"], ModelReference("other", "1" * 12), 4)


def answering(cluster: FakeCluster, index: dict[str, Any]) -> list[Recorded]:
    """Lets the cluster hold one index, and returns the writes that come."""
    writes: list[Recorded] = []

    def answer(request: Recorded) -> Reply:
        if request.method == "GET" and request.path.startswith("/shop"):
            return Reply(200, json.dumps({"shop-1": index}).encode())
        if request.method == "GET" and request.path.startswith("/missing"):
            return Reply(404, b'{"error": {"type": "index_not_found_exception"}, "status": 404}')
        if request.path in ("/", "/_cat/plugins"):
            version = {"distribution": "opensearch", "number": "3.6.0"}
            plugins = [{"component": "opensearch-knn", "version": "3.6.0"}]
            return Reply(200, json.dumps({"version": version} if request.path == "/" else plugins).encode())
        if request.method == "PUT":
            writes.append(request)
        return Reply(404 if "_update" in request.path else 200, b"{}")

    cluster.on_request = answer
    return writes


def enriched(**settings: Any) -> dict[str, Any]:
    mapping = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
    return {"mappings": mapping, "settings": {"index": {"knn": "true", "uuid": "u1", **settings}}}


def test_an_alias_leads_to_its_index_and_a_missing_one_to_the_remedy() -> None:
    with fake_cluster() as cluster:
        answering(cluster, enriched())
        with connect(ClusterSettings(url=cluster.url)) as client:
            state = indices.look(client, "shop")
            assert (state.name, indices.identity(state)) == ("shop-1", "shop-1 (u1)")
            assert state.profile is not None
            assert state.generation(1) == state.profile
            assert state.generation(2) is None
            assert indices.find(client, "missing") is None
            with pytest.raises(IndexUnsuitable, match="neural-bridge index create missing"):
                indices.look(client, "missing")


def test_an_index_of_other_models_or_under_a_block_is_refused_before_any_write() -> None:
    with fake_cluster() as cluster, connect(ClusterSettings(url=cluster.url)) as client:
        writes = answering(cluster, enriched())
        assert indices.check(client, "shop", PROFILE).name == "shop-1"
        with pytest.raises(IndexUnsuitable, match=r"(?s)encoder toy@0+, this run other@1+.*text fields"):
            indices.check(client, "shop", OTHER)
        writes = answering(cluster, enriched(blocks={"write": "true"}))
        with pytest.raises(IndexUnsuitable, match=r"index\.blocks\.write is true"):
            indices.check(client, "shop", PROFILE)
        assert writes == []


def test_a_profile_is_written_only_if_it_changed() -> None:
    with fake_cluster() as cluster:
        writes = answering(cluster, enriched())
        with connect(ClusterSettings(url=cluster.url)) as client:
            indices.put_profile(client, "shop", lambda profile: profile)
            assert writes == []
            changed = indices.put_profile(client, "shop", lambda _: OTHER)
    assert changed == OTHER
    assert json.loads(writes[0].body)["_meta"][META_KEY]["encoder"]["name"] == "other"


def test_an_index_whose_documents_have_no_codes_goes_on_without() -> None:
    older = enriched()
    del older["mappings"]["properties"]["_neural"]["properties"]["code"]
    older["mappings"]["_meta"][META_KEY]["codes"] = "none"
    with fake_cluster() as cluster, connect(ClusterSettings(url=cluster.url)) as client:
        writes = answering(cluster, older)
        new = msgspec.structs.replace(PROFILE, codes="sign")
        for state in (indices.check(client, "shop", new), indices.extend(client, "shop", new)):
            assert indices.as_kept(new, state).codes == "none"
        assert writes == []


SPARSE = SparseSettings(ModelReference("sparse", "4" * 12))
OTHER_SPARSE = SparseSettings(ModelReference("other", "5" * 12))


@pytest.mark.parametrize(
    ("kept", "wanted", "beside", "says"),
    [
        pytest.param(None, SPARSE, None, [], id="added-in-place"),
        pytest.param(SPARSE, SPARSE, None, [], id="the-same"),
        pytest.param(SPARSE, None, None, ["sparse@444444444444, this run none"], id="left-out"),
        pytest.param(SPARSE, OTHER_SPARSE, None, ["sparse@444444444444, this run other@555555555555"], id="another"),
        pytest.param(None, SPARSE, "shop", ["none, this run sparse@444444444444"], id="added-beside"),
        pytest.param(None, None, "shop", [], id="beside-without"),
    ],
)
def test_terms_of_two_sparse_encoders_are_not_mixed(
    kept: SparseSettings | None, wanted: SparseSettings | None, beside: str | None, says: list[str]
) -> None:
    profile = msgspec.structs.replace(PROFILE, sparse=kept, beside=beside)
    state = indices.IndexState("shop", {}, {}, profile)
    found = indices.contradictions(state, msgspec.structs.replace(profile, sparse=wanted))
    assert found == [f"its profile says sparse encoder {each}: searches would mix the two" for each in says]


def test_an_index_keeps_the_field_type_of_its_terms() -> None:
    """A cluster may have learnt another one since."""
    kept = msgspec.structs.replace(PROFILE, sparse=SPARSE)
    state = indices.IndexState("shop", {}, {}, kept)
    newer = msgspec.structs.replace(SPARSE, terms_type="sparse_vector", top_terms=64)
    made = indices.as_kept(msgspec.structs.replace(PROFILE, sparse=newer), state).sparse
    assert made == msgspec.structs.replace(SPARSE, top_terms=64)


IMAGE = ImageSettings("photo", ModelReference("clip", "6" * 12), 8)
OTHER_IMAGE = ImageSettings("picture", ModelReference("clip", "7" * 12), 8)


@pytest.mark.parametrize(
    ("kept", "wanted", "beside", "says"),
    [
        pytest.param(None, IMAGE, None, [], id="added-in-place"),
        pytest.param(IMAGE, IMAGE, None, [], id="the-same"),
        pytest.param(
            IMAGE,
            None,
            None,
            ["image field photo, this run none", "image encoder clip@666666666666, this run none"],
            id="left-out",
        ),
        pytest.param(
            IMAGE,
            OTHER_IMAGE,
            None,
            ["image field photo, this run picture", "image encoder clip@666666666666, this run clip@777777777777"],
            id="another",
        ),
        pytest.param(
            None,
            IMAGE,
            "shop",
            ["image field none, this run photo", "image encoder none, this run clip@666666666666"],
            id="added-beside",
        ),
    ],
)
def test_pictures_of_two_encoders_are_not_mixed(
    kept: ImageSettings | None, wanted: ImageSettings | None, beside: str | None, says: list[str]
) -> None:
    profile = msgspec.structs.replace(PROFILE, image=kept, beside=beside)
    state = indices.IndexState("shop", {}, {}, profile)
    found = indices.contradictions(state, msgspec.structs.replace(profile, image=wanted))
    assert found == [f"its profile says {each}: searches would mix the two" for each in says]
