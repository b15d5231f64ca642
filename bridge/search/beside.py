"""The searches for an index whose companion holds what the bridge made: bodies only, nothing is sent here.

The companion is asked without the application's conditions, for more candidates than a leg needs. Then each leg is
searched in the application's index, under all of these conditions, with the candidates' scores in place of what only
the companion can score (`admission`): what that search does not return does not exist.
"""

from collections.abc import Collection, Sequence

from bridge.cluster import dialects
from bridge.profile import IndexProfile
from bridge.records import Hit
from bridge.search import legs
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest

MAX_CANDIDATES = 900
"""Each is a clause of the admission, and clusters take 1,024 clauses."""

MAX_MATCHING = 2_000
"""Of so few documents that the conditions allow, the companion scores every one."""

_PER_RESULT = 3
"""Conditions drop candidates: ask for more than are needed."""


def n_candidates(profile: IndexProfile) -> int:
    """How many candidates a leg is asked for at first."""
    return min(profile.window * _PER_RESULT, MAX_CANDIDATES)


def expansion(
    request: SearchRequest, profile: IndexProfile, *, size: int, among: Collection[str] | None = None
) -> Json:
    """The documents of the companion that answer the user's words best, scored by their predicted queries alone.

    Text and predicted queries together choose them, and only then does the score of the texts go: the application's
    index has one of its own.
    """
    predicted = legs.predicted(request, profile)
    words = {"multi_match": {"query": request.text, "fields": list(profile.text_fields)}}
    alone = {"rescore_query": predicted, "query_weight": 0, "rescore_query_weight": 1}
    query = {"bool": {"should": [words, predicted], "minimum_should_match": 1, **_among(among)}}
    return {**_candidates(profile, query, size), "rescore": {"window_size": size, "query": alone}}


def vector(
    profile: IndexProfile, embedding: Sequence[float], *, size: int, among: Collection[str] | None = None
) -> Json:
    """The documents of the companion that are nearest to the query's embedding; each one of `among` is compared."""
    if among is None:
        return _candidates(profile, dialects.nearest(profile, embedding, k=size, allowed={}), size)
    query = {"bool": {"must": [dialects.compared(profile, embedding)], **_among(among)}}
    return _candidates(profile, query, size)


def admission(request: SearchRequest, profile: IndexProfile, leg: str, candidates: Sequence[Hit]) -> Json:
    """A leg's search in the application's index. It finds the same documents with the same scores as `legs.expansion`
    and `legs.vector` do if the index holds the bridge's object itself."""
    scored = _scored(candidates)
    if leg == "expansion":
        body = legs.expanded_by(request, profile, scored)
    else:
        body = legs.allowed_by(request, profile, scored)
    return {**body, "seq_no_primary_term": True}


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
        "_source": False,
        "docvalue_fields": list(profile.version_fields),
        "track_total_hits": False,
        "query": query,
    }


def _among(ids: Collection[str] | None) -> dict[str, Json]:
    return {} if ids is None else {"filter": [{"ids": {"values": list(ids)}}]}


def _scored(candidates: Sequence[Hit]) -> Json:
    clauses = [
        {"constant_score": {"filter": {"ids": {"values": [hit.doc_id]}}, "boost": hit.score}}
        for hit in candidates
        if hit.score > 0
    ]
    # A `bool` without clauses would match everything.
    return {"bool": {"should": clauses}} if clauses else {"match_none": {}}
