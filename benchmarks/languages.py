"""`scripts/bench languages COLLECTION...`: an index in another language, with the bridge's own models and with others.

In memory, over the node's own BM25 with the analyser of the language that the texts look like; exact vectors, no
predicted queries. Searches in a script that a model does not read pass, as the proxy lets them. The gate decides as
`neural-bridge gate` does, for each half of the queries by the other half, so that no query is judged by itself.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from benchmarks.models import PROFILE
from benchmarks.plain_index import BOTH, LUCENE, fill, search, values
from bridge.cluster.connection import connect
from bridge.errors import UsageError
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.gate import MEASURE, TOLERANCE, judge
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import Evaluation, bootstrap_interval
from bridge.evaluation.memory import Corpus
from bridge.evaluation.stages import StageResult, StageRun
from bridge.languages import LANGUAGES, languages_of
from bridge.model_servers.client import ModelServer
from bridge.model_servers.shapes import Role, embed_api
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.protocols import Encoder as AnyEncoder
from bridge.models.protocols import Scorer
from bridge.models.tokenization import load_tokenizer
from bridge.node.node import EmbeddedNode
from bridge.profile import Measurement, Stage
from bridge.records import Hit, RankedHit
from bridge.settings import ClusterSettings, load_settings
from bridge.text import enriched_text, is_foreign, scripts_of_words

INDEX = "bench-languages"
SERVED_AT_ONCE = 32
SERVER_TIMEOUT_S = 300.0

_OTHER_HALF = Measurement("the other half", 0, MEASURE, "")

Rankings: TypeAlias = Mapping[str, Sequence[Hit | RankedHit]]


class Figures(msgspec.Struct, frozen=True):
    """nDCG@10 of one way of ranking, and its difference from BM25 with the paired 95 % interval. `stages`: where the
    gate lets a search stop, for each half of the queries; None if nothing is gated."""

    ndcg: float
    difference: tuple[float, float, float]
    stages: list[Stage] | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Models that read an index: an encoder, perhaps a cross-encoder, and the scripts of their words."""

    name: str
    encoder: AnyEncoder
    scripts: Sequence[str]
    scorer: Scorer | None = None

    @property
    def stages(self) -> list[Stage]:
        """What comes after BM25, in the order of measurement."""
        return ["hybrid", "smoothing", "rerank"] if self.scorer else ["hybrid", "smoothing"]


class Served:
    """An encoder behind a server of OpenAI's shape, which knows its two roles by two names."""

    def __init__(self, url: str, models: Mapping[Role, str]) -> None:
        self._server = ModelServer(url, timeout_s=SERVER_TIMEOUT_S)
        self._apis = {role: embed_api("openai", model=model, prompt=None) for role, model in models.items()}
        self.dimension = self.encode(["a"]).shape[1]

    def encode(self, texts: Sequence[str], role: Role = "query") -> NDArray[np.float32]:
        """Embeddings: float32, (n_texts, dimension), rows of unit length, input order."""
        api, rows = self._apis[role], list[list[float]]()
        for start in range(0, len(texts), SERVED_AT_ONCE):
            body = api.body(list(texts[start : start + SERVED_AT_ONCE]), role, model=None)
            rows += self._server.read("", body, api.embeddings)
        made = np.array(rows, dtype=np.float32)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=2), default=300, show_default=True, help="Evenly spread.")
@click.option("--encoder", default="embed-base", show_default=True, help="The bridge's own: path or name.")
@click.option("--reranker", default="rerank-base", show_default=True, help="Path or name; reads after --encoder.")
@click.option("--other", "others", multiple=True, help="Encoder that reads more languages: path or name; repeatable.")
@click.option("--server", help="Address of such an encoder in OpenAI's shape, with the path, in place of a folder.")
@click.option("--server-models", default="query,passage", show_default=True, help="Its names for queries and texts.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...],
    split: str,
    max_queries: int,
    encoder: str,
    reranker: str,
    others: tuple[str, ...],
    server: str | None,
    server_models: str,
    as_json: bool,
) -> None:
    """Prints nDCG@10 of BM25, of the bridge with its own models as they are and gated, and of other encoders, gated."""
    readers = [_local(encoder, CrossEncoder.load(resolve(reranker))), *map(_local, others)]
    if server is not None:
        query, _, passage = server_models.partition(",")
        if not passage:
            raise UsageError(f"--server-models {server_models}: give two names, as query,passage")
        readers.append(Reader(query, Served(server, {"query": query, "passage": passage}), []))
    figures: dict[str, dict[str, Figures]] = {}
    with EmbeddedNode.owned(INDEX, load_settings().node) as node, connect(ClusterSettings(url=node.url)) as client:
        for folder in folders:
            ground = Ground.of(client, load_collection(folder, split), max_queries)
            click.echo(f"{folder.name}: {ground.looks}; {len(ground.judged.queries)} queries")
            figures[folder.name] = {}
            for name, measured in measure(ground, readers):
                figures[folder.name][name] = measured
                click.echo(f"  {name:<44} {_in_words(measured)}")
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def _local(name: str, scorer: Scorer | None = None) -> Reader:
    folder = resolve(name)
    return Reader(name, Encoder.load(folder), scripts_of_words(load_tokenizer(folder).words), scorer)


@dataclass(frozen=True, slots=True)
class Ground:
    """A collection, and what BM25 with the analyser of its language found; `looks`: which language, in words."""

    documents: Mapping[str, str]
    judged: JudgedQueries
    lexical: Mapping[str, Sequence[Hit]]
    looks: str

    @classmethod
    def of(cls, client: OpenSearch, collection: Collection, max_queries: int | None) -> "Ground":
        """Asks BM25, in an index that is gone afterwards.

        Raises:
            UsageError: nobody knows the language of the texts.
        """
        documents = {
            doc_id: enriched_text({"title": title, "text": text})
            for doc_id, title, text in read_documents(collection.corpus)
        }
        shares = languages_of(documents.values())
        if not shares:
            raise UsageError(f"{collection.name}: its texts are in no language of bridge.languages")
        code, share = next(iter(shares.items()))
        language = LANGUAGES[code]
        judged = collection.judged.spread(max_queries)
        fill(client, INDEX, collection.corpus, bm25=LUCENE, analyzer=language.analyzer)
        lexical = search(client, INDEX, judged.queries, multi_match([BOTH]))
        client.indices.delete(index=INDEX)
        looks = f"{len(documents):,} documents, {share:.1%} look {language.name}, analyser {language.analyzer}"
        return cls(documents, judged, lexical, looks)


def measure(ground: Ground, readers: Sequence[Reader]) -> Iterator[tuple[str, Figures]]:
    """Each way of ranking with its figures; for each reader the hybrid ranking as it is, and what the gate makes of
    its stages."""
    lexical = values(ground.judged, ground.lexical)
    yield "BM25", Figures(round(float(lexical.mean()), 4), (0.0, 0.0, 0.0))
    documents = {doc_id: [text] for doc_id, text in ground.documents.items()}
    for reader in readers:
        corpus = Corpus(documents, ground.judged.queries, ground.lexical, PROFILE, index=INDEX)
        vectors = corpus.embed(reader.encoder)
        by_stage = {}
        for stage in reader.stages:
            rankings = corpus.rank(stage, vectors, reader.scorer)
            by_stage[stage] = values(ground.judged, _passed(ground, reader, rankings))
        yield f"{reader.name}, hybrid, whatever the gate says", _figures(by_stage["hybrid"], lexical)
        gated, stages = cross_gated({"lexical": lexical, **by_stage})
        yield f"{reader.name}, gated", msgspec.structs.replace(_figures(gated, lexical), stages=stages)


def _passed(ground: Ground, reader: Reader, rankings: Rankings) -> Rankings:
    """The rankings, with BM25's of the queries that the reader's models cannot read."""
    return {
        query_id: ground.lexical[query_id] if is_foreign(text, reader.scripts) else rankings[query_id]
        for query_id, text in ground.judged.queries.items()
    }


def cross_gated(by_stage: Mapping[Stage, NDArray[np.float64]]) -> tuple[NDArray[np.float64], list[Stage]]:
    """The measure of each query at the stage that the gate chooses by the other half of the queries; and the stages
    that it chose for the two halves."""
    n_queries = len(next(iter(by_stage.values())))
    even = np.arange(n_queries) % 2 == 0
    gated, chosen = np.zeros(n_queries), list[Stage]()
    for half in (even, ~even):
        results = [_result(stage, measured[~half]) for stage, measured in by_stage.items()]
        verdicts = judge(
            results, tolerance=TOLERANCE, measurement=JudgedQueries("", {}, {}).measurement(MEASURE)
        ).verdicts
        last = [verdict.stage for verdict in verdicts if verdict.enabled][-1]
        gated[half] = by_stage[last][half]
        chosen.append(last)
    return gated, chosen


def _result(stage: Stage, measured: NDArray[np.float64]) -> StageResult:
    run = StageRun(stage, {}, np.zeros(measured.size))
    return StageResult(stage, run, Evaluation([str(n) for n in range(measured.size)], {MEASURE: measured}), None)


def _figures(own: NDArray[np.float64], lexical: NDArray[np.float64]) -> Figures:
    difference = bootstrap_interval(own - lexical)
    return Figures(round(float(own.mean()), 4), (difference.mean, difference.low, difference.high))


def _in_words(figures: Figures) -> str:
    difference = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*figures.difference)
    stages = "" if figures.stages is None else f"  stops at {', '.join(dict.fromkeys(figures.stages))}"
    return f"{figures.ndcg:.3f}  {difference}{stages}"
