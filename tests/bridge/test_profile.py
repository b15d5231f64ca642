"""The index profile: what is written under `_meta` is what is read back."""

import msgspec
import pytest

from bridge.errors import IndexUnsuitable
from bridge.profile import (
    META_KEY,
    IndexProfile,
    ModelReference,
    PassageSettings,
    RerankSettings,
    TextField,
    profile_of,
)

PROFILE = IndexProfile(
    text_fields=[TextField("title"), TextField("body.text")],
    encoder=ModelReference("embed-base", "0123456789ab"),
    dimension=384,
    generator=ModelReference("doc2query-small", "ba9876543210"),
    passages=PassageSettings(layout="nested", max_tokens=200, overlap_tokens=20),
    rerank=RerankSettings(depth=30, blend=0.2),
)


def test_a_profile_survives_the_mapping() -> None:
    stored = msgspec.json.decode(msgspec.json.encode({META_KEY: PROFILE.to_meta(), "owner": "shop"}))
    assert profile_of(stored, index="products") == PROFILE


def test_an_index_without_our_block_has_no_profile() -> None:
    assert profile_of({"owner": "shop"}, index="products") is None
    assert profile_of(None, index="products") is None


def test_fields_follow_the_object_and_the_layout() -> None:
    assert PROFILE.embedding_field == "neural.passages.embedding"
    single = msgspec.structs.replace(PROFILE, object_field="nb", passages=PassageSettings())
    assert single.embedding_field == "nb.embedding"
    assert single.predicted_queries_field == "nb.predicted_queries"


def test_a_newer_version_is_refused_by_name() -> None:
    meta = {META_KEY: {**PROFILE.to_meta(), "version": 99}}
    with pytest.raises(IndexUnsuitable, match=r"products.*version 99"):
        profile_of(meta, index="products")


def test_keys_of_a_later_minor_change_are_ignored() -> None:
    assert profile_of({META_KEY: {**PROFILE.to_meta(), "colour": "red"}}, index="products") == PROFILE


@pytest.mark.parametrize("damage", [{"dimension": "many"}, {"text_fields": None}, {"passages": {"layout": "odd"}}])
def test_a_damaged_block_is_an_error_that_names_the_index(damage: dict[str, object]) -> None:
    with pytest.raises(IndexUnsuitable, match="products"):
        profile_of({META_KEY: {**PROFILE.to_meta(), **damage}}, index="products")
