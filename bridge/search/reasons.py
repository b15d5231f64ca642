"""Why a search is left alone: every reason that `X-Bridge: pass; reason=…` and the metric can show.

One word each, and a bounded set: no word of a caller's ever becomes one.
"""

from collections.abc import Iterator

from bridge.search.text_clause import LEFT_ALONE

REASONS: dict[str, str] = {
    # Asked for
    "off": "the request says `x-bridge: off`",
    "canary": "the caller is not among `proxy.canary_percent`",
    "lexical": "the request, or the index's profile, stops at the application's own query",
    # The request
    "accept": "the request takes no JSON, or names YAML, Smile or CBOR as well",
    "body": "the body is larger than `proxy.max_search_body_bytes` or than `proxy.upgrade_memory_bytes` has room for, "
    "or compressed in a way that is not known",
    "content_type": "the body is not JSON by its `Content-Type`",
    "format": "`format` wants another answer than JSON",
    "malformed": "the body is JSON, but not a search",
    "not_json": "the body is not strict JSON: the cluster decides what it means",
    "q_and_body": "`q` and a query in the body: the cluster decides which counts",
    "several_templates": "`_msearch/template`: the bridge renders one template at a time",
    "signed": "the signature (AWS) covers this very request: no other can be sent in the caller's name",
    "source": "`source` beside a body, or without `source_content_type=application/json`",
    "template_unreadable": "`_render/template` did not answer: no such template, or no permission, or no time",
    "too_deep": "the query is nested too deeply",
    "too_many_names": "more than 200 fields or patterns in one list, or thousands together, or one too long",
    "too_many_searches": "more than 2,000 searches in one `_msearch`",
    "unknown_key": "a member of the body that the bridge does not know",
    "unknown_parameter": "a parameter, of the URL or of a clause, that the bridge does not know, or twice",
    # The index
    "fields_hidden": "the cluster hides from the caller a text that the index's companion was made of",
    "index_expression": "all indices (as points in time are searched), another cluster's, or an unreadable name",
    "cluster_unavailable": "the mapping did not come in time, or the cluster could not be reached or failed",
    "mapping_unreadable": "the mapping could not be read: no such index, or no permission",
    "no_profile": "the bridge has not enriched the index",
    "profile_unreadable": "`_meta.neural_bridge` cannot be read, or a newer version wrote it",
    "profiles_differ": "several indices that were enriched in different ways",
    # What is asked
    "collapse": "hits are grouped in a way that the bridge does not know",
    "derived": "fields are derived at search time",
    "ext": "a plugin's extension of the search",
    "indices_boost": "indices count differently",
    "pit": "a point in time: its pages follow each other by `search_after`",
    "rank": "the application fuses rankings itself",
    "rescore": "the application rescores itself",
    "retriever": "the application's own retriever decides",
    "runtime_mappings": "fields are defined at search time",
    "scroll": "a scroll reads everything, in the cluster's order",
    "search_after": "the page begins after given sort values, which a ranking of the bridge's does not have",
    "search_pipeline": "the application's own pipeline changes the answer",
    "size_0": "no hits are wanted",
    "slice": "a part of all documents is read",
    "sort": "hits are sorted by more than their score (profile: `rules.leave_sorted_ties`)",
    "stored_fields": "hits come without ids",
    "terminate_after": "the cluster stops early",
    "window": "the page ends beyond 10,000: the cluster answers with an error",
    # The words
    "empty_text": "no words",
    "function_score": "functions alone decide the order",
    "identifier": "one word with three digits or more, such as a part number (profile: `rules.leave_identifiers`)",
    "long_text": "more than 2,000 characters: a pasted document",
    "minimum_should_match": "a number of optional clauses is required, and there are none",
    "nested_filter": "conditions inside a nested object, which hold for its parts and not for documents",
    "no_text": "a query without words",
    "other_fields": "words for fields that are not enriched",
    "phrase": "only phrases are searched",
    "query_syntax": "operators in the words of `query_string` or `simple_query_string`",
    "quoted": "words in quotation marks (profile: `rules.leave_quoted`)",
    "script": "words in a script that the models of the index do not read (profile: `rules.scripts`)",
    "several_texts": "several texts, and no way to tell which one the user typed",
    "unknown_clause": "a clause that the bridge does not know",
    "wrapper": "a wrapped query that cannot be unwrapped",
    # The proxy
    "busy": "64 requests are being upgraded, or too little of `proxy.upgrade_memory_bytes` is free for the answer",
}
"""Reason → what it means. Beside these, the name of a clause that is known not to hold the user's words."""

SHOWING: dict[str, str] = {
    "off": "the request asks for the cluster's own answer",
    "pit": "whoever reads all documents page by page copies them, and a copy is whole",
    "scroll": "the same",
}
"""Reasons for which answers show the bridge's object, and why."""

CLAUSES = sorted(LEFT_ALONE - REASONS.keys())
"""The names of clauses that are reasons too: such a clause stands in the place of the user's words."""


def table() -> Iterator[str]:
    """The reasons as the lines of a Markdown table: docs/reference/http-api.md holds them."""
    yield "| reason | the search passes because |"
    yield "|---|---|"
    for reason, meaning in REASONS.items():
        yield f"| `{reason}` | {meaning} |"
    yield f"| {', '.join(f'`{name}`' for name in CLAUSES)} | this clause is in the place of the user's words |"
