"""Does a document need work? Each enriched one carries a stamp that names what it was made from.

A stamp is one keyword, `RECIPE.TEXTS`, `RECIPE.TEXTS.BODY` or `RECIPE.TEXTS.BODY.ORIGIN`: hashes of how our fields are
made, of the texts that they are made from (`TEXTS-IMAGE` if a field names a picture), of the whole document, and of the
source that removes it again. A second run compares stamps instead of doing everything again.
"""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from bridge.text import decode, digest, text_digest
from ingest.sources.json_bytes import within
from ingest.stages.expansion import filter_threshold


def recipe(profile: IndexProfile, settings: IngestSettings) -> str:
    """Names how our fields are made: models by digest, passage sizes, amount of predicted text.

    When it changes, every document is stale.

    Raises:
        IndexUnsuitable: see `filter_threshold`.
    """
    made_by: dict[str, object] = {
        "encoder": profile.encoder.identity,
        "generator": profile.generator.identity if profile.generator else None,
        "text_fields": profile.text_fields,
        "passages": msgspec.structs.asdict(profile.passages),
    }
    if not profile.has_vectors:
        made_by["vectors"] = False
    if profile.sparse:
        made_by["terms"] = [profile.sparse.encoder.identity, profile.sparse.top_terms]
    if profile.image:
        made_by["image"] = [profile.image.field, profile.image.encoder.identity]
    if profile.generator:
        made_by["queries"] = [settings.queries_per_passage, settings.max_query_tokens, settings.max_expansion_bytes]
        if settings.new_terms_only:
            made_by["new_terms_only"] = True
        made_by["filter"] = None
        if settings.filter_model:
            made_by["filter"] = [settings.filter_model, filter_threshold(profile, settings)]
    return digest(msgspec.json.encode(made_by))


def text_stamp(recipe: str, document: Document) -> str:
    """`RECIPE.TEXTS`: what our fields are made from, whatever the rest of the document holds."""
    image = f"-{digest(document.image.encode('utf-8', 'replace'))}" if document.image else ""
    return f"{recipe}.{text_digest(document.texts)}{image}"


def stamp(recipe: str, document: Document) -> str:
    """`RECIPE.TEXTS.BODY`, and `.ORIGIN` if the document has one: shows in addition whether the rest of a source's
    document changed."""
    origin = f".{document.origin}" if document.origin else ""
    return f"{text_stamp(recipe, document)}.{digest(document.body)}{origin}"


def origin_of(stamp: str) -> str | None:
    """The origin that a stamp names."""
    parts = stamp.split(".")
    return parts[3] if len(parts) == 4 else None


def is_current(stamp: str | None, recipe: str, document: Document) -> bool:
    """Whether `recipe` would make of the document now the fields that carry `stamp`."""
    made_from = text_stamp(recipe, document)
    return stamp is not None and (stamp == made_from or stamp.startswith(made_from + "."))


def recipe_of(stamp: str) -> str:
    """The recipe that a stamp names."""
    return stamp.partition(".")[0]


def stamp_within(body: bytes, stamp_field: str) -> str | None:
    """The stamp in a document, by its field's full name; None if there is none, or a value of somebody else's."""
    value = within(body, stamp_field)
    try:
        return msgspec.json.decode(value, type=str) if value is not None else None
    except msgspec.ValidationError:
        return None


def stale(documents: Sequence[Document], profile: IndexProfile, recipe: str) -> list[Document]:
    """Of documents that were read from an index with their stamps, those whose fields of ours are missing or were
    made from something else; input order."""
    return [
        document
        for document in documents
        if not is_current(stamp_within(document.body, profile.stamp_field), recipe, document)
    ]


class ChangeFilter:
    """Compares documents of a source with the stamps in the index."""

    def __init__(self, client: OpenSearch, index: str, profile: IndexProfile, recipe: str) -> None:
        self._client = client
        self._index = index
        self._stamp_field = profile.stamp_field
        # A companion holds nothing of the rest of a document.
        self._texts_alone = profile.beside is not None
        self._recipe = recipe

    def changed(self, documents: Sequence[Document]) -> list[Document]:
        """The documents that are new, differ, or were made by another recipe; input order.

        Raises:
            AnswerNotUnderstood: the cluster did not say of each document whether it has it.
        """
        if not documents:
            return []
        indexed = zip(documents, self._indexed(documents), strict=True)
        return [document for document, source in indexed if not self._is_current(source, document)]

    def stamps(self, documents: Sequence[Document]) -> list[str | None]:
        """The stamps that the index has for the documents, None for those that it lacks.

        Raises:
            AnswerNotUnderstood: as `changed`.
        """
        return [stamp_within(source, self._stamp_field) for source in self._indexed(documents)] if documents else []

    def _is_current(self, source: bytes, document: Document) -> bool:
        indexed = stamp_within(source, self._stamp_field)
        if self._texts_alone:
            return is_current(indexed, self._recipe, document)
        return indexed == stamp(self._recipe, document)

    def _indexed(self, documents: Sequence[Document]) -> list[bytes]:
        """What the index holds of ours, in the documents' order."""
        wanted = [
            {"_id": d.doc_id, "_source": [self._stamp_field]} | ({"routing": d.routing} if d.routing else {})
            for d in documents
        ]
        path = f"/{quote(self._index, safe='')}/_mget"
        answer = exchange(self._client, "POST", path, body=msgspec.json.encode({"docs": wanted}))
        try:
            entries = decode(answer.body, _Answer).docs
        except msgspec.DecodeError as error:
            raise AnswerNotUnderstood(
                f"_mget of {self._index} answered {answer.status}, no documents: {error}"
            ) from error
        if [entry.id for entry in entries] != [document.doc_id for document in documents]:
            raise AnswerNotUnderstood(f"_mget of {self._index} answered for other documents than were requested")
        return [bytes(entry.source) for entry in entries]


class _Entry(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))


class _Answer(msgspec.Struct):
    docs: list[_Entry]
