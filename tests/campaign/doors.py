"""Requests to the proxy's own endpoints by chance, well-formed and broken, and what is wrong with their answers."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.text import enriched_text, texts_in
from tests.campaign.grammar import TEXT_FIELDS, Grammar
from tests.campaign.wire import NO_ANSWER, Answer, Request

SETTINGS = {f"BRIDGE_PROXY__{name}": "applications" for name in ("RETRIEVE", "MCP", "OPENAI")}
"""Of the proxy, so that applications reach the endpoints."""
RETRIEVE, MCP, OPENAI = "/_bridge/retrieve", "/_bridge/mcp", "/_bridge/openai/v1/"

_JSON = (b"Content-Type", b"application/json")
_INTERNAL_ERROR = -32603
_INDICES = (
    *("papers", "papers", "papers", "longs", "longs", "Papers-Alias", "few", "papers,longs", "päpers", "pap*"),
    *("plain", "missing", "papers,missing", "papers,plain", "*", "_all", "", "a/b"),
)
_FILTERS: tuple[tuple[Any, Any], ...] = (
    ({"type": "eq", "key": "kind", "value": "ad"}, {"term": {"kind": "ad"}}),
    ({"type": "gte", "key": "n", "value": 30}, {"range": {"n": {"gte": 30}}}),
    (
        {"type": "nin", "key": "kind", "value": ["ad", "note"]},
        {"bool": {"must_not": [{"terms": {"kind": ["ad", "note"]}}]}},
    ),
    (
        {
            "type": "or",
            "filters": [{"type": "lt", "key": "n", "value": 9}, {"type": "ne", "key": "kind", "value": "ad"}],
        },
        {"bool": {"should": [{"range": {"n": {"lt": 9}}}, {"bool": {"must_not": [{"term": {"kind": "ad"}}]}}]}},
    ),
)
"""Filters of OpenAI's, and what they mean to the cluster."""


@dataclass(frozen=True)
class Shown:
    """A document of an answer, and what is shown of it: a part of its text, from `start` on, or its source."""

    index: str
    doc_id: str
    start: int = 0
    end: int = 0
    text: str | None = None
    source: Any = None


def door_request(chance: random.Random, grammar: Grammar) -> tuple[Request, list[Any]]:
    """A request, and the conditions that the documents in its answer have to meet."""
    path, tree, conditions = chance.choice((_retrieve, _retrieve, _tool, _tool, _message, _search, _search, _embed))(
        chance, grammar
    )
    written = grammar.text_of(grammar.mutated(tree) if chance.random() < 0.3 else tree)
    try:
        as_made = json.loads(written) == tree
    except ValueError:
        as_made = False
    if chance.random() < 0.05:
        path = chance.choice((f"{path}/", f"{path}?a=b", path.upper(), path[:-1], f"/{path}", path.replace("_", "%5F")))
    method = chance.choice(("POST",) * 20 + ("GET", "PUT", "DELETE", "OPTIONS"))
    headers = [_JSON] if chance.random() < 0.95 else []
    if path.startswith(MCP) and chance.random() < 0.3:
        versions = (b"2025-11-25", b"2025-03-26", b"2026-07-28", b"1999-01-01", b"\xff")
        headers.append((b"MCP-Protocol-Version", chance.choice(versions)))
    framing = chance.choice(("length",) * 5 + ("chunked",)) if written else "length"
    request = Request(method, path.encode(), tuple(headers), written, framing)
    return request, conditions if as_made else []


def shown_in(request: Request, answer: Answer) -> list[Shown]:
    """The documents that an answer shows, if it is one of those that show some."""
    if answer.status != 200:
        return []
    tree = json.loads(answer.content)
    if request.target.startswith(RETRIEVE.encode()):
        return [_passage(each) for result in tree["results"] for each in result["passages"]]
    content = tree.get("result", {}).get("structuredContent", {}) if isinstance(tree, dict) else {}
    if "documents" in content and isinstance(content["documents"], list):
        return [Shown(each["index"], each["doc_id"], source=each["source"]) for each in content["documents"]]
    if "passages" in content:
        return [_passage(each) for each in content["passages"]]
    if tree.get("object") == "vector_store.search_results.page":
        return [
            _passage({**each["attributes"], "doc_id": each["file_id"], "text": each["content"][0]["text"]})
            for each in tree["data"]
        ]
    return []


def answer_faults(answer: Answer) -> list[str]:
    """What no answer may be: none at all, a fault of the proxy's, or something else than JSON."""
    if answer.status == NO_ANSWER:
        return [f"no answer: {answer.fault}"]
    # 503 says that the cluster or the sidecar could not be asked.
    if answer.status >= 500 and answer.status != 503:
        return [f"status {answer.status}"]
    mark = answer.header("x-bridge")
    faults = [f"mark {reason}" for reason in ("internal_error", "answer_not_understood") if reason in mark]
    if not answer.content:
        return faults
    try:
        tree = json.loads(answer.content)
    except ValueError:
        return [*faults, "not JSON"]
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, dict) and error.get("code") == _INTERNAL_ERROR:
        faults.append("an internal error")
    return faults


def shown_faults(shown: Sequence[Shown], sources: dict[tuple[str, str], bytes]) -> Iterator[str]:
    """How what is shown differs from the sources that the node shows under the same conditions, by index and id."""
    for each in shown:
        source = sources.get((each.index, each.doc_id))
        if source is None:
            yield "a document that the conditions shut out"
        elif each.text is not None:
            if enriched_text(texts_in(source, TEXT_FIELDS))[each.start : each.end] != each.text:
                yield "a passage that its offsets do not cut"
        elif each.source is not None and "_neural" in each.source:
            yield "_neural shows"


def _passage(found: dict[str, Any]) -> Shown:
    return Shown(found["index"], found["doc_id"], found["start"], found["end"], found["text"])


_Made = tuple[str, dict[str, Any], list[Any]]


def _filtered(chance: random.Random, grammar: Grammar) -> tuple[dict[str, Any], list[Any]]:
    conditions = [grammar.condition() for _ in range(chance.choice((0, 0, 1, 2)))]
    wanted = conditions[0] if len(conditions) == 1 and chance.random() < 0.5 else conditions
    return {"filter": wanted} if conditions else {}, conditions


def _retrieve(chance: random.Random, grammar: Grammar) -> _Made:
    filtered, conditions = _filtered(chance, grammar)
    queries = [grammar.words() for _ in range(chance.choice((1, 1, 2, 9)))]
    tree: dict[str, Any] = {"index": chance.choice(_INDICES), "queries": queries}
    members: dict[str, tuple[Any, ...]] = {
        "size": (1, 5, 20, 100, 0, 101),
        "stage": ("hybrid", "rerank", "lexical", "vector", "cascade", "nonsense"),
        "diverse": (0, 0.3, 1, 2),
    }
    for name, values in members.items():
        if chance.random() < 0.4:
            tree[name] = chance.choice(values)
    return RETRIEVE, tree | filtered, conditions


def _tool(chance: random.Random, grammar: Grammar) -> _Made:
    name = chance.choice(("passages", "passages", "search", "search", "describe_index", "nonsense"))
    arguments: dict[str, Any] = {"index": chance.choice(_INDICES)}
    conditions: list[Any] = []
    if name != "describe_index":
        filtered, conditions = _filtered(chance, grammar)
        arguments |= {"question": grammar.words(), **filtered}
        if chance.random() < 0.5:
            arguments["max_tokens"] = chance.choice((16, 60, 2000, 1))
        if chance.random() < 0.5:
            arguments |= {"fields": ["title"]} if name == "search" else {"max_passages": chance.choice((1, 3, 50))}
    return MCP, _rpc("tools/call", {"name": name, "arguments": arguments}), conditions


def _message(chance: random.Random, grammar: Grammar) -> _Made:
    method = chance.choice(
        ("initialize", "ping", "tools/list", "server/discover", "notifications/initialized", grammar.words())
    )
    message = _rpc(method, chance.choice(({}, {"protocolVersion": "2025-06-18"}, {"protocolVersion": 7})))
    if method.startswith("notifications"):
        del message["id"]
    return MCP, message, []


def _search(chance: random.Random, grammar: Grammar) -> _Made:
    words = [grammar.words() for _ in range(chance.choice((1, 1, 2, 5)))]
    tree: dict[str, Any] = {"query": words if len(words) > 1 else words[0]}
    conditions: list[Any] = []
    if chance.random() < 0.5:
        tree["filters"], meant = chance.choice(_FILTERS)
        conditions = [meant]
    if chance.random() < 0.4:
        tree["max_num_results"] = chance.choice((1, 10, 50, 51))
    if chance.random() < 0.3:
        tree["ranking_options"] = chance.choice(({"ranker": "none"}, {"score_threshold": 0.7}, {"score_threshold": 2}))
    index = chance.choice(_INDICES).replace("ä", "%C3%A4")
    return f"{OPENAI}vector_stores/{index}/search", tree, conditions


def _embed(chance: random.Random, grammar: Grammar) -> _Made:
    many = [grammar.words() for _ in range(chance.choice((1, 3, 200)))]
    tree: dict[str, Any] = {"model": "toy", "input": chance.choice((many, many[0], [], [1, 2], [[1], [2]], None))}
    if chance.random() < 0.5:
        tree |= chance.choice(({"encoding_format": "base64"}, {"encoding_format": "x"}, {"dimensions": 1}))
    return f"{OPENAI}{chance.choice(('embeddings', 'embeddings', 'embeddings', 'models'))}", tree, []


def _rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
