"""Canary, interleaving, clicks, and the report of them."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bridge.errors import SettingsError
from bridge.proxy.experiments.event_log import Click, Impression
from bridge.proxy.experiments.event_report import read_events
from bridge.proxy.experiments.interleaving import team_draft
from bridge.proxy.transport.headers import is_served
from bridge.records import Key
from bridge.settings import ProxySettings
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex

keys = st.lists(st.sampled_from("abcdefghij"), unique=True).map(lambda ids: [("docs", doc_id) for doc_id in ids])


@given(own=keys, bridge=keys, seed=st.text())
def test_a_draft_holds_every_document_once_in_each_sides_order(own: list[Key], bridge: list[Key], seed: str) -> None:
    drafted = list(team_draft(own, bridge, seed=seed))

    assert Counter(key for key, _ in drafted) == Counter(set(own) | set(bridge))
    for side, ranking in (("own", own), ("bridge", bridge)):
        picked = [key for key, by in drafted if by == side]
        assert picked == [key for key in ranking if key in picked]
    assert drafted == list(team_draft(own, bridge, seed=seed))


@given(own=keys, bridge=keys, seed=st.text())
def test_a_draft_holds_one_document_of_each_group(own: list[Key], bridge: list[Key], seed: str) -> None:
    groups = {("docs", doc_id): "vowels" if doc_id in "aei" else None for doc_id in "abcdefghij"}

    drafted = [groups[key] for key, _ in team_draft(own, bridge, seed=seed, groups=groups)]

    assert Counter(drafted) == Counter({groups[key] for key in (*own, *bridge)})


def test_a_draft_lets_each_side_pick_once_in_two_and_begin_half_the_time() -> None:
    own, bridge = ([(side, str(i)) for i in range(5)] for side in ("own", "bridge"))
    first: Counter[str] = Counter()
    for seed in range(1000):
        sides = [side for _, side in team_draft(own, bridge, seed=str(seed))]
        assert all(set(sides[i : i + 2]) == {"own", "bridge"} for i in range(0, 10, 2))
        first[sides[0]] += 1

    assert 400 < first["own"] < 600


def test_a_canary_holds_the_same_callers_and_only_grows() -> None:
    callers = [CIMultiDict({"Authorization": f"Basic {i}"}) for i in range(2000)]
    shares = [ProxySettings(canary_percent=percent) for percent in (10, 50, 100, 0)]
    few, many, all_, none = ({i for i, caller in enumerate(callers) if is_served(caller, each)} for each in shares)

    assert 140 < len(few) < 260
    assert 900 < len(many) < 1100
    assert few < many
    assert (len(all_), len(none)) == (2000, 0)


async def search(stack: Stack, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY | more) as answer:
        return await answer.json(), dict(answer.headers)


async def test_callers_outside_the_canary_pass(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), canary_percent=0)

    _, headers = await search(stack)

    assert headers["X-Bridge"] == "pass; reason=canary"


async def test_interleaved_pages_and_clicks_are_logged_without_text(make_stack: MakeStack, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    index = ScriptedIndex(titles={"d": "red shoe"})
    stack = await make_stack(index, mode="interleave", event_log=log)

    answer, headers = await search(stack)
    impression = headers["X-Bridge-Impression"]
    shown = [hit["_id"] for hit in answer["hits"]["hits"]]
    scores = [hit["_score"] for hit in answer["hits"]["hits"]]
    body = json.dumps({"impression": impression, "document": shown[0]})
    async with stack.client.post(f"{stack.proxy.url}/_bridge/click", data=body) as clicked:
        assert clicked.status == 204
    async with stack.client.post(f"{stack.proxy.url}/_bridge/click", data=b'{"impression": 1}') as wrong:
        assert wrong.status == 400
        assert "X-Bridge-Impression" in (await wrong.json())["error"]["reason"]

    page, click = read_events(log)
    assert isinstance(page, Impression)
    assert isinstance(click, Click)
    assert page.id == click.impression == impression
    assert sorted(doc_id for _, doc_id in (*page.own, *page.bridge)) == sorted(shown)
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert "shoe" not in log.read_text()
    assert not any("_bridge" in request.target for request in stack.cluster.received)


@pytest.mark.case("S16")
async def test_made_up_clicks_reach_no_log(make_stack: MakeStack, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    stack = await make_stack(ScriptedIndex(), mode="interleave", event_log=log)
    _, headers = await search(stack)

    async def clicked(impression: str, document: str) -> int:
        body = json.dumps({"impression": impression, "document": document})
        async with stack.client.post(f"{stack.proxy.url}/_bridge/click", data=body) as answer:
            return answer.status

    impression = headers["X-Bridge-Impression"]
    statuses = [await clicked("0123456789abcdef", "a"), await clicked(impression, "not shown")]
    statuses += [await clicked(impression, "a"), await clicked(impression, "a")]

    assert statuses == [400, 400, 204, 204]
    assert [type(event) for event in read_events(log)] == [Impression, Click]


async def test_interleaved_pages_follow_each_other(make_stack: MakeStack, tmp_path: Path) -> None:
    stack = await make_stack(ScriptedIndex(), mode="interleave", event_log=tmp_path / "events.jsonl")

    whole, *parts = await asyncio.gather(search(stack, size=4), *(search(stack, size=2, **{"from": i}) for i in (0, 2)))

    ids = [[hit["_id"] for hit in answer["hits"]["hits"]] for answer, _ in (whole, *parts)]
    assert ids[0] == ids[1] + ids[2]


async def test_clicks_are_the_clusters_business_in_other_modes(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.post(f"{stack.proxy.url}/_bridge/click", data=b"{}") as answer:
        await answer.read()

    assert [request.target for request in stack.cluster.received] == ["/_bridge/click"]


async def test_interleaving_without_a_log_is_refused(make_stack: MakeStack) -> None:
    with pytest.raises(SettingsError, match=r"proxy\.event_log"):
        await make_stack(ScriptedIndex(), mode="interleave")


def impression(name: str, own: list[str], bridge: list[str]) -> Impression:
    ours, theirs = ([("docs", doc_id) for doc_id in side] for side in (own, bridge))
    return Impression(1.0, name, "docs", "hybrid", ours, theirs, 0.5, 0.25, 10.0)
