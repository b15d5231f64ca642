"""A fake cluster for the document side: keeps documents, records every request, and fails by script.

It speaks real HTTP on a free loopback port. Two hooks make it misbehave: `on_bulk` sees the n-th bulk
request (first is 1) and may answer in its place; `on_item` sees one action with the number of times its
id has come (first is 1) and may refuse it.
"""

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec


@dataclass(frozen=True)
class Action:
    """One action of a bulk request; `body` is the line exactly as it came."""

    op: str
    doc_id: str
    meta: dict[str, Any]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer. `write_first`: the actions are carried out, and only the answer goes wrong.
    `drop`: the connection is cut in place of an answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    write_first: bool = False
    drop: bool = False


@dataclass(frozen=True)
class Recorded:
    """A request as it came; `at` on the monotonic clock."""

    method: str
    path: str
    body: bytes
    at: float


def refusal(status: int, kind: str, reason: str = "by script") -> dict[str, Any]:
    """What an item of a bulk answer holds beside its `_id` when it was refused."""
    return {"status": status, "error": {"type": kind, "reason": reason}}


def error_body(status: int, kind: str, reason: str = "by script") -> bytes:
    """An OpenSearch error as the whole answer."""
    cause = {"type": kind, "reason": reason}
    return json.dumps({"error": {"root_cause": [cause], **cause}, "status": status}).encode()


def search_answer(hits: list[dict[str, Any]], *, pit: str, failed: int = 0, timed_out: bool = False) -> Any:
    """A page as OpenSearch gives it, whole or not."""
    return {"pit_id": pit, "timed_out": timed_out, "_shards": {"total": 1, "failed": failed}, "hits": {"hits": hits}}


class FakeCluster:
    """The documents of one index and the record of what came; see the module."""

    def __init__(self) -> None:
        self.url = ""
        self.documents: dict[str, bytes] = {}
        self.requests: list[Recorded] = []
        self.mapping: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.on_bulk: Callable[[int, list[Action]], Reply | None] = lambda _n, _actions: None
        self.on_item: Callable[[Action, int], dict[str, Any] | None] = lambda _action, _n: None
        self.on_request: Callable[[Recorded], Reply | None] = lambda _: None
        self._seen: Counter[str] = Counter()
        self._seq_nos: dict[str, int] = {}
        self._points: dict[str, list[tuple[int, str, bytes]]] = {}
        self._bulks = 0
        self._lock = threading.Lock()

    def bulk_requests(self) -> list[Recorded]:
        """The bulk requests so far."""
        return [request for request in self.requests if urlsplit(request.path).path.endswith("/_bulk")]

    def sent_ids(self) -> list[list[str]]:
        """Per bulk request, the ids in it."""
        return [[action.doc_id for action in _actions(request.body)] for request in self.bulk_requests()]

    def put(self, doc_id: str, body: bytes) -> None:
        """Stores a document, as an application would."""
        self.documents[doc_id] = body
        self._seq_nos[doc_id] = max(self._seq_nos.values(), default=-1) + 1

    def lose_points_in_time(self) -> None:
        """What a restart does."""
        self._points.clear()

    def answer(self, request: Recorded) -> Reply:
        """What the cluster says; called on the server's threads."""
        with self._lock:
            self.requests.append(request)
            if (scripted := self.on_request(request)) is not None:
                return scripted
            match unquote(urlsplit(request.path).path).strip("/").split("/"):
                case [""]:
                    return _json({"version": {"distribution": "opensearch", "number": "3.6.0"}})
                case ["_cat", "plugins"]:
                    return _json([{"component": "opensearch-knn"}])
                case [*_, "_bulk"]:
                    return self._bulk(_actions(request.body))
                case [_, "_search", "point_in_time"]:
                    return self._open_point()
                case ["_search", "point_in_time"]:
                    return _json({"pits": []})
                case ["_search"]:
                    return self._search(json.loads(request.body))
                case [_, "_mget"]:
                    return self._mget(json.loads(request.body)["docs"])
                case [_, "_count"]:
                    return _json({"count": len(self.documents), "_shards": {"total": 1, "failed": 0}})
                case [_, "_refresh"]:
                    return _json({"_shards": {"total": 1, "failed": 0}})
                case [_, "_mapping"] if request.method == "PUT":
                    self.mapping.update(json.loads(request.body))
                    return _json({"acknowledged": True})
                case [index, "_mapping"]:
                    return _json({index: {"mappings": self.mapping}})
                case [index, "_settings"] if request.method == "GET":
                    return _json({index: {"settings": self.settings}})
                case [_, "_settings"]:
                    self.settings = _merged(self.settings, json.loads(request.body))
                    return _json({"acknowledged": True})
                case [companion] if companion.startswith("neural-bridge."):
                    return Reply(404, error_body(404, "index_not_found_exception", "no such index"))
                case [index]:
                    return _json({index: {"mappings": self.mapping, "settings": self.settings, "aliases": {}}})
            return Reply(404, error_body(404, "no_handler", request.path))

    def _bulk(self, actions: list[Action]) -> Reply:
        self._bulks += 1
        scripted = self.on_bulk(self._bulks, actions)
        if scripted is not None and not scripted.write_first:
            return scripted
        # The action that is only for an alias is never carried out; it keeps a missing index from being made.
        guard = {"update": {"_id": "-", **refusal(404, "index_not_found_exception")}}
        items = [guard, *({action.op: {"_id": action.doc_id, **self._apply(action)}} for action in actions)]
        errors = any("error" in outcome for item in items for outcome in item.values())
        return scripted or _json({"took": 1, "errors": errors, "items": items})

    def _apply(self, action: Action) -> dict[str, Any]:
        self._seen[action.doc_id] += 1
        refused = self.on_item(action, self._seen[action.doc_id])
        if refused is not None:
            return refused
        if action.op == "delete":
            found = self.documents.pop(action.doc_id, None) is not None
            self._seq_nos.pop(action.doc_id, None)
            return {"status": 200 if found else 404, "result": "deleted" if found else "not_found"}
        result = "updated" if action.doc_id in self.documents else "created"
        self.put(action.doc_id, action.body)
        return {"status": 200 if result == "updated" else 201, "result": result, "_version": 1}

    def _open_point(self) -> Reply:
        point = f"point-{len(self.requests)}"
        self._points[point] = sorted((seq_no, i, self.documents[i]) for i, seq_no in self._seq_nos.items())
        return _json({"pit_id": point, "_shards": {"total": 1, "failed": 0}})

    def _search(self, body: dict[str, Any]) -> Reply:
        point = self._points.get(body["pit"]["id"])
        if point is None:
            return Reply(404, error_body(404, "search_context_missing_exception"))
        after = body["search_after"][0]
        with_source = body.get("_source") is not False
        hits = [
            {"_id": i, "_seq_no": seq_no, "_primary_term": 1, "sort": [seq_no]}
            | ({"_source": json.loads(source)} if with_source else {})
            for seq_no, i, source in point
            if seq_no > after
        ]
        return _json(search_answer(hits[: body["size"]], pit=body["pit"]["id"]))

    def _mget(self, entries: list[dict[str, Any]]) -> Reply:
        docs = []
        for entry in entries:
            body = self.documents.get(entry["_id"])
            if body is None:
                docs.append({"_id": entry["_id"], "found": False})
            else:
                source = {} if entry.get("_source") is False else _filtered(json.loads(body), entry.get("_source"))
                docs.append({"_id": entry["_id"], "found": True, "_source": source})
        return _json({"docs": docs})


@contextmanager
def fake_cluster(tls: ssl.SSLContext | None = None) -> Iterator[FakeCluster]:
    """A running fake cluster; `tls` makes it speak HTTPS."""
    cluster = FakeCluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            request = Recorded(self.command, self.path, self.rfile.read(length), time.monotonic())
            reply = cluster.answer(request)
            if reply.drop:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_one  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: requests are recorded."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing: a client that hangs up, or fails its TLS handshake, is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    cluster.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _actions(body: bytes) -> list[Action]:
    lines = body.split(b"\n")
    assert lines[-1] == b"", "a bulk body ends with a newline"
    actions = []
    remaining = iter(lines[:-1])
    for line in remaining:
        ((op, meta),) = msgspec.json.decode(line).items()
        action = Action(op, meta["_id"], meta, b"" if op == "delete" else next(remaining))
        if not meta.get("require_alias"):
            actions.append(action)
    return actions


def _json(value: Any) -> Reply:
    return Reply(200, json.dumps(value).encode())


def _filtered(source: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """The fields with these names, at most two levels deep."""
    if names is None:
        return source
    kept: dict[str, Any] = {}
    for name in names:
        outer, _, inner = name.partition(".")
        if not inner and outer in source:
            kept[outer] = source[outer]
        elif inner in source.get(outer, {}):
            kept.setdefault(outer, {})[inner] = source[outer][inner]
    return kept


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key: old[key] for key in old.keys() - new.keys()}
    for key, value in new.items():
        nested = isinstance(value, dict) and isinstance(old.get(key), dict)
        both[key] = _merged(old[key], value) if nested else value
    return both
