"""The models of ingest on a server: a real sidecar, and others that embed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge.errors import SidecarError, SidecarUnreachable
from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.records import Document, SourcePosition
from bridge.settings import IngestSettings
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models, load_models, profile_for
from tests.bridge.proxy.scripted_models import API_KEY, scripted_models
from tests.rerank_server.process import listening
from tests.toys import make_toy_cross_encoder, make_toy_encoder, make_toy_query_generator, make_toy_sparse_encoder

TEXTS = ["cat dog", "fish", "bird cat fish", "dog " * 1_000_000] * 20
"""The last one is longer than a sidecar takes, and than a model reads."""
SERVER_KEY = "a-key-of-the-sidecar"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolder]:
    folder = tmp_path_factory.mktemp("toys")
    return {
        "encoder": make_toy_encoder(folder / "encoder"),
        "generator": make_toy_query_generator(folder / "generator"),
        "filter_model": make_toy_cross_encoder(folder / "reader"),
        "sparse_encoder": make_toy_sparse_encoder(folder / "sparse"),
    }


@pytest.fixture(scope="module")
def sidecar(folders: dict[str, ModelFolder], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = {
        "encoder": folders["encoder"].path,
        "generator": folders["generator"].path,
        "rerank_model": folders["filter_model"].path,
        "sparse_encoders": json.dumps([str(folders["sparse_encoder"].path)]),
    }
    log = tmp_path_factory.mktemp("sidecar") / "log"
    with listening(log, **models, api_key=SERVER_KEY, threads=1) as process:
        yield process.url


def settings(folders: dict[str, ModelFolder], **more: object) -> IngestSettings:
    local = {name: str(folder.path) for name, folder in folders.items()}
    return IngestSettings.model_validate({**local, "max_attempts": 2, **more})


def served(folders: dict[str, ModelFolder], url: str, **more: object) -> Models:
    return load_models(settings(folders, server={"url": url, "api_key": SERVER_KEY}, **more))


def test_the_sidecar_makes_of_documents_what_this_process_would(folders: dict[str, ModelFolder], sidecar: str) -> None:
    here, there = load_models(settings(folders)), served(folders, sidecar)
    assert profile_for(there, ["text"]) == profile_for(here, ["text"])
    np.testing.assert_allclose(there.encoder.encode(TEXTS, "passage"), here.encoder.encode(TEXTS, "passage"), atol=1e-6)
    assert here.sparse_encoder is not None
    assert there.sparse_encoder is not None
    assert there.sparse_encoder.encode(TEXTS) == here.sparse_encoder.encode(TEXTS)
    reader = here.scorer
    assert isinstance(reader, CrossEncoder)
    assert there.scorer is not None
    np.testing.assert_allclose(there.scorer.score("cat dog", TEXTS[:4]), reader.score("cat dog", TEXTS[:4]), atol=1e-5)
    wanted = settings(folders)
    documents = [
        Document(str(i), b"{}", {"text": text}, SourcePosition("a file", i)) for i, text in enumerate([*TEXTS[:20], ""])
    ]
    expanded = Expansion.of(profile_for(there, ["text"]), there, wanted)(documents)
    assert sum(bool(each.predicted_queries) for each in expanded) >= 10
    for each, document in zip(expanded, documents, strict=True):
        words = {word for query in each.predicted_queries for word in query.split()}
        assert words <= set(document.texts["text"].split())
    enriched = Embedding(there.encoder, stamp=lambda _: "")(expanded)
    assert [len(each.embeddings) for each in enriched] == [1] * 20 + [0]


def test_a_sidecar_with_other_models_is_refused(folders: dict[str, ModelFolder], sidecar: str, tmp_path: Path) -> None:
    other = make_toy_encoder(tmp_path / "other", ["cat", "dog"])
    with pytest.raises(SidecarError, match=r"does not run toy-encoder@.*sidecar\.more_encoders"):
        served({**folders, "encoder": other}, sidecar)
    with pytest.raises(SidecarUnreachable, match=r"status 401"):
        load_models(settings(folders, server={"url": sidecar, "api_key": "wrong"}))


def test_no_server_is_no_connection(folders: dict[str, ModelFolder]) -> None:
    with pytest.raises(SidecarUnreachable, match="gives no answer"):
        served(folders, "http://127.0.0.1:9", max_attempts=1)


@pytest.mark.parametrize(("api", "path"), [("tei", "/tei/embed"), ("openai", "/v1/embeddings")])
async def test_another_server_embeds_in_parts_and_queries_are_predicted_here(
    folders: dict[str, ModelFolder], api: str, path: str
) -> None:
    async with scripted_models() as models:
        dimension = folders["encoder"].manifest.dimension or 0
        models.embedding = [3.0, 4.0] + [0.0] * (dimension - 2)
        there = load_models(
            settings(folders, server={"url": models.url + path, "api": api, "model": "any", "api_key": API_KEY})
        )
        vectors = await asyncio.to_thread(there.encoder.encode, TEXTS[:70], "passage")
        assert vectors.shape == (70, dimension)
        np.testing.assert_allclose(vectors[:, :2], [[0.6, 0.8]] * 70)
        sizes = [len(body.get("inputs") or body.get("input")) for body in models.asked(path)]
        assert sorted(sizes) == [6, 32, 32]
        assert models.received[0][1]["authorization"] == f"Bearer {API_KEY}"
        assert there.generator is not None
        models.embedding = [1.0, 0.0]
        with pytest.raises(SidecarError, match="it runs another encoder"):
            await asyncio.to_thread(there.encoder.encode, ["cat"], "passage")


@pytest.mark.parametrize("wrong", [{"api": "tei"}, {"url": "sidecar:9290"}, {"url": "http://x", "api": "openai"}])
def test_half_a_server_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="server"):
        IngestSettings.model_validate({"server": wrong})
