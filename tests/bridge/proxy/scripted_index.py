"""An index of a few documents behind the fake cluster: it answers the searches that the bridge sends.

The order in which each search finds documents is given, not computed: tests are about what the proxy makes
of it.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.profile import (
    META_KEY,
    SPARSE_WEIGHTS,
    Calibration,
    FusionSettings,
    IndexProfile,
    Measurement,
    ModelReference,
    RerankSettings,
    SparseSettings,
)
from tests.fake_cluster import Received, Reply, reply_json

PROFILE = IndexProfile(
    text_fields=["title"],
    encoder=ModelReference("toy", "0" * 12),
    generator=ModelReference("toy", "1" * 12),
    dimension=4,
    window=8,
    fusion=FusionSettings(method="rrf"),  # expected orders are told by ranks
    rerank=RerankSettings(depth=4, blend=0.0),  # … and by the toy's scores
)
CALIBRATED = msgspec.structs.replace(
    PROFILE,
    calibration=Calibration(2.0, 9.0, PROFILE.encoder.identity, 1, 0.9, 0.8, 1.0, 148, Measurement("", 40, "AUC", "")),
)
"""The best find of `ScriptedIndex` has the confidence 0.8808."""
WEIGHED = msgspec.structs.replace(
    PROFILE,
    sparse=SparseSettings(ModelReference("toy", "2" * 12)),
    vector_type="none",
    fusion=FusionSettings(method="rrf", weights=SPARSE_WEIGHTS),
)
"""Of an index whose documents have weighted terms, and no vectors."""
QUERY: dict[str, Any] = {"query": {"match": {"title": "red shoe"}}}


@dataclass
class ScriptedIndex:
    """`own`, `expanded` and `near` are the ids that the application's query, the expansion leg and the
    k-NN leg find, best first; `compared` what a full comparison of vectors finds, `weighed` the sparse leg,
    `pictured` the leg of pictures. `faults`
    maps the end of a path to the reply given instead."""

    own: Sequence[str] = ("a", "b", "c")
    expanded: Sequence[str] = ("a", "b", "c", "d")
    near: Sequence[str] = ("e", "d", "a")
    compared: Sequence[str] = ("e", "d", "a")
    weighed: Sequence[str] = ("f", "b")
    pictured: Sequence[str] = ("g", "a")
    titles: Mapping[str, Any] = field(default_factory=dict)
    profile: IndexProfile | None = PROFILE
    faults: dict[str, Reply] = field(default_factory=dict)
    legs: dict[str, Any] = field(default_factory=dict)
    """Leg name → the item to give instead of its hits."""
    total: int | None = None
    """The total as a number, as `rest_total_hits_as_int` wants it."""
    passages: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Id → offsets of its passages, nearest first."""
    hidden: frozenset[str] = frozenset()
    """Ids that the caller may not see, where they are asked for by id."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """Id → its code in base64, where a leg asks for codes."""
    groups: Mapping[str, Any] = field(default_factory=dict)
    """Id → the value of the field by which a search is collapsed; a document without one is of the group of nulls."""
    rendered: Mapping[str, Any] = field(default_factory=dict)
    """What every template comes to."""
    highlights: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Id → its highlights, where a search wants some; a document without any has none."""
    more: object = 1
    """What each document holds beside its title."""

    def __call__(self, request: Received) -> Reply:
        """Answers one request."""
        endpoint = request.path.rstrip("/").rsplit("/", 1)[-1]
        if endpoint == "_mapping":
            meta = {META_KEY: self.profile.to_meta()} if self.profile else {}
            return self.faults.get(endpoint) or reply_json({"docs": {"mappings": {"_meta": meta}}})
        if endpoint == "_msearch":
            return self.faults.get(endpoint) or self._msearch(request.body)
        if request.path == "/_render/template":
            return self.faults.get("_render/template") or reply_json({"template_output": self.rendered})
        if request.path.endswith("_search/template"):
            return self._search("own", dict(self.rendered))
        if endpoint != "_search":
            return self.faults.get(endpoint, Reply())
        packed = request.header("content-encoding") == "gzip"
        body = json.loads((gzip.decompress(request.body) if packed else request.body) or b"{}")
        kind = kind_of_search(body)
        return self.faults.get(kind) or self._search(kind, body)

    def _msearch(self, body: bytes) -> Reply:
        lines = [json.loads(line) for line in body.splitlines()]
        found = {
            "lexical": self.own,
            "expansion": self.expanded,
            "vector": self.near,
            "exact": self.compared,
            "sparse": self.weighed,
            "image": self.pictured,
        }
        items = []
        for search in lines[1::2]:
            leg = leg_of(search)
            ids = found[leg][: search.get("size", 10)]
            source = search.get("_source", True)
            hits = [self.hit(doc_id, 10.0 - rank, source) for rank, doc_id in enumerate(ids)]
            for hit in hits:
                for name in search.get("docvalue_fields", ()):
                    value = (self.codes if name == "_neural.code" else self.groups).get(hit["_id"])
                    hit.setdefault("fields", {})[name] = [] if value is None else [value]
            items.append(self.legs.get(leg) or {"took": 1, "hits": {"hits": hits}, "status": 200})
        return reply_json({"took": 1, "responses": items})

    def _search(self, kind: str, body: dict[str, Any]) -> Reply:
        start, size = body.get("from", 0), body.get("size", 10)
        matching: Sequence[str] = self.own
        if kind == "own":
            ids = self._collapsed(self.own, body)[start : start + size]
        elif kind == "groups":
            matching = self.own if "must" in body["query"]["bool"] else sorted(self.groups)
            ids = self._collapsed(self._in_groups(matching, body["query"]["bool"]["filter"][0]), body)
        elif kind == "matched":
            ids = sorted(_ids(body["query"]["bool"]["filter"]) & set(self.own))
        elif kind == "aggregated":
            found = body["query"]["bool"]["should"][1]["constant_score"]["filter"]
            matching, ids = sorted({*self.own, *_ids([found])}), []
        elif kind == "tail":
            [clause] = body["query"]["bool"]["must_not"]
            excluded = self._in_groups(self.own, clause) if "collapse" in body else _ids([clause])
            remaining = [doc_id for doc_id in self.own if doc_id not in excluded]
            ids = self._collapsed(remaining, body)[start : start + size]
        else:
            # Out of order, as an ids query answers.
            ids = sorted(_ids(body["query"]["bool"].get("filter") or [body["query"]]) - self.hidden)
        hits = [self.hit(doc_id, 5.0 - rank / 10, body.get("_source", True)) for rank, doc_id in enumerate(ids, start)]
        for hit in hits if "collapse" in body else ():
            hit |= self._group_of(hit["_id"], body["collapse"], matching)
        for hit in hits if kind == "texts" else ():
            hit["inner_hits"] = {"_neural.passages": {"hits": {"hits": self._inner(hit["_id"])}}}
        if kind == "terms":
            described = "Linear function on the _neural.terms field for the shoe feature, computed as w * S from:"
            for hit in hits:
                hit["_explanation"] = {"value": 3.0, "description": described, "details": []}
        for hit in hits if "highlight" in body else ():
            if own := self.highlights.get(hit["_id"]):
                hit["highlight"] = own
        if kind == "predictions":
            for hit in hits:
                hit["highlight"] = {"_neural.predicted_queries": [f"what is {hit['_id']}"]}
        total = {"value": len(self.own), "relation": "eq"} if self.total is None else self.total
        answer: dict[str, Any] = {
            "took": 2,
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"total": total, "max_score": 5.0, "hits": hits},
        }
        if "aggs" in body:
            answer["aggregations"] = {"n": {"value": len(matching)}}
        return reply_json(answer)

    def _collapsed(self, ids: Sequence[str], body: dict[str, Any]) -> Sequence[str]:
        heads = {self.groups.get(doc_id): doc_id for doc_id in reversed(ids)} if "collapse" in body else {}
        return [doc_id for doc_id in ids if not heads or heads[self.groups.get(doc_id)] == doc_id]

    def _in_groups(self, ids: Sequence[str], clause: dict[str, Any]) -> list[str]:
        values: list[Any] = []
        for each in clause["bool"]["should"]:
            values += [None] if "bool" in each else next(iter(each["terms"].values()))
        return [doc_id for doc_id in ids if self.groups.get(doc_id) in values]

    def _group_of(self, doc_id: str, collapse: dict[str, Any], matching: Sequence[str]) -> dict[str, Any]:
        """What a collapsed search adds to the head of a group."""
        group = self.groups.get(doc_id)
        members: dict[str, Any] = {"fields": {collapse["field"]: [group]}}
        if (wanted := collapse.get("inner_hits")) is not None:
            found = [{"_index": "docs", "_id": each} for each in matching if self.groups.get(each) == group]
            members["inner_hits"] = {wanted["name"]: {"hits": {"hits": found[: wanted.get("size", 3)]}}}
        return members

    def _inner(self, doc_id: str) -> list[dict[str, Any]]:
        names = ("_neural.passages.start", "_neural.passages.end")
        offsets = self.passages.get(doc_id, ())
        return [{"fields": {name: [at] for name, at in zip(names, each, strict=True)}} for each in offsets]

    def hit(self, doc_id: str, score: float, source: Any) -> dict[str, Any]:
        """A document as a search shows it."""
        hit: dict[str, Any] = {"_index": "docs", "_id": doc_id, "_score": score}
        if source not in (None, False):
            title = self.titles.get(doc_id, f"title of {doc_id}")
            hit["_source"] = {"title": title, "n": self.more, "_neural": {"stamp": "s", "embedding": [0.5]}}
        return hit


def kind_of_search(body: dict[str, Any]) -> str:
    """Which search of the bridge's a body is: own, texts, shown, tail, predictions, terms, matched, groups,
    aggregated."""
    query = body.get("query", {}).get("bool", {})
    if any("constant_score" in clause for clause in query.get("should", ())):
        return "aggregated"
    if "collapse" in body and body.get("_source") is False and "filter" in query:
        return "groups"
    if "_neural.predicted_queries" in body.get("highlight", {}).get("fields", {}):
        return "predictions"
    if body.get("explain") and "_neural.terms" in json.dumps(query):
        return "terms"
    if "must" in query and "ids" in json.dumps(query.get("filter")):
        return "matched"
    if "must_not" in query:
        return "tail"
    if isinstance(body.get("_source"), dict) and "includes" in body["_source"]:
        return "texts"
    return "shown" if "filter" in query and "should" in query else "own"


def leg_of(search: dict[str, Any]) -> str:
    """Which leg an item of a `_msearch` is."""
    if "_neural.image_embedding" in json.dumps(search):
        return "image"
    if "knn_score" in json.dumps(search):
        return "exact"
    if '"knn":' in json.dumps(search):
        return "vector"
    if "_neural.terms" in json.dumps(search):
        return "sparse"
    return "expansion" if "predicted_queries" in json.dumps(search) else "lexical"


def _ids(clauses: list[dict[str, Any]]) -> set[str]:
    return {
        doc_id
        for clause in clauses
        for by_index in clause.get("bool", {}).get("should", ())
        for doc_id in by_index["bool"]["filter"][1]["ids"]["values"]
    }
