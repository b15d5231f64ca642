"""Which searches does a request hold? `_msearch` is split, and its answer joined again; templates are rendered."""

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import msgspec
from multidict import CIMultiDict

from bridge.proxy.transport.headers import of_a_leg
from bridge.proxy.transport.passthrough import AnswerMemory, aside
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.planning import Searched
from bridge.search import json_tree
from bridge.search.json_tree import Json
from bridge.search.request import LeaveAlone
from bridge.text import decodable, decode_answer

MAX_SEARCHES = 2_000
"""Of one `_msearch`; one with more passes."""

_SHARED_PARAMETERS = frozenset(
    {
        "ccs_minimize_roundtrips",
        "max_concurrent_searches",
        "max_concurrent_shard_requests",
        "pre_filter_shard_size",
        "rest_total_hits_as_int",
        "typed_keys",
    }
)
"""URL parameters that shape how `_msearch` works or counts, and not which hits it finds."""

_DEFAULTS = frozenset({"allow_no_indices", "expand_wildcards", "ignore_unavailable", "routing", "search_type"})
"""URL parameters that count for each search unless its own header line says otherwise."""


@dataclass(frozen=True, slots=True)
class Item:
    """One search: `expression` (indices or aliases, percent-encoded as in a path), its body, and its other parameters
    as a query string."""

    expression: str
    body: bytes
    query_string: str


def items(body: bytes, query_string: str, *, expression: str) -> list[Item] | LeaveAlone:
    """The searches of a `_msearch` body; `expression` is the path's index, for items that name none.

    An item that cannot be read as a search of one index is kept in its place, with an expression that
    nobody understands.
    """
    parameters = dict(parse_qsl(query_string, keep_blank_values=True))
    if parameters.keys() - _SHARED_PARAMETERS - _DEFAULTS:
        return LeaveAlone("unknown_parameter")
    if body.count(b"\n") > 2 * MAX_SEARCHES:
        return LeaveAlone("too_many_searches")
    lines = body.split(b"\n")
    if not body.endswith(b"\n") or len(lines) % 2 == 0:
        # Every search has two lines, and the last line ends too; an empty header line is one as well.
        return LeaveAlone("malformed")
    try:
        headers = [json_tree.read(header or b"{}") for header in lines[:-1:2]]
    except ValueError:
        return LeaveAlone("not_json")
    if not all(isinstance(header, dict) for header in headers):
        return LeaveAlone("malformed")
    defaults = {name: value for name, value in parameters.items() if name in _DEFAULTS}
    return [
        _item({**defaults, **header}, search, expression) for header, search in zip(headers, lines[1:-1:2], strict=True)
    ]


def searched(body: bytes, query_string: str, *, expression: str) -> set[Searched]:
    """The indices of all searches of a body that need not be a `_msearch`; a line that cannot be read may mean any."""
    if body.count(b"\n") > 2 * MAX_SEARCHES:
        return {Searched("")}
    indices = set()
    for line in body.removesuffix(b"\n").split(b"\n")[::2]:
        try:
            header = json_tree.read(line) if line.strip() else {}
        except ValueError:
            header = None
        item = _item(header, b"", expression) if isinstance(header, dict) else Item("", b"", "")
        indices.add(Searched.by(item.expression, "&".join(filter(None, (query_string, item.query_string)))))
    return indices


def _item(header: dict[str, Json], body: bytes, expression: str) -> Item:
    named = header.pop("index", expression)
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        named = ",".join(named)
    # The cluster takes null for a parameter that is not set.
    parameters = {name: _as_parameter(name, value) for name, value in header.items() if value is not None}
    if not isinstance(named, str) or None in parameters.values():
        return Item("", body, "")
    return Item(named if named is expression else quote(named, safe="*,"), body, urlencode(parameters))


def _as_parameter(name: str, value: Json) -> str | None:
    """How a value of a header line stands in a URL; None if the cluster may write it otherwise: a decimal number, an
    object, or a list of anything but index states."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case msgspec.Raw() if bytes(value).removeprefix(b"-").isdigit():
            return bytes(value).decode()
        case list() if name == "expand_wildcards" and all(isinstance(each, str) for each in value):
            return ",".join(value)
    return None


class Answers:
    """The answer to a `_msearch`; `responses` are its items' bodies, to be replaced in place."""

    def __init__(self, members: dict[str, msgspec.Raw], responses: list[bytes]) -> None:
        self._members = members
        self.responses = responses

    def body(self) -> bytes:
        """The whole answer."""
        responses = [msgspec.Raw(response) for response in self.responses]
        return msgspec.json.encode({**self._members, "responses": responses})


def answers(body: bytes, n_searches: int) -> Answers | None:
    """The answer taken apart; None if it is no answer to so many searches."""
    try:
        try:
            members, responses = _taken_apart(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            readable, restored = decodable(body)
            members, responses = _taken_apart(readable)
            members = {name: msgspec.Raw(restored(bytes(value))) for name, value in members.items()}
            responses = [restored(response) for response in responses]
    except (msgspec.DecodeError, KeyError):
        return None
    return Answers(members, responses) if len(responses) == n_searches else None


def _taken_apart(body: bytes) -> tuple[dict[str, msgspec.Raw], list[bytes]]:
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    responses = msgspec.json.decode(members["responses"], type=list[msgspec.Raw])
    return members, [bytes(response) for response in responses]


def succeeded(response: bytes) -> bool:
    """Whether an item is an answer and no error."""
    return "error" not in decode_answer(response, dict[str, msgspec.Raw])


class _Rendered(msgspec.Struct):
    template_output: msgspec.Raw


async def rendered_template(
    upstream: Upstream, memory: AnswerMemory, body: bytes, caller: CIMultiDict[str], *, timeout_s: float
) -> bytes | LeaveAlone:
    """The search body that a request to `_search/template` comes to: the cluster renders it in the caller's name."""
    try:
        async with asyncio.timeout(timeout_s):
            answer = await upstream.send("POST", "/_render/template", of_a_leg(caller), body)
            with memory.share() as share:
                async with answer:
                    content = await share.read(answer)
        if answer.status != 200 or content is None:
            return LeaveAlone("template_unreadable")
        rendered = await aside(len(content), lambda: decode_answer(content, _Rendered))
        return bytes(rendered.template_output)
    except (Refused, TimeoutError, aiohttp.ClientError, msgspec.DecodeError):
        return LeaveAlone("template_unreadable")
