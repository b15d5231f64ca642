"""A document gets its vectors first and its queries afterwards; what is made already is not made again."""

import json

import msgspec
import pytest

from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile, ModelReference
from bridge.records import Document, SourcePosition
from bridge.settings import IngestSettings
from ingest.follow.fields import Fields, FollowedFields, followed_profile, steps
from ingest.stages.models import profile_for
from ingest.stages.stamps import recipe, stamp_within, text_stamp
from tests.ingest.toys import models_with_terms, toy_models

PROFILE = profile_for(toy_models(), ["title"])
SETTINGS = IngestSettings()
WHOLE = recipe(PROFILE, SETTINGS)
VECTORS = recipe(msgspec.structs.replace(PROFILE, generator=None), SETTINGS)


def document(name: str, made_by: str | None, stamped_title: str = "a title") -> Document:
    texts = {"title": "a title"}
    as_stamped = Document(name, b"{}", {"title": stamped_title}, SourcePosition("things", 0))
    body = {**texts, **({"_neural": {"stamp": text_stamp(made_by, as_stamped)}} if made_by else {})}
    return Document(name, json.dumps(body).encode(), texts, SourcePosition("things", 0))


DOCUMENTS = [document("new", None), document("with vectors", VECTORS), document("with all", WHOLE)]
DOCUMENTS.append(document("changed since", WHOLE, "another title"))


@pytest.mark.parametrize(
    ("fields", "needy"),
    [
        pytest.param("all", ["new", "with vectors", "changed since"], id="all"),
        pytest.param("vectors", ["new", "changed since"], id="vectors"),
        pytest.param("predicted_queries", ["with vectors"], id="predicted-queries"),
    ],
)
def test_each_step_takes_the_documents_that_lack_its_fields(fields: Fields, needy: list[str]) -> None:
    made = FollowedFields.of(fields, PROFILE, SETTINGS)
    stamps = [stamp_within(each.body, PROFILE.stamp_field) for each in DOCUMENTS]
    assert [each.doc_id for each in made.needed(DOCUMENTS, stamps)] == needy


def test_after_both_steps_a_document_has_the_stamp_that_one_step_would_give() -> None:
    at_once, first, second = (FollowedFields.of(each, PROFILE, SETTINGS) for each in ("all", *steps(PROFILE)))
    assert first.recipe != second.recipe == at_once.recipe
    assert (first.profile.generator, second.profile.vector_type) == (None, "none")


def test_terms_are_made_with_the_vectors_and_stay_when_queries_are_added() -> None:
    profile = profile_for(models_with_terms(), ["title"])
    first, second = (FollowedFields.of(each, profile, SETTINGS) for each in steps(profile))
    assert (first.profile.has_terms, second.profile.has_terms) == (True, False)
    assert second.recipe == recipe(profile, SETTINGS)
    without_vectors = msgspec.structs.replace(profile, vector_type="none")
    assert steps(without_vectors) == ["vectors", "predicted_queries"]


def test_a_companion_s_document_is_written_whole_in_both_steps() -> None:
    profile = msgspec.structs.replace(PROFILE, beside="things")
    second = FollowedFields.of("predicted_queries", profile, SETTINGS)
    assert (second.profile, second.recipe) == (profile, WHOLE)


@pytest.mark.parametrize("change", [{"generator": None}, {"vector_type": "none"}])
def test_one_kind_of_field_is_one_step(change: dict[str, str | None]) -> None:
    assert steps(msgspec.structs.replace(PROFILE, **change)) == ["all"]


def state(profile: IndexProfile | None) -> IndexState:
    return IndexState("things", {}, {}, profile)


def test_the_generation_that_is_followed_is_made_by_these_models() -> None:
    older = msgspec.structs.replace(PROFILE, encoder=ModelReference("older", "2" * 12))
    assert followed_profile(state(older), 1, toy_models()) == PROFILE


@pytest.mark.parametrize(
    ("profile", "generation", "message"),
    [
        pytest.param(None, None, "has no fields to follow", id="never-enriched"),
        pytest.param(PROFILE, 2, "no fields of generation 2", id="no-such-generation"),
        pytest.param(
            msgspec.structs.replace(PROFILE, generator=ModelReference("other", "3" * 12)),
            None,
            "would make every document anew",
            id="another-generator",
        ),
    ],
)
def test_what_a_backfill_must_do_is_not_followed(
    profile: IndexProfile | None, generation: int | None, message: str
) -> None:
    with pytest.raises(IndexUnsuitable, match=message):
        followed_profile(state(profile), generation, toy_models())
