"""A search body and its URL parameters → `SearchRequest`, or why the search is left alone.

The lists below say what is understood; whatever they do not name makes the search pass unchanged. The
application's own request is never rebuilt from this: it goes to the cluster byte for byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from bridge.search import json_tree
from bridge.search.json_tree import Json
from bridge.search.text_clause import NotUnderstood, TextClause, find_text

DEFAULT_SIZE = 10
MAX_RESULT_WINDOW = 10_000
"""The cluster's own limit on `from + size`; beyond it the cluster answers with its own error."""
MAX_TEXT_CHARS = 2_000
"""Longer texts are pasted documents rather than questions, and cost a model more than they gain."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search that the bridge understands.

    `query` is the application's whole scoring query, `clause` the place of the user's words in it.
    `start` and `size` are the page. `presentation` and `url_presentation` say how hits are shown: body
    members and URL parameters that a search for further hits must repeat. `scope` holds the URL
    parameters that decide which shards are asked. `asks_for_ours`: fields of the bridge's object are
    asked for by name.
    """

    query: Json
    clause: TextClause
    start: int = 0
    size: int = DEFAULT_SIZE
    post_filter: Json = None
    min_score: Json = None
    timeout: Json = None
    presentation: Mapping[str, Json] = field(default_factory=dict)
    url_presentation: Mapping[str, str] = field(default_factory=dict)
    scope: Mapping[str, str] = field(default_factory=dict)
    asks_for_ours: bool = False
    pretty: bool = False

    @property
    def text(self) -> str:
        """The user's words."""
        return self.clause.text


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """The search passes through unchanged; `reason` is one word of a bounded set."""

    reason: str


_PRESENTATION = (
    "_source",
    "docvalue_fields",
    "fields",
    "highlight",
    "script_fields",
    "seq_no_primary_term",
    "stored_fields",
    "version",
)
_OWN_ANSWER_ONLY = ("aggregations", "aggs", "profile", "suggest", "track_scores", "track_total_hits")
"""What the answer to the application's own request already holds."""
_BODY_KEYS = frozenset(
    {"query", "from", "size", "post_filter", "min_score", "timeout", "sort", "explain"}
    | set(_PRESENTATION)
    | set(_OWN_ANSWER_ONLY)
)
_BODY_REASONS = frozenset(
    {
        "collapse",
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
        "stats",
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
    "ignore_unavailable",
    "preference",
    "routing",
    "search_type",
)
_URL_PRESENTATION = (
    "_source",
    "_source_excludes",
    "_source_includes",
    "docvalue_fields",
    "seq_no_primary_term",
    "stored_fields",
    "version",
)
_URL_OWN_ANSWER_ONLY = (
    "batched_reduce_size",
    "cancel_after_time_interval",
    "error_trace",
    "human",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "request_cache",
    "rest_total_hits_as_int",
    "track_scores",
    "track_total_hits",
    "typed_keys",
)
_URL_KEYS = frozenset(
    {"from", "size", "sort", "timeout", "pretty", "format", "source", "source_content_type"}
    | set(_URL_QUERY)
    | set(_URL_SCOPE)
    | set(_URL_PRESENTATION)
    | set(_URL_OWN_ANSWER_ONLY)
)
_URL_REASONS = frozenset({"explain", "filter_path", "scroll", "search_pipeline", "terminate_after"})

_BY_SCORE: tuple[Json, ...] = ("_score", {"_score": "desc"}, {"_score": {"order": "desc"}}, "_score:desc")


def parse(
    body: bytes, query_string: str, *, text_fields: Sequence[str], object_field: str
) -> SearchRequest | LeaveAlone:
    """Understands a search, or says why not.

    `body` is uncompressed JSON, empty where there is none; `query_string` is the URL's, still encoded;
    `text_fields` and `object_field` are the index profile's.
    """
    try:
        parameters = _parameters(query_string)
        tree = _body(body, parameters)
        query = _query(tree, parameters)
        clause = find_text(query, text_fields)
        _check_text(clause.text)
        start, size = _page(tree, parameters)
    except NotUnderstood as error:
        return LeaveAlone(error.reason)
    presentation = {key: tree[key] for key in _PRESENTATION if key in tree}
    url_presentation = {key: parameters[key] for key in _URL_PRESENTATION if key in parameters}
    return SearchRequest(
        query=query,
        clause=clause,
        start=start,
        size=size,
        post_filter=tree.get("post_filter"),
        min_score=tree.get("min_score"),
        timeout=parameters.get("timeout", tree.get("timeout")),
        presentation=presentation,
        url_presentation=url_presentation,
        scope={key: parameters[key] for key in _URL_SCOPE if key in parameters},
        asks_for_ours=_names(presentation, object_field) or _names(url_presentation, object_field),
        pretty=parameters.get("pretty", "false") in ("", "true"),
    )


def _parameters(query_string: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise NotUnderstood("parameter") from None
    parameters = dict(pairs)
    for key in parameters:
        if key not in _URL_KEYS:
            raise NotUnderstood(key if key in _URL_REASONS else "parameter")
    if len(parameters) != len(pairs):
        raise NotUnderstood("parameter")
    if parameters.get("format", "json") != "json":
        raise NotUnderstood("format")
    if parameters.get("sort", "_score") not in _BY_SCORE:
        raise NotUnderstood("sort")
    return parameters


def _body(body: bytes, parameters: Mapping[str, str]) -> dict[str, Json]:
    if "source" in parameters:
        if body or parameters.get("source_content_type") != "application/json":
            raise NotUnderstood("source")
        body = parameters["source"].encode()
    if not body.strip():
        return {}
    try:
        tree = json_tree.read(body)
    except ValueError:
        raise NotUnderstood("not_json") from None
    if not isinstance(tree, dict):
        raise NotUnderstood("malformed")
    for key in tree:
        if key not in _BODY_KEYS:
            raise NotUnderstood(key if key in _BODY_REASONS else "key")
    sort = tree.get("sort", [])
    if any(order not in _BY_SCORE for order in (sort if isinstance(sort, list) else [sort])):
        raise NotUnderstood("sort")
    if tree.get("explain", False) is not False:
        raise NotUnderstood("explain")
    return tree


def _query(tree: Mapping[str, Json], parameters: Mapping[str, str]) -> Json:
    if "q" not in parameters:
        if "query" not in tree:
            raise NotUnderstood("no_text")
        return tree["query"]
    if "query" in tree:
        raise NotUnderstood("q_and_body")
    return {"query_string": {_URL_QUERY[key]: parameters[key] for key in _URL_QUERY if key in parameters}}


def _check_text(text: str) -> None:
    stripped = text.strip()
    if not stripped:
        raise NotUnderstood("empty_text")
    if len(text) > MAX_TEXT_CHARS:
        raise NotUnderstood("long_text")
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        # Whoever types quotation marks wants these very words.
        raise NotUnderstood("quoted")


def _page(tree: Mapping[str, Json], parameters: Mapping[str, str]) -> tuple[int, int]:
    start = _count(parameters.get("from", tree.get("from", 0)))
    size = _count(parameters.get("size", tree.get("size", DEFAULT_SIZE)))
    if size == 0:
        raise NotUnderstood("size_0")
    if start + size > MAX_RESULT_WINDOW:
        raise NotUnderstood("window")
    return start, size


def _count(value: Json) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise NotUnderstood("malformed")


def _names(presentation: Json, object_field: str) -> bool:
    """Whether a field of the bridge's object is named anywhere in it."""
    if isinstance(presentation, str):
        return any(
            name.strip() == object_field or name.strip().startswith(f"{object_field}.")
            for name in presentation.split(",")
        )
    if isinstance(presentation, dict):
        # What is excluded is named in order not to be seen.
        return any(
            _names(key, object_field) or _names(value, object_field)
            for key, value in presentation.items()
            if key not in ("excludes", "exclude", "_source_excludes")
        )
    return isinstance(presentation, list) and any(_names(each, object_field) for each in presentation)
