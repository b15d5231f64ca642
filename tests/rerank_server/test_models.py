"""Which models a sidecar serves, and which of them a request means."""

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import ModelError
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.settings import SidecarSettings
from rerank_server.errors import NotServed
from rerank_server.models import Models, cascade_folder
from tests.rerank_server.running import toy_cascade
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_sparse_encoder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    more = CrossEncoder.load(make_toy_cross_encoder(folder / "more", ["bird"], name="more"), threads=1)
    return replace(toy_cascade(folder), more=(more,))


def test_a_reranker_is_asked_for_by_name_or_by_name_and_digest(models: Models) -> None:
    more = models.more[0]

    assert models.reranker("more") is more
    assert models.reranker(more.identity) is more
    assert models.reranker(None) is models.cross_encoder
    # Clients of hosted services send the names of their models.
    assert models.reranker("rerank-v3.5") is models.cross_encoder


def test_an_encoder_with_a_digest_is_that_one_or_none(models: Models) -> None:
    name, _, _ = models.encoder.identity.partition("@")

    assert models.encoder_called(models.encoder.identity) is models.encoder
    assert models.encoder_called("text-embedding-3-small") is models.encoder
    with pytest.raises(NotServed, match=f"no encoder {name}@000000000000 here, but {models.encoder.identity}"):
        models.encoder_called(f"{name}@000000000000")


def test_a_sparse_encoder_with_a_digest_is_that_one_or_none(models: Models, tmp_path: Path) -> None:
    first, second = (
        SparseEncoder.load(make_toy_sparse_encoder(tmp_path / str(count), WORDS[:count]), threads=1)
        for count in (20, 30)
    )
    with_terms = replace(models, sparse_encoders=(first, second))

    assert with_terms.sparse_encoder_called(None) is first
    assert with_terms.sparse_encoder_called("splade") is first
    assert with_terms.sparse_encoder_called(second.identity) is second
    assert with_terms.identities[-2:] == [first.identity, second.identity]
    with pytest.raises(NotServed, match="no sparse encoder toy@000000000000 here"):
        with_terms.sparse_encoder_called("toy@000000000000")
    with pytest.raises(NotServed, match=r"name one in sidecar\.sparse_encoders"):
        models.sparse_encoder_called(None)


def test_every_model_is_listed_once(models: Models) -> None:
    assert models.identities == [
        *(model.identity for model in (models.cross_encoder, *models.more)),
        models.cascade.identity if models.cascade else "",
        models.encoder.identity,
    ]


def test_a_cascade_needs_a_small_model_that_is_there() -> None:
    assert cascade_folder(SidecarSettings(cascade_model=None)) is None
    assert cascade_folder(SidecarSettings(cascade_model="")) is None
    with pytest.raises(ModelError, match="nowhere"):
        cascade_folder(SidecarSettings(cascade_model="nowhere"))


def test_a_model_of_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_toy_cross_encoder(tmp_path).path

    with pytest.raises(ModelError, match="cross_encoder"):
        Models.load(SidecarSettings(rerank_model=str(folder), encoder=str(folder), cascade_model=None))
