"""What an application's query wants beside its words: functions, boosts of brands, decays, pinned documents.

Two searches read it. One asks what the words alone are worth. The other scores the documents that the legs found by the
application's own query, in which the words of each document are worth just that: what then tells two documents apart is
the application's boosts, whatever kind they are, and however the cluster combines them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Self

from bridge.profile import IndexProfile
from bridge.records import Hit, Key
from bridge.search import legs
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest
from bridge.search.text_clause import Fields, Path, as_list

MAX_PINS = 20
"""If more documents are lifted above all others, they are no pins but a kind of documents."""

_BEYOND_WORDS = 3.0
"""A document is pinned if boosts give it this many times more than the best words could, where they are as low as for a
quarter of the documents found."""

_N_WORDS = 10


@dataclass(frozen=True, slots=True)
class Boosts:
    """`pinned`: the documents that the application's query has before all others whatever the words, in its order.
    `lifts`: what its boosts make of the others: 0 if as much as of most documents found, towards 1 above it and towards
    -1 below."""

    pinned: Sequence[Key] = ()
    lifts: Mapping[Key, float] | None = None

    @classmethod
    def read(cls, words: Sequence[Hit], boosted: Sequence[Hit], own: Sequence[Hit], share: float) -> Self:
        """From the answers to `words_alone` and `boosts_alone`, and the application's own ranking; `share` of the
        lifts counts."""
        level = level_of(words)
        best = max((hit.score for hit in words), default=level)
        scores = {hit.key: max(hit.score, 0.0) for hit in boosted}
        if not scores:
            return cls()
        usual, low = median(scores.values()), sorted(scores.values())[len(scores) // 4]
        # Functions may multiply all scores, those of the best words too.
        above_words = low + _BEYOND_WORDS * best * max(low / level, 1.0)
        pinned: list[Key] = []
        for hit in own:
            if scores.get(hit.key, 0.0) < above_words:
                break
            pinned.append(hit.key)
        if len(pinned) > MAX_PINS:
            pinned = []
        return cls(pinned, {key: share * _lift(score, usual) for key, score in scores.items() if key not in pinned})


def _lift(score: float, usual: float) -> float:
    """Rises with the score, without reaching 1 or -1: a boost never hides what the words say altogether."""
    if score == usual:
        return 0.0
    if score == 0 or usual == 0:
        return 1.0 if score else -1.0
    times = math.log(score) - math.log(usual)
    return times / (1 + abs(times))


def level_of(words: Sequence[Hit]) -> float:
    """What the words of a document are worth that answers them well: a score of the cluster."""
    return fmean([hit.score for hit in words]) if words and words[0].score > 0 else 1.0


def words_alone(request: SearchRequest, profile: IndexProfile) -> Json:
    """The documents that match the words best, without any boost."""
    path, clause = request.clause.path, legs.own_query(request)
    for step in path:
        clause = clause[step]
    if path and path[-1] == "should":
        clause = {"bool": {"should": _texts(as_list(clause), profile)}}
    return legs.allowed_by(request, profile, clause) | {"size": _N_WORDS}


def boosts_alone(request: SearchRequest, profile: IndexProfile, keys: Sequence[Key], level: float) -> Json:
    """Scores these documents by the application's query, as if the words of each were worth `level`."""
    same: Json = {"constant_score": {"filter": {"match_all": {}}, "boost": level}}
    query = _with_words_worth(request.query, request.clause.path, same, profile)
    return {
        "size": len(keys),
        "_source": False,
        "track_total_hits": False,
        "query": {"bool": {"must": [query], "filter": [legs.documents(keys)]}},
    }


def _with_words_worth(clause: Json, path: Path, same: Json, profile: IndexProfile) -> Json:
    """The query with `same` in place of the clause at `path`, and without other clauses for words beside it."""
    if not path:
        return same
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [*clause[:step], _with_words_worth(clause[step], rest, same, profile), *clause[step + 1 :]]
    if step == "should" and not rest:
        return _of_bool(clause, [same], profile)
    inner = _with_words_worth(clause[step], rest, same, profile)
    if step == "must":
        return _of_bool(clause, [], profile) | {"must": inner}
    return clause | {step: inner}


def _of_bool(body: Json, instead: Sequence[Json], profile: IndexProfile) -> Json:
    """A `bool` whose optional clauses for words give way to `instead`: a phrase is words too, and no boost."""
    optional = as_list(body.get("should"))
    texts = _texts(optional, profile)
    others = [clause for clause in optional if clause not in texts]
    left = {name: each for name, each in body.items() if name != "minimum_should_match"}
    return left | {"should": [*instead, *others]}


def _texts(clauses: Sequence[Json], profile: IndexProfile) -> list[Json]:
    fields = Fields(profile.text_fields)
    return [clause for clause in clauses if fields.searched_in(clause)]
