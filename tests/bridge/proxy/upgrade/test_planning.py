"""Which requests are left alone whatever their bodies say, by their headers."""

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from bridge.profile import BESIDE_KEY, META_KEY, Calibration, ImageSettings, Measurement, ModelReference
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.planning import Control, _common_profile, left_alone, read_control
from bridge.search.flow import Distance
from bridge.settings import ProxySettings
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import PROFILE, ScriptedIndex
from tests.bridge.proxy.searching import ids, search
from tests.bridge.proxy.upgrade.test_companion import BESIDE, COMPANION, MAPPINGS, IndexWithCompanion
from tests.fake_cluster import Received, Reply, reply_json

OWN = "application/vnd.elasticsearch+json; compatible-with=8"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, None),
        ({"Content-Type": "application/json; charset=UTF-8", "Accept": "*/*"}, None),
        ({"Content-Type": OWN, "Accept": OWN}, None),
        ({"Content-Type": "application/vnd.elasticsearch+x-ndjson;compatible-with=9"}, None),
        ({"Content-Type": "application/vnd.elasticsearch+json", "Accept": "application/vnd.elasticsearch+json"}, None),
        ({"Content-Type": "application/yaml"}, "content_type"),
        ({"Content-Type": "application/vnd.elasticsearch+cbor; compatible-with=8"}, "content_type"),
        ({"Accept": "application/vnd.elasticsearch+smile; compatible-with=8"}, "accept"),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, "signed"),
    ],
)
def test_headers_leave_searches_alone(headers: dict[str, str], reason: str | None) -> None:
    found = left_alone(Control(), CIMultiDict(headers))
    assert (found and found.reason) == reason


@pytest.mark.case("P46")
@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json, text/plain, */*", True),
        ("application/json, text/javascript, */*; q=0.01", True),
        ("application/json, application/*+json", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html, application/json;q=0.5", True),
        ("", True),
        ("text/html", False),
        ("application/json;q=0, */*", False),
        ("*/*;q=0.0", False),
        ("application/yaml, */*", False),
    ],
)
def test_json_is_taken_by_whoever_accepts_it(accept: str, is_json: bool) -> None:
    found = left_alone(Control(), CIMultiDict({"Accept": accept}))
    assert (found is None) == is_json


@pytest.mark.parametrize(
    ("header", "control"),
    [
        (None, Control()),
        ("", Control()),
        ("off", Control(off=True)),
        ("Explain", Control(explain=True)),
        ("hybrid, explain", Control(stage="hybrid", explain=True)),
        (" rerank ,", Control(stage="rerank")),
        ("hybrid, Vector = 2, lexical=0", Control(stage="hybrid", weights={"vector": 2.0, "lexical": 0.0})),
        ("sparse", Control(stage="sparse")),
        ("hybrid, sparse=0.2", Control(stage="hybrid", weights={"sparse": 0.2})),
        ("diverse=0.3", Control(weights={"diverse": 0.3})),
        ("Sentences", Control(sentences=True)),
        ("smoothing, smoothing=1", Control(stage="smoothing", weights={"smoothing": 1.0})),
        ("cutoff=0.5, vector=1", Control(cutoff=0.5, weights={"vector": 1.0})),
        ("Fallback, cutoff=0", Control(cutoff=0.0, fallback=True)),
        ("rerank, Repair", Control(stage="rerank", repair=True)),
        ("repair=off, explain", Control(explain=True, repair=False)),
    ],
)
def test_the_control_header_is_read(header: str | None, control: Control) -> None:
    assert read_control(header) == control


@pytest.mark.parametrize(
    "header",
    [
        "fast",
        "hybrid, rerank",
        "explain=true",
        "vector=-1",
        "vector=much",
        "vector=inf",
        "dense=1",
        "vector=1, vector=2",
        "smoothing=1.1",
        "diverse=1.1",
        "smoothing=-0.1",
        "cutoff=1.1",
        "cutoff=nan",
        "cutoff",
        "repair=on",
        "repair, repair=off",
        "fallback=1",
        "sentences=1",
    ],
)
def test_unknown_words_in_the_control_header_are_refused(header: str) -> None:
    with pytest.raises(Refused, match="expected one of off, lexical"):
        read_control(header)


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        (reply_json({"docs": {"mappings": {}}}), "no_profile"),
        (reply_json({}), "no_profile"),
        (reply_json({"a": {"mappings": {"_meta": {"neural_bridge": {"version": 99}}}}}), "profile_unreadable"),
        (
            reply_json(
                {
                    "a": {"mappings": {"_meta": {"neural_bridge": PROFILE.to_meta()}}},
                    "b": {"mappings": {"_meta": {"neural_bridge": {**PROFILE.to_meta(), "window": 9}}}},
                }
            ),
            "profiles_differ",
        ),
        (Reply(403, b"{}"), "mapping_unreadable"),
        (Reply(break_after=0), "cluster_unavailable"),
        (Reply(body=b"x" * 100, break_after=10, headers=(("content-length", "100"),)), "cluster_unavailable"),
        (Reply(delay_s=60.0), "cluster_unavailable"),
        (Reply(503, b"{}"), "cluster_unavailable"),
        (Reply(429, b"{}"), "cluster_unavailable"),
        (Reply(200, b"<html>"), "profile_unreadable"),
    ],
)
async def test_an_index_without_a_readable_profile_passes(make_stack: MakeStack, mapping: Reply, reason: str) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": mapping}), budget_ms=2000)

    _, mark, answer = await search(stack)

    assert mark == f"pass; reason={reason}"
    assert ids(answer) == ["a", "b", "c"]


async def test_profiles_are_remembered(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=600)
    for _ in range(2):
        await search(stack)
    assert len(stack.cluster.requests("_mapping")) == 1


async def test_profiles_are_read_again(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, profile_ttl_s=0)
    await search(stack)
    index.profile = msgspec.structs.replace(PROFILE, stages=["lexical", "expansion"])

    _, mark, _ = await search(stack)

    assert mark.startswith("expansion;")


@pytest.mark.case("S17")
@pytest.mark.parametrize(("target", "read"), [("/docs/_search", 1), ("/shop/_search", 2), ("/do*/_search", 2)])
async def test_what_an_alias_or_a_pattern_shows_to_one_caller_is_not_taken_for_another(
    make_stack: MakeStack, target: str, read: int
) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=600)
    for department in ("sales", "press", "sales", "press"):
        _, mark, _ = await search(stack, target=target, x_department=department)
        assert mark.startswith("hybrid+rerank; took")
    assert len(stack.cluster.requests("_mapping")) == read


async def test_a_refused_mapping_is_not_remembered_for_others(make_stack: MakeStack) -> None:
    index = ScriptedIndex()

    def script(request: Received) -> Reply:
        if request.path.endswith("_mapping") and request.header("authorization") == "nobody":
            return Reply(403, b"{}")
        return index(request)

    stack = await make_stack(script)

    _, refused, _ = await search(stack, authorization="nobody")
    _, allowed, _ = await search(stack, authorization="somebody")

    assert refused == "pass; reason=mapping_unreadable"
    assert allowed.startswith("hybrid+rerank")


@pytest.mark.parametrize(
    "mapping",
    [
        Reply(404, b"{}"),
        Reply(403, b"{}"),
        Reply(break_after=0),
        Reply(delay_s=60.0),
        Reply(200, b"<html>"),
        # A mapping that names another index, or none, is no companion of this one.
        reply_json({"other": {"mappings": {"_meta": {"neural_bridge": {**PROFILE.to_meta(), "beside": "other"}}}}}),
        reply_json({"other": {"mappings": {"_meta": {"neural_bridge": PROFILE.to_meta()}}}}),
    ],
)
async def test_an_index_without_a_readable_companion_passes_and_it_is_asked_for_once(
    make_stack: MakeStack, mapping: Reply
) -> None:
    index = IndexWithCompanion(faults={MAPPINGS: mapping})
    stack = await make_stack(index, budget_ms=2000, profile_ttl_s=600)

    for _ in range(3):
        _, mark, answer = await search(stack)
        assert mark == "pass; reason=no_profile"
        assert ids(answer) == ["a", "b", "c"]

    assert [request.path for request in stack.cluster.received if request.path.startswith(COMPANION)] == [MAPPINGS]


@pytest.mark.parametrize(
    ("key", "searched"),
    [pytest.param(META_KEY, f"{COMPANION}~2", id="serving"), pytest.param(BESIDE_KEY, COMPANION, id="being-filled")],
)
async def test_the_second_of_two_companions_decides_which_is_searched(
    make_stack: MakeStack, key: str, searched: str
) -> None:
    second = msgspec.structs.replace(BESIDE, generation=2)
    metas = {"neural-bridge.docs": {META_KEY: BESIDE.to_meta()}, "neural-bridge.docs~2": {key: second.to_meta()}}
    mappings = reply_json({name: {"mappings": {"_meta": meta}} for name, meta in metas.items()})
    stack = await make_stack(IndexWithCompanion(faults={MAPPINGS: mappings}))
    await search(stack, x_bridge="hybrid")
    searches = [request.path for request in stack.cluster.received if request.path.startswith(COMPANION)]
    assert {path for path in searches if path.endswith("_msearch")} == {f"{searched}/_msearch"}


async def test_an_index_with_a_profile_of_its_own_has_no_companion_looked_up(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=0)
    await search(stack)
    assert {request.path for request in stack.cluster.received} == {"/docs/_mapping", "/docs/_msearch", "/docs/_search"}


async def test_a_companion_serves_those_who_see_every_text(make_stack: MakeStack) -> None:
    index = IndexWithCompanion()

    def script(request: Received) -> Reply:
        if request.path.endswith("_field_caps") and request.header("authorization") == "half blind":
            return reply_json({"indices": ["docs"], "fields": {}})
        if request.path.endswith("_field_caps") and request.header("authorization") == "elsewhere":
            return reply_json({"indices": ["docs", "more"], "fields": {"title": {}}})
        return index(request)

    stack = await make_stack(script, profile_ttl_s=600)

    for caller, expected in (
        ("seeing", "hybrid"),
        ("half blind", "pass; reason=fields_hidden"),
        ("elsewhere", "pass; reason=no_profile"),
    ) * 2:
        _, mark, _ = await search(stack, authorization=caller, x_bridge="hybrid")
        assert mark.partition("; took")[0] == expected

    assert len(stack.cluster.requests("_field_caps")) == 3


@pytest.mark.parametrize(
    ("shown", "expected"), [(("title", "photo"), "hybrid"), (("title",), "pass; reason=fields_hidden")]
)
async def test_a_companion_that_holds_pictures_serves_those_who_see_their_field(
    make_stack: MakeStack, shown: Sequence[str], expected: str
) -> None:
    fusion = msgspec.structs.replace(BESIDE.fusion, weights={**BESIDE.fusion.weights, "image": 0.0})
    image = ImageSettings("photo", ModelReference("clip", "3" * 12), 4)
    profile = msgspec.structs.replace(BESIDE, image=image, fusion=fusion)
    stack = await make_stack(IndexWithCompanion(profile=profile, shown=shown))
    _, mark, _ = await search(stack, x_bridge="hybrid")
    assert mark.partition("; took")[0] == expected


@pytest.mark.parametrize(
    "answer", [Reply(403, b"{}"), Reply(delay_s=60.0), Reply(break_after=0), Reply(200, b"<html>")]
)
async def test_a_caller_who_may_not_read_mappings_is_asked_for_once_in_vain(
    make_stack: MakeStack, answer: Reply
) -> None:
    faults = {"/docs/_mapping": Reply(403, b"{}"), "/docs/_field_caps": answer}
    stack = await make_stack(IndexWithCompanion(faults=faults), budget_ms=2000, profile_ttl_s=600)

    for _ in range(2):
        _, mark, found = await search(stack)
        assert mark == "pass; reason=mapping_unreadable"
        assert ids(found) == ["a", "b", "c"]

    assert len(stack.cluster.requests("_field_caps")) == 1


async def test_a_caller_who_may_not_read_mappings_is_served_by_a_companion(make_stack: MakeStack) -> None:
    stack = await make_stack(IndexWithCompanion(faults={"/docs/_mapping": Reply(403, b"{}")}))

    _, mark, _ = await search(stack, x_bridge="hybrid")

    assert mark.startswith("hybrid; took")


@pytest.mark.case("P42")
async def test_a_slow_mapping_is_not_waited_for_again_by_anybody(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": Reply(delay_s=60.0)}), budget_ms=500, profile_ttl_s=600)

    marks = [(await search(stack, authorization=caller))[1] for caller in ("one", "other")]

    assert marks == ["pass; reason=cluster_unavailable"] * 2
    assert len(stack.cluster.requests("_mapping")) == 1


@pytest.mark.parametrize(
    ("companions", "title", "mark"),
    [
        (["a", "b"], {"text": {}}, "hybrid"),
        (["a"], {"text": {}}, "pass; reason=profiles_differ"),
        ([], {"text": {}}, "pass; reason=no_profile"),
        # Field-level security hides the title of one of the two.
        (["a", "b"], {"text": {}, "unmapped": {}}, "pass; reason=fields_hidden"),
    ],
)
async def test_several_indices_are_upgraded_if_each_has_a_companion_and_shows_its_texts(
    make_stack: MakeStack, companions: list[str], title: dict[str, Any], mark: str
) -> None:
    def script(request: Received) -> Reply:
        if request.path == "/b,a/_mapping":
            return reply_json({name: {"mappings": {}} for name in ("a", "b")})
        if request.path == "/neural-bridge.a,neural-bridge.a~2,neural-bridge.b,neural-bridge.b~2/_mapping":
            profiles = {name: msgspec.structs.replace(PROFILE, beside=name).to_meta() for name in companions}
            return reply_json(
                {f"neural-bridge.{name}": {"mappings": {"_meta": {META_KEY: each}}} for name, each in profiles.items()}
            )
        if request.path == "/b,a/_field_caps":
            return reply_json({"indices": ["b", "a"], "fields": {"title": title}})
        if request.path.endswith("_msearch"):
            searches = len(request.body.splitlines()) // 2
            return reply_json({"responses": [{"hits": {"hits": []}, "status": 200}] * searches})
        return ScriptedIndex(profile=None)(request)

    stack = await make_stack(script)

    _, shown, answer = await search(stack, target="/b,a/_search", x_bridge="hybrid")

    assert shown.partition("; took")[0] == mark
    assert ids(answer) == ["a", "b", "c"]


CALIBRATION = Calibration(2.0, 9.0, "toy@" + "0" * 12, 1, 0.9, 0.8, 1.0, 148, Measurement("", 40, "AUC", ""))


@pytest.mark.parametrize(
    ("others", "kept"),
    [(CALIBRATION, CALIBRATION), (msgspec.structs.replace(CALIBRATION, middle=8.0), None), (None, None)],
    ids=["alike", "another", "none"],
)
def test_indices_that_are_calibrated_apart_are_searched_together_without_a_calibration(
    others: Calibration | None, kept: Calibration | None
) -> None:
    first, second = (msgspec.structs.replace(PROFILE, calibration=made) for made in (CALIBRATION, others))
    mappings = {
        name: {"mappings": {"_meta": {META_KEY: each.to_meta()}}} for name, each in (("a", first), ("b", second))
    }
    known, _ = _common_profile(json.dumps(mappings).encode())
    assert known.profile == msgspec.structs.replace(PROFILE, calibration=kept)


@pytest.mark.parametrize(
    ("rule", "header", "repairs"),
    [(False, "explain", False), (True, "vector=2", True), (False, "repair", True), (True, "rerank, repair=off", False)],
)
def test_a_request_says_whether_words_are_repaired_or_else_the_profile(rule: bool, header: str, repairs: bool) -> None:
    rules = msgspec.structs.replace(PROFILE.rules, repair=rule, diversity=0.2)
    applied = read_control(header).applied_to(msgspec.structs.replace(PROFILE, rules=rules))
    assert applied.rules == msgspec.structs.replace(rules, repair=repairs)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("explain", Distance(0.4, fallback=True)),
        ("cutoff=0.9", Distance(0.9, fallback=True)),
        ("rerank", Distance()),
        ("rerank, cutoff=0.2, fallback", Distance(0.2, fallback=True)),
    ],
)
def test_the_settings_decide_about_distant_documents_unless_a_stage_is_named(header: str, expected: Distance) -> None:
    assert read_control(header).distance(ProxySettings(cutoff=0.4, fallback=True)) == expected


@pytest.mark.case("P72")
def test_what_an_application_keeps_in_a_mapping_is_not_decoded() -> None:
    theirs = {f"k{i}": {"note": "x" * 40, "values": [i, {"a": i}]} for i in range(20_000)}
    fields = {f"field_{i}": {"type": "keyword"} for i in range(20_000)}
    meta = {"theirs": theirs, META_KEY: PROFILE.to_meta(), "more": theirs}
    body = json.dumps({"docs": {"mappings": {"_meta": meta, "properties": fields}}}).encode()
    tracemalloc.start()
    try:
        known, indices = _common_profile(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (known.profile, indices) == (PROFILE, ["docs"])
    assert len(body) > 4_000_000
    assert most < 200_000, "objects of its megabytes were made"


@pytest.mark.case("P72")
@pytest.mark.parametrize("note", ["x" * 600_000, [{}] * 300_000], ids=["long", "many"])
async def test_a_profile_that_is_too_long_to_be_one_is_not_decoded(make_stack: MakeStack, note: Any) -> None:
    meta = {META_KEY: {**PROFILE.to_meta(), "note": note}}
    index = ScriptedIndex()

    def script(request: Received) -> Reply:
        return reply_json({"docs": {"mappings": {"_meta": meta}}}) if "_mapping" in request.path else index(request)

    stack = await make_stack(script)
    status, mark, _ = await search(stack)

    assert (status, mark) == (200, "pass; reason=profile_unreadable")


@pytest.mark.case("P72")
@pytest.mark.parametrize("held", [b'{"a":' * 5000 + b"1" + b"}" * 5000, b'"\xc0\xaf"', b'{"\xff":"\\ud83d"}'])
def test_whatever_else_a_mapping_holds_its_profile_is_read(held: bytes) -> None:
    ours = msgspec.json.encode(PROFILE.to_meta())
    body = b'{"docs":{"mappings":{"properties":{"t":%b},"_meta":{"theirs":%b,"%b":%b}}}}'

    known, indices = _common_profile(body % (held, held, META_KEY.encode(), ours))

    assert (known.profile, indices) == (PROFILE, ["docs"])
