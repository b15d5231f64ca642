"""A search body and its URL parameters → `SearchRequest`, or why the search is left alone.

The lists below say what is understood; whatever they do not name makes the search pass unchanged. The
application's own request is never rebuilt from this: it goes to the cluster byte for byte.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

from bridge.profile import SearchRules
from bridge.search import json_tree
from bridge.search.collapse import Collapse
from bridge.search.filter_path import patterns_of
from bridge.search.json_tree import Json
from bridge.search.text_clause import NotUnderstood, TextClause, as_list, find_text, refuse_many
from bridge.text import NestedTooDeeply, is_foreign

DEFAULT_SIZE = 10
MAX_RESULT_WINDOW = 10_000
"""The cluster's own limit on `from + size`; beyond it the cluster answers with its own error."""
_MAX_DIGITS = 10
"""No count that a cluster takes has more."""
MAX_TEXT_CHARS = 2_000
"""Longer texts are pasted documents rather than questions, and cost a model more than they gain."""


@dataclass(frozen=True, slots=True)
class Repair:
    """`text` is the user's with what misspelt words were meant to be; `words`: each of these as typed → as repaired."""

    text: str
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search that the bridge understands.

    `query` is the application's whole scoring query, `clause` the place of the user's words in it.
    `start` and `size` are the page. `presentation` and `url_presentation` say how hits are shown: body
    members and URL parameters that a search for further hits must repeat. `scope` holds the URL
    parameters that decide which shards are asked. `filter_path`: which parts of the answer are wanted, all
    where it is None. `asks_for_ours`: fields of the bridge's object are asked for by name.
    `collapse` is set if hits are the heads of groups. `aggregations` is the member of the body that asks for some.
    `repair` is set if words are misspelt; nothing that the application asked for itself depends on it.
    """

    query: Json
    clause: TextClause
    start: int = 0
    size: int = DEFAULT_SIZE
    post_filter: Json = None
    min_score: Json = None
    collapse: Collapse | None = None
    timeout: Json = None
    presentation: Mapping[str, Json] = field(default_factory=dict)
    url_presentation: Mapping[str, str] = field(default_factory=dict)
    scope: Mapping[str, str] = field(default_factory=dict)
    aggregations: Mapping[str, Json] = field(default_factory=dict)
    filter_path: str | None = None
    asks_for_ours: bool = False
    explain: bool = False
    pretty: bool = False
    repair: Repair | None = None

    @property
    def text(self) -> str:
        """The user's words as typed."""
        return self.clause.text

    @property
    def meant_text(self) -> str:
        """The user's words, repaired: what models read."""
        return self.text if self.repair is None else self.repair.text


def words_request(
    text: str, fields: Sequence[str], *, conditions: Sequence[Json] = (), size: int = DEFAULT_SIZE
) -> SearchRequest:
    """A search of the bridge's own for words in some fields; `conditions` are clauses that documents have to meet."""
    words = {"multi_match": {"query": text, "fields": list(fields)}}
    return SearchRequest(
        query={"bool": {"must": [words], "filter": list(conditions)}},
        clause=TextClause(text, ("bool", "must", 0), required=conditions),
        size=size,
    )


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """The search passes through unchanged; `reason` is a word of `bridge.search.reasons`, `hide` the objects of the
    bridge that its answer leaves out."""

    reason: str
    hide: frozenset[str] = frozenset()


_PRESENTATION = (
    "_source",
    "docvalue_fields",
    "explain",
    "fields",
    "highlight",
    "include_named_queries_score",
    "script_fields",
    "seq_no_primary_term",
    "stored_fields",
    "version",
)
_OWN_ANSWER_ONLY = ("aggregations", "aggs", "profile", "stats", "suggest", "track_scores", "track_total_hits")
"""What the answer to the application's own request already holds, or what makes no difference to hits."""
_AGGREGATIONS = ("aggregations", "aggs")
_BODY_KEYS = frozenset(
    {"query", "from", "size", "post_filter", "min_score", "timeout", "sort", "collapse"}
    | set(_PRESENTATION)
    | set(_OWN_ANSWER_ONLY)
)
_BODY_REASONS = frozenset(
    {
        "derived",
        "ext",
        "indices_boost",
        "knn",
        "pit",
        "rank",
        "rescore",
        "retriever",
        "runtime_mappings",
        "search_after",
        "search_pipeline",
        "slice",
        "terminate_after",
    }
)

_URL_QUERY = {
    "analyze_wildcard": "analyze_wildcard",
    "analyzer": "analyzer",
    "default_operator": "default_operator",
    "df": "default_field",
    "lenient": "lenient",
    "q": "query",
}
"""URL parameters of a query, and their names in `query_string`."""

_URL_SCOPE = (
    "allow_no_indices",
    "allow_partial_search_results",
    "expand_wildcards",
    "ignore_throttled",
    "ignore_unavailable",
    "preference",
    "routing",
    "search_type",
)
"""Which copies of which indices are asked, and how."""

_URL_PRESENTATION = (
    "_source",
    "_source_excludes",
    "_source_includes",
    "docvalue_fields",
    "explain",
    "include_named_queries_score",
    "seq_no_primary_term",
    "stored_fields",
    "version",
)
"""How hits are shown."""

_URL_OWN_ANSWER_ONLY = (
    "batched_reduce_size",
    "cancel_after_time_interval",
    "ccs_minimize_roundtrips",
    "error_trace",
    "human",
    "max_concurrent_shard_requests",
    "phase_took",
    "pre_filter_shard_size",
    "request_cache",
    "stats",
    "track_scores",
    "track_total_hits",
)

_ENVELOPE = ("rest_total_hits_as_int", "typed_keys")
"""How totals, those of inner hits too, and names of aggregations are written, whatever a body says."""

_URL_KEYS = frozenset(
    {"filter_path", "format", "from", "pretty", "size", "sort", "source", "source_content_type", "timeout"}
    | set(_URL_QUERY)
    | set(_URL_SCOPE)
    | set(_URL_PRESENTATION)
    | set(_URL_OWN_ANSWER_ONLY)
    | set(_ENVELOPE)
)
_URL_OF_BODY = frozenset(
    {"from", "size", "sort", "source", "source_content_type", "stats", "terminate_after", "timeout"}
    | {"track_scores", "track_total_hits"}
    | set(_URL_QUERY)
    | set(_URL_PRESENTATION)
)
"""What a body could say as well."""
_URL_REASONS = frozenset({"scroll", "search_pipeline", "terminate_after"})
_MAX_PARAMETERS = 100

_SHOWING = (
    "_source",
    "_source_includes",
    "aggregations",
    "aggs",
    "collapse",
    "docvalue_fields",
    "fields",
    "highlight",
    "script_fields",
    "stored_fields",
)
"""Members of a body, and URL parameters, that name fields in order to show them."""

_RULES = SearchRules()
_BY_SCORE: tuple[Json, ...] = ("_score", {"_score": "desc"}, {"_score": {"order": "desc"}}, "_score:desc")

_IDENTIFIER = re.compile(r"(?=(?:\D*\d){3})[\w.:/\\#@+-]{4,}")
"""One word with three digits or more: a part number, an ISBN, a version, an address."""


def parse(
    body: bytes,
    query_string: str,
    *,
    text_fields: Sequence[str],
    object_field: str,
    rules: SearchRules = _RULES,
) -> SearchRequest | LeaveAlone:
    """Understands a search, or says why not.

    `body` is uncompressed JSON, empty if there is none; `query_string` is the URL's, still encoded;
    `text_fields`, `object_field` and `rules` are the index profile's.
    """
    try:
        return _understood(body, query_string, text_fields, object_field, rules)
    except NotUnderstood as error:
        return LeaveAlone(error.reason)


def _understood(
    body: bytes, query_string: str, text_fields: Sequence[str], object_field: str, rules: SearchRules
) -> SearchRequest:
    parameters = parameters_of(query_string)
    tree = _body(body, parameters)
    ties = _ties(tree, parameters, rules)
    query = _query(tree, parameters)
    clause = find_text(query, text_fields)
    _check_text(clause.text, rules)
    start, size = _page(tree, parameters)
    collapse = Collapse.of(tree["collapse"]) if "collapse" in tree else None
    presentation = {key: tree[key] for key in _PRESENTATION if key in tree} | ties
    url_presentation = {key: parameters[key] for key in (*_URL_PRESENTATION, *_ENVELOPE) if key in parameters}
    if any("_none_" in as_list(each.get("stored_fields")) for each in (presentation, url_presentation)):
        # Then hits come without their ids.
        raise NotUnderstood("stored_fields")
    return SearchRequest(
        query=query,
        clause=clause,
        start=start,
        size=size,
        post_filter=tree.get("post_filter"),
        min_score=tree.get("min_score"),
        collapse=collapse,
        timeout=parameters.get("timeout", tree.get("timeout")),
        presentation=presentation,
        url_presentation=url_presentation,
        aggregations={key: tree[key] for key in _AGGREGATIONS if key in tree},
        scope={key: parameters[key] for key in _URL_SCOPE if key in parameters},
        filter_path=parameters.get("filter_path") or None,
        asks_for_ours=names_any([presentation, url_presentation, tree.get("collapse")], object_field),
        explain=tree.get("explain") is True or is_set(parameters, "explain"),
        pretty=is_set(parameters, "pretty"),
    )


def template_parameters(query_string: str) -> str:
    """The parameters that count beside a search template: clusters replace what a body could say by the template."""
    pairs = query_string.split("&")
    return "&".join(pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in _URL_OF_BODY)


def parameters_of(query_string: str) -> dict[str, str]:
    """The parameters of a query string that is still encoded.

    Raises:
        NotUnderstood: one is not known, stands there twice, lists too many names, or wants another format than JSON.
    """
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise NotUnderstood("unknown_parameter") from None
    parameters = dict(pairs)
    for name in parameters:
        if name not in _URL_KEYS:
            raise NotUnderstood(name if name in _URL_REASONS else "unknown_parameter")
    if len(parameters) != len(pairs):
        raise NotUnderstood("unknown_parameter")
    if "filter_path" in parameters:
        refuse_many(patterns_of(parameters["filter_path"]))
    if parameters.get("format", "json") != "json":
        raise NotUnderstood("format")
    return parameters


def is_set(parameters: Mapping[str, str], name: str) -> bool:
    """Whether a parameter that is true or false is true; without a value it is true."""
    return parameters.get(name, "false") in ("", "true")


def _body(body: bytes, parameters: Mapping[str, str]) -> dict[str, Json]:
    if "source" in parameters:
        if body or parameters.get("source_content_type") != "application/json":
            raise NotUnderstood("source")
        body = parameters["source"].encode()
    if not body.strip():
        return {}
    try:
        tree = json_tree.read(body)
    except NestedTooDeeply:
        raise NotUnderstood("too_deep") from None
    except ValueError:
        raise NotUnderstood("not_json") from None
    if not isinstance(tree, dict):
        raise NotUnderstood("malformed")
    for key in tree:
        if key not in _BODY_KEYS:
            raise NotUnderstood(key if key in _BODY_REASONS else "unknown_key")
    return tree


def _ties(tree: Mapping[str, Json], parameters: Mapping[str, str], rules: SearchRules) -> dict[str, Json]:
    """The `sort` of a search that is sorted by score and then by more, so that hits show their sort values."""
    given: Json = parameters.get("sort", tree.get("sort", []))
    orders = given if isinstance(given, list) else [given]
    if all(order in _BY_SCORE for order in orders):
        return {}
    if rules.leave_sorted_ties or orders[0] not in _BY_SCORE:
        raise NotUnderstood("sort")
    return {"sort": orders}


def _query(tree: Mapping[str, Json], parameters: Mapping[str, str]) -> Json:
    if "q" in parameters:
        if "query" in tree:
            raise NotUnderstood("q_and_body")
        return {"query_string": {_URL_QUERY[key]: parameters[key] for key in _URL_QUERY if key in parameters}}
    match tree.get("query"):
        case None:
            raise NotUnderstood("no_text")
        case {"wrapper": {"query": str(packed), **rest}} if not rest:
            # How Spring Data sends a query that was written as text.
            return _unpacked(packed)
        case query:
            return query


def _unpacked(packed: str) -> Json:
    try:
        return json_tree.read(base64.b64decode(packed, validate=True))
    except ValueError:
        raise NotUnderstood("wrapper") from None


def _check_text(text: str, rules: SearchRules) -> None:
    stripped = text.strip()
    if not stripped:
        raise NotUnderstood("empty_text")
    if len(text) > MAX_TEXT_CHARS:
        raise NotUnderstood("long_text")
    if rules.leave_quoted and len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        # Whoever types quotation marks wants these very words.
        raise NotUnderstood("quoted")
    if rules.leave_identifiers and _IDENTIFIER.fullmatch(stripped):
        # Whoever types a part number wants this very part, and nothing that is like it.
        raise NotUnderstood("identifier")
    if is_foreign(stripped, rules.scripts):
        # Models that cannot read the words would rank by noise.
        raise NotUnderstood("script")


def _page(tree: Mapping[str, Json], parameters: Mapping[str, str]) -> tuple[int, int]:
    start = _count(parameters.get("from", tree.get("from", 0)))
    size = _count(parameters.get("size", tree.get("size", DEFAULT_SIZE)))
    if size == 0:
        raise NotUnderstood("size_0")
    if start + size > MAX_RESULT_WINDOW:
        raise NotUnderstood("window")
    return start, size


def _count(value: Json) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise NotUnderstood("malformed")


def unasked(body: bytes, query_string: str, objects: frozenset[str]) -> frozenset[str]:
    """Those of the bridge's objects that can be left out of the answer to this search without being missed.

    None if a scroll or a point in time reads documents page by page: it copies them, and a copy is whole. Not an object
    of which a field is named in order to be shown; in a body that cannot be read, wherever it is named.
    """
    parameters = dict(parse_qsl(query_string, keep_blank_values=True))
    if "scroll" in parameters or not objects:
        return frozenset()
    try:
        tree = json_tree.read(body) if body.strip() else {}
        if not isinstance(tree, dict):
            return objects
        if "pit" in tree:
            return frozenset()
        shown = [given[key] for given in (tree, parameters) for key in _SHOWING if key in given]
        return frozenset(name for name in objects if not names_any(shown, name))
    except ValueError:
        named = body + query_string.encode("utf-8", "surrogateescape")
        return frozenset(name for name in objects if name.encode() not in named)


def names_any(presentation: Json, object_field: str) -> bool:
    """Whether a field of the bridge's object is named anywhere in what says how hits are shown."""
    if isinstance(presentation, str):
        return any(
            name.strip() == object_field or name.strip().startswith(f"{object_field}.")
            for name in presentation.split(",")
        )
    if isinstance(presentation, dict):
        # What is excluded is named in order not to be seen.
        return any(
            names_any(key, object_field) or names_any(value, object_field)
            for key, value in presentation.items()
            if key not in ("excludes", "exclude", "_source_excludes")
        )
    return isinstance(presentation, list) and any(names_any(each, object_field) for each in presentation)
