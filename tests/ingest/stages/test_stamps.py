"""Stamps show which documents need work: those that are new, changed, or made in another way."""

from collections.abc import Iterator

import msgspec
import pytest
from msgspec.structs import replace

from bridge.cluster.connection import connect
from bridge.errors import AnswerNotUnderstood
from bridge.profile import ImageSettings, ModelReference, PassageSettings, SparseSettings
from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings, IngestSettings
from bridge.text import digest_in_stamp, text_digest
from ingest.stages.models import profile_for
from ingest.stages.stamps import (
    ChangeFilter,
    is_current,
    origin_of,
    recipe,
    recipe_of,
    stale,
    stamp,
    stamp_within,
    text_stamp,
)
from tests.fake_bulk import FakeCluster, Reply, fake_cluster
from tests.ingest.toys import toy_models

PROFILE = profile_for(toy_models(), ["title"])
SETTINGS = IngestSettings()
RECIPE = recipe(PROFILE, SETTINGS)


def document(doc_id: str, title: str, body: bytes = b"{}") -> Document:
    return Document(doc_id, body, {"title": title}, SourcePosition("corpus", 1))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("profile", "settings"),
    [
        pytest.param({"encoder": ModelReference("other", "2" * 12)}, {}, id="encoder"),
        pytest.param({"generator": None}, {}, id="no-queries"),
        pytest.param({"vector_type": "none"}, {}, id="no-vectors"),
        pytest.param({"sparse": SparseSettings(ModelReference("sparse", "4" * 12))}, {}, id="terms"),
        pytest.param({"image": ImageSettings("photo", ModelReference("clip", "6" * 12), 8)}, {}, id="pictures"),
        pytest.param({"passages": PassageSettings(max_tokens=17)}, {}, id="passages"),
        pytest.param({"text_fields": ["title", "text"]}, {}, id="text-fields"),
        pytest.param({}, {"queries_per_passage": 2}, id="number-of-queries"),
        pytest.param({}, {"new_terms_only": True}, id="new-terms-only"),
    ],
)
def test_whatever_changes_our_fields_changes_the_recipe(
    profile: dict[str, object], settings: dict[str, object]
) -> None:
    other = recipe(msgspec.structs.replace(PROFILE, **profile), SETTINGS.model_copy(update=settings))
    assert other != RECIPE


def test_the_number_of_terms_changes_the_recipe_and_the_weights_of_queries_do_not() -> None:
    sparse = SparseSettings(ModelReference("sparse", "4" * 12))
    made = [
        recipe(msgspec.structs.replace(PROFILE, sparse=each), SETTINGS)
        for each in (sparse, replace(sparse, top_terms=64), replace(sparse, queries="model"))
    ]
    assert (made[0] == made[1], made[0] == made[2]) == (False, True)


def test_another_picture_makes_a_document_stale_and_its_texts_are_told_apart() -> None:
    without = document("a", "x")
    one, other = (msgspec.structs.replace(without, image=image) for image in ("one.png", "other.png"))
    for each in (without, one, other):
        for made in (text_stamp(RECIPE, each), stamp(RECIPE, each)):
            assert [is_current(made, RECIPE, now) for now in (without, one, other)] == [
                each is now for now in (without, one, other)
            ]
            assert digest_in_stamp(made) == text_digest(each.texts)
            assert recipe_of(made) == RECIPE


def test_what_only_concerns_writing_leaves_the_recipe_as_it_is() -> None:
    assert recipe(PROFILE, SETTINGS.model_copy(update={"bulk_bytes": 1000, "threads": 3})) == RECIPE


def test_both_kinds_of_stamp_hold_while_the_text_does() -> None:
    old, renamed, other_price = document("a", "x"), document("a", "y"), document("a", "x", b'{"price": 2}')
    for made in (text_stamp(RECIPE, old), stamp(RECIPE, old)):
        assert recipe_of(made) == RECIPE
        assert is_current(made, RECIPE, old)
        assert is_current(made, RECIPE, other_price)
        assert not is_current(made, RECIPE, renamed)
        assert not is_current(made, "another recipe", old)
    assert stamp(RECIPE, old) != stamp(RECIPE, other_price)


def test_a_stamp_names_the_source_that_removes_the_document_again() -> None:
    removed = replace(document("1", "a"), origin="0123456789abcdef")
    assert origin_of(stamp(RECIPE, removed)) == removed.origin
    assert stamp(RECIPE, removed).startswith(stamp(RECIPE, document("1", "a")))
    assert is_current(stamp(RECIPE, removed), RECIPE, removed)
    for other in (stamp(RECIPE, document("1", "a")), text_stamp(RECIPE, removed), "", "of somebody else"):
        assert origin_of(other) is None


def test_a_value_of_somebody_else_under_our_name_is_no_stamp() -> None:
    assert stamp_within(b'{"_neural": {"stamp": "r.t"}}', "_neural.stamp") == "r.t"
    for body in (b"{}", b'{"_neural": 5}', b'{"_neural": {"stamp": 7}}', b'{"_neural": {"stamp": null}}'):
        assert stamp_within(body, "_neural.stamp") is None


def test_documents_of_an_index_are_stale_without_a_fitting_stamp() -> None:
    fits = b'{"_neural": {"stamp": "%s"}}' % text_stamp(RECIPE, document("a", "x")).encode()
    documents = [document("fits", "x", fits), document("changed", "y", fits), document("new", "x")]
    assert [each.doc_id for each in stale(documents, PROFILE, RECIPE)] == ["changed", "new"]


def test_a_source_is_compared_with_the_index(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    same, changed = document("same", "x", b'{"price": 1}'), document("changed", "x", b'{"price": 2}')
    for each in (same, document("changed", "x", b'{"price": 1}')):
        cluster.put(each.doc_id, b'{"_neural": {"stamp": "%s"}}' % stamp(RECIPE, each).encode())
    compare = ChangeFilter(client, "things", PROFILE, RECIPE)
    assert [each.doc_id for each in compare.changed([same, changed, document("new", "x")])] == ["changed", "new"]
    assert compare.changed([]) == []


def test_a_companion_is_current_while_the_texts_are_that_it_was_made_of(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    read = [document(name, "x", b'{"price": 2}') for name in ("priced", "retitled", "new")]
    for each in read[:-1]:
        made_of = text_stamp(RECIPE, document(each.doc_id, "y" if each.doc_id == "retitled" else "x"))
        cluster.put(each.doc_id, msgspec.json.encode({"_neural": {"stamp": made_of}}))
    compare = ChangeFilter(client, "things", replace(PROFILE, beside="shop"), RECIPE)
    assert compare.changed(read) == read[1:]


def test_an_answer_about_other_documents_is_not_believed(cluster: FakeCluster) -> None:
    client = connect(ClusterSettings(url=cluster.url))
    compare = ChangeFilter(client, "things", PROFILE, RECIPE)
    other = b'{"docs": [{"_id": "other", "found": false}]}'
    cluster.on_request = lambda request: Reply(200, other) if request.path.endswith("_mget") else None
    with pytest.raises(AnswerNotUnderstood, match="other documents than were requested"):
        compare.changed([document("a", "x")])
