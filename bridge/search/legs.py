"""The searches that the bridge sends beside the application's own: bodies only, nothing is sent here.

Each leg asks for ids and scores alone, and for documents' groups if the search is collapsed. The application's
conditions hold in each: filters, exclusions, `post_filter` and `min_score`; for k-NN they stand inside the k-NN
query, so that the nearest documents among the allowed ones are found and not the allowed ones among the nearest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bridge.cluster import dialects
from bridge.profile import IndexProfile
from bridge.records import Key, Terms
from bridge.search import json_tree
from bridge.search.collapse import Collapse, Group
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest
from bridge.search.text_clause import Path, with_text

MAX_K = 10_000
"""The limit of OpenSearch's k-NN plugin, and of Elasticsearch."""

_K_PER_RESULT = 2
"""Document-level security drops neighbours after they were found: ask for more than are needed."""


def lexical(request: SearchRequest, profile: IndexProfile) -> Json:
    """The application's own query, ids only; if words were repaired, for either form of them."""
    return _ids_only(request, profile.window, own_query(request), keep_conditions=True)


def own_query(request: SearchRequest) -> Json:
    """The application's query; if words were repaired, documents count by the form of the words that fits them better.

    So it finds everything that the query as typed finds, and a word that both forms have counts once.
    """
    if request.repair is None:
        return request.query
    clause = _words_clause(request)
    repaired = with_text(clause, request.text, request.repair.text)
    return _with_alternative(request.query, request.clause.path, repaired, best=True)


def one_word(request: SearchRequest, word: str) -> Json:
    """The application's clause for words, if the user had typed this one alone; no near words match."""
    return with_text(_words_clause(request), request.text, word, exact=True)


def _words_clause(request: SearchRequest) -> Json:
    """The smallest clause that holds all of the user's words."""
    clause, path = request.query, request.clause.path
    for step in path:
        clause, holder = clause[step], clause
    if path and path[-1] == "should":
        return {"bool": {name: holder[name] for name in ("should", "minimum_should_match") if name in holder}}
    return clause


def expansion(request: SearchRequest, profile: IndexProfile) -> Json:
    """The application's query, in which predicted queries count beside the user's words.

    A document matches by its own text, by its predicted queries, or by both; everything around the
    words is unchanged.
    """
    return expanded_by(request, profile, predicted(request, profile))


def predicted(request: SearchRequest, profile: IndexProfile) -> Json:
    """The clause that scores documents by their predicted queries, with their texts if both count as one field."""
    words = {"query": request.meant_text, "boost": profile.expansion_boost}
    if not profile.expanded_fields:
        return {"match": {profile.predicted_queries_field: words}}
    fields = [*profile.expanded_fields, profile.predicted_queries_field]
    return {"combined_fields": words | {"fields": fields}}


def expanded_by(request: SearchRequest, profile: IndexProfile, alternative: Json) -> Json:
    """The application's query with `alternative` beside the user's words."""
    if request.clause.inside:
        alternative = {"bool": {"must": [alternative], "filter": list(request.clause.inside)}}
    query = _with_alternative(own_query(request), request.clause.path, alternative)
    return _ids_only(request, profile.window, query, keep_conditions=True)


def vector(request: SearchRequest, profile: IndexProfile, embedding: Sequence[float], *, images: bool = False) -> Json:
    """The documents whose texts, or `images`, are nearest to the query's embedding, among those that the application's
    conditions allow."""
    k = min(profile.window * _K_PER_RESULT, MAX_K)
    query = dialects.nearest(profile, embedding, k=k, allowed=allowed(request), images=images)
    body = _ids_only(request, profile.window, query, keep_conditions=False)
    # Afterwards, too: inside, conditions that only exclude let OpenSearch 2 find every passage.
    return body | {"post_filter": {"bool": conditions}} if (conditions := allowed(request)) else body


def exact_vector(
    request: SearchRequest, profile: IndexProfile, embedding: Sequence[float], *, images: bool = False
) -> Json:
    """The same documents as `vector`, found by comparing every allowed one.

    The graph of vectors knows nothing of document-level security: if it hides the nearest neighbours,
    `vector` finds few documents or none. This query meets only what the caller may see.
    """
    return allowed_by(request, profile, dialects.compared(profile, embedding, images=images))


def sparse(request: SearchRequest, profile: IndexProfile, terms: Terms) -> Json:
    """The documents with the largest sum, over the query's terms, of the term's weights in query and document."""
    return allowed_by(request, profile, dialects.weighed(profile, terms))


def coded(body: Json, profile: IndexProfile) -> Json:
    """A leg's search that also asks for the documents' codes, unless a companion has them."""
    names = code_fields(profile)
    if not names or profile.beside is not None:
        return body
    return {**body, "docvalue_fields": list(dict.fromkeys([*body.get("docvalue_fields", ()), *names]))}


def code_fields(profile: IndexProfile) -> list[str]:
    """The field that holds the documents' codes; empty if they have none."""
    return [profile.code_field] if profile.has_codes else []


def allowed_by(request: SearchRequest, profile: IndexProfile, query: Json) -> Json:
    """The documents that `query` finds among those that the application's conditions allow."""
    conditions = {"bool": {"must": [query], **allowed(request)}}
    return _ids_only(request, profile.window, conditions, keep_conditions=False)


def texts(profile: IndexProfile, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int = 1) -> Json:
    """The enriched text fields of the given documents, whatever the application wants to see of them.

    With the query's embedding and documents of several passages, each comes with so many of its nearest.
    """
    query = documents(keys)
    if embedding is not None and profile.passages.layout == "nested":
        query = {"bool": {"filter": [query], "should": [_nearest_passages(profile, embedding, passages)]}}
    return {
        "size": len(keys),
        "query": query,
        "_source": {"includes": profile.text_fields},
        "track_total_hits": False,
    }


def offsets(profile: IndexProfile, keys: Sequence[Key], embedding: Sequence[float], *, passages: int) -> Json:
    """The given entries of companions, each with its `passages` nearest passages and its stamp."""
    nearest = _nearest_passages(profile, embedding, passages)
    return {
        "size": len(keys),
        "query": {"bool": {"filter": [documents(keys)], "should": [nearest]}},
        "_source": False,
        "docvalue_fields": [profile.stamp_field],
        "track_total_hits": False,
    }


def shown(request: SearchRequest, keys: Sequence[Key]) -> Json:
    """Those of the given documents that meet the application's conditions now, as it wants them shown.

    Its own query stands beside the ids as an optional clause: highlights, named queries and inner hits
    come out as they would in its own answer.
    """
    body: dict[str, Json] = {
        **request.presentation,
        "size": len(keys),
        "query": _allowed_among(request, documents(keys)),
        "track_total_hits": False,
    }
    if request.collapse is not None:
        # No two are of one group, so that none is dropped; and the cluster shows the group among the fields.
        body["collapse"] = {"field": request.collapse.field}
    return body if request.post_filter is None else body | {"post_filter": request.post_filter}


def groups_expanded(request: SearchRequest, collapse: Collapse, groups: Sequence[Group], *, matching: bool) -> Json:
    """A hit of each of these groups, with the inner hits that the application wants of the group.

    `matching`: of the documents that its own query matches, as in its own answer. Else of all documents that its
    conditions allow, for groups in which the words match nothing.
    """
    among = collapse.clause(groups)
    query = {"bool": {"must": [request.query], "filter": [among]}} if matching else _allowed_among(request, among)
    body: dict[str, Json] = {
        "size": len(groups),
        "_source": False,
        "query": query,
        "collapse": collapse.body,
        "track_total_hits": False,
    }
    return body if request.post_filter is None else body | {"post_filter": request.post_filter}


def _allowed_among(request: SearchRequest, among: Json) -> Json:
    """Those of the documents that `among` finds which the application's conditions allow, scored by its query."""
    filters = [among]
    if conditions := allowed(replace(request, post_filter=None)):
        # The query holds the conditions too, and names its inner hits once.
        filters.append(_without_inner_hits({"bool": conditions}))
    return {"bool": {"filter": filters, "should": [request.query]}}


def matched(request: SearchRequest, keys: Sequence[Key]) -> Json:
    """Those of the given documents that the application's own query finds."""
    query = {"bool": {"must": [request.query], "filter": [documents(keys)]}}
    return _ids_only(request, len(keys), query, keep_conditions=True)


def aggregated(request: SearchRequest, keys: Sequence[Key]) -> Json:
    """The application's aggregations over what its own query finds and the given documents."""
    found: Json = {"constant_score": {"filter": documents(keys)}}
    limit: dict[str, Json] = {}
    if request.min_score is not None:
        # Each of them reaches the least score, or it would not have been found.
        limit = {"min_score": request.min_score}
        found = {"constant_score": {"filter": documents(keys), "boost": request.min_score}}
    query = {"bool": {"should": [request.query, found]}}
    return {"size": 0, "track_total_hits": False, "query": query, **limit, **request.aggregations}


def matching_predictions(request: SearchRequest, profile: IndexProfile, keys: Sequence[Key]) -> Json:
    """Those of the given documents that have predicted queries for the user's words, with these queries."""
    name = profile.predicted_queries_field
    # No fragments: each predicted query that matches comes whole.
    whole = {"number_of_fragments": 0, "pre_tags": [""], "post_tags": [""]}
    return {
        "size": len(keys),
        "_source": False,
        "track_total_hits": False,
        "query": {"bool": {"filter": [documents(keys)], "must": [{"match": {name: request.meant_text}}]}},
        "highlight": {"fields": {name: whole}},
    }


def matching_terms(profile: IndexProfile, keys: Sequence[Key], terms: Terms) -> Json:
    """Those of the given documents that have terms of the query, with what each term gives to the score."""
    return {
        "size": len(keys),
        "_source": False,
        "track_total_hits": False,
        "explain": True,
        "query": {"bool": {"filter": [documents(keys)], "must": [dialects.weighed(profile, terms)]}},
    }


def tail(request: SearchRequest, *, without: Json, start: int, size: int) -> Json:
    """The application's own results after those of the ranking, in its own order: `size` of them from
    `start`, without what the clause `without` finds: documents of the ranking, or its groups."""
    body: dict[str, Json] = {
        **request.presentation,
        "from": start,
        "size": size,
        "query": {"bool": {"must": [request.query], "must_not": [without]}},
        "track_total_hits": False,
    }
    if request.collapse is not None:
        body["collapse"] = request.collapse.body
    return body | _conditions(request)


def msearch(bodies: Iterable[Json], header: Mapping[str, str]) -> bytes:
    """A `_msearch` body of these searches; `header` goes before each."""
    head = json_tree.write(dict(header))
    return b"".join(head + b"\n" + json_tree.write(body) + b"\n" for body in bodies)


def _ids_only(request: SearchRequest, size: int, query: Json, *, keep_conditions: bool) -> Json:
    body: dict[str, Json] = {"size": size, "_source": False, "track_total_hits": False, "query": query}
    if keep_conditions:
        body |= _conditions(request)
    if request.collapse is not None:
        body["docvalue_fields"] = [request.collapse.field]
    if request.timeout is not None:
        body["timeout"] = request.timeout
    return body


def _conditions(request: SearchRequest) -> dict[str, Json]:
    conditions = {"post_filter": request.post_filter, "min_score": request.min_score}
    return {name: value for name, value in conditions.items() if value is not None}


def allowed(request: SearchRequest) -> dict[str, Json]:
    """The application's conditions as clauses of a `bool`; empty if there are none."""
    required = [*request.clause.required]
    if request.post_filter is not None:
        required.append(request.post_filter)
    clauses = {"filter": required, "must_not": list(request.clause.excluded)}
    return {name: conditions for name, conditions in clauses.items() if conditions}


def _without_inner_hits(tree: Json) -> Json:
    if isinstance(tree, dict):
        return {key: _without_inner_hits(value) for key, value in tree.items() if key != "inner_hits"}
    return [_without_inner_hits(each) for each in tree] if isinstance(tree, list) else tree


def _nearest_passages(profile: IndexProfile, embedding: Sequence[float], n: int) -> Json:
    nearest = dialects.compared(profile, embedding)
    nearest["nested"]["inner_hits"] = {
        "size": n,
        "_source": False,
        "docvalue_fields": [f"{profile.passages_field}.start", f"{profile.passages_field}.end"],
    }
    return nearest


def documents(keys: Sequence[Key]) -> Json:
    """Finds these documents."""
    by_index: dict[str, list[str]] = {}
    for index, doc_id in keys:
        by_index.setdefault(index, []).append(doc_id)
    return {
        "bool": {
            "should": [
                {"bool": {"filter": [{"term": {"_index": index}}, {"ids": {"values": ids}}]}}
                for index, ids in by_index.items()
            ]
        }
    }


def _with_alternative(query: Json, path: Path, alternative: Json, *, best: bool = False) -> Json:
    """The query with `alternative` beside the clause at `path`; the original is not changed. A document's score is the
    sum of both, or the better one if `best`."""
    if not path:
        return {"dis_max": {"queries": [query, alternative]}} if best else {"bool": {"should": [query, alternative]}}
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        inner = _with_alternative(query[step], rest, alternative, best=best)
        return [*query[:step], inner, *query[step + 1 :]]
    if step == "should" and not rest:
        # The clauses of a `should` are the words together: they keep their own minimum among themselves.
        alternatives: dict[str, Json] = {"should": query["should"]}
        outer: dict[str, Json] = {}
        if "minimum_should_match" in query:
            alternatives["minimum_should_match"] = query["minimum_should_match"]
            outer["minimum_should_match"] = 1
        both = [{"bool": alternatives}, alternative]
        return query | {"should": [{"dis_max": {"queries": both}}] if best else both} | outer
    return query | {step: _with_alternative(query[step], rest, alternative, best=best)}
