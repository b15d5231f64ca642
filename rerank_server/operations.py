"""Routes for operators: health, readiness, models and limits, metrics, the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from bridge import __version__
from rerank_server import metrics, openapi
from rerank_server.errors import error_answer

if TYPE_CHECKING:
    from rerank_server.app import Sidecar


async def _health(sidecar: "Sidecar", _request: web.Request) -> web.Response:
    if not sidecar.queue.is_alive:
        return error_answer(503, "dead", "a computing thread has died: restart the sidecar", path="/health")
    return web.json_response({"status": "ok"})


async def _ready(sidecar: "Sidecar", _request: web.Request) -> web.Response:
    if sidecar.draining or not sidecar.queue.is_alive:
        message = "the sidecar is stopping" if sidecar.draining else "see /health"
        return error_answer(503, "not_ready", message, path="/ready")
    return web.json_response({"status": "ready"})


async def _info(sidecar: "Sidecar", _request: web.Request) -> web.Response:
    """Uses the keys of text-embeddings-inference if it has one."""
    settings, models = sidecar.settings, sidecar.models
    return web.json_response(
        {
            "model_id": models.cross_encoder.identity,
            "model_type": {"reranker": {}},
            "rerank_model_ids": [model.identity for model in models.cross_encoders],
            "cascade_model_id": models.cascade.identity if models.cascade else None,
            "embedding_model_id": models.encoder.identity,
            "embedding_model_ids": [encoder.identity for encoder in models.encoders],
            "embedding_dimension": models.encoder.dimension,
            "sparse_model_ids": [encoder.identity for encoder in models.sparse_encoders],
            "generator_model_id": models.generator.identity if models.generator else None,
            "providers": models.cross_encoder.providers,
            "threads": sidecar.queue.n_threads,
            "max_input_length": settings.max_pair_tokens,
            "max_batch_tokens": settings.max_batch_tokens,
            "max_client_batch_size": settings.max_documents,
            "max_queued_pairs": settings.max_queued_pairs,
            "max_body_bytes": settings.max_body_bytes,
            "version": __version__,
        }
    )


async def _list_models(sidecar: "Sidecar", _request: web.Request) -> web.Response:
    models = [{"id": identity, "object": "model", "owned_by": "local"} for identity in sidecar.models.identities]
    return web.json_response({"object": "list", "data": models})


async def _show_metrics(sidecar: "Sidecar", _request: web.Request) -> web.Response:
    return web.Response(body=sidecar.metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})


async def _openapi(_sidecar: "Sidecar", _request: web.Request) -> web.Response:
    return web.json_response(openapi.document())


ROUTES: Mapping[str, Callable[["Sidecar", web.Request], Awaitable[web.Response]]] = {
    "/health": _health,
    "/ready": _ready,
    "/info": _info,
    "/v1/models": _list_models,
    "/metrics": _show_metrics,
    "/openapi.json": _openapi,
}
"""Each answered by GET."""
