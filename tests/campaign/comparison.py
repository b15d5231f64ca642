"""What is wrong with an answer that came through the proxy, beside the node's own."""

import json
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.campaign.made import Made
from tests.campaign.wire import NO_ANSWER, Answer, Request

# Clock values, cursors, identities, Java's addresses of objects, ports and threads of the node, and the two names.
_VOLATILE = re.compile(
    rb'"?took"?\s*:\s*-?\d+|"(?:_scroll_id|pit_id|(?:index[._])?(?:creation_date(?:_string)?|uuid))"\s*:\s*"[^"]*"'
    rb'|"(?:creation_time|task|time_in_nanos|time_in_millis|rewrite_time|build_scorer|next_doc|advance|score|match|'
    rb"create_weight|compute_max_score|set_min_competitive_score|shallow_advance|initialize|collect|build_aggregation|"
    rb"post_collection|build_leaf_collector|reduce|fetch|load_stored_fields\w*|load_source\w*|"
    rb'create_stored_fields_visitor\w*|build_sub_phase_processors\w*|get_next_reader\w*|process|set_next_reader)"\s*:\s*\d+'
    # In Smile and CBOR a number of any length stands between two names, or at the end, and a byte after it.
    rb"|took[^e]{1,6}?(?=[\x00-\xff](?:timed_out|hits)|[\xfb\xff]\Z)"
    rb'|"stack_trace"\s*:\s*"(?:[^"\\]|\\.)*"|"num_reduce_phases":\d+,'
    rb"|(?<=\"_id\":)\"[\w-]{20}\"|(?<=id ')[\w-]{20}"
    # An empty query string is the one part of a target that a proxy may lose.
    rb"|(?<=_search)\?(?=\])|(?<=@)[0-9a-f]{5,8}|(?<= in )\d+(?=\) \[)|\[\[[\w-]{22}\]\[|/[\w-]{22}\]"
    rb"|twin-[dp]",
    re.ASCII,
)
_HARD_TO_MASK = re.compile(rb"stack_trace|[\x00-\xff]Incorrect HTTP method|(?<=took)[\x00-\xff]{1,6}?responses")
_NOT_COMPARED = frozenset(
    {"x-bridge", "server-timing", "connection", "keep-alive", "transfer-encoding", "content-length", "date"}
    | {"task_resource_usage"}
)
_REFUSALS = (
    (405, b"CONNECT"),
    (400, b"header Connection names"),
    (431, b"proxy.max_headers_bytes"),
    (417, b"100-continue is known"),
    (501, b"chunked alone"),
    (400, b"cannot be forwarded unchanged"),
    (400, b"expected a path that begins with /"),
    (400, b"the request target is no UTF-8"),
)
"""What the proxy refuses itself, as docs/reference/http-api.md says."""
_MALFORMED = (400, b"the request is malformed")
"""The answer to what is no HTTP."""
_WHOLE = ("aggregations", "suggest", "timed_out", "_shards", "terminated_early")
"""Members of an answer that are the cluster's own, however hits are ranked."""


def masked(body: bytes) -> bytes:
    """A body without what differs between any two answers."""
    if not body.startswith(b"{"):
        # In Smile and CBOR a trace, an address and the times of several answers are of any length.
        body = _HARD_TO_MASK.split(body, maxsplit=1)[0]
    return _VOLATILE.sub(b"", body)


def passed_faults(request: Request, direct: Answer, proxied: Answer) -> list[str]:
    """How an answer that should be the node's own differs from it."""
    if _refused(request, direct, proxied):
        return []
    if direct.status != proxied.status:
        return [f"status {proxied.status or proxied.fault} for {direct.status or direct.fault}"]
    faults = []
    # A node compresses nothing for HTTP/1.0, which the proxy speaks to clients alone.
    ignored = _NOT_COMPARED | ({"content-encoding"} if request.version == b"HTTP/1.0" else set())
    expected, got = (
        sorted((name, masked(value.encode())) for name, value in each.headers if name not in ignored)
        for each in (direct, proxied)
    )
    if expected != got:
        missing = sorted({name for name, _ in set(expected) ^ set(got)})
        faults.append(f"header {','.join(missing)}")
    if masked(direct.content) != masked(proxied.content):
        faults.append("body")
    return faults


def _refused(request: Request, direct: Answer, proxied: Answer) -> bool:
    """Whether the proxy refused by a rule of its own, or where the node gives no answer, or the node was full."""
    if any(each.status == 429 and b"circuit_breaking_exception" in each.body for each in (direct, proxied)):
        return True
    if direct.status == NO_ANSWER and direct.fault != "late":
        return proxied.status >= 400
    # An answer to HEAD has no words.
    own_words = not proxied.body and "aiohttp" in proxied.header("server")
    refusals = _REFUSALS if request.is_http else (*_REFUSALS, _MALFORMED)
    return any(proxied.status == status and (words in proxied.body or own_words) for status, words in refusals)


def upgraded_faults(made: Made, direct: Answer, upgraded: Answer) -> list[str]:
    """What an upgraded answer has that it must not have, or lacks."""
    if _refused(made.request, direct, upgraded):
        return []
    if direct.status != upgraded.status:
        return [f"status {upgraded.status or upgraded.fault} for {direct.status or direct.fault}"]
    if direct.status == NO_ANSWER:
        return []
    faults = []
    mark = upgraded.header("x-bridge")
    if direct.status >= 400:
        return _passed_or_repacked(made.request, direct, upgraded)
    # What the node refuses of the application's own search, it refuses of the legs; what it would refuse of hits, such
    # as a format, it says only once there are some.
    refused = any("error" in item or not _hits(item) for item in _items(direct) or ())
    faulty = ("internal_error", "answer_not_understood", *(() if refused else ("rejected", "leg_failed")))
    if any(reason in mark for reason in faulty):
        faults.append(f"mark {mark.partition('; took')[0]}")
    # In Smile, CBOR and YAML it stays: docs/reference/http-api.md says so.
    is_json = "json" in upgraded.header("content-type")
    if is_json and _hides(made.request) and re.search(rb'(?<!\\)"_neural', upgraded.content):
        faults.append(f"_neural shows ({mark.partition('; took')[0]})")
    if mark.startswith("pass") and not faults and b"_neural" not in direct.content:
        return _passed_or_repacked(made.request, direct, upgraded)
    own, ours = _items(direct), _items(upgraded)
    if own is None or ours is None:
        return faults if (own is None) == (ours is None) else [*faults, "not JSON"]
    if len(own) != len(ours):
        return [*faults, f"{len(ours)} answers for {len(own)}"]
    bodies = [body for _, body, _ in made.searches] if len(made.searches) == len(own) else [{}] * len(own)
    for body, expected, got in zip(bodies, own, ours, strict=True):
        faults += _item_faults(expected, got, union="union" in made.stage, sentences="sentences" in made.stage)
        faults += _group_faults(body.get("collapse") if isinstance(body, dict) else None, expected, got)
    return list(dict.fromkeys(faults))


def _passed_or_repacked(request: Request, direct: Answer, upgraded: Answer) -> list[str]:
    """The faults of a passed answer, which the proxy had to be able to read: it may come without compression."""
    return [fault for fault in passed_faults(request, direct, upgraded) if fault != "header content-encoding"]


def shown_ids(answer: Answer) -> list[list[tuple[str, str]]]:
    """Index and id of the hits of each search in an answer."""
    return [
        [(hit["_index"], hit["_id"]) for hit in _hits(item) if "_index" in hit and "_id" in hit]
        for item in _items(answer) or []
    ]


def _hides(request: Request) -> bool:
    """Whether the bridge's object has to be out of sight: not if it was named, nor in pages of all documents."""
    query = unquote_to_bytes(request.target).partition(b"?")[2]
    body = Answer(200, (("content-encoding", _encoding(request)),), request.body).content
    named = b"_neural" in query or b"_neural" in body or b"\\u005f" in body
    return not (named or b"scroll" in query or b'"pit"' in body)


def _encoding(request: Request) -> str:
    return next((value.decode("latin-1") for name, value in request.headers if name == b"Content-Encoding"), "")


def _items(answer: Answer) -> list[dict[str, Any]] | None:
    try:
        tree = json.loads(answer.content)
    except ValueError:
        return None
    if not isinstance(tree, dict):
        return None
    responses = tree.get("responses")
    return responses if isinstance(responses, list) else [tree]


def _hits(item: dict[str, Any]) -> list[dict[str, Any]]:
    hits = item.get("hits")
    found = hits.get("hits") if isinstance(hits, dict) else None
    return found if isinstance(found, list) else []


def _item_faults(own: dict[str, Any], ours: dict[str, Any], *, union: bool, sentences: bool) -> list[str]:
    faults = []
    if own.get("status") != ours.get("status") or ("error" in own) != ("error" in ours):
        return ["an item's status"]
    if "error" in own:
        return [] if masked(json.dumps(own).encode()) == masked(json.dumps(ours).encode()) else ["an item's error"]
    faults += [f"{name} differs" for name in _WHOLE if _plain(own.get(name)) != _plain(ours.get(name))]
    # How often a node reduced is a matter of which shard came first.
    # And a node that is to show ids alone shows nothing at all if it found none.
    if members := (own.keys() ^ ours.keys()) - {"_bridge", "num_reduce_phases", *({"hits"} if not own else ())}:
        faults.append(f"members {sorted(members)}")
    own_hits, our_hits = own.get("hits"), ours.get("hits")
    if isinstance(own_hits, dict) and isinstance(our_hits, dict):
        if not union and own_hits.get("total") != our_hits.get("total"):
            faults.append("total differs")
        if own_hits.keys() != our_hits.keys():
            faults.append(f"members of hits {sorted(own_hits.keys() ^ our_hits.keys())}")
    shown = {(hit.get("_index"), hit.get("_id")): hit for hit in _hits(ours)}
    if len(shown) < len(_hits(ours)) and all("_id" in hit for hit in _hits(ours)):
        faults.append("a hit twice")
    if len(_hits(ours)) < len(_hits(own)):
        faults.append("fewer hits")
    for hit in _hits(own):
        twin = shown.get((hit.get("_index"), hit.get("_id")))
        if twin is not None and "_id" in hit:
            faults += _hit_faults(hit, twin, sentences=sentences)
    return faults


def _group_faults(collapse: Any, own: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Of a collapsed search: a group shown twice, or with other inner hits than the node's."""
    field = collapse.get("field") if isinstance(collapse, dict) else None
    if not isinstance(field, str):
        return []
    own_heads = {_group(hit, field): hit for hit in _hits(own)}
    if len(own_heads) < len(_hits(own)) or not any("fields" in hit for hit in _hits(ours)):
        return []  # The node did not get the body, or is not to show what the groups are.
    heads = [(_group(hit, field), hit) for hit in _hits(ours)]
    faults = ["a group twice"] if len({group for group, _ in heads}) < len(heads) else []
    for group, hit in heads:
        expected, got = (each.get("inner_hits") or {} for each in (own_heads.get(group, hit), hit))
        # Those of the query's own clauses are of the document.
        if any(_plain(expected.get(name)) != _plain(got.get(name)) for name in _names(collapse.get("inner_hits"))):
            faults.append("inner hits of a group differ")
    return faults


def _names(inner_hits: Any) -> list[str]:
    each = inner_hits if isinstance(inner_hits, list) else [inner_hits]
    return [one["name"] for one in each if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _group(hit: dict[str, Any], field: str) -> str:
    # An application may want the same field among `fields`, and then its value comes twice.
    values = [value for value in hit.get("fields", {}).get(field, []) if value is not None]
    return repr(values[:1])


def _hit_faults(own: dict[str, Any], ours: dict[str, Any], *, sentences: bool) -> list[str]:
    faults = []
    for name in (own.keys() | ours.keys()) - {"_score", "_bridge", "_explanation", "sort", "inner_hits"}:
        expected, got = _plain(own.get(name)), _plain(ours.get(name))
        if name == "highlight" and isinstance(got, dict):
            kept = (expected or {}).keys() if sentences else got.keys() - {"_bridge.passage"}
            got = {field: value for field, value in got.items() if field in kept} or None
        if expected != got:
            faults.append(f"{name} of a hit differs")
    return faults


def _plain(value: Any) -> Any:
    """The value without the bridge's object, without what an empty object leaves, and without times."""
    if isinstance(value, dict):
        kept = {
            key: _plain(each)
            for key, each in value.items()
            if key != "_neural" and not key.startswith("_neural.") and key != "took"
        }
        return kept or None
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
