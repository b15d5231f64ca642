"""The sidecar asked by the clients that others wrote, and by whatever its own OpenAPI document allows."""

import gc
import json
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import openai
import pytest
import schemathesis
from huggingface_hub import InferenceClient
from hypothesis import HealthCheck, settings

from rerank_server import openapi
from tests.integration import litellm_client
from tests.rerank_server.process import Process, listening
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder, make_toy_query_generator

QUERY = "cat dog fish"
DOCUMENTS = ["a bird", "dog and cat", "cat", "the cat, the dog, the fish"]
RANKED = [3, 1, 2, 0]

LITELLM = Path(__file__).parents[2] / ".venv-litellm" / "bin" / "python"


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("toys")
    models = {
        "rerank_model": make_toy_cross_encoder(folder / "large").path,
        "cascade_model": make_toy_cross_encoder(folder / "small", name="small").path,
        "encoder": make_toy_encoder(folder / "encoder").path,
        "generator": make_toy_query_generator(folder / "generator").path,
    }
    with listening(folder / "log", **models) as process:
        yield process


@pytest.mark.case("R21")
@pytest.mark.parametrize("client", [cohere.Client, cohere.ClientV2])
def test_cohere(sidecar: Process, client: type[cohere.Client] | type[cohere.ClientV2]) -> None:
    with client(api_key="any", base_url=sidecar.url) as asked:
        response = asked.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [result.index for result in response.results] == RANKED[:2]
    assert response.results[0].relevance_score > response.results[1].relevance_score


@pytest.mark.case("R21")
@pytest.mark.filterwarnings("ignore:The class `CohereRerank` was deprecated")
def test_langchains_document_compressor(sidecar: Process) -> None:
    compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors.cohere_rerank")
    document = pytest.importorskip("langchain_core.documents").Document
    with cohere.Client(api_key="any", base_url=sidecar.url) as client:
        compressor = compressors.CohereRerank(client=client, model="any", top_n=2)
        kept = compressor.compress_documents([document(page_content=text) for text in DOCUMENTS], QUERY)
    assert [each.page_content for each in kept] == [DOCUMENTS[index] for index in RANKED[:2]]
    assert kept[0].metadata["relevance_score"] > kept[1].metadata["relevance_score"]


@pytest.mark.case("R21")
def test_haystacks_ranker(sidecar: Process) -> None:
    """It asks for 4,096 tokens of each document."""
    rankers = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    haystack = pytest.importorskip("haystack")
    key = haystack.utils.Secret.from_token("any")
    ranker = rankers.CohereRanker(model="any", api_key=key, api_base_url=sidecar.url, top_k=2)
    ranked = ranker.run(query=QUERY, documents=[haystack.Document(content=text) for text in DOCUMENTS])["documents"]
    assert [each.content for each in ranked] == [DOCUMENTS[index] for index in RANKED[:2]]
    assert ranked[0].score > ranked[1].score
    # It never closes its connections: they go here, and not when a later test happens to collect garbage.
    del ranker
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.case("R21")
@pytest.mark.skipif(not LITELLM.is_file(), reason="`scripts/environment litellm` makes LiteLLM's own environment")
def test_litellm_by_all_of_its_providers(sidecar: Process) -> None:
    program = Path(litellm_client.__file__)
    asked = subprocess.run([LITELLM, program, sidecar.url], check=True, capture_output=True, text=True)
    assert json.loads(asked.stdout.splitlines()[-1]) == dict.fromkeys(litellm_client.PROVIDERS, RANKED[:2])


@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}])
def test_openais_embeddings(sidecar: Process, more: dict[str, Any]) -> None:
    """By default the client asks for base64 and decodes it itself."""
    with openai.OpenAI(api_key="any", base_url=f"{sidecar.url}/v1") as client:
        response = client.embeddings.create(model="any", input=["cat", "dog"], **more)
        models = list(client.models.list())
    assert [entry.embedding[WORDS.index(word)] for entry, word in zip(response.data, ("cat", "dog"), strict=True)] == [
        1,
        1,
    ]
    assert any(model.id.startswith("toy-encoder@") for model in models)


def test_hugging_faces_feature_extraction(sidecar: Process) -> None:
    with InferenceClient(model=f"{sidecar.url}/embed") as client:
        embedding = client.feature_extraction("cat")
    assert embedding.shape == (1, len(WORDS))
    assert embedding[0, WORDS.index("cat")] == 1


schema = schemathesis.openapi.from_dict(openapi.document())


@pytest.mark.slow
@pytest.mark.case("R1", "R2", "R6")
@schema.parametrize()
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_every_request_is_answered_as_the_openapi_document_says(case: schemathesis.Case[Any], sidecar: Process) -> None:
    case.call_and_validate(base_url=sidecar.url)
