"""`scripts/bench expansion COLLECTION...`: which predicted queries help BM25 most, and what they should weigh.

Each collection is read, its queries are predicted once per amount and kept in a file, and every choice (how
many, which share of them by the filter's score, new words only) becomes an index of an embedded node. The
judged queries are put to it as the expansion leg puts them, with several weights.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect, exchange
from bridge.errors import IngestError
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection
from bridge.evaluation.measures import evaluate
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.search import legs
from bridge.search.request import SearchRequest, parse
from bridge.settings import ClusterSettings, IngestSettings, load_settings
from bridge.text import enriched_text, split_passages
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.json_bytes import with_key
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models, load_models, profile_for

FIELDS = ["title", "text"]
MEASURE = "nDCG@10"
INDEX = "bench-expansion"
PREDICTIONS = Path("var/expansion")
_BULK = 500
_PASSAGES = 64
"""Documents of one request, and passages of one call of the generator."""


class Choice(NamedTuple):
    """`n_queries` predicted per passage; of all of them the `share` with the best scores; `new_terms_only`."""

    n_queries: int
    share: float
    new_terms_only: bool

    def __str__(self) -> str:
        share = f", the best {self.share:.0%}" if self.share < 1 else ""
        return f"{self.n_queries} a passage{share}{', new words only' if self.new_terms_only else ''}"


class Prediction(msgspec.Struct):
    """The queries of one passage, and their scores where a filter model was named."""

    passage: str
    queries: list[str]
    scores: list[float]


class Predicted:
    """Predictions as a generator and as a filter: what `Expansion` asks models for."""

    def __init__(self, predictions: Sequence[Prediction], share: float) -> None:
        """`share` 1 keeps all."""
        self._by_passage = {prediction.passage: prediction for prediction in predictions}
        scores = [score for prediction in predictions for score in prediction.scores]
        self._threshold = float(np.quantile(scores, 1 - share)) if share < 1 else -np.inf

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """See `ingest.expansion.QueryGenerator`."""
        return [self._kept(self._by_passage[passage]) for passage in passages]

    def _kept(self, prediction: Prediction) -> list[str]:
        if self._threshold == -np.inf:
            return prediction.queries
        ranked = sorted(zip(prediction.scores, prediction.queries, strict=True), reverse=True)
        return [query for score, query in ranked if score >= self._threshold]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--documents", type=click.IntRange(min=1), help="Take only so many documents, judged ones first.")
@click.option("--queries", "amounts", multiple=True, type=click.IntRange(min=1), default=[3, 6], show_default=True)
@click.option("--share", "shares", multiple=True, type=click.FloatRange(0, 1), default=[1.0], show_default=True)
@click.option("--boost", "boosts", multiple=True, type=float, default=[0.25, 1.0, 2.0, 3.0, 4.0], show_default=True)
@click.option("--generator", help="Generator: path or built-in.")
@click.option("--filter-model", help="Cross-encoder that scores predictions; a share below 1 needs one.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...],
    split: str,
    documents: int | None,
    amounts: tuple[int, ...],
    shares: tuple[float, ...],
    boosts: tuple[float, ...],
    generator: str | None,
    filter_model: str | None,
    as_json: bool,
) -> None:
    """Prints, per collection and choice, what each weight gains over BM25 alone."""
    if min(shares) < 1 and not filter_model:
        raise click.UsageError("--share below 1: name the model that scores predictions with --filter-model")
    given = {"generator": generator, "filter_model": filter_model}
    settings = load_settings(ingest=given).ingest
    models = load_models(settings)
    figures: dict[str, Any] = {}
    with (
        EmbeddedNode.owned("bench-expansion", load_settings().node) as node,
        connect(ClusterSettings(url=node.url)) as client,
    ):
        for folder in folders:
            collection = load_collection(folder, split)
            gains = _Gains(client, collection, models, settings, documents)
            click.echo(
                f"{collection.name}: {len(gains.documents):,} documents, BM25 {gains.lexical:.4f}; weights {boosts}"
            )
            found = figures[collection.name] = {"bm25": gains.lexical, "gains": {}}
            for choice in map(Choice._make, product(amounts, shares, (False, True))):
                values = found["gains"][str(choice)] = gains.of(choice, boosts)
                click.echo(f"  {choice}: " + " ".join(f"{value:+.4f}" for value in values.values()))
    if as_json:
        click.echo(json.dumps(figures))


class _Gains:
    """What choices gain over BM25 alone on one collection."""

    def __init__(
        self,
        client: OpenSearch,
        collection: Collection,
        models: Models,
        settings: IngestSettings,
        n_documents: int | None,
    ) -> None:
        """`n_documents` None takes all of the collection, else so many, judged ones first."""
        self._client = client
        self._name = collection.name
        self._judged = collection.judged
        self._models = models
        self._settings = settings
        self._planned = profile_for(models, FIELDS)
        self._split = partial(split_passages, settings=self._planned.passages, token_spans=models.token_spans)
        judged = {doc_id for grades in self._judged.qrels.values() for doc_id in grades}
        source = FileDocuments([str(collection.corpus)], FieldChoice(FIELDS), max_doc_bytes=settings.max_doc_bytes)
        found = [item for item in source.items() if isinstance(item, Document)]
        self.documents = sorted(found, key=lambda document: document.doc_id not in judged)[:n_documents]
        self.lexical = self._measured(self._filled([[] for _ in self.documents]), legs.lexical)

    def of(self, choice: Choice, boosts: Sequence[float]) -> dict[float, float]:
        """The gain of each weight."""
        expand = Expansion(
            self._split,
            Predicted(self._predictions(choice.n_queries), choice.share),
            n_queries=choice.n_queries,
            max_query_tokens=self._settings.max_query_tokens,
            max_bytes=self._settings.max_expansion_bytes,
            new_terms_only=choice.new_terms_only,
        )
        profile = self._filled([expanded.predicted_queries for expanded in expand(self.documents)])
        weighed = {boost: msgspec.structs.replace(profile, expansion_boost=boost) for boost in boosts}
        return {boost: round(self._measured(each, legs.expansion) - self.lexical, 4) for boost, each in weighed.items()}

    def _predictions(self, n_queries: int) -> list[Prediction]:
        """Read from the file of an earlier run, or made."""
        generator, reference = self._models.generator, self._models.generator_reference
        if generator is None or reference is None:
            raise IngestError("there is no generator: name one with --generator")
        scorer = self._models.scorer
        kind = Path(self._settings.filter_model or "unfiltered").name
        file = PREDICTIONS / f"{self._name}-{len(self.documents)}-{n_queries}-{reference.identity}-{kind}.jsonl"
        if file.is_file():
            return [msgspec.json.decode(line, type=Prediction) for line in file.read_bytes().splitlines()]
        passages = [
            passage.text for document in self.documents for passage in self._split(enriched_text(document.texts))
        ]
        predictions = []
        for begin in range(0, len(passages), _PASSAGES):
            batch = passages[begin : begin + _PASSAGES]
            predicted = generator.generate(
                batch, n_queries=n_queries, max_new_tokens=self._settings.max_query_tokens, seed=0
            )
            for passage, queries in zip(batch, predicted, strict=True):
                scores = [float(scorer.score(query, [passage])[0]) for query in queries] if scorer else []
                predictions.append(Prediction(passage, queries, scores))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))
        return predictions

    def _filled(self, queries: Sequence[Sequence[str]]) -> IndexProfile:
        """An index of the documents with these predicted queries; its profile as proxies would read it."""
        if indices.find(self._client, INDEX) is not None:
            indices.delete(self._client, INDEX)
        indices.create(self._client, INDEX, self._planned, settings={"index.number_of_replicas": 0})
        lines = [
            msgspec.json.encode({"index": {"_id": document.doc_id}})
            + b"\n"
            + with_key(document.body, "_neural", msgspec.json.encode({"predicted_queries": list(predicted)}))
            + b"\n"
            for document, predicted in zip(self.documents, queries, strict=True)
        ]
        for begin in range(0, len(lines), _BULK):
            answer = self._client.bulk(index=INDEX, body=b"".join(lines[begin : begin + _BULK]))
            if answer["errors"]:
                raise IngestError(f"{self._name}: documents were refused, so the figures would mean nothing")
        self._client.indices.refresh(index=INDEX)
        return indices.look(self._client, INDEX).profile or self._planned

    def _measured(self, profile: IndexProfile, leg: Callable[[SearchRequest, IndexProfile], Any]) -> float:
        """The mean of the measure over all judged queries; what the bridge leaves alone is searched as it is."""
        body_of = multi_match(FIELDS)
        bodies = []
        for text in self._judged.queries.values():
            body = json.dumps(body_of(text)).encode()
            request = parse(body, "", text_fields=FIELDS, object_field=profile.object_field, rules=profile.rules)
            bodies.append(leg(request, profile) if isinstance(request, SearchRequest) else json.loads(body))
        answer = exchange(self._client, "POST", "/_msearch", body=legs.msearch(bodies, {"index": INDEX}))
        found = [response["hits"]["hits"] for response in msgspec.json.decode(answer.body)["responses"]]
        run = {
            query_id: [hit["_id"] for hit in hits] for query_id, hits in zip(self._judged.queries, found, strict=True)
        }
        return round(evaluate(self._judged.qrels, run, [MEASURE]).mean(MEASURE), 4)
