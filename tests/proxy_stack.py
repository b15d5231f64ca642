"""The proxy and a real sidecar with toy models in one background thread, before a cluster given by address."""

import asyncio
import re
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import code_of, dialect_of, vector_bytes
from bridge.cluster.schema import fitted, new_index
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.profile import IndexProfile, ModelReference, PassageSettings, SparseSettings, companion_of
from bridge.proxy.server.app import running
from bridge.settings import ClusterSettings, CompanionSettings, ProxySettings, Settings, SidecarSettings
from bridge.text import enriched_text, split_passages, text_digest
from rerank_server.app import Sidecar
from rerank_server.models import Models
from tests.toys import make_toy_cross_encoder, make_toy_encoder, make_toy_sparse_encoder

PREFIX = CompanionSettings().prefix

NESTED = PassageSettings(layout="nested", max_tokens=8, overlap_tokens=0)
"""Passages so short that a document of two sentences has two."""


@dataclass(frozen=True)
class ProxyStack:
    """`url` is the proxy's; `encoder` and `sparse_encoder` are those that the sidecar serves first."""

    url: str
    admin_url: str
    encoder: Encoder
    sidecar_url: str = ""
    sparse_encoder: SparseEncoder | None = None

    def profile(self, **more: Any) -> IndexProfile:
        """A profile of documents with `title` and `body`, for the toy models."""
        name, _, digest = self.encoder.identity.partition("@")
        given: dict[str, Any] = {
            "text_fields": ["title", "body"],
            "encoder": ModelReference(name, digest),
            "generator": ModelReference("by-hand", "0" * 12),
            "dimension": self.encoder.dimension,
        }
        return IndexProfile(**given | more)

    def enriched(
        self,
        document: dict[str, Any],
        predicted_queries: Sequence[str],
        *,
        nested: bool,
        object_field: str = "_neural",
        vectors: bool = True,
        weighed: bool = False,
    ) -> dict[str, Any]:
        """The document with the bridge's object; `weighed` with terms, too."""
        text = enriched_text({"title": document["title"], "body": document["body"]})
        settings = NESTED if nested else PassageSettings()
        passages = split_passages(text, settings, lambda each: [match.span() for match in re.finditer(r"\w+", each)])
        unit = self.encoder.encode([passage.text for passage in passages], role="passage")
        embeddings, code = (
            vector_bytes(unit).tolist(),
            b64encode(code_of(unit, {}, self.profile(codes="planes"))).decode(),
        )
        stamp = f"recipe.{text_digest({name: document[name] for name in ('title', 'body')})}"
        ours: dict[str, Any] = {"predicted_queries": list(predicted_queries), "stamp": stamp}
        if vectors:
            ours["code"] = code
        if vectors and nested:
            ours["passages"] = [
                {"embedding": embedding, "start": passage.start, "end": passage.end}
                for passage, embedding in zip(passages, embeddings, strict=True)
            ]
        elif vectors:
            [ours["embedding"]] = embeddings
        if weighed:
            ours["terms"] = [self.terms([passage.text for passage in passages])]
        return {**document, object_field: ours}

    def sparse(self, **more: Any) -> SparseSettings:
        """How documents get terms by the toy sparse encoder."""
        assert self.sparse_encoder is not None
        name, _, digest = self.sparse_encoder.identity.partition("@")
        return SparseSettings(ModelReference(name, digest), **more)

    def terms(self, passages: Sequence[str]) -> dict[str, float]:
        """A document's terms: each has the largest weight that a passage gives it."""
        assert self.sparse_encoder is not None
        terms: dict[str, float] = {}
        for of_passage in self.sparse_encoder.encode(passages):
            terms |= {term: max(weight, terms.get(term, 0.0)) for term, weight in of_passage.items()}
        return terms

    def fill(
        self,
        client: OpenSearch,
        index: str,
        documents: Mapping[str, tuple[dict[str, Any], Sequence[str]]],
        *,
        properties: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **profile: Any,
    ) -> None:
        """Creates the index and writes documents with their predicted queries."""
        dialect = dialect_of(capabilities(client))
        made = fitted(self.profile(**profile), dialect)
        body = new_index(made, dialect, properties=properties, settings=settings)
        client.indices.create(index=index, body=body)
        nested = made.passages.layout == "nested"
        lines: list[dict[str, Any]] = []
        for doc_id, (document, predicted) in documents.items():
            enriched = self.enriched(
                document,
                predicted,
                nested=nested,
                object_field=made.object_field,
                vectors=made.has_vectors,
                weighed=made.has_terms,
            )
            lines += [{"index": {"_id": doc_id}}, enriched]
        if lines:
            answer = client.bulk(index=index, body=lines, refresh=True)
            assert not answer["errors"], answer

    def fill_beside(
        self,
        client: OpenSearch,
        index: str,
        documents: Mapping[str, tuple[dict[str, Any], Sequence[str]]],
        *,
        properties: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **profile: Any,
    ) -> None:
        """Creates the index as an application does that knows nothing of the bridge, and its companion."""
        texts = {name: {"type": "text", "analyzer": "english"} for name in ("title", "body")}
        mapping = {"properties": {**texts, **(properties or {})}}
        client.indices.create(index=index, body={"settings": settings or {}, "mappings": mapping})
        lines: list[dict[str, Any]] = []
        for doc_id, (document, _) in documents.items():
            lines += [{"index": {"_id": doc_id}}, document]
        client.bulk(index=index, body=lines, refresh=True)
        state = indices.find(client, index)
        assert state is not None
        made = companion.create(client, state, self.profile(**profile), PREFIX).profile
        assert made is not None
        self.enrich_beside(
            client,
            index,
            documents,
            nested=made.passages.layout == "nested",
            vectors=made.has_vectors,
            weighed=made.has_terms,
        )

    def enrich_beside(
        self,
        client: OpenSearch,
        index: str,
        documents: Mapping[str, tuple[dict[str, Any], Sequence[str]]],
        *,
        nested: bool = False,
        vectors: bool = True,
        weighed: bool = False,
    ) -> None:
        """Writes what is made of these documents to the index's companion."""
        lines: list[dict[str, Any]] = []
        for doc_id, (document, predicted) in documents.items():
            texts = {name: document[name] for name in ("title", "body")}
            enriched = self.enriched(texts, predicted, nested=nested, vectors=vectors, weighed=weighed)
            enriched["_neural"]["id"] = doc_id
            lines += [{"index": {"_id": doc_id}}, enriched]
        answer = client.bulk(index=companion_of(index, PREFIX), body=lines, refresh=True)
        assert not answer["errors"], answer


@contextmanager
def proxy_stack(
    cluster: ClusterSettings, folder: Path, *, more_encoders: Sequence[Encoder] = (), **proxy: Any
) -> Iterator[ProxyStack]:
    """A proxy before `cluster` while the block runs; `proxy` are settings of the proxy."""
    for name in ("encoder", "cross_encoder", "sparse_encoder"):
        (folder / name).mkdir(exist_ok=True)
    toy = resolve(str(make_toy_cross_encoder(folder / "cross_encoder").path))
    models = Models(
        cross_encoder=CrossEncoder.load(toy, threads=1),
        cascade=CrossEncoder.load(toy, threads=1),
        encoder=Encoder.load(resolve(str(make_toy_encoder(folder / "encoder").path)), threads=1),
        more_encoders=tuple(more_encoders),
        sparse_encoders=(
            SparseEncoder.load(resolve(str(make_toy_sparse_encoder(folder / "sparse_encoder").path)), threads=1),
        ),
    )
    [sparse_encoder] = models.sparse_encoders
    loop = asyncio.new_event_loop()
    started: list[ProxyStack] = []
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(Sidecar(SidecarSettings(), models).application(), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sidecar_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        given = {"port": 0, "admin_port": 0, "sidecar_url": sidecar_url, "shutdown_timeout_s": 1, **proxy}
        try:
            async with running(Settings(cluster=cluster, proxy=ProxySettings(**given))) as running_proxy:
                urls = running_proxy.url, running_proxy.admin_url
                started.append(ProxyStack(*urls, models.encoder, sidecar_url, sparse_encoder))
                ready.set()
                await stop.wait()
        finally:
            ready.set()
            await runner.cleanup()

    def run() -> None:
        loop.run_until_complete(serve())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(30)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
