"""Every failure has a reason, a failing server is left alone, and others may stand in the sidecar's place."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from bridge.errors import NotTaken, SettingsError, StageFailed
from bridge.profile import (
    FusionSettings,
    ImageSettings,
    ModelReference,
    RerankSettings,
)
from bridge.proxy.upgrade import model_client
from bridge.proxy.upgrade.model_client import FEWEST_READ, CircuitBreaker, ModelStage, ReadingPace
from bridge.settings import EmbedderSettings, RerankerSettings, load_settings
from tests.bridge.model_servers.endless import endless_server
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, WEIGHED, ScriptedIndex
from tests.bridge.proxy.scripted_models import API_KEY, MODEL, ScriptedModels, logit, scripted_models
from tests.bridge.proxy.searching import search
from tests.fake_cluster import Received, Reply, SidecarScript, kind_sidecar

TITLES = {"d": "red shoe", "e": "shoe", "a": "bread"}
RERANKERS = {"tei": "/tei/rerank", "cohere": "/v2/rerank", "jina": "/v1/rerank"}
EMBEDDERS = {"tei": "/tei/embed", "openai": "/v1/embeddings"}


@pytest.fixture
async def models() -> AsyncIterator[ScriptedModels]:
    async with scripted_models() as running:
        yield running


def reranker(models: ScriptedModels, name: str, **more: Any) -> RerankerSettings:
    given = {"url": models.url + RERANKERS[name], "api_key": API_KEY}
    return RerankerSettings(**given | {"api": "tei" if name == "tei" else "cohere", "model": MODEL} | more)


def embedder(models: ScriptedModels, name: str) -> EmbedderSettings:
    given: dict[str, Any] = {"api": name, "url": models.url + EMBEDDERS[name], "model": "text-embedding-3-small"}
    return EmbedderSettings(**given, api_key=API_KEY, prompt="query: ")


async def ask(stack: Stack, words: str = "red shoe", **headers: str) -> tuple[str, Any]:
    """`X-Bridge`, and the answer."""
    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search",
        data=json.dumps({"query": {"match": {"title": words}}}),
        headers={
            "Content-Type": "application/json",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        },
    ) as answer:
        assert answer.status == 200
        return answer.headers["X-Bridge"], await answer.json()


@pytest.mark.parametrize("name", RERANKERS)
async def test_another_reranker_orders_as_the_sidecar_does(
    make_stack: MakeStack, models: ScriptedModels, name: str
) -> None:
    theirs = await make_stack(ScriptedIndex(titles=TITLES), sections={"reranker": reranker(models, name)})
    ours = await make_stack(ScriptedIndex(titles=TITLES))

    mark, answer = await ask(theirs)
    _, by_sidecar = await ask(ours)

    assert mark.startswith("hybrid+rerank; took_ms")
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [hit["_id"] for hit in by_sidecar["hits"]["hits"]]
    assert [path for path, _ in theirs.sidecar.received] == ["/embed"]
    [(path, headers, _)] = models.received
    assert (path, headers["authorization"]) == (RERANKERS[name], f"Bearer {API_KEY}")


@pytest.mark.parametrize("name", RERANKERS)
async def test_scores_are_logits_whatever_the_server_calls_a_score(
    make_stack: MakeStack, models: ScriptedModels, name: str
) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES), sections={"reranker": reranker(models, name)})

    _, answer = await ask(stack, x_bridge="explain")

    scores = {hit["_id"]: hit["_bridge"].get("rerank_score") for hit in answer["hits"]["hits"]}
    for doc_id, title in TITLES.items():
        assert scores[doc_id] == pytest.approx(logit(QUERY["query"]["match"]["title"], title), abs=1e-6)


async def test_scores_that_are_no_probabilities_are_taken_as_they_are(
    make_stack: MakeStack, models: ScriptedModels
) -> None:
    results = [{"index": i, "relevance_score": score} for i, score in enumerate((-0.2, 0.1, 0.3, 0.7))]
    models.failing = (200, {"results": results})
    stack = await make_stack(ScriptedIndex(titles=TITLES), sections={"reranker": reranker(models, "jina")})

    mark, answer = await ask(stack, x_bridge="explain")

    assert mark.startswith("hybrid+rerank; took_ms")
    assert sorted(s for hit in answer["hits"]["hits"] if (s := hit["_bridge"].get("rerank_score")) is not None) == [
        *(-0.2, 0.1, 0.3, 0.7)
    ]


async def test_more_passages_than_tei_takes_at_once_come_in_parts(
    make_stack: MakeStack, models: ScriptedModels
) -> None:
    profile = msgspec.structs.replace(PROFILE, window=100, rerank=RerankSettings(depth=70, blend=0.0))
    ids = [f"n{i}" for i in range(70)]
    found = {"own": ids, "expanded": ids, "near": ids, "compared": ids}
    index = ScriptedIndex(**found, titles={"n69": "red shoe"}, profile=profile)  # type: ignore[arg-type]
    stack = await make_stack(index, sections={"reranker": reranker(models, "tei")})

    mark, answer = await ask(stack)

    assert mark.startswith("hybrid+rerank; took_ms")
    assert sorted(len(body["texts"]) for body in models.asked("/tei/rerank")) == [6, 32, 32]
    assert answer["hits"]["hits"][0]["_id"] == "n69"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (429, {"error": "Model is overloaded", "error_type": "Overloaded"}, "overloaded"),
        (413, {"error": "batch size 33 > maximum allowed batch size 32", "error_type": "Validation"}, "unavailable"),
        (422, {"error": "inputs must have less than 512 tokens", "error_type": "Tokenizer"}, "unavailable"),
        (424, {"error": "Inference failed", "error_type": "Backend"}, "unavailable"),
        (401, {"message": "invalid api token"}, "unavailable"),
        (503, {"error": "unhealthy", "error_type": "Unhealthy"}, "unavailable"),
        (302, {}, "unavailable"),
        (200, {"results": [{"index": 0}]}, "unusable"),
        (200, [{"index": 0, "score": 1.0}], "unusable"),
        (200, "a login page", "unusable"),
    ],
)
@pytest.mark.parametrize("name", ["tei", "cohere"])
async def test_what_goes_wrong_there_leaves_the_stage_out(
    make_stack: MakeStack, models: ScriptedModels, name: str, status: int, body: Any, reason: str
) -> None:
    sections = {"reranker": reranker(models, name), "embedder": embedder(models, "openai")}
    models.failing = (status, body)
    stack = await make_stack(ScriptedIndex(), sections=sections)

    reranked, _ = await ask(stack)
    hybrid, answer = await ask(stack, x_bridge="hybrid")

    assert f"embedder_{reason}" in reranked
    assert f"rerank_{reason}" in reranked
    assert hybrid.startswith(f"expansion; degraded=embedder_{reason}")
    assert answer["hits"]["hits"]


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_another_embedder_gives_unit_vectors_of_prompted_queries(
    make_stack: MakeStack, models: ScriptedModels, name: str
) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, sections={"embedder": embedder(models, name)})

    mark, _ = await ask(stack, x_bridge="vector")

    assert mark.startswith("vector; took_ms")
    [body] = models.asked(EMBEDDERS[name])
    assert body["input" if name == "openai" else "inputs"] == ["query: red shoe"]
    [legs] = [request for request in stack.cluster.received if request.path.endswith("_msearch")][:1]
    vector = json.loads(legs.body.splitlines()[1])["query"]["bool"]["must"][0]["knn"]["_neural.embedding"]["vector"]
    assert vector == pytest.approx([0.6, 0.0, 0.8, 0.0])


async def test_an_embedding_of_another_length_is_not_searched_with(
    make_stack: MakeStack, models: ScriptedModels
) -> None:
    models.embedding = [1.0, 0.0]
    stack = await make_stack(ScriptedIndex(), sections={"embedder": embedder(models, "tei")})

    mark, _ = await ask(stack, x_bridge="vector")

    assert mark.startswith("lexical; degraded=embedder_unusable")


async def test_a_cascade_falls_back_on_a_reranker_that_knows_none(
    make_stack: MakeStack, models: ScriptedModels
) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES), sections={"reranker": reranker(models, "tei")})

    mark, _ = await ask(stack, x_bridge="cascade")

    assert mark.startswith("hybrid+rerank; degraded=cascade_unavailable")


async def test_the_sidecars_key_stays_with_the_sidecar(make_stack: MakeStack, models: ScriptedModels) -> None:
    sections = {"reranker": reranker(models, "tei", api_key=None), "sidecar": {"api_key": "the sidecar's own"}}
    stack = await make_stack(ScriptedIndex(), sections=sections)

    await ask(stack)

    [(_, headers, _)] = models.received
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("section", "given", "told"),
    [
        ("reranker", {"api": "tei"}, "name both of another server, or neither"),
        ("reranker", {"url": "http://127.0.0.1:1/rerank"}, "name both of another server, or neither"),
        ("reranker", {"api": "cohere", "url": "http://127.0.0.1:1/v2/rerank"}, "api cohere needs model"),
        ("embedder", {"api": "openai", "url": "http://127.0.0.1:1/v1/embeddings"}, "api openai needs model"),
    ],
)
def test_half_a_description_of_another_server_is_refused(section: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(None, **{section: given})


async def test_vectors_of_another_encoder_are_never_compared(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=0)
    stack.sidecar.encoder = "other@123456789abc"
    _, mismatch, _ = await search(stack, x_bridge="hybrid")

    stack.sidecar.encoder = PROFILE.encoder.identity
    _, match, _ = await search(stack, x_bridge="hybrid")

    assert mismatch.startswith("expansion; degraded=encoder_mismatch")
    assert match.startswith("hybrid;")


def weighing(answer: web.Response) -> SidecarScript:
    """A sidecar that gives this answer when it is asked for terms."""

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return answer if path == "/embed_sparse" else await kind_sidecar(path, body)

    return sidecar


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(web.Response(status=404), "sparse_unavailable", id="a sidecar without a sparse encoder"),
        pytest.param(web.Response(status=503), "sparse_unavailable", id="it cannot"),
        pytest.param(web.Response(status=429), "sparse_overloaded", id="it has too much to do"),
        pytest.param(web.Response(body=b"[]"), "sparse_unusable", id="no terms of the text"),
        pytest.param(web.Response(body=b"<html>"), "sparse_unusable", id="no JSON"),
    ],
)
async def test_without_the_querys_terms_the_other_legs_rank(
    make_stack: MakeStack, answer: web.Response, reason: str
) -> None:
    stack = await make_stack(ScriptedIndex(profile=WEIGHED), weighing(answer))

    mark, found = await ask(stack, x_bridge="hybrid")

    assert mark.startswith(f"expansion; degraded={reason}; took")
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a", "b", "c", "d"]


async def test_terms_of_another_sparse_encoder_are_never_compared(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=WEIGHED), profile_ttl_s=0)
    stack.sidecar.sparse = ["other@123456789abc"]
    mismatch, _ = await ask(stack, x_bridge="hybrid")
    stack.sidecar.sparse += ["toy@" + "2" * 12]
    match, _ = await ask(stack, x_bridge="hybrid")

    assert mismatch.startswith("expansion; degraded=sparse_mismatch")
    assert match.startswith("hybrid;")


async def test_the_terms_of_a_query_are_asked_for_once_and_as_the_profile_says(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=WEIGHED))
    for words in ("red shoe", "red shoe", "blue shoe"):
        await ask(stack, words, x_bridge="sparse")

    asked = [body for path, body in stack.sidecar.received if path == "/embed_sparse"]
    assert [body["inputs"] for body in asked] == [["red shoe"], ["blue shoe"]]
    assert {(body["role"], body["model"], body["queries"]) for body in asked} == {("query", "toy@" + "2" * 12, "idf")}
    assert "/embed" not in [path for path, _ in stack.sidecar.received]


PICTURED = msgspec.structs.replace(
    PROFILE,
    image=ImageSettings("photo", ModelReference("clip", "3" * 12), 4),
    fusion=FusionSettings(method="rrf", weights={"expansion": 1.0, "image": 1.0}),
)
"""Of an index whose pictures are searched beside its texts; vectors of texts have no weight."""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(web.Response(status=404), "image_unavailable", id="a sidecar without the image encoder"),
        pytest.param(web.Response(status=429), "image_overloaded", id="it has too much to do"),
        pytest.param(web.json_response([[1.0, 0.0]]), "image_unusable", id="another length"),
        pytest.param(web.json_response([]), "image_unusable", id="no embedding"),
        pytest.param(web.Response(body=b"<html>"), "image_unusable", id="no JSON"),
    ],
)
async def test_without_the_querys_embedding_for_pictures_the_other_legs_rank(
    make_stack: MakeStack, answer: web.Response, reason: str
) -> None:
    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return answer if body.get("model") == "clip@333333333333" else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(profile=PICTURED), sidecar)
    mark, found = await ask(stack, x_bridge="hybrid")
    assert mark.startswith(f"expansion; degraded={reason}; took")
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a", "b", "c", "d"]
    mark, _ = await ask(stack, x_bridge="vector")
    assert mark.startswith("vector;"), "texts are embedded all the same"


async def test_a_failing_leg_of_pictures_leaves_the_others(make_stack: MakeStack) -> None:
    error = {"error": {"type": "query_shard_exception", "reason": "no vectors"}, "status": 400}
    stack = await make_stack(ScriptedIndex(profile=PICTURED, legs={"image": error}))
    mark, found = await ask(stack, x_bridge="hybrid")
    assert mark.startswith("expansion; degraded=image_leg_failed; took")
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a", "b", "c", "d"]


async def test_pictures_of_another_image_encoder_are_never_compared(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=PICTURED), profile_ttl_s=0)
    stack.sidecar.encoder, stack.sidecar.more_encoders = PROFILE.encoder.identity, ["other@123456789abc"]
    mark, _ = await ask(stack, x_bridge="hybrid")
    assert mark.startswith("expansion; degraded=image_mismatch")


async def test_the_sidecar_embeds_questions_for_pictures_even_if_another_server_embeds_those_for_texts(
    make_stack: MakeStack, models: ScriptedModels
) -> None:
    embedder = EmbedderSettings(url=f"{models.url}/tei/embed", api="tei")
    stack = await make_stack(ScriptedIndex(profile=PICTURED), sections={"embedder": embedder})
    for words in ("red shoe", "red shoe", "blue shoe"):
        await ask(stack, words, x_bridge="image")
    asked = [body for path, body in stack.sidecar.received if path == "/embed"]
    assert [body["inputs"] for body in asked] == [["red shoe"], ["blue shoe"]]
    assert {(body["role"], body["model"]) for body in asked} == {("query", "clip@333333333333")}
    assert models.received == []


async def test_of_several_encoders_that_of_the_index_is_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    stack.sidecar.encoder = "other@123456789abc"
    stack.sidecar.more_encoders = [PROFILE.encoder.identity]
    _, mark, _ = await search(stack, x_bridge="hybrid")
    assert mark.startswith("hybrid;")
    [asked] = [body for path, body in stack.sidecar.received if path == "/embed"]
    assert asked["model"] == PROFILE.encoder.identity


async def test_embeddings_of_a_query_are_asked_for_once(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    for _ in range(3):
        await search(stack, x_bridge="vector")

    assert [path for path, _ in stack.sidecar.received] == ["/embed"]


async def test_searches_that_ask_for_one_embedding_at_a_time_share_it(make_stack: MakeStack) -> None:
    held = asyncio.Event()

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        await held.wait()
        return await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar, budget_ms=600_000)
    asking = [asyncio.create_task(search(stack, x_bridge="vector", authorization=name)) for name in "abc"]
    # The mapping, once or for each, and each caller's own search: all have come.
    while len(stack.cluster.requests("/docs/_search")) < 3:  # noqa: ASYNC110 - the scripted cluster counts requests
        await asyncio.sleep(0.01)
    asking[0].cancel()
    held.set()
    answers = await asyncio.gather(*asking[1:])

    assert [path for path, _ in stack.sidecar.received] == ["/embed"]
    assert all(mark.startswith("vector; took") for _, mark, _ in answers)


def test_the_breaker_opens_lets_one_try_and_closes() -> None:
    now = 0.0
    breaker = CircuitBreaker(failures=2, reset_s=5.0, clock=lambda: now)
    breaker.failed()
    assert breaker.allows()

    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    now = 5.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    assert not breaker.allows()
    now = 10.0
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.open] == [True, False]


def _stage(session: aiohttp.ClientSession, url: str) -> ModelStage:
    breaker = CircuitBreaker(failures=2, reset_s=60.0)
    return ModelStage(session, url, breaker, stage="embedder", span="embed", headers={}, send_deadline=True)


async def _failure(stage: ModelStage, *, within_s: float = 10.0) -> StageFailed:
    with pytest.raises(StageFailed) as failed:
        await stage.ask({"inputs": ["cat"]}, msgspec.json.decode, deadline=asyncio.get_running_loop().time() + within_s)
    return failed.value


async def test_an_answer_is_read_and_the_sidecar_learns_the_deadline() -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        stage = _stage(session, f"{models.url}/tei/embed")
        deadline = asyncio.get_running_loop().time() + 10
        rows = await stage.ask({"inputs": ["cat"]}, msgspec.json.decode, deadline=deadline)
        assert rows == [[3.0, 0.0, 4.0, 0.0]]
        assert 0 < int(models.received[0][1]["x-request-timeout-ms"]) <= 10_000


async def test_every_failure_has_a_reason_and_repeated_ones_open_the_breaker() -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        models.failing = (429, {"error": "busy", "error_type": "Overloaded"})
        stage = _stage(session, f"{models.url}/tei/embed")
        assert (await _failure(stage, within_s=-1.0)).reason == "embedder_slow"
        assert (await _failure(stage)).reason == "embedder_overloaded"
        models.failing = (500, {"error": "no", "error_type": "Backend"})
        assert (await _failure(stage)).reason == "embedder_unavailable"
        models.failing = None
        assert "left alone" in str(await _failure(stage))
        assert len(models.received) == 2


@pytest.mark.case("P41", "P68")
@pytest.mark.parametrize("status", [400, 404, 405, 411, 413, 414, 415, 422, 451])
async def test_a_refusal_of_one_request_opens_no_breaker_and_closes_none(status: int) -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        models.failing = (status, {"error": "no"})
        stage = _stage(session, f"{models.url}/tei/embed")
        refusals = [await _failure(stage) for _ in range(5)]
        assert all(isinstance(refusal, NotTaken) and refusal.status == status for refusal in refusals)
        assert len(models.received) == 5
        for failing in (503, status, 503):
            models.failing = (failing, {})
            await _failure(stage)
        assert "left alone" in str(await _failure(stage)), "the refusal between two failures is no success"


@pytest.mark.case("P68")
@pytest.mark.parametrize("status", [401, 403, 408, 424, 429, 500, 502, 503, 504, 302])
async def test_what_a_server_answers_whoever_asks_opens_the_breaker(status: int) -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        models.failing = (status, {"error": "no"})
        stage = _stage(session, f"{models.url}/tei/embed")
        for _ in range(5):
            assert not isinstance(await _failure(stage), NotTaken)
        assert len(models.received) == 2


async def test_an_answer_that_is_handed_on_counts_as_one_that_is_read_does() -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        stage = _stage(session, f"{models.url}/tei/embed")

        async def relayed(status: int | None) -> tuple[int, bytes]:
            models.failing = None if status is None else (status, {"error": "no"})
            deadline = asyncio.get_running_loop().time() + 10
            return await stage.relay(b'{"inputs": ["cat"]}', deadline=deadline)

        assert await relayed(None) == (200, b"[[3.0, 0.0, 4.0, 0.0]]")
        assert 0 < int(models.received[0][1]["x-request-timeout-ms"]) <= 10_000
        for status in (404, 422, 404, 503):
            assert (await relayed(status))[0] == status
        await relayed(None)
        for status in (429, 400, 500):
            assert (await relayed(status))[0] == status
        n_received = len(models.received)
        with pytest.raises(StageFailed, match="left alone"):
            await relayed(None)
        assert len(models.received) == n_received


@pytest.mark.case("P68")
def test_requests_that_were_late_together_count_once() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=2, reset_s=5.0, clock=clock)
    clock.now = 1.0
    for _ in range(16):
        breaker.failed(sent_at=0.0)
    assert not breaker.open
    clock.now = 2.0
    breaker.failed(sent_at=1.0)
    assert breaker.open


def test_the_breaker_lets_another_try_after_a_refusal() -> None:
    now = 0.0
    breaker = CircuitBreaker(failures=1, reset_s=5.0, clock=lambda: now)
    breaker.refused()
    assert [breaker.open, breaker.allows()] == [False, True]
    breaker.failed()
    now = 5.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.refused()
    assert [breaker.open, breaker.allows(), breaker.allows()] == [True, True, False]


@pytest.mark.case("P41", "P68")
async def test_an_index_that_asks_for_too_much_costs_other_indices_nothing(make_stack: MakeStack) -> None:
    greedy = msgspec.structs.replace(PROFILE, rerank=RerankSettings(depth=8, blend=0.0))
    profiles = {"greedy": greedy, "docs": PROFILE, "misfit": msgspec.structs.replace(PROFILE, dimension=7)}
    indices = {name: ScriptedIndex(profile=profile) for name, profile in profiles.items()}
    indices["docs"].expanded = indices["docs"].near = indices["docs"].compared = ("a", "b", "c")

    def script(request: Received) -> Reply:
        return indices[request.path.split("/")[1]](request)

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        if len(body.get("texts", ())) > 4:
            return web.json_response({"error": "texts: 5 texts came, one request may hold 4"}, status=413)
        return await kind_sidecar(path, body)

    stack = await make_stack(script, sidecar, breaker_failures=2)
    for x_bridge in ("rerank", "rerank", "cascade", "cascade"):
        _, mark, _ = await search(stack, target="/greedy/_search", x_bridge=x_bridge)
        assert "degraded=" in mark
    for _ in range(3):
        _, mark, _ = await search(stack, target="/misfit/_search", x_bridge="hybrid")
        assert "embedder_unusable" in mark
    embedded = [path for path, _ in stack.sidecar.received].count("/embed")
    _, mark, _ = await search(stack, target="/docs/_search", x_bridge="rerank")
    _, cascade, _ = await search(stack, target="/docs/_search", x_bridge="cascade")

    assert mark.startswith("hybrid+rerank; took")
    assert cascade.startswith("hybrid+cascade; took")
    assert embedded == 2, "the misfit's settings are asked for once"


@pytest.mark.case("P44")
async def test_an_answer_without_end_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "MAX_ANSWER_BYTES", 1_000_000)
    async with endless_server() as url, aiohttp.ClientSession() as session:
        failure = await _failure(_stage(session, f"{url}/embed"))
        assert (failure.reason, "longer than 1,000,000 bytes" in str(failure)) == ("embedder_unusable", True)


@dataclass
class Clock:
    """Time that goes when it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_all_is_read_until_the_pace_is_known_and_then_what_fits() -> None:
    clock = Clock()
    pace = ReadingPace(clock=clock)
    sizes = [100] * 30
    assert pace.affordable(sizes, 0.001) == 30
    with pace.reading(1_000):
        clock.now += 1.0
    assert pace.affordable(sizes, 4.0) == 30
    assert pace.affordable(sizes, 2.0) == 15
    with pace.reading(600):
        assert pace.affordable(sizes, 2.0) == 9
    assert pace.affordable(sizes, 0.0) == FEWEST_READ
    assert pace.affordable(sizes[:3], 0.0) == 3


def test_what_is_read_side_by_side_counts_together() -> None:
    clock = Clock()
    pace = ReadingPace(clock=clock)
    with pace.reading(1_000), pace.reading(1_000):
        clock.now += 1.0
    assert pace.affordable([100] * 30, 1.0) == 15


def test_a_short_request_does_not_make_the_reranker_look_slow() -> None:
    clock = Clock()
    pace = ReadingPace(clock=clock)
    with pace.reading(10):
        clock.now += 0.05
    assert pace.affordable([100] * 30, 0.1) == 30
    with pace.reading(1_000):
        clock.now += 1.0
    for _ in range(20):
        with pace.reading(1_000):
            clock.now += 0.05
    assert pace.affordable([100] * 30, 0.2) > 25


def test_an_answer_that_comes_too_late_makes_the_next_request_smaller_at_once() -> None:
    clock = Clock()
    pace = ReadingPace(clock=clock)
    with pace.reading(1_000):
        clock.now += 1.0
    with suppress(StageFailed), pace.reading(1_500):
        clock.now += 2.0
        raise StageFailed("rerank_slow", "not within the budget")
    assert pace.affordable([100] * 30, 2.0) == 7


def test_a_refusal_at_once_tells_nothing_of_the_pace() -> None:
    clock = Clock()
    pace = ReadingPace(clock=clock)
    with pace.reading(1_000):
        clock.now += 1.0
    with pytest.raises(StageFailed), pace.reading(1_000):
        raise StageFailed("rerank_unavailable", "gone")
    assert pace.affordable([100] * 30, 2.0) == 15
