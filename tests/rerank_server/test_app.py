"""The sidecar over HTTP, with toy models: what is answered, what is refused and how."""

import asyncio
import base64
import gzip
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.sparse_encoder import SparseEncoder
from rerank_server import app, server
from rerank_server.models import Models
from tests.rerank_server.running import Client, running, toy_models
from tests.toys import (
    WORDS,
    make_faulty_cross_encoder,
    make_toy_encoder,
    make_toy_sparse_encoder,
    make_toy_static_encoder,
)

PASSAGES = ["a bird", "dog and cat", "cat", "nothing", "the cat, the dog, the fish"]
QUERY = {"query": "cat dog fish"}
RANKED = [4, 1, 2, 0, 3]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return toy_models(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return toy_models(tmp_path_factory.mktemp("slow"), slow_products=20)


@pytest.fixture
async def client(models: Models) -> AsyncIterator[Client]:
    async with running(models) as client:
        yield client


@pytest.mark.case("R21")
async def test_texts_are_answered_as_text_embeddings_inference_does(client: Client) -> None:
    request = QUERY | {
        "texts": PASSAGES,
        "raw_scores": True,
        "truncate": True,
        "truncation_direction": "Right",
        "return_text": True,
    }
    answer = await client.post("/rerank", request)
    assert answer.status == 200
    assert [hit["index"] for hit in answer.body] == RANKED
    assert [hit["score"] for hit in answer.body] == [3.0, 2.0, 1.0, 0.0, 0.0]
    assert [hit["text"] for hit in answer.body] == [PASSAGES[index] for index in RANKED]


@pytest.mark.case("R21")
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("as_objects", [False, True])
async def test_documents_are_answered_as_cohere_and_jina_do(client: Client, path: str, as_objects: bool) -> None:
    documents = [{"text": passage, "id": 7} for passage in PASSAGES] if as_objects else PASSAGES
    request = QUERY | {"model": "rerank-v4", "documents": documents, "top_n": 2, "return_documents": True}
    answer = await client.post(path, request, headers={"Authorization": "Bearer any"})
    assert answer.status == 200
    assert [hit["index"] for hit in answer.body["results"]] == RANKED[:2]
    assert answer.body["results"][0]["document"] == {"text": PASSAGES[4]}
    assert 0 < answer.body["results"][0]["relevance_score"] < 1
    assert answer.body["usage"]["total_tokens"] > 0


@pytest.mark.case("R21")
async def test_infinitys_clients_get_documents_as_strings(client: Client) -> None:
    request = QUERY | {"documents": PASSAGES, "top_n": 2, "return_documents": True}
    results = (await client.post("/infinity/rerank", request)).body["results"]
    assert [(hit["index"], hit["document"]) for hit in results] == [(index, PASSAGES[index]) for index in RANKED[:2]]


@pytest.mark.case("R21")
async def test_opensearch_gets_every_document_whatever_it_asked_for(client: Client) -> None:
    answer = await client.post("/opensearch/rerank", QUERY | {"documents": PASSAGES, "top_n": 1})
    assert [hit["index"] for hit in answer.body] == RANKED
    assert all(isinstance(hit["relevance_score"], float) for hit in answer.body)


@pytest.mark.case("R7")
async def test_every_index_comes_once_best_first_and_ties_keep_their_order(client: Client) -> None:
    passages = [("cat " * (number % 3)).strip() for number in range(200)]
    answer = await client.post("/rerank", {"query": "cat", "texts": passages, "raw_scores": True})
    indices = [hit["index"] for hit in answer.body]
    assert sorted(indices) == list(range(200))
    with_cat = [number for number in range(200) if number % 3]
    assert indices == with_cat + [number for number in range(200) if number % 3 == 0]


@pytest.mark.case("R7")
async def test_scores_are_written_with_a_decimal_point(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    body = json.dumps({"query": "cat", "texts": ["cat", "dog"], "raw_scores": True}).encode()
    headers = ("Host: x", "Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}")
    writer.write("\r\n".join(("POST /rerank HTTP/1.1", *headers, "", "")).encode() + body)
    received = await reader.read()
    writer.close()
    assert received.endswith(b'[{"index":0,"score":1.0},{"index":1,"score":0.0}]')


@pytest.mark.case("R1")
@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "query"),
        ({"texts": ["a"]}, 422, "query"),
        ({"query": "a"}, 422, ""),
        ({"query": "a", "texts": ["b"], "documents": ["b"]}, 422, ""),
        ({"query": "a", "documents": []}, 400, "documents"),
        ({"query": "a", "texts": []}, 400, "texts"),
        ({"query": "a", "documents": "x"}, 422, "documents"),
        ({"query": "a", "texts": [1, 2]}, 422, "texts.0"),
        ({"query": "a", "texts": ["b", None]}, 422, "texts.1"),
        ({"query": 1, "texts": ["b"]}, 422, "query"),
        ({"query": None, "texts": ["b"]}, 422, "query"),
        ({"query": "a", "documents": [{"text": 1}]}, 422, "documents.0"),
        ({"query": "a", "documents": ["b", {}]}, 422, "documents.1"),
        ([], 422, ""),
        ("x", 422, ""),
    ],
)
async def test_a_wrong_field_is_named(client: Client, body: object, status: int, field: str) -> None:
    answer = await client.post("/rerank", body)
    assert answer.status == status
    assert answer.body["field"].startswith(field)
    assert answer.body["error"]


@pytest.mark.case("R6")
@pytest.mark.parametrize(
    ("top_n", "status"), [(0, 422), (-1, 422), ("3", 422), (1.5, 422), (2**63, 200), (6.0, 200), (6, 200)]
)
async def test_top_n_is_a_number_above_zero_and_more_than_all_means_all(
    client: Client, top_n: object, status: int
) -> None:
    answer = await client.post("/rerank", QUERY | {"documents": PASSAGES, "top_n": top_n})
    assert answer.status == status
    if status == 200:
        assert len(answer.body["results"]) == len(PASSAGES)
    else:
        assert answer.body["field"] == "top_n"


@pytest.mark.case("R2")
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no JSON", {}, 422),
        (b'{"query": "a", "texts": ["b"', {}, 422),
        (b'\xef\xbb\xbf{"query": "a", "texts": ["b"]}', {}, 422),
        (b'{"query": ' + b"[" * 10_000, {}, 422),
        (b'{"query": "a", "texts": ["\\ud800"], "x": ' + b"[" * 10_000, {}, 422),
        (b'{"query": "a", "texts": ["b"], "top_n": ' + b"9" * 5_000 + b"}", {}, 422),
        (b'{"query": "a", "texts": ["\xff"]}', {}, 422),
        (b'{"query": "a", "texts": ["b"]}', {"Content-Type": "text/plain"}, 415),
        (gzip.compress(b'{"query": "a", "texts": ["b"]}', mtime=0), {"Content-Encoding": "gzip"}, 415),
        (b"", {}, 422),
    ],
)
async def test_a_body_that_is_no_plain_json_is_refused_and_the_next_request_served(
    client: Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert (await client.post("/rerank", body, headers=headers)).status == status
    assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"]})).status == 200


@pytest.mark.case("R3")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_refused_with_the_limit(models: Models, chunked: bool) -> None:
    async with running(models, max_body_bytes=10_000) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000000"
        writer.write(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + length + b"\r\n\r\n")
        for _ in range(20):  # 20 kB of what was announced as 1 GB
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n" if chunked else b"x" * 1000)
        received = await reader.readuntil(b"}")
        writer.close()
        assert received.startswith(b"HTTP/1.1 413")
        assert b"the body exceeds 10000 bytes" in received


@pytest.mark.case("R3")
async def test_more_documents_than_the_limit_are_refused_with_the_limit(models: Models) -> None:
    async with running(models, max_documents=3) as client:
        answer = await client.post("/rerank", QUERY | {"texts": ["a"] * 4})
        assert answer.status == 413
        assert "4 texts came, one request may hold 3" in answer.body["error"]


@pytest.mark.case("R4")
async def test_very_long_texts_are_answered_in_time(models: Models) -> None:
    async with running(models, max_body_bytes=40_000_000, request_timeout_s=60) as client:
        answer = await client.post("/rerank", {"query": "cat " * 250_000, "texts": ["漢字" * 2_000_000, "cat"]})
        assert answer.status == 200
        assert answer.body[0]["index"] == 1


@pytest.mark.case("R5")
@pytest.mark.parametrize("text", ["", "  ", "🙂", "\x00", "\ud800", "\udc00cat"])
async def test_any_text_gets_a_score_at_its_index(client: Client, text: str) -> None:
    body = json.dumps({"query": "cat", "texts": ["cat", text], "raw_scores": True}).encode()
    answer = await client.post("/rerank", body)
    assert answer.status == 200
    assert sorted(hit["index"] for hit in answer.body) == [0, 1]


@pytest.mark.case("R8")
async def test_a_score_that_is_no_number_is_an_error_and_never_an_answer(models: Models, tmp_path: Path) -> None:
    faulty = Models(CrossEncoder.load(make_faulty_cross_encoder(tmp_path)), models.encoder)
    async with running(faulty) as client:
        answer = await client.post("/rerank", {"query": "cat", "texts": ["bird", "cat"]})
        assert answer.status == 500
        assert answer.body["error_type"] == "model"
        assert await client.metric("bridge_rerank_model_errors_total") == 1
        assert (await client.post("/rerank", {"query": "cat", "texts": ["bird"]})).status == 200


@pytest.mark.case("R9")
async def test_what_the_queue_cannot_hold_is_refused_at_once(slow_models: Models) -> None:
    async with running(slow_models, max_queued_pairs=64) as client:

        async def ask() -> tuple[int, str | None]:
            answer = await client.post("/rerank", {"query": "cat", "texts": ["cat"] * 4})
            return answer.status, answer.headers.get("Retry-After")

        answers = await asyncio.gather(*(ask() for _ in range(500)))
        served = sum(status == 200 for status, _ in answers)
        refused = [retry_after for status, retry_after in answers if status == 429]
        assert served + len(refused) == 500
        assert 16 <= served < 500
        assert all(retry_after is not None and int(retry_after) >= 1 for retry_after in refused)
        assert await client.metric("bridge_rerank_rejected_total") == len(refused)
        assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"]})).status == 200
        assert await client.metric("bridge_rerank_queue_size") == 0


async def test_a_small_request_does_not_wait_for_all_of_a_big_one(slow_models: Models) -> None:
    async with running(slow_models, max_batch_tokens=16) as client:
        finished: list[str] = []

        async def ask(name: str, n_texts: int) -> None:
            assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"] * n_texts})).status == 200
            finished.append(name)

        big = asyncio.create_task(ask("big", 60))
        await _until(client, "bridge_rerank_batch_pairs_count", at_least=1)
        await ask("small", 2)
        assert finished == ["small"]
        await big


async def test_a_query_is_embedded_before_the_pairs_that_wait(slow_models: Models) -> None:
    async with running(slow_models, max_batch_tokens=16) as client:
        finished: list[str] = []

        async def rerank() -> None:
            assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"] * 30})).status == 200
            finished.append("rerank")

        big = [asyncio.create_task(rerank()) for _ in range(4)]
        await _until(client, "bridge_rerank_queue_size", at_least=120)
        computed = await client.metric("bridge_rerank_batch_pairs_sum")
        assert (await client.post("/embed", {"inputs": "cat"})).status == 200
        assert await client.metric("bridge_rerank_batch_pairs_sum") <= computed + 6
        assert not finished
        await asyncio.gather(*big)


@pytest.mark.case("R10")
async def test_work_of_a_client_that_left_is_dropped(slow_models: Models) -> None:
    async with running(slow_models, max_batch_tokens=16) as client:
        request = asyncio.create_task(client.post("/rerank", {"query": "cat", "texts": ["cat"] * 200}))
        await _until(client, "bridge_rerank_batch_pairs_count", at_least=1)
        request.cancel()
        await _until(client, "bridge_rerank_dropped_total", at_least=1)
        computed = await client.metric("bridge_rerank_batch_pairs_sum")
        assert computed < 100
        assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"]})).status == 200
        # The turn of three that was being computed is ended, and then comes the one pair.
        assert await client.metric("bridge_rerank_batch_pairs_sum") <= computed + 3 + 1


@pytest.mark.case("R11")
async def test_a_deadline_is_kept_and_nothing_is_computed_after_it(slow_models: Models) -> None:
    async with running(slow_models, max_batch_tokens=16) as client:
        answer = await client.post(
            "/rerank", {"query": "cat", "texts": ["cat"] * 500}, headers={"x-request-timeout-ms": "200"}
        )
        assert answer.status == 504
        assert (await client.post("/rerank", {"query": "cat", "texts": ["cat"]})).status == 200
        assert await client.metric("bridge_rerank_batch_pairs_sum") < 100


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "1.5", "١"])
async def test_a_deadline_must_be_a_number_of_milliseconds(client: Client, value: str) -> None:
    answer = await client.post("/rerank", QUERY | {"texts": ["a"]}, headers={"x-request-timeout-ms": value})
    assert answer.status == 422
    assert answer.body["field"] == "x-request-timeout-ms"


@pytest.mark.case("R18")
async def test_accepted_requests_are_finished_when_the_sidecar_stops(slow_models: Models) -> None:
    async with running(slow_models) as client:
        requests = [
            asyncio.create_task(client.post("/rerank", {"query": "cat", "texts": ["cat"] * 10})) for _ in range(3)
        ]
        await _until(client, "bridge_rerank_queue_size", at_least=30)
        client.sidecar.draining = True
        assert (await client.get("/ready")).status == 503
        assert (await client.get("/health")).status == 200
        answers = await asyncio.gather(*requests)
    assert [answer.status for answer in answers] == [200, 200, 200]


@pytest.mark.case("R20")
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        ("Bearer " + "x" * 7000, 401),
        ("secret", 401),
        ("Bearer secret", 200),
    ],
)
async def test_where_a_key_is_set_it_is_needed(models: Models, header: str | None, status: int) -> None:
    async with running(models, api_key="secret") as client:
        headers = {"Authorization": header} if header is not None else {}
        assert (await client.post("/rerank", QUERY | {"texts": ["a"]}, headers=headers)).status == status
        assert (await client.get("/info", headers=headers)).status == status
        assert [(await client.get(path)).status for path in ("/health", "/ready", "/metrics")] == [200] * 3


@pytest.mark.case("R20")
async def test_neither_key_nor_texts_are_logged(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(models, api_key="very-secret") as client:
        await client.post(
            "/rerank", {"query": "catword", "texts": ["dogword"]}, headers={"Authorization": "Bearer very-secret"}
        )
        await client.post("/rerank", {"query": "catword"}, headers={"Authorization": "Bearer very-secret-not"})
    output = "".join(capsys.readouterr())
    assert "request" in output
    assert not [word for word in ("very-secret", "catword", "dogword") if word in output]


@pytest.mark.case("R23")
async def test_slow_clients_are_cut_off_and_do_not_hinder_others(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(app, "BODY_TIMEOUT_S", 1.0)
    monkeypatch.setattr(server, "LINGERING_S", 0.5)
    async with running(models) as client:
        half_head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nX-Slow: "
        half_body = (
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        sockets = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(150)]
        for number, (_, writer) in enumerate(sockets):
            writer.write((half_head, half_body, b"")[number % 3])
        assert (await client.post("/rerank", QUERY | {"texts": ["a"]})).status == 200
        async with asyncio.timeout(8):
            received = await asyncio.gather(*(reader.read() for reader, _ in sockets))
        for _, writer in sockets:
            writer.close()
        assert [answer[:12] for answer in received[:3]] == [b"", b"HTTP/1.1 408", b""]
        assert (await client.post("/rerank", QUERY | {"texts": ["a"]})).status == 200


@pytest.mark.case("R24")
async def test_metrics_are_served_under_load_and_hold_no_words_of_clients(slow_models: Models) -> None:
    async with running(slow_models, max_queued_pairs=8) as client:
        requests = [
            asyncio.create_task(client.post("/rerank", {"query": "cat", "texts": ["cat"] * 8})) for _ in range(20)
        ]
        await client.get("/secretword?secretword=1")
        await client.post("/rerank/secretword", {"query": "secretword"})
        metrics = (await client.get("/metrics")).body
        await asyncio.gather(*requests)
        assert "bridge_rerank_rejected_total" in metrics
        assert "secretword" not in metrics + (await client.get("/metrics")).body


async def test_a_pair_is_computed_once_while_it_is_remembered(models: Models) -> None:
    async with running(models, cached_pairs=100) as client:
        first = await client.post("/rerank", QUERY | {"texts": PASSAGES[:3], "raw_scores": True})
        again = await client.post("/rerank", QUERY | {"texts": [*PASSAGES[:3][::-1], "fish"], "raw_scores": True})
        assert await client.metric("bridge_rerank_batch_pairs_sum") == 4
        assert await client.metric("bridge_rerank_cached_pairs_total") == 7
        scores = {hit["index"]: hit["score"] for hit in again.body}
        assert [scores[2 - hit["index"]] for hit in first.body] == [hit["score"] for hit in first.body]
        await client.post("/rerank", {"query": "cat", "texts": PASSAGES[:3]})
        assert await client.metric("bridge_rerank_batch_pairs_sum") == 7


async def test_texts_are_embedded_in_both_dialects(client: Client) -> None:
    vectors = (await client.post("/embed", {"inputs": ["cat", "dog cat"], "role": "passage"})).body
    assert vectors[0][WORDS.index("cat")] == 1.0
    assert vectors[1][WORDS.index("dog")] == pytest.approx(2**-0.5)
    assert (await client.post("/embed", {"inputs": "cat"})).body == [vectors[0]]
    listed = (await client.post("/v1/embeddings", {"input": ["cat", "dog cat"], "model": "any"})).body
    assert [entry["embedding"] for entry in listed["data"]] == vectors
    packed = (await client.post("/v1/embeddings", {"input": "cat", "encoding_format": "base64"})).body
    assert list(struct.unpack(f"<{len(WORDS)}f", base64.b64decode(packed["data"][0]["embedding"]))) == vectors[0]


@pytest.mark.parametrize("make", [make_toy_encoder, make_toy_static_encoder])
async def test_several_encoders_are_served_each_by_its_name(
    tmp_path: Path, make: Callable[[Path, Sequence[str]], ModelFolder]
) -> None:
    models = toy_models(tmp_path)
    other = Encoder.load(make(tmp_path / "other", WORDS[:10]), threads=1)
    async with running(replace(models, more_encoders=(other,))) as client:
        info = (await client.get("/info")).body
        assert info["embedding_model_ids"] == [models.encoder.identity, other.identity]
        for name, dimension in ((None, len(WORDS)), ("of-a-hosted-service", len(WORDS)), (other.identity, 10)):
            answer = await client.post("/embed", {"inputs": "wing", "model": name})
            assert len(answer.body[0]) == dimension
        listed = (await client.post("/v1/embeddings", {"input": "wing", "model": other.identity})).body
        assert (listed["model"], len(listed["data"][0]["embedding"])) == (other.identity, 10)
        gone = await client.post("/embed", {"inputs": "wing", "model": "toy-encoder@0123456789ab"})
        assert gone.status == 404


async def test_texts_get_terms_and_queries_those_of_their_own_words(tmp_path: Path) -> None:
    folder = make_toy_sparse_encoder(tmp_path / "sparse", idf={"cat": 2.0, "dog": 5.0})
    sparse = SparseEncoder.load(folder, threads=1)
    cat, dog = 4 + WORDS.index("cat"), 4 + WORDS.index("dog")
    async with running(replace(toy_models(tmp_path), sparse_encoders=(sparse,))) as client:
        assert (await client.get("/info")).body["sparse_model_ids"] == [sparse.identity]
        texts = ["dog cat cat", ""]
        passages = (await client.post("/embed_sparse", {"inputs": texts, "role": "passage"})).body
        by_model = [
            {"index": cat, "value": 2.0, "token": "cat"},
            {"index": dog, "value": 1.0, "token": "dog"},
        ]
        assert passages == [by_model, []]
        queries = (await client.post("/embed_sparse", {"inputs": texts[0], "role": "query"})).body
        assert queries == [[{"index": dog, "value": 5.0, "token": "dog"}, {"index": cat, "value": 2.0, "token": "cat"}]]
        asked = {"inputs": texts[0], "queries": "model", "model": sparse.identity}
        assert (await client.post("/embed_sparse", asked)).body == [by_model]
        for body, status in (({**asked, "model": "other@000000000000"}, 404), ({"inputs": []}, 400), ({}, 422)):
            assert (await client.post("/embed_sparse", body)).status == status


async def test_a_sidecar_without_a_sparse_encoder_says_so(client: Client) -> None:
    answer = await client.post("/embed_sparse", {"inputs": "cat"})
    assert (answer.status, answer.body["field"]) == (404, "model")


@pytest.mark.parametrize(
    ("body", "status"), [({"inputs": []}, 400), ({"inputs": [1]}, 422), ({"inputs": "a", "role": "x"}, 422), ({}, 422)]
)
async def test_wrong_requests_to_embed_are_refused(client: Client, body: object, status: int) -> None:
    assert (await client.post("/embed", body)).status == status


async def test_operators_see_models_limits_and_routes(client: Client) -> None:
    info = (await client.get("/info")).body
    assert info["model_id"].startswith("toy-cross-encoder@")
    assert info["providers"] == ["CPUExecutionProvider"]
    assert info["max_client_batch_size"] == 1000
    assert len((await client.get("/v1/models")).body["data"]) == 2
    paths = (await client.get("/openapi.json")).body["paths"]
    assert {"/rerank", "/embed", "/health", "/metrics"} <= set(paths)
    assert (await client.get("/nothing")).status == 404
    assert (await client.get("/rerank")).status == 405


async def _until(client: Client, metric: str, *, at_least: float) -> None:
    async with asyncio.timeout(60):
        while await client.metric(metric) < at_least:  # noqa: ASYNC110 - metrics are all that the sidecar tells
            await asyncio.sleep(0.01)
