"""Whole requests by chance: number 17 of a seed is the same request in every run."""

import gzip
import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.campaign.doors import door_request
from tests.campaign.grammar import Body, Grammar
from tests.campaign.wire import Request
from tests.integration.recorded_requests import OTHERS, SEARCHES

_READS = ("GET", "HEAD", "OPTIONS")
_JSON = (b"Content-Type", b"application/json")
_LINES = (b"Content-Type", b"application/x-ndjson")
_WRITTEN = "{twin}"
_TARGETS = (
    *("papers", "papers", "papers", "longs", "longs", "plain", "Papers-Alias", "few", "papers,longs", "papers,plain"),
    *(
        "pap*",
        "*",
        "_all",
        "missing",
        "papers,missing",
        "-papers",
        "%70apers",
        "%3Cpapers%3E",
        "p%C3%A4pers",
        "papers,",
    ),
)
_STAGES = (
    *("", "", "", "hybrid", "hybrid", "rerank", "vector", "expansion", "cascade", "lexical", "hybrid, explain"),
    *("rerank, passage", "hybrid, union", "vector=2, expansion=0.5", "rerank, explain"),
    *("rerank, diverse=0.5", "hybrid, facets", "hybrid, fallback", "cutoff=0.5", "rerank, repair"),
    *("rerank, sentences", "hybrid, sentences, repair"),
)


class Made(msgspec.Struct, frozen=True):
    """A request, and what its maker knows of it.

    `upgrades`: it is a search, which is also sent to be upgraded, with `stage` in `x-bridge`. `writes`: it changes the
    index that stands for `{twin}`, so both sides have to see such requests in one order. `searches`: index expression,
    body and conditions of each search in it, so far as they are known. `conditions`: it is for an endpoint of the
    proxy's own, and what it shows has to meet them.
    """

    request: Request
    upgrades: bool = False
    stage: str = ""
    writes: bool = False
    searches: tuple[tuple[str, Any, list[Any]], ...] = ()
    conditions: list[Any] | None = None


def made(seed: int, number: int, *, heavy: float = 0.02) -> Made:
    """Request `number` of a seed; `heavy` is the share of those that mean much work."""
    chance = random.Random(f"{seed}:{number}")
    maker = _Maker(chance)
    if chance.random() < heavy:
        return maker.heavy()
    kinds = [maker.search] * 50 + [maker.several] * 12 + [maker.template] * 4
    kinds += [maker.other] * 12 + [maker.odd_wire] * 12 + [maker.write] * 10 + [maker.door] * 10
    return chance.choice(kinds)()


def _conditions(body: Body, written: bytes) -> list[Any]:
    """The conditions of a search as it was written: none are known of one that was damaged then."""
    try:
        return body.conditions if json.loads(written) == body.tree else []
    except ValueError:
        return []


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._one = chance.choice
        self._grammar = Grammar(chance)

    def search(self) -> Made:
        """`_search` with a body, or with words in the URL."""
        index = self._one(_TARGETS)
        body = self._body()
        known: tuple[tuple[str, dict[str, Any], list[Any]], ...] = ()
        if self._chance.random() < 0.1:
            words = self._one(
                ("wing", "wing+pressure", "title:wing", "caf%C3%A9", "%22red+shoe%22", "wing%20AND%20flow")
            )
            parameters, text = ["q=" + words, *self._parameters()], b""
        elif self._chance.random() < 0.1:
            source = json.dumps(body.tree).encode()
            parameters = ["source=" + _percent(source), "source_content_type=application/json", *self._parameters()]
            text = b""
        else:
            parameters, text = self._parameters(), self._grammar.text_of(body.tree)
            known = ((index, body.tree, _conditions(body, text)),)
        request = Request(
            self._one(("POST", "POST", "GET")),
            self._target(f"/{index}/_search", parameters),
            self._headers(_JSON if text else None),
            *self._packed(text),
        )
        if text and self._chance.random() < 0.05:
            request = packed(request)
        return Made(request, upgrades=True, stage=self._one(_STAGES), searches=known)

    def several(self) -> Made:
        """`_msearch`."""
        lines: list[bytes] = []
        known = []
        for _ in range(self._one((1, 2, 3, 5))):
            header: dict[str, Any] = {}
            index = self._one(_TARGETS)
            if self._chance.random() < 0.7:
                header["index"] = self._one((index, [index], index.split(",")))
            for _ in range(self._one((0, 0, 1))):
                header |= self._one(
                    (
                        *({"routing": None}, {"routing": "r"}, {"preference": "_local"}, {"search_type": None}),
                        *({"ignore_unavailable": True}, {"ignore_unavailable": None}, {"allow_no_indices": "false"}),
                        *({"expand_wildcards": ["open", "closed"]}, {"expand_wildcards": "all"}, {"nonsense": 1}),
                        *({"search_type": "dfs_query_then_fetch"}, {"request_cache": True}, {"type": "x"}),
                    )
                )
            body = self._body()
            text = json.dumps(header).encode()
            lines += [text if self._chance.random() < 0.95 else self._one((b"", b"{", b"[]", b"null", b" {} ")), b"\n"]
            written = self._grammar.text_of(body.tree).replace(b"\n", b" ")
            lines += [written, b"\n"]
            known.append((str(header.get("index") and index), body.tree, _conditions(body, written)))
        text = b"".join(lines)
        if self._chance.random() < 0.05:
            text = self._one((text[:-1], text + b"\n", b"\n" + text, text.replace(b"\n", b"\r\n"), b""))
        parameters = [] if self._chance.random() < 0.7 else self._parameters()
        target = self._target(self._one(("/_msearch", "/papers/_msearch", "/longs/_msearch")), parameters)
        headers = self._headers(self._one((_LINES, _LINES, _LINES, _JSON)))
        request = Request(self._one(("POST", "POST", "GET")), target, headers, *self._packed(text))
        return Made(request, upgrades=True, stage=self._one(_STAGES), searches=tuple(known))

    def template(self) -> Made:
        """`_search/template`."""
        source = self._one(
            (
                {"query": {"match": {"title": "{{w}}"}}},
                {"query": {"multi_match": {"query": "{{w}}", "fields": ["title", "body"]}}, "size": "{{n}}"},
                '{"query":{"match":{"body":"{{w}}"}},"size":{{n}}}',
                '{"query":{"match":{"body":"{{w}}"}}{{#k}},"size":3{{/k}}}',
            )
        )
        tree = {"source": source, "params": {"w": self._grammar.words(), "n": self._one((1, 5, 20)), "k": True}}
        text = self._grammar.text_of(self._maybe_mutated(tree))
        target = self._target(f"/{self._one(_TARGETS)}/_search/template", self._parameters())
        request = Request("POST", target, self._headers(_JSON), *self._packed(text))
        return Made(request, upgrades=True, stage=self._one(_STAGES))

    def other(self) -> Made:
        """What applications and operators read besides."""
        lines = [line for line in OTHERS if line.startswith(_READS)]
        kept = [line for line in lines if "/_cat/nodes" not in line and "stats" not in line and "IND*" not in line]
        method, target, *body = self._one(kept).replace("INDEX", "papers").split(" ", 2)
        text = body[0].encode() if body else b""
        path, _, query = target.partition("?")
        parameters = query.split("&") if query else []
        return Made(Request(method, self._target(path, parameters), self._headers(_JSON if text else None), text))

    def odd_wire(self) -> Made:
        """A search or a read, its HTTP at the edge of what is allowed or beyond."""
        text = json.dumps({"query": {"match": {"title": "wing"}}, "size": 2}).encode()
        target = self._one(
            (
                *(
                    b"/papers/_search?q=title:caf\xc3\xa9",
                    b"/papers/_search?q=%zz",
                    b"/papers/_search?q=%",
                    b"/papers/_search?",
                ),
                *(b"//papers//_search", b"/papers/_search/", b"/papers/./_search", b"/papers/../papers/_search"),
                *(
                    b"/papers/%5Fsearch",
                    b"/papers%2F_search",
                    b"/papers/_search#x",
                    b"/papers/_search?a=b#x",
                    b"/\xff/_search",
                ),
                *(
                    b"/papers/_search?q=a%00b",
                    b"/papers/_search?q=a;b&size=1",
                    b"/papers/_search?&&size=1&",
                    b"/papers;x/_search",
                ),
                *(
                    b"/papers/_search?size",
                    b"/papers/_search?=1",
                    b"/papers/_search?size=1&size=2",
                    b"/papers/_doc/a%2Fb%3F",
                ),
                *(b"/papers/_search?filter_path=**", b"/papers/_search?filter_path=-hits", b"/papers/_count?q=wing%20"),
                *(b"*", b"papers/_search", b"http://cluster/papers/_search", b"/papers/_search?q=" + b"a" * 3500),
                *(
                    b"/papers/_search?" + b"&".join(b"a%d=1" % each for each in range(300)),
                    b"/papers/_search?q=\xe2\x80\xa8",
                ),
                *(
                    b"/papers/_search|",
                    b"/papers/_search?q=^`{}",
                    b'/papers/_search?q="wing"',
                    b"/pa pers/_search",
                    b"/[papers]/_search",
                ),
            )
        )
        headers = self._one(
            (
                *((), ((b"Connection", b"close"),), ((b"Connection", b"keep-alive"),), ((b"Accept", b"*/*"),) * 2),
                *(
                    ((b"X-Empty", b""),),
                    ((b"X-Latin", b"caf\xe9"),),
                    ((b"X-Utf", b"caf\xc3\xa9"),),
                    ((b"x_under", b"1"),),
                ),
                *(
                    ((b"Connection", b"x-mine"), (b"X-Mine", b"1")),
                    ((b"TE", b"trailers"),),
                    ((b"Accept-Encoding", b"gzip, br"),),
                ),
                *(
                    ((b"Accept", b"nonsense"),),
                    ((b"Accept", b"application/yaml"),),
                    ((b"Accept", b"application/cbor"),),
                ),
                *(
                    ((b"Expect", b"100-continue"),),
                    ((b"Authorization", b"Basic eDp5"),),
                    ((b"X-Opaque-Id", b"a" * 300),),
                ),
                *(
                    ((b"X-Long", b"a" * 6000),),
                    tuple((b"X-%d" % each, b"1") for each in range(60)),
                    ((b"Range", b"bytes=0-9"),),
                ),
                *(((b"If-None-Match", b"*"),), ((b"X-HTTP-Method-Override", b"DELETE"),), ((b"Cookie", b"a=b; c=d"),)),
                *(
                    ((b"Origin", b"http://x"),),
                    ((b"Upgrade", b"h2c"),),
                    ((b"X-Forwarded-For", b"1.2.3.4"),),
                    ((b"Via", b"1.1 x"),),
                ),
                *(((b"Traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),), ((b"User-Agent", b""),)),
            )
        )
        method = self._one(
            ("GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "get", "FOO", "PATCH", "TRACE", "M-SEARCH")
        )
        content_type = self._one(
            (
                *(
                    _JSON,
                    _JSON,
                    (b"Content-Type", b"application/json; charset=UTF-8"),
                    (b"content-type", b"text/plain"),
                ),
                *((b"Content-Type", b"application/JSON"), (b"Content-Type", b""), (b"Content-Type", b"nonsense")),
                *((b"Content-Type", b"application/x-www-form-urlencoded"), (b"Content-Type", b"application/yaml")),
                *((b"Content-Type", b"application/vnd.elasticsearch+json; compatible-with=8"),),
            )
        )
        sends = method not in ("HEAD", "TRACE") and self._chance.random() < 0.6
        all_headers = (*headers, content_type) if sends or self._chance.random() < 0.1 else headers
        framing = self._one(("length", "length", "chunked"))
        version = self._one((b"HTTP/1.1",) * 8 + (b"HTTP/1.0",))
        if version == b"HTTP/1.0":
            framing = "length"
        request = Request(
            method, target, tuple(all_headers), text if sends else b"", framing if sends else "length", version
        )
        return Made(request, upgrades=method in ("GET", "POST"), stage=self._one(_STAGES))

    def door(self) -> Made:
        """For an endpoint of the proxy's own."""
        request, conditions = door_request(self._chance, self._grammar)
        return Made(request, conditions=conditions)

    def write(self) -> Made:
        """A change to the index of this side."""
        document = {"title": self._grammar.words(), "n": self._chance.randrange(100), "kind": self._one(("ad", "note"))}
        text = self._grammar.text_of(self._maybe_mutated(document))
        doc_id = self._one(("1", "2", "3", "a%2Fb", "%C3%BC", "a+b", "x" * 100, str(self._chance.randrange(50))))
        action = self._one(("index", "index", "create", "delete", "update"))
        bulk = b""
        for _ in range(self._one((1, 2, 5))):
            named = {"_id": self._one(("1", "2", "3", None, 7)), **self._one(({}, {"routing": "r"}, {"nonsense": 1}))}
            bulk += json.dumps({action: named}).encode() + b"\n"
            if action != "delete":
                content: Any = document if action != "update" else {"doc": document}
                bulk += json.dumps(self._maybe_mutated(content)).encode() + b"\n"
        method, path, given = self._one(
            (
                ("PUT", f"/{_WRITTEN}/_doc/{doc_id}", text),
                ("PUT", f"/{_WRITTEN}/_create/{doc_id}", text),
                ("PUT", f"/{_WRITTEN}/_doc/{doc_id}?version=7&version_type=external", text),
                ("PUT", f"/{_WRITTEN}/_doc/{doc_id}?if_seq_no=3&if_primary_term=1", text),
                (
                    "POST",
                    f"/{_WRITTEN}/_update/{doc_id}",
                    json.dumps({"doc": document, "doc_as_upsert": True}).encode(),
                ),
                ("POST", f"/{_WRITTEN}/_update/{doc_id}", b'{"script":"ctx._source.n += 1"}'),
                ("DELETE", f"/{_WRITTEN}/_doc/{doc_id}", b""),
                ("POST", f"/{_WRITTEN}/_bulk?refresh", bulk),
                ("POST", f"/{_WRITTEN}/_bulk", bulk[:-1]),
                ("POST", f"/{_WRITTEN}/_delete_by_query?refresh", b'{"query":{"term":{"n":7}}}'),
                ("GET", f"/{_WRITTEN}/_doc/{doc_id}", b""),
                ("POST", f"/{_WRITTEN}/_refresh", b""),
            )
        )
        headers = (_LINES if "_bulk" in path else _JSON,) if given else ()
        framing = self._one(("length", "length", "chunked"))
        return Made(Request(method, path.encode(), headers, given, framing if given else "length"), writes=True)

    def heavy(self) -> Made:
        """A search that could mean much work to whoever reads it."""
        words = "wing pressure"
        wide = self._one((200, 2000, 20_000))
        deep: Any = {"match": {"title": words}}
        for _ in range(self._one((20, 100, 200))):
            deep = {"bool": {"must": [deep]}}
        tree: Any = self._one(
            (
                {"query": deep},
                {"query": {"multi_match": {"query": words, "fields": [f"f{each}" for each in range(wide)]}}},
                {"query": {"multi_match": {"query": words, "fields": ["*" * 120 + "z"]}}},
                {"query": {"match": {"a" * 6000: words}}},
                {
                    "query": {
                        "bool": {"must": {"match": {"title": words}}, "filter": {"terms": {"n": list(range(wide))}}}
                    }
                },
                {"query": {"bool": {"should": [{"match": {"title": words}}] * min(wide, 1000)}}},
                {"query": {"match": {"title": " ".join(["wing"] * wide)}}},
                {"query": {"match": {"title": words}}, "_source": [f"*{each}*" for each in range(min(wide, 2000))]},
                {
                    "query": {"match": {"title": words}},
                    "aggs": {f"a{each}": {"max": {"field": "n"}} for each in range(200)},
                },
                {"query": {"match": {"title": words}}, "size": 200, "from": 0, "highlight": {"fields": {"*": {}}}},
                {"query": {"match": {"title": words}}, "x": [[[]]] * wide},
                {"query": {"dis_max": {"queries": [deep] * 20}}},
            )
        )
        text = json.dumps(tree).encode()
        if self._chance.random() < 0.2:
            text = (b'{"index":"papers"}\n' + text + b"\n") * (3 if len(text) > 50_000 else 20)
            return Made(Request("POST", b"/_msearch", (_LINES,), text), upgrades=True)
        target = b"/papers/_search"
        if self._chance.random() < 0.2:
            target += b"?filter_path=" + self._one((b",".join([b"**.a"] * 40), b"*" * 300, b"hits.**.*_id*," * 50))
        return Made(Request("POST", target, (_JSON,), text), upgrades=True, stage=self._one(_STAGES))

    def _body(self) -> Body:
        kind = self._chance.random()
        if kind < 0.55:
            return self._grammar.application()
        if kind < 0.7:
            return self._grammar.anything()
        if kind < 0.85:
            return Body(self._grammar.mutated(self._grammar.application().tree))
        return Body(self._maybe_mutated(json.loads(self._one(SEARCHES))))

    def _maybe_mutated(self, tree: Any) -> Any:
        return self._grammar.mutated(tree) if self._chance.random() < 0.4 else tree

    def _parameters(self) -> list[str]:
        known = (
            *("pretty", "pretty=true", "size=3", "from=2", "size=0", "sort=n", "sort=_score", "typed_keys", "human"),
            *(
                "rest_total_hits_as_int=true",
                "filter_path=hits.hits._id",
                "filter_path=-hits.max_score",
                "_source=title",
            ),
            *(
                "_source_includes=title,_neural",
                "_source_excludes=body",
                "_source=false",
                "routing=r",
                "preference=_local",
            ),
            *(
                "ignore_unavailable=true",
                "allow_no_indices=false",
                "expand_wildcards=none",
                "expand_wildcards=open,closed",
            ),
            *(
                "error_trace=true",
                "format=yaml",
                "format=json",
                "version",
                "explain",
                "explain=false",
                "track_scores=true",
            ),
            *(
                "search_type=dfs_query_then_fetch",
                "timeout=10s",
                "request_cache=true",
                "docvalue_fields=n",
                "track_total_hits=2",
            ),
            *(
                "allow_partial_search_results=false",
                "batched_reduce_size=2",
                "terminate_after=3",
                "nonsense=1",
                "q=",
                "size=-1",
            ),
            *(
                "size=x",
                "stored_fields=_none_",
                "filter_path=took,hits.total.value",
                "_source_includes=",
                "seq_no_primary_term=true",
            ),
            *(
                "stats=a",
                "lenient=true",
                "df=title",
                "default_operator=AND",
                "include_named_queries_score=true",
                "from=99999",
            ),
        )
        return [self._one(known) for _ in range(self._one((0, 0, 0, 0, 1, 1, 2, 3)))]

    def _target(self, path: str, parameters: Sequence[str]) -> bytes:
        """The target, now and then written in another way that means the same, or almost."""
        if self._chance.random() < 0.06:
            at = self._chance.randrange(len(path))
            path = self._one(
                (
                    f"{path}/",
                    f"/{path}",
                    path[:at] + (f"%{ord(path[at]):02X}" if path[at] not in "%" else "%25") + path[at + 1 :],
                    path.upper(),
                    f"{path}?",
                )
            )
        query = "&".join(parameters)
        return f"{path}{'?' if query and '?' not in path else ''}{query}".encode()

    def _headers(self, content_type: tuple[bytes, bytes] | None) -> tuple[tuple[bytes, bytes], ...]:
        headers = [content_type] if content_type is not None else []
        if self._chance.random() < 0.2:
            headers.append(
                self._one(
                    (
                        *(
                            (b"Accept", b"application/json, text/plain, */*"),
                            (b"Accept", b"*/*"),
                            (b"Accept", b"application/yaml"),
                        ),
                        *(
                            (b"Accept", b"application/json;q=0.5, text/html"),
                            (b"Accept-Encoding", b"gzip"),
                            (b"Accept", b""),
                        ),
                        *((b"Accept-Encoding", b"deflate"), (b"Accept-Encoding", b"identity"), (b"X-Opaque-Id", b"me")),
                        *((b"Accept", b"application/smile"), (b"Accept-Encoding", b"gzip, deflate, br, zstd")),
                    )
                )
            )
        self._chance.shuffle(headers)
        return tuple(headers)

    def _packed(self, text: bytes) -> tuple[bytes, str]:
        return text, self._one(("length",) * 5 + ("chunked",)) if text else "length"


def packed(request: Request) -> Request:
    """The request with its body compressed, as many clients send it."""
    headers = (*request.headers, (b"Content-Encoding", b"gzip"))
    return msgspec.structs.replace(request, headers=headers, body=gzip.compress(request.body, mtime=0))


def _percent(text: bytes) -> str:
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in text)
