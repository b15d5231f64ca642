"""`POST /_bridge/mcp`: search as tools of language models, by the Model Context Protocol over streamable HTTP.

Each request is answered by itself, with one JSON object: there are no sessions, and no streams that stay open. So both
kinds of clients are served: those that begin with `initialize` (up to revision 2025-11-25), and those that say in each
request who they are (from 2026-07-28 on). https://modelcontextprotocol.io/specification has the protocol. Its own
package would bring a second HTTP server (Starlette) with limits of its own; without sessions and streams, little of it
is needed.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET, Meta, Raw, UnsetType
from multidict import CIMultiDict

from bridge import __version__
from bridge.proxy.transport.passthrough import Inbound, aside
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.retrieve import (
    IndexDescription,
    Marks,
    Retrieval,
    RetrievedDocument,
    RetrieveRequest,
    confidence_of,
)
from bridge.search.context import choose, n_tokens
from bridge.search.request import MAX_TEXT_CHARS
from bridge.settings import ProxySettings
from bridge.text import decode, decode_answer

WITH_HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Revisions that begin with `initialize`, the newest first."""
WITHOUT_HANDSHAKE = ("2026-07-28",)

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022

_VERSION_HEADER = "MCP-Protocol-Version"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"

_SPARE = 3
"""Passages are looked for in this many times as many documents as are wanted: near-duplicates are left out."""
_MOST_DOCUMENTS = 100

_TTL_MS = 3_600_000
"""How long clients may keep the list of tools, which only another version of the proxy changes."""

_INSTRUCTIONS = (
    "Searches documents of a search cluster, in your user's name. Use passages to answer a question from documents, "
    "search to look at whole documents, and describe_index to learn what an index holds. Cite a passage by index and "
    "doc_id."
)

_Index = Annotated[str, Meta(min_length=1, description="Name of an index, an alias, or several with commas between.")]
_Question = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S", description="What to look for, in plain words."),
]
_Filter = Annotated[
    dict[str, Any] | list[dict[str, Any]],
    Meta(
        description="Conditions that documents have to meet: a clause of the cluster's query language, as "
        '{"term": {"lang": "en"}}, or an array of clauses.'
    ),
]
_Confidence = Annotated[
    float | None,
    Meta(description="How probable it is that the index answers the question at all; null if that was not measured."),
]
_MaxTokens = Annotated[int, Meta(ge=16, le=100_000, description="Most tokens of all texts together, by an estimate.")]


class _PassagesRequest(msgspec.Struct, forbid_unknown_fields=True):
    index: _Index
    question: _Question
    max_tokens: _MaxTokens = 2_000
    max_passages: Annotated[int, Meta(ge=1, le=50, description="Most passages.")] = 10
    filter: _Filter = []


class _Passage(msgspec.Struct):
    index: str
    doc_id: str
    score: float
    start: Annotated[int, Meta(description="Offset of the text's first character in the document's text.")]
    end: Annotated[int, Meta(description="Offset after its last character.")]
    text: str


class _Passages(msgspec.Struct):
    passages: list[_Passage]
    tokens: Annotated[int, Meta(description="Of all texts together, by an estimate.")]
    near_duplicates: Annotated[int, Meta(description="How many passages were left out because they repeat others.")]
    beyond_budget: Annotated[int, Meta(description="How many were left out because max_tokens has no room for them.")]
    stages: Annotated[str, Meta(description="What ranked them.")]
    degraded: Annotated[list[str], Meta(description="What could not be done, by reason.")]
    confidence: _Confidence


class _SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    index: _Index
    question: _Question
    size: Annotated[int, Meta(ge=1, le=50, description="Most documents.")] = 5
    max_tokens: _MaxTokens = 4_000
    fields: Annotated[list[str], Meta(description="Fields of documents to show; all if it is empty.")] = []
    filter: _Filter = []


class _Document(msgspec.Struct):
    index: str
    doc_id: str
    score: float
    source: Annotated[
        dict[str, Any] | None, Meta(description="The document's fields; null if max_tokens has no room for them.")
    ]


class _Documents(msgspec.Struct):
    documents: list[_Document]
    tokens: Annotated[int, Meta(description="Of all sources together, by an estimate.")]
    stages: Annotated[str, Meta(description="What ranked them.")]
    degraded: Annotated[list[str], Meta(description="What could not be done, by reason.")]
    confidence: _Confidence


class _DescribeRequest(msgspec.Struct, forbid_unknown_fields=True):
    index: _Index


_Arguments = TypeVar("_Arguments", bound=msgspec.Struct)


class _Tool(Generic[_Arguments]):
    """A tool: what it takes and gives, and the call, which returns its result and the headers of the answer."""

    def __init__(
        self,
        description: str,
        arguments: type[_Arguments],
        result: type[msgspec.Struct],
        run: Callable[[_Arguments, CIMultiDict[str]], Awaitable[tuple[msgspec.Struct, Marks]]],
    ) -> None:
        self.shape = {
            "description": description,
            "inputSchema": _schema(arguments),
            "outputSchema": _schema(result),
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        }
        self._arguments = arguments
        self._run = run

    async def call(self, arguments: bytes, caller: CIMultiDict[str]) -> tuple[dict[str, object], Marks]:
        """The result of `tools/call`. A failure is a result, too: the model reads it, and may call again."""
        try:
            read = decode(arguments, self._arguments)
        except msgspec.DecodeError as error:
            return {"isError": True, "content": _text(f"wrong arguments: {error}")}, {}
        try:
            result, marks = await self._run(read, caller)
        except Refused as refused:
            return {"isError": True, "content": _text(refused.reason)}, {}
        content = msgspec.json.encode(result)
        return {"isError": False, "content": _text(content.decode()), "structuredContent": Raw(content)}, marks


def _schema(shape: type[msgspec.Struct]) -> dict[str, object]:
    """The JSON Schema of an object, by itself."""
    _, components = msgspec.json.schema_components([shape], ref_template="#/$defs/{name}")
    whole: dict[str, object] = components.pop(shape.__name__)
    del whole["title"]
    return whole | ({"$defs": components} if components else {})


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _text(text: str) -> Sequence[Mapping[str, str]]:
    return [{"type": "text", "text": text}]


class _Message(msgspec.Struct):
    """A request, or a notification if it has no `id` (JSON-RPC 2.0)."""

    jsonrpc: Annotated[str, Meta(pattern=r"^2\.0$")]
    method: str
    id: int | str | UnsetType = UNSET
    params: dict[str, Raw] = {}


class _ProtocolError(Exception):
    """A request that is answered with an error of the protocol, and the HTTP status of that."""

    def __init__(self, code: int, message: str, *, status: int, data: object = UNSET) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message} | ({} if data is UNSET else {"data": data})


class ModelContext:
    """Answers requests of the Model Context Protocol."""

    route = "mcp"
    path = "/_bridge/mcp"
    methods: Sequence[str] = (hdrs.METH_POST,)

    def __init__(self, retrieval: Retrieval, settings: ProxySettings) -> None:
        self.listener = settings.mcp
        self._retrieval = retrieval
        self._tools: dict[str, _Tool[Any]] = {
            "search": _Tool(
                "Finds the documents of an index that fit a question best, and shows their fields.",
                _SearchRequest,
                _Documents,
                self._search,
            ),
            "passages": _Tool(
                "Finds the passages that answer a question, each with the document it is from, without repetitions and "
                "within a number of tokens.",
                _PassagesRequest,
                _Passages,
                self._passages,
            ),
            "describe_index": _Tool(
                "Says how many documents an index has, which of their fields are searched, and how.",
                _DescribeRequest,
                IndexDescription,
                self._describe,
            ),
        }

    async def answer(self, inbound: Inbound, body: bytes) -> web.Response:
        """The answer to a message: 202 without a body if it is a notification.

        Raises:
            Refused: 403 for a page in a browser.
        """
        if hdrs.ORIGIN in inbound.headers:
            # Any site's name may lead here (DNS rebinding), so no name is better than another: only browsers send this.
            raise Refused(403, "security_exception", f"Origin: {inbound.headers[hdrs.ORIGIN]}: pages may not ask here")
        message_id: int | str | None = None
        try:
            message = _read(body)
            if isinstance(message.id, UnsetType):
                return web.Response(status=202)
            message_id = message.id
            _check_version(message, inbound.headers)
            result, marks = await self._result(message, inbound.headers)
        except _ProtocolError as error:
            reply = {"jsonrpc": "2.0", "id": message_id, "error": error.error}
            return web.Response(status=error.status, body=msgspec.json.encode(reply), content_type="application/json")
        reply = {"jsonrpc": "2.0", "id": message_id, "result": {"resultType": "complete", **result}}
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json", headers=marks)

    def refusal(self, refused: Refused) -> bytes:
        """An error that answers no particular request."""
        code = INTERNAL_ERROR if refused.status >= 500 else INVALID_REQUEST
        error = {"code": code, "message": refused.reason.encode("utf-8", "backslashreplace").decode()}
        return msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})

    async def _result(self, message: _Message, headers: CIMultiDict[str]) -> tuple[dict[str, object], Marks]:
        about = {
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "opensearch-neural-bridge", "version": __version__},
            "instructions": _INSTRUCTIONS,
        }
        kept = {"ttlMs": _TTL_MS, "cacheScope": "public"}
        match message.method:
            case "initialize":
                wanted = _string(message.params, "protocolVersion")
                return about | {"protocolVersion": wanted if wanted in WITH_HANDSHAKE else WITH_HANDSHAKE[0]}, {}
            case "server/discover":
                return about | kept | {"supportedVersions": [*WITHOUT_HANDSHAKE, *WITH_HANDSHAKE]}, {}
            case "ping":
                return {}, {}
            case "tools/list":
                return {"tools": [{"name": name, **tool.shape} for name, tool in self._tools.items()], **kept}, {}
            case "tools/call":
                name = _string(message.params, "name")
                if (tool := self._tools.get(name or "")) is None:
                    raise _ProtocolError(
                        INVALID_PARAMS, f"tool {name}: expected one of {', '.join(self._tools)}", status=_wrong(headers)
                    )
                return await tool.call(bytes(message.params.get("arguments", b"{}")), headers)
        status = 404 if _is_without_handshake(headers) else 200
        raise _ProtocolError(METHOD_NOT_FOUND, f"method {message.method} is unknown", status=status)

    async def _passages(self, wanted: _PassagesRequest, caller: CIMultiDict[str]) -> tuple[_Passages, Marks]:
        size = min(wanted.max_passages * _SPARE, _MOST_DOCUMENTS)
        request = RetrieveRequest(wanted.index, [wanted.question], size=size, filter=_raw(wanted.filter))
        [result], marks = await self._retrieval.retrieve(request, caller)
        texts = [passage.text for passage in result.passages]
        limits = {"max_passages": wanted.max_passages, "max_tokens": wanted.max_tokens}
        chosen = await aside(sum(map(len, texts)), lambda: choose(texts, **limits))
        passages = [
            _Passage(found.index, found.doc_id, found.score, found.start, found.start + len(text), text)
            for place, text in chosen.texts.items()
            if (found := result.passages[place])
        ]
        about = result.stages, result.degraded, result.confidence
        return _Passages(passages, chosen.tokens, chosen.near_duplicates, chosen.beyond_budget, *about), marks

    async def _search(self, wanted: _SearchRequest, caller: CIMultiDict[str]) -> tuple[_Documents, Marks]:
        request = RetrieveRequest(wanted.index, [wanted.question], size=wanted.size, filter=_raw(wanted.filter))
        found, ranked, marks = await self._retrieval.documents(request, wanted.fields, caller)
        n_bytes = sum(memoryview(each.source).nbytes for each in found if each.source is not None)
        documents, tokens = await aside(n_bytes, lambda: _within(found, wanted.max_tokens))
        about = ranked.stages, ranked.notes.degraded, confidence_of(ranked)
        return _Documents(documents, tokens, *about), marks

    async def _describe(self, wanted: _DescribeRequest, caller: CIMultiDict[str]) -> tuple[IndexDescription, Marks]:
        return await self._retrieval.describe(wanted.index, caller), {}


def _within(found: Sequence[RetrievedDocument], max_tokens: int) -> tuple[list[_Document], int]:
    """The documents, those with their fields that fit together into so many tokens; and how many these are."""
    documents, tokens = [], 0
    for each in found:
        source = None
        if each.source is not None:
            with contextlib.suppress(msgspec.DecodeError):
                source = decode_answer(bytes(each.source), dict[str, Any])
        n_of_source = n_tokens(msgspec.json.encode(source).decode()) if source is not None else 0
        if tokens + n_of_source > max_tokens:
            source, n_of_source = None, 0
        tokens += n_of_source
        documents.append(_Document(each.index, each.doc_id, each.score, source))
    return documents, tokens


def _read(body: bytes) -> _Message:
    try:
        return decode(body, _Message)
    except msgspec.ValidationError as error:
        raise _ProtocolError(INVALID_REQUEST, f"expected one request or notification: {error}", status=400) from error
    except msgspec.DecodeError as error:
        raise _ProtocolError(PARSE_ERROR, f"the body is no JSON: {error}", status=400) from error


def _check_version(message: _Message, headers: CIMultiDict[str]) -> None:
    """Raises _ProtocolError if the request is of a revision that is not served, or if its headers say otherwise than
    its body does: intermediaries go by the headers."""
    wanted = headers.get(_VERSION_HEADER)
    if wanted is not None and wanted not in (*WITH_HANDSHAKE, *WITHOUT_HANDSHAKE) and message.method != "initialize":
        wanted = wanted.encode("utf-8", "backslashreplace").decode()
        raise _ProtocolError(
            UNSUPPORTED_VERSION,
            f"{_VERSION_HEADER}: {wanted} is not served",
            status=400,
            data={"supported": [*WITHOUT_HANDSHAKE, *WITH_HANDSHAKE], "requested": wanted},
        )
    if not _is_without_handshake(headers):
        return
    try:
        meta = decode(bytes(message.params.get("_meta", b"{}")), dict[str, Raw])
    except msgspec.DecodeError:
        meta = {}
    if missing := [key for key in (_VERSION_KEY, _CAPABILITIES_KEY) if key not in meta]:
        raise _ProtocolError(INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}", status=400)
    said = {_VERSION_HEADER: _string(meta, _VERSION_KEY), "Mcp-Method": message.method}
    if message.method == "tools/call":
        said["Mcp-Name"] = _string(message.params, "name")
    for name, value in said.items():
        if headers.getall(name, []) != [value]:
            raise _ProtocolError(HEADER_MISMATCH, f"header {name}: expected {value} once, as in the body", status=400)


def _is_without_handshake(headers: CIMultiDict[str]) -> bool:
    return headers.get(_VERSION_HEADER) in WITHOUT_HANDSHAKE


def _wrong(headers: CIMultiDict[str]) -> int:
    """The HTTP status of an answer to wrong parameters."""
    return 400 if _is_without_handshake(headers) else 200


def _string(members: Mapping[str, Raw], name: str) -> str | None:
    """A member of an object, None if it is no string."""
    try:
        return decode(bytes(members.get(name, b"null")), str)
    except msgspec.DecodeError:
        return None
