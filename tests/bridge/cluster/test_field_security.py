"""Rules that hide a text and show what was made of it are found, on either engine."""

from typing import Any

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.field_security import field_rules, uncovered, write_denials
from bridge.profile import IndexProfile, ModelReference, PassageSettings
from bridge.settings import ClusterSettings
from tests.fake_bulk import Recorded, Reply, error_body, fake_cluster

PROFILE = IndexProfile(["title", "body"], ModelReference("toy", "0" * 12), 4)
NESTED = IndexProfile(
    PROFILE.text_fields, PROFILE.encoder, 4, passages=PassageSettings("nested", 8, 0), vector_type="dense_vector"
)


def told(permission: dict[str, Any], *, kind: str = "index_permissions", profile: IndexProfile = PROFILE) -> list[str]:
    roles = {"everything": {kind: [{"index_patterns": ["*"], "names": ["*"]}]}, "reader": {kind: [permission]}}
    return list(uncovered(field_rules(roles), "papers-2", profile))


def opensearch(*fields: str, masked: tuple[str, ...] = (), patterns: tuple[str, ...] = ("papers*",)) -> dict[str, Any]:
    return {"index_patterns": list(patterns), "fls": list(fields), "masked_fields": list(masked)}


@pytest.mark.case("S4")
@pytest.mark.parametrize(
    "permission",
    [
        pytest.param(opensearch("~body"), id="a field hidden"),
        pytest.param(opensearch("~b*"), id="by a pattern"),
        pytest.param(opensearch("~body", "~_neural.predicted_queries"), id="vectors are shown still"),
        pytest.param(opensearch("~body", "~_neural"), id="our object hidden, and not its fields"),
        pytest.param(opensearch("title", "_neural"), id="others granted alone"),
        pytest.param(opensearch("title", "_neural.*"), id="others granted alone, by a pattern"),
        pytest.param(opensearch(masked=("body",)), id="a field masked"),
        pytest.param(opensearch(masked=("body::/x/::*",)), id="a field masked in its own way"),
    ],
)
def test_rules_that_leave_out_what_was_made_are_named(permission: dict[str, Any]) -> None:
    [sentence] = told(permission)
    assert sentence.startswith("role reader protects body, and shows _neural.")


@pytest.mark.case("S4")
@pytest.mark.parametrize(
    "permission",
    [
        pytest.param(opensearch(), id="no rule"),
        pytest.param(opensearch("~body", "~_neural", "~_neural.*"), id="our object and its fields hidden"),
        pytest.param(opensearch("~body", "~_neural*"), id="by one pattern"),
        pytest.param(opensearch("~secret"), id="another field hidden"),
        pytest.param(opensearch("title"), id="one field granted alone"),
        pytest.param(opensearch(masked=("body",)) | {"fls": ["~_neural.*"]}, id="masked, our object hidden"),
        pytest.param(opensearch("~body", patterns=("other*",)), id="other indices"),
    ],
)
def test_rules_that_cover_what_was_made_are_not(permission: dict[str, Any]) -> None:
    assert told(permission) == []


def test_elasticsearchs_rules_are_read_too() -> None:
    leaky = {"names": ["papers*"], "field_security": {"grant": ["*"], "except": ["body"]}}
    whole = {"names": ["papers*"], "field_security": {"grant": ["*"], "except": ["body", "_neural*"]}}

    [sentence] = told(leaky, kind="indices", profile=NESTED)

    assert sentence.endswith("shows _neural.predicted_queries, _neural.passages.embedding, made of the same text")
    assert told(whole, kind="indices") == []


@pytest.mark.parametrize(
    ("denied", "kind", "sentences"),
    [
        pytest.param("_update", "security_exception", ["this user may not write its documents"], id="documents"),
        pytest.param("_mapping", "security_exception", ["this user may not write its mapping"], id="mapping"),
        pytest.param("_update", "cluster_block_exception", [], id="a block is no lack of permission"),
        pytest.param("nothing", "security_exception", [], id="everything allowed"),
    ],
)
def test_who_may_not_write_is_found_out_and_nothing_is_written(denied: str, kind: str, sentences: list[str]) -> None:
    def answer(request: Recorded) -> Reply | None:
        if request.method == "GET":
            return None
        return Reply(403, error_body(403, kind)) if denied in request.path else Reply(404, b"{}")

    with fake_cluster() as cluster:
        cluster.on_request = answer
        assert write_denials(connect(ClusterSettings(url=cluster.url)), "bücher") == sentences
        assert {request.path.split("/")[1] for request in cluster.requests if request.method != "GET"} == {
            "b%C3%BCcher"
        }
