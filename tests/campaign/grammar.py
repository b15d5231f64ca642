"""Search bodies by chance: as applications write them, and what becomes of them when something goes wrong.

Everything is drawn from the generator's own `Random`, so the same seed makes the same bodies.
"""

import copy
import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.toys import WORDS

Json = Any

TEXT_FIELDS = ("title", "body")
KINDS = ("paper", "ad", "note")
ODD: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**12, 10**25, 1e308, "", " ", "x", "0", "true", "null", "*", "_neural"),
    *([], {}, [None], [[]], {"a": {}}, {"": ""}, "é", "\u0000", "\u2028", "😀", "\ud83d", "9" * 400, "a" * 1200),
)


@dataclass
class Body:
    """A search body; `conditions` are clauses that each of its hits has to meet, so far as its maker knows."""

    tree: dict[str, Json]
    conditions: list[Json] = field(default_factory=list)


class Grammar:
    """Makes search bodies for documents with title, body, kind, n, price, day, tags and parts."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._one = chance.choice

    def application(self) -> Body:
        """A search as applications send it, of a kind that the bridge mostly understands."""
        conditions = [self.condition() for _ in range(self._one((0, 0, 1, 1, 2)))]
        query = self.text()
        if self._chance.random() < 0.3:
            query = self._around(query)
        if conditions or self._chance.random() < 0.3:
            boolean: dict[str, Json] = {"must": self._one((query, [query]))}
            if conditions:
                boolean["filter"] = conditions if len(conditions) > 1 else self._one((conditions, conditions[0]))
            if self._chance.random() < 0.3:
                excluded = self.condition()
                boolean["must_not"] = [excluded]
                conditions = [*conditions, {"bool": {"must_not": [excluded]}}]
            if self._chance.random() < 0.2:
                boolean["should"] = [self.condition()]
            query = {"bool": boolean}
        tree: dict[str, Json] = {"query": query}
        if self._chance.random() < 0.15:
            tree["post_filter"] = self.condition()
            conditions = [*conditions, tree["post_filter"]]
        if self._chance.random() < 0.15:
            tree["collapse"] = self._collapse()
        for _ in range(self._one((0, 1, 1, 2, 3))):
            tree |= self._member()
        return Body(tree, conditions)

    def anything(self) -> Body:
        """A search of any kind that there is, or of a kind that there is not."""
        tree: dict[str, Json] = {"query": self.query(3)}
        for _ in range(self._one((0, 1, 2, 4))):
            tree |= self._one((self._member, self._rare_member))()
        return Body(tree)

    def mutated(self, tree: Json) -> Json:
        """The same with one to three parts changed."""
        tree = copy.deepcopy(tree)
        for _ in range(self._one((1, 1, 2, 3))):
            tree = self._changed(tree)
        return tree

    def text_of(self, tree: Json) -> bytes:
        """JSON of it, seldom as the standard has it not."""
        text = json.dumps(tree, ensure_ascii=self._chance.random() < 0.5, indent=self._one((None, None, None, 1)))
        written = text.encode("utf-8", "surrogatepass")
        return self._damaged(written) if self._chance.random() < 0.08 else written

    def words(self) -> str:
        """What somebody types."""
        typed = " ".join(self._one(WORDS) for _ in range(self._one((1, 2, 2, 3, 4))))
        if self._chance.random() < 0.9:
            return typed
        odd = ('"%s"', "%s*", "+%s -file", "title:%s", "%s~2", "%s AND file", "AB-123-45", "café %s", "файл", "(%s", "")
        return self._one(odd).replace("%s", typed)

    def text(self) -> Json:
        """A clause that holds the user's words."""
        words, one = self.words(), self._one(TEXT_FIELDS)
        fields = self._one((["title", "body"], ["title^2", "body"], ["title"], "body", ["*"], ["bod*"], None))
        many = {"query": words} | ({"fields": fields} if fields is not None else {})
        options = self._one(({}, {}, {"operator": "and"}, {"fuzziness": "AUTO"}, {"boost": 2.0}, {"lenient": True}))
        return self._one(
            (
                {"match": {one: words}},
                {"match": {one: {"query": words, **options}}},
                {"multi_match": many | options},
                {"multi_match": many | {"type": self._one(("best_fields", "most_fields", "cross_fields", "phrase"))}},
                {"query_string": {"query": words}},
                {"query_string": {"query": words, "default_field": one}},
                {"simple_query_string": {"query": words, "fields": ["title", "body"]}},
                {"match_phrase": {one: words}},
                {"match_bool_prefix": {one: words}},
                {"combined_fields": {"query": words, "fields": ["title", "body"]}},
                {"bool": {"should": [{"match": {"title": words}}, {"match": {"body": words}}]}},
                {"dis_max": {"queries": [{"match": {"title": words}}, {"match_phrase": {"body": words}}]}},
            )
        )

    def condition(self) -> Json:
        """A clause that lets documents in or not."""
        low = self._chance.randrange(60)
        return self._one(
            (
                {"term": {"kind": self._one(KINDS)}},
                {"terms": {"kind": [self._one(KINDS), self._one(KINDS)]}},
                {"range": {"n": {"gte": low}}},
                {"range": {"n": {"gte": low, "lt": low + 30}}},
                {"range": {"day": {"gte": "2020-01-10"}}},
                {"exists": {"field": self._one(("tags", "price", "body"))}},
                {"ids": {"values": [str(each) for each in range(low)]}},
                {"bool": {"must_not": {"term": {"tags": "t1"}}}},
                {"match": {"tags": "t2"}},
                {"prefix": {"kind": "pa"}},
                {"wildcard": {"kind": {"value": "*a*"}}},
                {"match_all": {}},
                {"nested": {"path": "parts", "query": {"range": {"parts.size": {"lt": 5}}}}},
            )
        )

    def query(self, depth: int) -> Json:
        """Any clause."""
        if depth == 0 or self._chance.random() < 0.3:
            return self._one((self.text, self.condition))()
        inner = self.query(depth - 1)
        return self._one(
            (
                {"bool": {self._one(("must", "should", "filter", "must_not")): self._one((inner, [inner]))}},
                {"bool": {"must": inner, "should": [self.query(depth - 1)], "minimum_should_match": 1}},
                {"function_score": {"query": inner, "random_score": {"seed": 1, "field": "n"}}},
                {"script_score": {"query": inner, "script": {"source": "doc['n'].value"}}},
                {"wrapper": {"query": "eyJtYXRjaF9hbGwiOnt9fQ=="}},
                {"more_like_this": {"fields": ["title"], "like": "wing pressure", "min_term_freq": 1}},
                {"intervals": {"body": {"match": {"query": "wing flow", "max_gaps": 2}}}},
                {"span_near": {"clauses": [{"span_term": {"body": "wing"}}, {"span_term": {"body": "flow"}}]}},
                {"regexp": {"kind": "p.*"}},
                {"fuzzy": {"body": "wnig"}},
                {"nested": {"path": "parts", "query": {"match": {"parts.name": "wing"}}, "inner_hits": {}}},
                {"distance_feature": {"field": "day", "pivot": "7d", "origin": "2020-01-15"}},
                {"knn": {"_neural.embedding": {"vector": [0.1] * 50, "k": 3}}},
                {"nonsense": inner},
                {"match": {"title": "wing"}, "term": {"kind": "ad"}},
                self._around(inner),
            )
        )

    def _around(self, inner: Json) -> Json:
        return self._one(
            (
                {"bool": {"must": [inner]}},
                {"bool": {"should": inner}},
                {"constant_score": {"filter": inner}},
                {"boosting": {"positive": inner, "negative": {"term": {"kind": "ad"}}, "negative_boost": 0.5}},
                {"function_score": {"query": inner, "field_value_factor": {"field": "n", "modifier": "log1p"}}},
                {"function_score": {"query": inner, "functions": [{"filter": self.condition(), "weight": 2}]}},
                {"dis_max": {"queries": [inner], "tie_breaker": 0.1}},
            )
        )

    def _member(self) -> dict[str, Json]:
        size = self._one((0, 1, 3, 10, 50, 200))
        return self._one(
            (
                {"size": size},
                {"from": self._one((0, 1, 5, 40, 90)), "size": size},
                {"_source": self._one((True, False, "title", ["title", "n"], {"excludes": ["body"]}, ["_neural.*"]))},
                {"fields": self._one((["n"], ["title", {"field": "day", "format": "yyyy"}], ["*"]))},
                {"docvalue_fields": ["n"]},
                {"highlight": {"fields": self._one(({"title": {}}, {"*": {}}, [{"body": {}}]))}},
                {"aggs": self._aggregations()},
                {"track_total_hits": self._one((True, False, 3))},
                {"sort": self._one((["_score"], ["_score", {"n": "desc"}], [{"n": "asc"}, "_doc"], "n"))},
                {"min_score": self._one((0.1, 1, 5))},
                {"explain": self._one((True, False))},
                {"version": True, "seq_no_primary_term": True},
                {"suggest": {"s": {"text": "wnig", "term": {"field": "body"}}}},
                {"timeout": self._one(("10s", "-1"))},
                {"stored_fields": self._one((["_source"], [], "_none_"))},
                {"profile": self._one((False, True))},
                {"script_fields": {"double": {"script": {"source": "doc['n'].value * 2"}}}},
            )
        )

    def _collapse(self) -> Json:
        """By one of a few kinds, by a number of each document's own, or by one that half of them lack."""
        more = {"name": "more", "size": self._one((1, 3))}
        newest = {"name": "newest", "size": 2, "sort": [{"n": "desc"}], "_source": ["title"]}
        inner = self._one((None, more, [more, newest], {**more, "collapse": {"field": "kind"}}, {"size": 2}))
        return {"field": self._one(("kind", "n", "price"))} | ({"inner_hits": inner} if inner else {})

    def _aggregations(self) -> Json:
        return self._one(
            (
                {"k": {"terms": {"field": "kind"}}},
                {"k": {"terms": {"field": "kind"}, "aggs": {"best": {"top_hits": {"size": 1}}}}},
                {"n": {"stats": {"field": "n"}}, "d": {"date_histogram": {"field": "day", "calendar_interval": "day"}}},
                {"f": {"filter": {"match": {"body": "wing"}}, "aggs": {"m": {"max": {"field": "n"}}}}},
                {"all": {"global": {}, "aggs": {"h": {"top_hits": {"size": 2, "_source": ["title"]}}}}},
            )
        )

    def _rare_member(self) -> dict[str, Json]:
        return self._one(
            (
                {"collapse": self._one((self._collapse(), {"field": self._one(("tags", "day", "body", "_id", "k*"))}))},
                {"rescore": {"window_size": 20, "query": {"rescore_query": {"match": {"body": "flow"}}}}},
                {"search_after": [7], "sort": ["n"]},
                {"slice": {"id": 0, "max": 2}},
                {"terminate_after": 5},
                {"indices_boost": [{"papers": 2}]},
                {"runtime_mappings": {"r": {"type": "long"}}},
                {"derived": {"r": {"type": "long", "script": {"source": "emit(1)"}}}},
                {"ext": {}},
                {"pit": {"id": "nonsense"}},
                {"stats": ["group"]},
                {self._one(("nonsense", "Query", "")): 1},
                {"search_pipeline": "none"},
            )
        )

    def _changed(self, tree: Json) -> Json:
        places = _places(tree) if isinstance(tree, dict | list) else []
        if not places:
            return self._one(ODD)
        holder, key = self._one(places)
        match self._chance.randrange(7):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = copy.deepcopy(self._one(ODD))
            case 3:
                holder[key] = [holder[key]]
            case 4:
                holder[key] = {self._one(("query", "bool", "match", "field", "value")): holder[key]}
            case 5 if isinstance(holder, dict):
                holder[self._one(("boost", "_name", "nonsense", "query", "size", "must", "aggs"))] = holder.pop(key)
            case _:
                other, name = self._one(places)
                holder[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else None)
        return tree

    def _damaged(self, text: bytes) -> bytes:
        at = self._chance.randrange(len(text) + 1)
        return self._one(
            (
                b"\xef\xbb\xbf" + text,
                b"/* c */" + text,
                text[:at],
                text + text,
                text + b" x",
                text.replace(b'"', b"'"),
                text[:-1] + b",}",
                text.replace(b'{"query"', b'{"query":{"match_all":{}},"query"', 1),
                text[:at] + b"\xff" + text[at:],
                text.decode("utf-8", "replace").encode("utf-16"),
                b'{"query":' * 50 + text,
                b'{"query":{"bool":{"must":' * 300 + b"{}" + b"}}}" * 300,
                b"[" + text + b"]",
                text.replace(b"1", b"01", 1),
                text.replace(b"{}", b"NaN", 1),
                b"",
                b"\n\n " + text + b"\r\n\r\n",
            )
        )


def _places(tree: Json) -> list[tuple[Any, Any]]:
    """Each holder of a value in the tree, and the value's key or position."""
    found: list[tuple[Any, Any]] = []
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += _places(value)
    return found
