"""Only what changed: compares a batch with the stamps that the index holds already."""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.records import Document
from ingest.sources.json_objects import within
from ingest.stages.stamp import is_current, stamp


class _Found(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))


class _Answer(msgspec.Struct):
    docs: list[_Found]


class ChangeFilter:
    """Tells documents that the index holds just so from those that have to be made."""

    def __init__(self, client: OpenSearch, index: str, profile: IndexProfile, recipe: str) -> None:
        """`recipe` as `ingest.stamp.recipe` names it."""
        self._client = client
        self._index = index
        self._stamp_field = profile.stamp_field
        self._recipe = recipe

    def changed(self, documents: Sequence[Document]) -> list[Document]:
        """The documents that are new, differ, or were made by another recipe; input order.

        Raises:
            AnswerNotUnderstood: the cluster did not say of each document whether it has it.
        """
        if not documents:
            return []
        kept = zip(documents, self._stamps(documents), strict=True)
        return [document for document, found in kept if found != stamp(self._recipe, document)]

    def _stamps(self, documents: Sequence[Document]) -> list[str | None]:
        """What the index holds of each document, in their order."""
        wanted = [
            {"_id": d.doc_id, "_source": [self._stamp_field]} | ({"routing": d.routing} if d.routing else {})
            for d in documents
        ]
        answer = exchange(
            self._client,
            "POST",
            f"/{quote(self._index, safe='')}/_mget",
            body=msgspec.json.encode({"docs": wanted}),
        )
        try:
            found = msgspec.json.decode(answer.body, type=_Answer).docs
        except msgspec.DecodeError as error:
            raise AnswerNotUnderstood(
                f"_mget of {self._index} answered {answer.status}, no documents: {error}"
            ) from error
        if [entry.id for entry in found] != [document.doc_id for document in documents]:
            raise AnswerNotUnderstood(f"_mget of {self._index} answered for other documents than were asked for")
        return [stamp_within(bytes(entry.source), self._stamp_field) for entry in found]


def stale(documents: Sequence[Document], profile: IndexProfile, recipe: str) -> list[Document]:
    """Of documents that were read from an index with their stamps: those whose fields of ours are missing or
    made from something else; input order."""
    return [
        document
        for document in documents
        if not is_current(stamp_within(document.body, profile.stamp_field), recipe, document)
    ]


def stamp_within(body: bytes, stamp_field: str) -> str | None:
    """The stamp that a document carries, by its field's full name; None where it has none, or somebody else's
    value stands under our name."""
    value = within(body, stamp_field)
    try:
        return msgspec.json.decode(value, type=str) if value is not None else None
    except msgspec.ValidationError:
        return None
