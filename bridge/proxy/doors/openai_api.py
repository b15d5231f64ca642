"""`POST /_bridge/openai/v1/…`: vector-store search and embeddings in OpenAI's shape, for its clients and those like it.

`vector_stores/{index}/search` gives passages of an index, which stands for a vector store; `embeddings` gives what the
sidecar's encoder makes of texts. https://platform.openai.com/docs/api-reference describes both.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Raw

from bridge.errors import StageFailed
from bridge.proxy.transport.headers import MARK
from bridge.proxy.transport.passthrough import Inbound
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.retrieve import MAX_QUERIES, Retrieval, Retrieved, RetrievedPassage, RetrieveRequest
from bridge.search.json_tree import Json
from bridge.search.request import MAX_TEXT_CHARS
from bridge.settings import Settings
from bridge.text import decode

MOST_RESULTS = 50
"""The limit of OpenAI's own service."""

_HIGHEST_SCORE = 3.0
"""Of a retrieved passage; OpenAI's scores are from 0 to 1."""

_MAX_LEVELS = 50

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

_Query = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]
_Value = str | int | float | bool

_RANGES = ("gt", "gte", "lt", "lte")


class _Comparison(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: Annotated[str, Meta(min_length=1)]
    value: _Value | list[_Value]


class _Compound(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["and", "or"]
    filters: Annotated[list[Raw], Meta(min_length=1)]


class _Kind(msgspec.Struct):
    type: str


class _RankingOptions(msgspec.Struct):
    ranker: str | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.0


class _SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    query: _Query | Annotated[list[_Query], Meta(min_length=1, max_length=MAX_QUERIES)]
    filters: Raw = Raw(b"null")
    max_num_results: Annotated[int, Meta(ge=1, le=MOST_RESULTS)] = 10
    ranking_options: _RankingOptions | None = None
    rewrite_query: bool | None = None
    """Accepted and not heeded: what is asked is searched as it is."""


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class _Result(msgspec.Struct):
    """A passage. `file_id` is the document's `_id`, `filename` its index and that. `attributes` hold the `confidence`
    of the query that found it, if the index is calibrated."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float]
    content: list[_Text]


class OpenAI:
    """Answers requests of OpenAI's clients, whose `base_url` ends with `/_bridge/openai/v1`."""

    route = "openai"
    path = "/_bridge/openai/v1/"
    methods: Sequence[str] = (hdrs.METH_POST,)

    def __init__(self, retrieval: Retrieval, sidecar: Sidecar, settings: Settings) -> None:
        self.listener = settings.proxy.openai
        self._retrieval = retrieval
        self._sidecar = sidecar
        self._timeout_s = settings.sidecar.request_timeout_s

    async def answer(self, inbound: Inbound, body: bytes) -> web.Response:
        """The answer to a request.

        Raises:
            Refused: 404 for an endpoint that is not here, and as the methods of `Retrieval`.
        """
        endpoint = inbound.target.partition("?")[0].removeprefix(self.path)
        if endpoint == "embeddings":
            return await self._embeddings(body)
        if (search := re.fullmatch("vector_stores/([^/]+)/search", endpoint)) is not None:
            return await self._search(search[1], inbound, body)
        raise Refused(
            404, "not_found", f"{self.path}{endpoint}: expected {self.path}vector_stores/INDEX/search or embeddings"
        )

    def refusal(self, refused: Refused) -> bytes:
        """As OpenAI's service writes an error."""
        message = refused.reason.encode("utf-8", "backslashreplace").decode()
        of_openai = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
        return msgspec.json.encode(
            {"error": {"message": message, "type": of_openai, "param": None, "code": refused.kind}}
        )

    async def _search(self, index: str, inbound: Inbound, body: bytes) -> web.Response:
        try:
            wanted = decode(body, _SearchRequest)
            clause = _clause(wanted.filters) if bytes(wanted.filters) != b"null" else None
        except msgspec.DecodeError as error:
            raise Refused(400, "invalid_value", str(error)) from error
        options = wanted.ranking_options or _RankingOptions()
        queries = [wanted.query] if isinstance(wanted.query, str) else wanted.query
        request = RetrieveRequest(
            index,
            queries,
            size=wanted.max_num_results,
            filter=Raw(msgspec.json.encode([clause] if clause is not None else [])),
            stage="hybrid" if options.ranker == "none" else None,
        )
        results, marks = await self._retrieval.retrieve(request, inbound.headers)
        found = [
            _result(passage, confidence)
            for passage, confidence in _best(results)
            if passage.score / _HIGHEST_SCORE >= options.score_threshold
        ]
        page = {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": found[: wanted.max_num_results],
            "has_more": False,
            "next_page": None,
        }
        return web.Response(body=msgspec.json.encode(page), content_type="application/json", headers=marks)

    async def _embeddings(self, body: bytes) -> web.Response:
        """The sidecar's answer: it knows this shape, and refuses what it cannot do."""
        started = asyncio.get_running_loop().time()
        try:
            status, answer = await self._sidecar.openai_embeddings(body, deadline=started + self._timeout_s)
        except StageFailed as failed:
            raise Refused(503, failed.reason, str(failed)) from failed
        took_s = asyncio.get_running_loop().time() - started
        mark = {MARK: f"embed; took_ms={took_s * 1000:.0f}"}
        return web.Response(status=status, body=answer, content_type="application/json", headers=mark)


def _best(results: Iterable[Retrieved]) -> list[tuple[RetrievedPassage, float | None]]:
    """Best first, the best of each document, with its query's confidence."""
    found = [(passage, result.confidence) for result in results for passage in result.passages]
    of_document: dict[tuple[str, str], tuple[RetrievedPassage, float | None]] = {}
    for passage, confidence in sorted(found, key=lambda each: -each[0].score):
        of_document.setdefault((passage.index, passage.doc_id), (passage, confidence))
    return list(of_document.values())


def _result(passage: RetrievedPassage, confidence: float | None) -> _Result:
    attributes: dict[str, str | float] = {"index": passage.index, "start": passage.start, "end": passage.end}
    return _Result(
        file_id=passage.doc_id,
        filename=f"{passage.index}/{passage.doc_id}",
        score=passage.score / _HIGHEST_SCORE,
        attributes=attributes if confidence is None else attributes | {"confidence": confidence},
        content=[_Text(passage.text)],
    )


def _clause(filters: Raw, level: int = 0) -> Json:
    """A filter in the cluster's query language.

    Raises:
        msgspec.DecodeError: it is none, or has too many levels.
    """
    body = bytes(filters)
    if level == _MAX_LEVELS:
        raise msgspec.ValidationError(f"filters: they are nested in more than {_MAX_LEVELS} levels")
    if decode(body, _Kind).type in ("and", "or"):
        compound = decode(body, _Compound)
        clauses = [_clause(each, level + 1) for each in compound.filters]
        if compound.type == "and":
            return {"bool": {"filter": clauses}}
        return {"bool": {"should": clauses, "minimum_should_match": 1}}
    comparison = decode(body, _Comparison)
    key, value = comparison.key, comparison.value
    if isinstance(value, list) != (comparison.type in ("in", "nin")):
        expected = "a list" if comparison.type in ("in", "nin") else "a string, a number or a boolean"
        raise msgspec.ValidationError(f"filters: value of {comparison.type}: expected {expected}")
    if comparison.type in _RANGES:
        return {"range": {key: {comparison.type: value}}}
    same: Json = {"terms": {key: value}} if isinstance(value, list) else {"term": {key: value}}
    return {"bool": {"must_not": [same]}} if comparison.type in ("ne", "nin") else same
