"""The sidecar's OpenAPI document, made from the request shapes."""

from typing import Any

from bridge import __version__
from rerank_server.errors import OPENAI_PATHS
from rerank_server.messages import (
    EmbeddingsRequest,
    EmbedRequest,
    ExpandRequest,
    Message,
    RerankRequest,
    SparseEmbedRequest,
)

_NUMBER, _STRING, _INTEGER = {"type": "number"}, {"type": "string"}, {"type": "integer"}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """An object; keys that end in `_` may be missing."""
    required = [name for name in properties if not name.endswith("_")]
    named = {name.rstrip("_"): schema for name, schema in properties.items()}
    return {"type": "object", "properties": named, "required": required}


_TEI_HITS = _array(_object(index=_INTEGER, score=_NUMBER, text_=_STRING))


def _results(document: dict[str, Any]) -> dict[str, Any]:
    return _object(
        model=_STRING,
        results=_array(_object(index=_INTEGER, relevance_score=_NUMBER, document_=document)),
        usage={"type": "object"},
        meta={"type": "object"},
    )


_RERANKED = {"anyOf": [_TEI_HITS, _results(_object(text=_STRING))]}
_EMBEDDING = {"anyOf": [_array(_NUMBER), {"type": "string", "contentEncoding": "base64"}]}
_OPENAI_EMBEDDINGS = _object(object=_STRING, model=_STRING, data=_array(_object(index=_INTEGER, embedding=_EMBEDDING)))
_REFUSAL = _object(error=_STRING, error_type=_STRING, field_=_STRING)

_OR_NONE = {"anyOf": [_STRING, {"type": "null"}]}
_OPENAI_REFUSAL = _object(error=_object(message=_STRING, type=_STRING, param=_OR_NONE, code=_OR_NONE))

_SHAPES: dict[str, tuple[str, type[Message], dict[str, Any]]] = {
    "/rerank": ("Scores passages for a query.", RerankRequest, _RERANKED),
    "/v1/rerank": ("As /rerank; the path that Jina's and Cohere's first clients use.", RerankRequest, _RERANKED),
    "/v2/rerank": ("As /rerank; the path that Cohere's second client uses.", RerankRequest, _RERANKED),
    "/infinity/rerank": (
        "As /rerank, with the documents of the answer as strings; infinity's clients.",
        RerankRequest,
        {"anyOf": [_TEI_HITS, _results(_STRING)]},
    ),
    "/opensearch/rerank": (
        "As /rerank; answers as OpenSearch's default post-processor reads.",
        RerankRequest,
        _array(_object(index=_INTEGER, relevance_score=_NUMBER)),
    ),
    "/embed": ("Embeds texts.", EmbedRequest, _array(_array(_NUMBER))),
    "/embed_sparse": (
        "Gives texts weighted terms, the largest first.",
        SparseEmbedRequest,
        _array(_array(_object(index=_INTEGER, value=_NUMBER, token=_STRING))),
    ),
    "/expand": ("Predicts queries that texts may answer.", ExpandRequest, _array(_array(_STRING))),
    "/v1/embeddings": ("Embeds texts; the shape of OpenAI's clients.", EmbeddingsRequest, _OPENAI_EMBEDDINGS),
    "/embeddings": (
        "As /v1/embeddings.",
        EmbeddingsRequest,
        _OPENAI_EMBEDDINGS,
    ),
    "/infinity/embeddings": ("As /v1/embeddings; infinity's clients.", EmbeddingsRequest, _OPENAI_EMBEDDINGS),
}
"""Path → what it does, the request's shape, and the answer's schema."""

_READS = {
    "/health": "200 while the process can serve.",
    "/ready": "200 while new requests are welcome.",
    "/info": "The models and the limits.",
    "/v1/models": "The models.",
    "/metrics": "Prometheus metrics.",
    "/openapi.json": "This document.",
}

_REFUSALS = {
    "400": "The body holds no text; for OpenAI's clients also what other clients get as 422.",
    "401": "The API key is missing or wrong.",
    "404": "It needs a model that is not here: `field` names what asks for it.",
    "408": "The body came too slowly.",
    "413": "The body or the number of texts exceeds a limit.",
    "415": "The body is not plain `application/json`.",
    "422": "No JSON; a field is missing or wrong: `field` names it.",
    "429": "The queue is full; `Retry-After` says when to come again.",
    "500": "The model failed.",
    "504": "The time that `x-request-timeout-ms` or the server allows was over.",
}


def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    schemas: dict[str, Any] = {"Refusal": _REFUSAL, "OpenAIRefusal": _OPENAI_REFUSAL}
    paths: dict[str, Any] = {}
    for path, (summary, shape, answer) in _SHAPES.items():
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[shape.__name__] = schema
        paths[path] = {"post": _computing(path, summary, shape.__name__, answer)}
    for path, summary in _READS.items():
        content = "text/plain" if path == "/metrics" else "application/json"
        responses = {"200": {"description": "The answer.", "content": {content: {}}}, "401": _refusal("401")}
        if path in ("/health", "/ready"):
            responses["503"] = _described(
                "It cannot serve, or is about to stop.", {"$ref": "#/components/schemas/Refusal"}
            )
        paths[path] = {"get": {"summary": summary, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "opensearch-neural-bridge rerank sidecar", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _computing(path: str, summary: str, shape: str, answer: dict[str, Any]) -> dict[str, Any]:
    refusal = "OpenAIRefusal" if path in OPENAI_PATHS else "Refusal"
    reference = {"$ref": f"#/components/schemas/{shape}"}
    return {
        "summary": summary,
        # Declared as a parameter, every value of it would have to be met.
        "description": "The header `x-request-timeout-ms` bounds this request's stay, in milliseconds.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": {
            "200": _described("The answer.", answer),
            **{status: _refusal(status, refusal) for status in _REFUSALS},
        },
    }


def _refusal(status: str, schema: str = "Refusal") -> dict[str, Any]:
    return _described(_REFUSALS[status], {"$ref": f"#/components/schemas/{schema}"})


def _described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
