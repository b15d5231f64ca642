"""The URL parameters of a search that the bridge knows, by what they are about.

Whatever is not named here makes the search pass unchanged.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from bridge.search.filter_path import patterns_of
from bridge.search.known_clauses import NotUnderstood, refuse_many

OF_A_QUERY = {
    "analyze_wildcard": "analyze_wildcard",
    "analyzer": "analyzer",
    "default_operator": "default_operator",
    "df": "default_field",
    "lenient": "lenient",
    "q": "query",
}
"""Parameters of a query, and their names in `query_string`."""

SCOPE = (
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

PRESENTATION = (
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

_OWN_ANSWER_ONLY = (
    "batched_reduce_size",
    "cancel_after_time_interval",
    "ccs_minimize_roundtrips",
    "error_trace",
    "human",
    "max_concurrent_shard_requests",
    "phase_took",
    "pre_filter_shard_size",
    "request_cache",
    "rest_total_hits_as_int",
    "stats",
    "track_scores",
    "track_total_hits",
    "typed_keys",
)
"""What the answer to the application's own request already shows, or what makes no difference to hits."""

_KNOWN = frozenset(
    {"filter_path", "format", "from", "pretty", "size", "sort", "source", "source_content_type", "timeout"}
    | set(OF_A_QUERY)
    | set(SCOPE)
    | set(PRESENTATION)
    | set(_OWN_ANSWER_ONLY)
)
_REASONS = frozenset({"scroll", "search_pipeline", "terminate_after"})
_MAX_PARAMETERS = 100


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
        if name not in _KNOWN:
            raise NotUnderstood(name if name in _REASONS else "unknown_parameter")
    if len(parameters) != len(pairs):
        raise NotUnderstood("unknown_parameter")
    refuse_many(patterns_of(parameters.get("filter_path", "")))
    if parameters.get("format", "json") != "json":
        raise NotUnderstood("format")
    return parameters


def is_set(parameters: Mapping[str, str], name: str) -> bool:
    """Whether a parameter that is true or false is true; it is so where it has no value."""
    return parameters.get(name, "false") in ("", "true")
