"""What operators are answered."""

from pathlib import Path

import pytest

from tests.rerank_server.running import running, toy_models


async def test_a_sidecar_that_stops_is_healthy_and_not_ready(tmp_path: Path) -> None:
    async with running(toy_models(tmp_path)) as client:
        assert (await client.get("/ready")).body == {"status": "ready"}
        client.sidecar.draining = True

        assert (await client.get("/health")).status == 200
        stopping = await client.get("/ready")
        assert (stopping.status, stopping.body["error"]) == (503, "the sidecar is stopping")


async def test_info_tells_models_and_limits(tmp_path: Path) -> None:
    models = toy_models(tmp_path)
    async with running(models, max_documents=7) as client:
        info = (await client.get("/info")).body
        listed = (await client.get("/v1/models")).body

    assert (info["model_id"], info["embedding_dimension"], info["max_client_batch_size"]) == (
        models.cross_encoder.identity,
        models.encoder.dimension,
        7,
    )
    assert [model["id"] for model in listed["data"]] == models.identities


@pytest.mark.parametrize(("path", "kind"), [("/metrics", "text/plain"), ("/openapi.json", "application/json")])
async def test_documents_come_in_their_own_type(tmp_path: Path, path: str, kind: str) -> None:
    async with running(toy_models(tmp_path)) as client:
        answer = await client.get(path)

    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, kind)
