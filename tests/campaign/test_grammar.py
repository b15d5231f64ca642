"""Bodies by chance are repeatable, and of many kinds."""

import json
import random

import pytest

from bridge.search.request import LeaveAlone, parse
from tests.campaign.grammar import ODD, Grammar


def test_a_seed_makes_the_same_bodies_again() -> None:
    first, second = ([Grammar(random.Random(f"7:{each}")).application().tree for each in range(50)] for _ in range(2))

    assert first == second


def test_applications_searches_are_mostly_understood_and_some_are_not() -> None:
    outcomes = [
        parse(json.dumps(tree).encode(), "", text_fields=["title", "body"], object_field="_neural")
        for tree in (Grammar(random.Random(each)).application().tree for each in range(300))
    ]

    left_alone = [each for each in outcomes if isinstance(each, LeaveAlone)]
    assert 30 < len(left_alone) < 150
    assert len({each.reason for each in left_alone}) >= 6


def test_a_mutation_changes_a_copy_and_nothing_else() -> None:
    tree = {"query": {"bool": {"must": [{"match": {"title": "wing"}}]}}}
    before = json.dumps(tree)

    changed = [json.dumps(Grammar(random.Random(each)).mutated(tree)) for each in range(100)]

    assert json.dumps(tree) == before
    assert sum(each != before for each in changed) > 80


@pytest.mark.parametrize("value", ["x", 1.5, None])
def test_what_has_no_parts_is_replaced(value: object) -> None:
    assert Grammar(random.Random(3)).mutated(value) in ODD
