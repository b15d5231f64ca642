"""Model servers that are not the sidecar, scripted: they take what their documentation names, and nothing else.

Shapes of requests, answers and errors as text-embeddings-inference's OpenAPI document, Cohere's and Jina's API
references and OpenAI's have them.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.served import served

API_KEY = "a-key-of-the-other-server"
MODEL = "rerank-v3.5"
MAX_TEI_BATCH = 32

_TEI_RERANK = {"query", "texts", "raw_scores", "return_text", "truncate", "truncation_direction"}
_TEI_EMBED = {"inputs", "normalize", "truncate", "truncation_direction", "prompt_name", "dimensions"}
_COHERE = {"model", "query", "documents", "top_n", "max_tokens_per_doc", "priority"}
_JINA = {"model", "query", "documents", "top_n", "return_documents"}
_OPENAI = {"model", "input", "encoding_format", "dimensions", "user"}


@dataclass
class ScriptedModels:
    """`failing` is an error that every request gets in place of its answer. `received` holds path, headers and body."""

    url: str = ""
    failing: tuple[int, Any] | None = None
    received: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    embedding: list[float] = field(default_factory=lambda: [3.0, 0.0, 4.0, 0.0])

    def asked(self, path: str) -> list[Any]:
        """The bodies that came to a path."""
        return [body for each, _, body in self.received if each == path]

    async def handle(self, request: web.Request) -> web.Response:
        """Answers one request as the server of its path would."""
        body = await request.json()
        self.received.append((request.path, {name.lower(): value for name, value in request.headers.items()}, body))
        if self.failing is not None:
            return web.json_response(self.failing[1], status=self.failing[0])
        match request.path:
            case "/tei/rerank":
                return self._tei_rerank(body)
            case "/tei/embed":
                return self._tei_embed(body)
            case "/v2/rerank":
                return self._documents(request, body, _COHERE, {"id": "1", "meta": {"api_version": {"version": "2"}}})
            case "/v1/rerank":
                return self._documents(request, body, _JINA, {"model": MODEL, "usage": {"total_tokens": 9}})
            case "/v1/embeddings":
                return self._openai(body)
        return web.json_response({"message": "no such path"}, status=404)

    def _tei_rerank(self, body: Any) -> web.Response:
        if not body.keys() <= _TEI_RERANK or not isinstance(body["texts"], list):
            return _tei_error(422, "Tokenizer", "the request is malformed")
        if len(body["texts"]) > MAX_TEI_BATCH:
            told = f"batch size {len(body['texts'])} > maximum allowed batch size {MAX_TEI_BATCH}"
            return _tei_error(413, "Validation", told)
        ranks = [{"index": i, "score": logit(body["query"], text)} for i, text in enumerate(body["texts"])]
        if not body.get("raw_scores"):
            ranks = [{**rank, "score": _probability(rank["score"])} for rank in ranks]
        return web.json_response(sorted(ranks, key=lambda rank: -rank["score"]))

    def _tei_embed(self, body: Any) -> web.Response:
        if not body.keys() <= _TEI_EMBED:
            return _tei_error(422, "Tokenizer", "the request is malformed")
        return web.json_response([self.embedding for _ in body["inputs"]])

    def _documents(self, request: web.Request, body: Any, known: set[str], more: dict[str, Any]) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return web.json_response({"message": "invalid api token"}, status=401)
        if not body.keys() <= known or body["model"] != MODEL:
            return web.json_response({"message": "invalid request"}, status=400)
        scored = [
            {"index": i, "relevance_score": _probability(logit(body["query"], text))}
            for i, text in enumerate(body["documents"])
        ]
        best = sorted(scored, key=lambda result: -result["relevance_score"])[: body.get("top_n")]
        return web.json_response({"results": best, **more})

    def _openai(self, body: Any) -> web.Response:
        if not body.keys() <= _OPENAI:
            return web.json_response({"error": {"message": "unknown parameter", "type": "invalid_request"}}, status=400)
        rows = [{"object": "embedding", "index": i, "embedding": self.embedding} for i in range(len(body["input"]))]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return web.json_response({"object": "list", "data": rows, "model": body["model"], "usage": usage})


def logit(query: str, text: str) -> float:
    """What all of them think of a pair: how many of the query's words the text holds, two of them being even."""
    return len(set(query.lower().split()) & set(text.lower().split())) - 2.0


def _probability(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def _tei_error(status: int, kind: str, told: str) -> web.Response:
    return web.json_response({"error": told, "error_type": kind}, status=status)


@asynccontextmanager
async def scripted_models() -> AsyncIterator[ScriptedModels]:
    """All of them on one free port."""
    models = ScriptedModels()
    app = web.Application()
    app.router.add_post("/{path:.*}", models.handle)
    async with served(app) as models.url:
        yield models
