"""The searches for an index whose companion holds what the bridge made: bodies only, nothing is sent here.

The companion is asked without the application's conditions, for more candidates than a leg needs. Then each leg is
searched in the application's index, under all of these conditions, with the candidates' scores in place of what only
the companion can score (`admission`): what that search does not return does not exist. It returns texts too, those that
the caller is shown: a candidate counts if they are the ones that it was made of.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import msgspec

from bridge.cluster import dialects
from bridge.profile import IndexProfile
from bridge.records import Hit, Terms
from bridge.search import json_tree, legs
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest
from bridge.text import digest_in_stamp

MAX_CANDIDATES = 900
"""Each is a clause of an admission, and clusters take 1,024 clauses."""

MAX_MATCHING = 2_000
"""Of so few documents that the conditions allow, the companion scores every one."""

MAX_BEYOND_TEXTS = 1_000
"""Bytes that a hit may hold beside its texts for an admission to show whole hits: with more, their reading takes longer
than a search for the page alone."""

_SHOWN_WITHOUT_WORDS = {"_source", "seq_no_primary_term", "version"}
"""How hits may be shown by a search that does not ask the application's own query."""

_OF_QUERIES = (b'"_name"', b'"inner_hits"')
"""What makes hits show what a query found in them."""

_PER_RESULT = 3
"""Conditions drop candidates: ask for more than are needed."""

_NEAREST_PER_RESULT = 1.5
"""Without conditions, only deleted and changed documents are dropped from what a neural leg finds. Of texts more are
needed: the companion ranks them otherwise than the application's query does."""


def n_candidates(profile: IndexProfile, leg: str, *, allowed: bool) -> int:
    """How many candidates a leg is asked for at first. `allowed`: no condition will drop any."""
    per_result = _NEAREST_PER_RESULT if allowed and leg != "expansion" else _PER_RESULT
    return min(int(profile.window * per_result), MAX_CANDIDATES)


def n_more(profile: IndexProfile, asked: int, n_admitted: int) -> int:
    """How many candidates to ask for if of `asked` only so many are admitted."""
    return min(math.ceil(asked * profile.window * _NEAREST_PER_RESULT / max(n_admitted, 1)), MAX_CANDIDATES)


def expansion(
    request: SearchRequest, profile: IndexProfile, *, size: int, among: Collection[str] | None = None
) -> Json:
    """The documents of the companion that answer the user's words best, scored by their predicted queries alone.

    Text and predicted queries together choose them, and only then does the score of the texts go: the application's
    index has one of its own.
    """
    predicted = legs.predicted(request, profile)
    words = {"multi_match": {"query": request.meant_text, "fields": list(profile.text_fields)}}
    alone = {"rescore_query": predicted, "query_weight": 0, "rescore_query_weight": 1}
    query = {"bool": {"should": [words, predicted], "minimum_should_match": 1, **_among(among)}}
    return {**_candidates(profile, query, size), "rescore": {"window_size": size, "query": alone}}


def made_of(fields: Mapping[str, Sequence[object]], profile: IndexProfile) -> str:
    """The `text_digest` of the texts that a companion's entry with these doc values was made of."""
    return "".join(digest_in_stamp(str(stamp)) for stamp in fields.get(profile.stamp_field, ()))


def vector(
    profile: IndexProfile,
    embedding: Sequence[float],
    *,
    size: int,
    among: Collection[str] | None = None,
    images: bool = False,
) -> Json:
    """The documents of the companion whose texts, or `images`, are nearest to the query's embedding; each one of
    `among` is compared."""
    if among is None:
        return _candidates(profile, dialects.nearest(profile, embedding, k=size, allowed={}, images=images), size)
    query = {"bool": {"must": [dialects.compared(profile, embedding, images=images)], **_among(among)}}
    return _candidates(profile, query, size)


def sparse(profile: IndexProfile, terms: Terms, *, size: int, among: Collection[str] | None = None) -> Json:
    """The documents of the companion whose terms and the query's have the largest dot product."""
    return _candidates(profile, {"bool": {"must": [dialects.weighed(profile, terms)], **_among(among)}}, size)


def presentation(request: SearchRequest, profile: IndexProfile) -> dict[str, Json] | None:
    """How an admission shows hits as the application wants them; None if only its own query can do so, or if it does
    not want all texts that are enriched."""
    if request.url_presentation or request.collapse or not request.presentation.keys() <= _SHOWN_WITHOUT_WORDS:
        return None
    if any(name in json_tree.write([request.query, request.post_filter]) for name in _OF_QUERIES):
        return None
    source = request.presentation.get("_source", True)
    if isinstance(source, dict) and source.keys() == {"includes"}:
        source = source["includes"]
    if source is True or (isinstance(source, list) and all(name in source for name in profile.text_fields)):
        return {"_source": True, **request.presentation}
    return None


def admission(
    request: SearchRequest,
    profile: IndexProfile,
    leg: str,
    candidates: Sequence[Hit],
    *,
    shown: Mapping[str, Json] | None = None,
) -> Json:
    """A leg's search in the application's indices, with the documents' texts, or with all that `shown` demands. It
    finds the same documents with the same scores, those of neural legs after `in_order`, as the leg's search does if
    the indices hold the bridge's object themselves."""
    if leg == "expansion":
        body = legs.expanded_by(request, profile, _scored(candidates))
    else:
        # A clause for each would cost the cluster more than finding them. No order is lost if a window and a step are
        # shown.
        window, step = profile.window, max(profile.window // 10, 1)
        steps = [candidates[:window]] if candidates else []
        steps += [candidates[start : start + step] for start in range(window, len(candidates), step)]
        clauses = [
            {"constant_score": {"filter": legs.documents([hit.key for hit in each]), "boost": len(steps) - n}}
            for n, each in enumerate(steps)
        ]
        body = legs.allowed_by(request, profile, {"bool": {"should": clauses}} if clauses else {"match_none": {}})
        body |= {"size": window + step}
    return {**body, **(shown or {"_source": {"includes": list(profile.text_fields)}})}


def in_order(profile: IndexProfile, candidates: Sequence[Hit], admitted: Sequence[Hit]) -> list[Hit]:
    """The first of the candidates that a neural leg's admission returned, in their order and with their scores."""
    of_key = {hit.key: hit for hit in admitted}
    known = (msgspec.structs.replace(of_key[each.key], score=each.score) for each in candidates if each.key in of_key)
    return list(islice(known, profile.window))


def matching(request: SearchRequest) -> Json:
    """The documents that the application's conditions allow, `MAX_MATCHING` at most: ids only."""
    query = {"bool": legs.allowed(request)} if legs.allowed(request) else {"match_all": {}}
    return {"size": MAX_MATCHING, "_source": False, "track_total_hits": False, "query": query}


def beyond_matching(request: SearchRequest) -> Json:
    """Finds a document if `matching` leaves out any."""
    return {**matching(request), "from": MAX_MATCHING, "size": 1}


def _candidates(profile: IndexProfile, query: Json, size: int) -> Json:
    return {
        "size": size,
        "stored_fields": "_none_",
        "docvalue_fields": [profile.entry_id_field, profile.stamp_field, *legs.code_fields(profile)],
        "track_total_hits": False,
        "query": query,
    }


def _among(ids: Collection[str] | None) -> dict[str, Json]:
    return {} if ids is None else {"filter": [{"ids": {"values": list(ids)}}]}


def _scored(candidates: Sequence[Hit]) -> Json:
    by_index: dict[str, list[Json]] = {}
    for hit in candidates:
        if hit.score > 0:
            scored = {"constant_score": {"filter": {"ids": {"values": [hit.doc_id]}}, "boost": hit.score}}
            by_index.setdefault(hit.index, []).append(scored)
    # A `bool` without clauses would match everything.
    if not by_index:
        return {"match_none": {}}
    if len(by_index) == 1:
        return {"bool": {"should": next(iter(by_index.values()))}}
    within = [
        {"bool": {"filter": [{"term": {"_index": index}}], "should": clauses, "minimum_should_match": 1}}
        for index, clauses in by_index.items()
    ]
    return {"bool": {"should": within}}
