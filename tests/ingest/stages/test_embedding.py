"""Every passage gets the vector of its own text, and only sound vectors are written."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.errors import ModelError, PictureRefused
from bridge.records import Document, ExpandedDocument, Passage, SourcePosition
from ingest.books.ledger import Failure, Outcome
from ingest.stages.batches import Batch, Stage
from ingest.stages.embedding import Embedding
from ingest.stages.images import Images
from ingest.stages.models import profile_for
from tests.ingest.toys import DIMENSION, CountingEncoder, models_with_terms, toy_models

PROFILE = profile_for(toy_models(), ["text"])


def expanded(doc_id: str, *passages: str) -> ExpandedDocument:
    document = Document(doc_id, b"{}", {"text": " ".join(passages)}, SourcePosition("corpus", 1))
    return ExpandedDocument(document, [Passage(text, 0, len(text)) for text in passages], ["a query"])


def test_vectors_stay_with_their_passages_in_a_batch() -> None:
    batch = [expanded("two", "a", "bb"), expanded("none"), expanded("one", "ccc")]
    enriched = Embedding(CountingEncoder(), stamp=lambda document: f"made of {document.doc_id}")(batch)
    assert [each.embeddings.argmax(axis=1).tolist() if len(each.embeddings) else [] for each in enriched] == [
        [1, 2],
        [],
        [3],
    ]
    assert [each.stamp for each in enriched] == ["made of two", "made of none", "made of one"]
    assert all(each.predicted_queries == ["a query"] for each in enriched)


def test_an_index_without_vectors_needs_no_encoder() -> None:
    models = toy_models()
    stage = Embedding.of(msgspec.structs.replace(PROFILE, vector_type="none"), models, lambda _: "stamp")
    assert not len(stage([expanded("a", "text")])[0].embeddings)
    assert isinstance(models.encoder, CountingEncoder)
    assert models.encoder.texts == 0


def test_the_terms_of_a_document_are_the_largest_of_its_passages() -> None:
    models = models_with_terms()
    stage = Embedding.of(profile_for(models, ["text"]), models, lambda _: "stamp")
    batch = [expanded("two", "a bb cccc", "bb ddd"), expanded("none"), expanded("one", "bb")]
    assert [list(each.terms.items()) for each in stage(batch)] == [
        [("cccc", 4.0), ("ddd", 3.0), ("bb", 2.0)],
        [],
        [("bb", 2.0)],
    ]


def test_an_index_without_terms_needs_no_sparse_encoder() -> None:
    [enriched] = Embedding.of(PROFILE, models_with_terms(), lambda _: "stamp")([expanded("a", "text")])
    assert enriched.terms == {}


class WrongShape(CountingEncoder):
    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        return np.zeros((len(texts), DIMENSION + 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("encoder", "text", "message"),
    [(CountingEncoder(), "NaN", "not finite"), (WrongShape(), "text", "of shape")],
    ids=["not-finite", "wrong-shape"],
)
def test_no_unsound_vector_passes(encoder: CountingEncoder, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Embedding(encoder, stamp=lambda _: "stamp")([expanded("a", text)])


def test_pictures_are_embedded_if_the_index_has_vectors_of_some() -> None:
    def images(documents: Sequence[Document]) -> list[NDArray[np.float32] | None]:
        return [np.full(2, len(each.doc_id), dtype=np.float32) if each.doc_id != "none" else None for each in documents]

    stage = Embedding(CountingEncoder(), stamp=lambda _: "stamp", images=images)
    found = [each.image for each in stage([expanded("one", "a"), expanded("none", "b"), expanded("three")])]
    assert [None if image is None else image.tolist() for image in found] == [[3.0, 3.0], None, [5.0, 5.0]]
    [plain] = Embedding.of(PROFILE, replace(toy_models(), images=cast(Images, images)), lambda _: "stamp")(
        [expanded("one", "a")]
    )
    assert plain.image is None


def test_a_picture_that_cannot_be_read_is_a_dead_letter_and_no_text_is_embedded_twice_for_it() -> None:
    encoder = CountingEncoder()

    def images(documents: Sequence[Document]) -> list[NDArray[np.float32] | None]:
        if any(each.doc_id == "broken" for each in documents):
            raise PictureRefused("the picture is broken")
        return [None] * len(documents)

    stage = Stage(Embedding(encoder, stamp=lambda _: "stamp", images=images))
    done = stage(Batch([expanded("a", "text"), expanded("broken", "text"), expanded("c", "text")], []))
    assert [each.document.doc_id for each in done.documents] == ["a", "c"]
    [(item, outcome)] = done.ended
    assert isinstance(item, Document)
    assert outcome == Outcome("dead_lettered", Failure("picture_refused", "the picture is broken"))
    assert encoder.texts == 2
