"""The sidecar's OpenAPI document, made from the request shapes."""

from typing import Any

from bridge import __version__
from rerank_server.messages import EmbeddingsRequest, EmbedRequest, ExpandRequest, Message, RerankRequest

_SHAPES: dict[str, tuple[str, type[Message]]] = {
    "/rerank": ("Scores passages for a query.", RerankRequest),
    "/v1/rerank": ("As /rerank; the path that Jina's and Cohere's first clients use.", RerankRequest),
    "/v2/rerank": ("As /rerank; the path that Cohere's second client uses.", RerankRequest),
    "/opensearch/rerank": ("As /rerank; answers as OpenSearch's default post-processor reads.", RerankRequest),
    "/embed": ("Embeds texts.", EmbedRequest),
    "/expand": ("Predicts queries that texts may answer.", ExpandRequest),
    "/v1/embeddings": ("Embeds texts; the shape of OpenAI's clients.", EmbeddingsRequest),
}

_READS = {
    "/health": "200 while the process can serve.",
    "/ready": "200 while new requests are welcome.",
    "/info": "The models and the limits.",
    "/v1/models": "The models.",
    "/metrics": "Prometheus metrics.",
}

_REFUSALS = {
    "400": "The body is no JSON, or holds no text.",
    "401": "The API key is missing or wrong.",
    "408": "The body came too slowly.",
    "413": "The body or the number of texts exceeds a limit.",
    "415": "The body is not plain `application/json`.",
    "422": "A field is missing or wrong, or needs a model that is not here; `field` names it.",
    "429": "The queue is full; `Retry-After` says when to come again.",
    "500": "The model failed.",
    "504": "The time given by `x-request-timeout-ms`, or the server's own, was over.",
}


def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, (summary, shape) in _SHAPES.items():
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[shape.__name__] = schema
        reference = {"$ref": f"#/components/schemas/{shape.__name__}"}
        paths[path] = {
            "post": {
                "summary": summary,
                "parameters": [
                    {
                        "name": "x-request-timeout-ms",
                        "in": "header",
                        "required": False,
                        "description": "Longest stay of this request, in milliseconds.",
                        "schema": {"type": "integer", "minimum": 1},
                    }
                ],
                "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
                "responses": {"200": _described("The answer."), **{k: _described(v) for k, v in _REFUSALS.items()}},
            }
        }
    for path, summary in _READS.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": _described("The answer.")}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "opensearch-neural-bridge rerank sidecar", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _described(description: str) -> dict[str, str]:
    return {"description": description}
