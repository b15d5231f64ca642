"""A ranking → the answer that the application expects, and any answer without the bridge's object.

Totals, aggregations, suggestions, profile and shards are the ones of its own answer; hits are the
cluster's, byte for byte but for `_score`, the bridge's object and the explanation if the request wants one.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.records import Hit, Key, Passage
from bridge.text import (
    changed,
    decodable,
    decode_answer,
    enriched_text,
    texts_in,
)

RawObject = dict[str, msgspec.Raw]
"""A JSON object whose values are still text."""

PASSAGE_HIGHLIGHT = "_bridge.passage"
"""Under which name a hit's winning passage stands among its highlights."""

_BY_NAME = ("fields", "highlight")
"""Members of a hit whose own members are called by full field names."""

REJECTED = "malformed"
"""How the error of a leg begins that the cluster took for malformed."""
_BAD_REQUEST = 400

_NOTHING = msgspec.Raw()
_TEXT = msgspec.json.Decoder(str)
_SCORE = msgspec.json.Decoder(float | None)


class _Identity(msgspec.Struct, gc=False):
    """What tells a hit apart; every other member is ignored here."""

    index: str = msgspec.field(name="_index")
    doc_id: str = msgspec.field(name="_id", default="")
    score: float | None = msgspec.field(name="_score", default=None)
    fields: dict[str, list[object]] = {}
    source: msgspec.Raw = msgspec.field(name="_source", default=_NOTHING)


class _Total(msgspec.Struct):
    value: int
    relation: str


@dataclass(frozen=True, slots=True)
class ShownHit:
    """A hit as the cluster wrote it; `score` is the cluster's, 0 if it gave none."""

    key: Key
    score: float
    members: RawObject


class OwnAnswer:
    """The answer to the application's own request, taken apart as needed; one that is partial may lack any part
    of it, and none of its hits is used.

    Raises:
        AnswerNotUnderstood: it is no search answer.
    """

    def __init__(self, body: bytes, *, is_partial: bool = False) -> None:
        self.is_partial = is_partial
        try:
            try:
                self.members, self._hits, self.hits = _taken_apart(body, is_partial)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                readable, restored = decodable(body)
                self.members, self._hits, hits = _taken_apart(readable, is_partial)
                for members in (self.members, self._hits, *(hit.members for hit in hits)):
                    members.update({name: msgspec.Raw(restored(bytes(value))) for name, value in members.items()})
                self.hits = hits
        except (msgspec.DecodeError, KeyError) as error:
            raise AnswerNotUnderstood(f"the cluster's answer to a search cannot be read: {error!r}") from error

    def with_hits(
        self,
        hits: Sequence[RawObject],
        *,
        max_score: float | None,
        beyond: int = 0,
        more: Mapping[str, object],
    ) -> bytes:
        """This answer with other hits. `max_score`: the best score of the whole ranking; `beyond`: how many hits
        to add to the total; `more`: members to add at the end."""
        inner: dict[str, object] = {**self._hits, "hits": hits}
        if "max_score" in inner and not (self.hits and self._hits["max_score"] == msgspec.Raw(b"null")):
            # Sorted hits have no best score, in no answer of the cluster's.
            inner["max_score"] = max_score
        if "total" in self._hits and beyond:
            total = msgspec.json.decode(self._hits["total"], type=int | _Total)
            inner["total"] = total + beyond if isinstance(total, int) else _Total(total.value + beyond, total.relation)
        return msgspec.json.encode({**self.members, "hits": inner, **more})


def shown_hit(
    hit: ShownHit, *, score: float, passage: str | None = None, explanation: Mapping[str, object] | None = None
) -> RawObject:
    """A hit as the answer holds it; `passage` is to be shown among its highlights."""
    members = dict(hit.members)
    members["_score"] = _raw(score)
    if passage is not None:
        members = with_members(members, "highlight", {PASSAGE_HIGHLIGHT: [passage]})
    if explanation is not None:
        members["_bridge"] = _raw(explanation)
    return members


def with_members(hit: RawObject, section: str, added: Mapping[str, object]) -> RawObject:
    """A hit with more members in one of its objects, which keeps its own bytes."""
    begun = bytes(hit.get(section, b"{}")).rstrip()[:-1].rstrip()
    comma = b"" if begun.endswith(b"{") else b","
    return {**hit, section: msgspec.Raw(begun + comma + msgspec.json.encode(added)[1:])}


class _InnerHits(msgspec.Struct):
    """The inner hits of one nested clause, with what offsets need."""

    class Envelope(msgspec.Struct):
        """The envelope of the hits."""

        class Hit(msgspec.Struct):
            """One passage; `fields` are its doc values."""

            fields: dict[str, list[int]]

        hits: list[Hit]

    hits: Envelope


class _Leg(msgspec.Struct, gc=False):
    """One item of a `_msearch` answer, with what a leg needs."""

    class Hits(msgspec.Struct, gc=False):
        """The envelope of its hits."""

        hits: list[_Identity]

    class Shards(msgspec.Struct, gc=False):
        """How many shards failed."""

        failed: int = 0

    hits: Hits | None = None
    status: int = 200
    error: msgspec.Raw = msgspec.Raw(b"null")
    shards: Shards = msgspec.field(name="_shards", default_factory=Shards)


class _Legs(msgspec.Struct, gc=False):
    responses: list[_Leg]


class _ShownLeg(msgspec.Struct):
    """One item of a `_msearch` answer, with its hits as the cluster wrote them."""

    class Hits(msgspec.Struct):
        """The envelope of its hits."""

        hits: msgspec.Raw

    hits: Hits | None = None


class _ShownLegs(msgspec.Struct):
    responses: list[_ShownLeg]


def leg_rankings(body: bytes, names: Sequence[str], *, id_field: str | None = None) -> dict[str, list[Hit] | str]:
    """A `_msearch` answer → for each leg its hits, best first and each document once, or what kind of error it met.

    A leg of which all shards failed has no hits and so counts as an error too. `id_field`: the field that has a hit's
    id as a doc value.

    Raises:
        AnswerNotUnderstood: no such answer, or another number of items than `names`.
    """
    try:
        answers = decode_answer(body, _Legs).responses
    except msgspec.DecodeError as error:
        raise AnswerNotUnderstood(f"the cluster's answer to _msearch cannot be read: {error}") from error
    if len(answers) != len(names):
        raise AnswerNotUnderstood(f"_msearch answered {len(answers)} of {len(names)} searches")
    rankings: dict[str, list[Hit] | str] = {}
    for name, answer in zip(names, answers, strict=True):
        if answer.hits is None:
            kinds = ", ".join(dict.fromkeys(_kinds_of_error(decode_answer(bytes(answer.error), object)))) or "no hits"
            rankings[name] = f"{REJECTED}: {kinds}" if answer.status == _BAD_REQUEST else kinds
        elif answer.shards.failed and not answer.hits.hits:
            rankings[name] = f"{answer.shards.failed} shards failed"
        else:
            best: dict[Key, Hit] = {}
            for hit in answer.hits.hits:
                doc_id = hit.doc_id if id_field is None else "".join(map(str, hit.fields.get(id_field, ())))
                found = Hit(hit.index, doc_id, hit.score or 0.0, hit.fields, bytes(hit.source))
                best.setdefault(found.key, found)
            rankings[name] = list(best.values())
    return rankings


def _kinds_of_error(error: object) -> Iterator[str]:
    """The types in an error of the cluster's, outermost first. Its reasons quote queries, which no log may hold."""
    if isinstance(error, dict):
        if isinstance(kind := error.get("type"), str):
            yield kind
        for inner in error.values():
            yield from _kinds_of_error(inner)
    elif isinstance(error, list):
        for inner in error:
            yield from _kinds_of_error(inner)


def found_hits(body: bytes) -> list[ShownHit]:
    """The hits of a search of the bridge's own.

    Raises:
        AnswerNotUnderstood: it is no search answer.
    """
    return OwnAnswer(body).hits


def hits_of_legs(body: bytes) -> list[ShownHit]:
    """The hits of all searches of a `_msearch`, as the cluster wrote them; none of them if they hold halves of
    surrogate pairs, or what no decoder takes."""
    try:
        legs = msgspec.json.decode(body, type=_ShownLegs).responses
        return [hit for leg in legs if leg.hits is not None for hit in _shown_hits(leg.hits.hits)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def nearest_passages(hit: ShownHit, passages_field: str) -> list[tuple[int, int]]:
    """Character offsets of the passages that came with a document's text, nearest first; empty if none came."""
    try:
        inner = decode_answer(bytes(hit.members["inner_hits"]), dict[str, _InnerHits])
        fields = [passage.fields for passage in inner[passages_field].hits.hits]
        return [(each[f"{passages_field}.start"][0], each[f"{passages_field}.end"][0]) for each in fields]
    except (msgspec.DecodeError, KeyError, IndexError):
        return []


def highlighted(hit: ShownHit, field: str) -> list[str]:
    """The highlights of one field; empty if the hit has none."""
    if "highlight" not in hit.members:
        return []
    return decode_answer(bytes(hit.members["highlight"]), dict[str, list[str]]).get(field, [])


def inner_hits(hit: ShownHit, names: Sequence[str]) -> bytes:
    """The inner hits of these names, as the cluster wrote them: a JSON object."""

    def named(section: bytes) -> bytes:
        members = msgspec.json.decode(section, type=RawObject)
        return msgspec.json.encode({name: members[name] for name in names if name in members})

    return changed(bytes(hit.members.get("inner_hits", b"{}")), named)


def with_inner_hits(hit: ShownHit, added: bytes) -> ShownHit:
    """A hit with more inner hits, `added` as `inner_hits` gives them."""

    def joined(both: bytes) -> bytes:
        own, more = msgspec.json.decode(both, type=tuple[RawObject, RawObject])
        return msgspec.json.encode({**own, **more})

    own = bytes(hit.members.get("inner_hits", b"{}"))
    return replace(hit, members={**hit.members, "inner_hits": msgspec.Raw(changed(b"[%b,%b]" % (own, added), joined))})


def doc_values(hit: ShownHit) -> Mapping[str, Sequence[object]]:
    """The hit's fields, each with its values."""
    return decode_answer(bytes(hit.members.get("fields", b"{}")), dict[str, list[object]])


class _Explanation(msgspec.Struct):
    value: float
    description: str
    details: list["_Explanation"] = []


_SCORED_TERM = re.compile(r"function on the \S+ field for the (\S+) feature")
"""How Lucene begins to explain the score of one term (`FeatureField`)."""


def scored_terms(hit: ShownHit) -> dict[str, float]:
    """What each term of the query gave to a hit of `legs.matching_terms`, the largest first; empty if the cluster
    explains it otherwise."""
    try:
        explanations = [decode_answer(bytes(hit.members["_explanation"]), _Explanation)]
    except (msgspec.DecodeError, KeyError):
        return {}
    scores: dict[str, float] = {}
    for each in explanations:
        explanations += each.details
        if (named := _SCORED_TERM.search(each.description)) is not None:
            scores[named[1]] = each.value
    return dict(sorted(scores.items(), key=lambda term: -term[1]))


def passages_to_read(hits: Sequence[ShownHit], keys: Sequence[Key], profile: IndexProfile) -> dict[Key, list[Passage]]:
    """What a cross-encoder reads of the documents that `legs.texts` found: the passages nearest to the query, best
    first, or the whole text of a document that came without. In the order of `keys`; documents without a text that can
    be seen and read are left out.
    """
    passages = {hit.key: _passages(hit, profile) for hit in hits}
    return {key: passages[key] for key in keys if passages.get(key)}


def _passages(hit: ShownHit, profile: IndexProfile) -> list[Passage]:
    try:
        text = source_texts(hit, profile.text_fields)
    except (ValueError, RecursionError):
        text = ""
    if not text:
        return []
    nearest = [
        Passage(stretch, start, end)
        for start, end in nearest_passages(hit, profile.passages_field)
        # If the caller sees less of the text than was embedded, offsets lead nowhere.
        if (stretch := text[start:end])
    ]
    return nearest or [Passage(text, 0, len(text))]


def source_texts(hit: ShownHit, fields: Sequence[str]) -> str:
    """What the cross-encoder reads of a hit: the same text that was embedded, without what the caller may not see.

    Raises:
        ValueError: this is no JSON.
        RecursionError: it is nested too deeply.
    """
    return enriched_text(texts_in(bytes(hit.members.get("_source", b"{}")), fields))


def _taken_apart(body: bytes, is_partial: bool) -> tuple[RawObject, RawObject, list[ShownHit]]:
    """The answer's members, those of its envelope of hits, and the hits."""
    members = msgspec.json.decode(body, type=RawObject)
    if is_partial:
        return members, msgspec.json.decode(members.get("hits", b"{}"), type=RawObject), []
    envelope = msgspec.json.decode(members["hits"], type=RawObject)
    return members, envelope, _shown_hits(envelope["hits"])


def _shown_hits(hits: msgspec.Raw) -> list[ShownHit]:
    # Each document is read over once, and not once more for what tells it apart.
    return [
        ShownHit(
            (_TEXT.decode(members["_index"]), _TEXT.decode(members["_id"])),
            _SCORE.decode(members.get("_score", b"null")) or 0.0,
            members,
        )
        for members in msgspec.json.decode(hits, type=list[RawObject])
    ]


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def hidden(body: bytes, objects: Collection[str]) -> bytes:
    """An answer without the bridge's objects: in the hits, in those of aggregations, and in inner hits.

    What is no JSON, as a balancer before the cluster may answer, stays as it is.
    """
    for name in objects:
        body = _without_object(body, name)
    return body


def _without_object(body: bytes, object_field: str) -> bytes:
    name = f'"{object_field}'.encode()
    if name not in body:
        return body
    try:
        return changed(body, lambda readable: _hidden(readable, object_field, name))
    except msgspec.DecodeError:
        return body


def _hidden(body: bytes, object_field: str, name: bytes) -> bytes:
    changes = list(_changes(msgspec.Raw(body), object_field, name))
    parts: list[bytes] = []
    at = 0
    for shown, kept in changes:
        # Not found only in an answer with a key twice in one object, which no cluster writes.
        if (found := body.find(shown, at)) >= 0:
            parts += (body[at:found], kept)
            at = found + len(shown)
    return b"".join((*parts, body[at:]))


def hit_without(hit: RawObject, object_field: str) -> RawObject:
    """A hit without the bridge's object in its document."""
    source = bytes(hit.get("_source", b""))
    if source[:1] != b"{" or f'"{object_field}"'.encode() not in source:
        return hit
    kept = changed(source, lambda readable: without_member(readable, object_field))
    return hit | {"_source": msgspec.Raw(kept)}


def _changes(
    value: msgspec.Raw, object_field: str, name: bytes, *, is_hit: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """What to replace by what, in the order of the answer. `is_hit`: the value is a hit, or a list of them."""
    text = bytes(value)
    if name not in text:
        return
    if text[:1] == b"[":
        for item in msgspec.json.decode(text, type=list[msgspec.Raw]):
            yield from _changes(item, object_field, name, is_hit=is_hit)
    elif text[:1] == b"{":
        members = msgspec.json.decode(text, type=RawObject)
        for key, member in members.items():
            if key == "_source":
                section = bytes(member)
                if section[:1] == b"{" and (kept := without_member(section, object_field)) != section:
                    yield section, kept
            elif key in _BY_NAME and (is_hit or "_index" in members):
                section = bytes(member)
                if (kept := _without_names(section, object_field)) != section:
                    yield section, kept
            else:
                is_list = bytes(member)[:1] == b"["
                yield from _changes(member, object_field, name, is_hit=is_list and key == "hits")


def without_member(source: bytes, name: str) -> bytes:
    """A JSON object without one member; every other byte stays as it is.

    The member is cut out with its comma. Where that would not give the very same other members (odd
    spacing, a look-alike inside a string), the object is put together anew from its members.
    """
    members = msgspec.json.decode(source, type=RawObject)
    if name not in members:
        return source
    alone = msgspec.json.encode({name: members.pop(name)})[1:-1]
    for member in (b"," + alone, alone + b",", alone):
        # The bridge writes its object last: look from the end.
        at = source.rfind(member)
        if at < 0:
            continue
        cut = source[:at] + source[at + len(member) :]
        try:
            if msgspec.json.decode(cut, type=RawObject) == members:
                return cut
        except msgspec.DecodeError:
            continue
    return msgspec.json.encode(members)


def _without_names(section: bytes, object_field: str) -> bytes:
    members = msgspec.json.decode(section, type=RawObject)
    kept = {
        name: value
        for name, value in members.items()
        if name != object_field and not name.startswith(f"{object_field}.")
    }
    return msgspec.json.encode(kept) if len(kept) < len(members) else section
