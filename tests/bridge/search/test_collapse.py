"""Documents with the same value are one group, and the first of each group stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.records import Hit
from bridge.search.collapse import Collapse, first_of_each, groups_of
from bridge.search.text_clause import NotUnderstood

BY_BRAND = Collapse.of({"field": "brand"})


def hit(doc_id: str, *values: object) -> Hit:
    return Hit("docs", doc_id, 1.0, {"brand": list(values)} if values else {})


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("brand", id="a word"),
        pytest.param({}, id="no field"),
        pytest.param({"field": 5}, id="a number"),
        pytest.param({"field": ""}, id="an empty name"),
        pytest.param({"field": "_id"}, id="a field of the cluster's own"),
        pytest.param({"field": "bra*"}, id="a pattern"),
        pytest.param({"field": "brand", "sort": ["n"]}, id="an unknown member"),
        pytest.param({"field": "brand", "inner_hits": "all"}, id="inner hits that are a word"),
        pytest.param({"field": "brand", "inner_hits": {"size": 3}}, id="inner hits without a name"),
        pytest.param({"field": "brand", "inner_hits": [{"name": "a"}, {"name": "a"}]}, id="two of one name"),
        pytest.param({"field": "brand", "inner_hits": [{"name": "a"}, None]}, id="none"),
    ],
)
def test_what_the_cluster_has_to_interpret_is_left_to_it(body: Any) -> None:
    with pytest.raises(NotUnderstood, match="collapse"):
        Collapse.of(body)


@pytest.mark.parametrize(
    ("inner", "names"), [({"name": "all"}, ["all"]), ([{"name": "a"}, {"name": "b"}], ["a", "b"]), ([], [])]
)
def test_inner_hits_are_one_or_several(inner: Any, names: list[str]) -> None:
    assert Collapse.of({"field": "brand", "inner_hits": inner}).inner_hits == names


def test_documents_without_a_value_are_one_group() -> None:
    """Whether a version of the cluster writes no field, an empty one, or a null."""
    found = [hit("a"), hit("b", "acme"), hit("c", None), Hit("docs", "d", 1.0, {"brand": []}), hit("e", "acme")]

    groups = groups_of(found, BY_BRAND)

    assert list(groups.values()) == [None, "acme", None, None, "acme"]
    assert [each.doc_id for each in first_of_each(found, groups)] == ["a", "b"]


@pytest.mark.parametrize("values", [["acme", "other"], [{"lat": 1.0, "lon": 2.0}], [[1]]])
def test_a_document_that_the_cluster_does_not_group_has_no_group(values: list[object]) -> None:
    """The cluster would refuse to show it in a collapsed search."""
    found = [hit("a", *values), hit("b", "acme")]

    assert [each.doc_id for each in first_of_each(found, groups_of(found, BY_BRAND))] == ["b"]


def test_groups_are_found_by_their_values() -> None:
    nulls = {"bool": {"must_not": [{"exists": {"field": "brand"}}]}}

    assert BY_BRAND.clause(["a", 7]) == {"bool": {"should": [{"terms": {"brand": ["a", 7]}}]}}
    assert BY_BRAND.clause([None]) == {"bool": {"should": [nulls]}}
    assert BY_BRAND.clause(iter(["a", None])) == {"bool": {"should": [{"terms": {"brand": ["a"]}}, nulls]}}


_values = st.none() | st.text(max_size=2) | st.integers(-2, 2) | st.sampled_from([0.5, 1.5])


@given(st.lists(_values, max_size=20))
def test_one_document_of_each_group_stays_in_its_place(values: list[Any]) -> None:
    found = [hit(f"d{n}", value) for n, value in enumerate(values)]

    heads = first_of_each(found, groups_of(found, BY_BRAND))

    assert [each for each in found if each in heads] == heads
    assert [each.fields["brand"][0] for each in heads] == list(dict.fromkeys(values))


def test_a_search_that_is_not_collapsed_keeps_every_document() -> None:
    found = [hit("a", "acme"), hit("b", "acme"), hit("c", "x", "y")]

    assert first_of_each(found, groups_of(found, None)) == found
