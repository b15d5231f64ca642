"""`scripts/bench confidence COLLECTION...`: does a calibrated index know which questions it answers?

Nothing but documents makes the calibration: a generator predicts questions from some of them, and the questions about
everything else are those of the product. Then people ask: a collection's own queries, which it answers, and those of
the other collections, which it does not. In memory, every vector is compared; texts are cut to their beginnings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.errors import UsageError
from bridge.evaluation.calibration import NotCalibrated, auc, calibrated, far_questions
from bridge.evaluation.collections import load_collection, read_documents
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.profile import IndexProfile, Measurement, ModelReference
from bridge.search.fusion import confidence
from bridge.text import enriched_text

READ_CHARS = 1_500
QUESTION_TOKENS = 20
AT_ONCE = 16
SEED = 20_001

N_BINS = 5
"""Of probabilities, to compare with how often they were right."""


class Figures(msgspec.Struct, frozen=True):
    """Of one collection and encoder: AUC of the calibration's own questions, and of people's with its 95 % interval;
    how far probabilities are from frequencies on average (expected calibration error: Naeini, Cooper and Hauskrecht
    2015), None if there is no calibration; and the share of queries on the right side of one half."""

    own_auc: float
    auc: float
    low: float
    high: float
    error: float | None = None
    right: float | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """A collection's texts, the queries that people ask of it, and questions predicted from its documents."""

    name: str
    texts: Sequence[str]
    queries: Sequence[str]
    predicted: Sequence[str]

    @classmethod
    def of(
        cls, folder: Path, split: str, generator: QueryGenerator, n_documents: int | None, n_queries: int | None
    ) -> Self:
        """Reads the collection; its judged documents come first, so that its queries have their answers."""
        collection = load_collection(folder, split)
        judged = collection.judged.spread(n_queries)
        relevant = {doc_id for grades in judged.qrels.values() for doc_id, grade in grades.items() if grade > 0}
        documents = {
            doc_id: enriched_text({"title": title, "text": text})[:READ_CHARS]
            for doc_id, title, text in read_documents(collection.corpus)
        }
        ordered = sorted(documents, key=lambda doc_id: doc_id not in relevant)
        texts = [documents[doc_id] for doc_id in islice(ordered, n_documents)]
        chosen = np.random.default_rng(SEED).permutation(len(texts))[: len(judged.queries)]
        return cls(
            folder.name, texts, list(judged.queries.values()), list(_predicted(generator, texts, chosen.tolist()))
        )


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Whose queries.")
@click.option("--max-documents", type=click.IntRange(min=1), help="Of each collection; by default all.")
@click.option(
    "--max-queries", type=click.IntRange(min=1), default=100, show_default=True, help="Of each, evenly spread."
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    default=["embed-base", "embed-static"],
    show_default=True,
    help="Path or name; repeatable.",
)
@click.option("--generator", default="doc2query-small", show_default=True, help="Path or name.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...],
    split: str,
    max_documents: int | None,
    max_queries: int,
    encoders: tuple[str, ...],
    generator: str,
    as_json: bool,
) -> None:
    """Prints how well scores of vectors tell a collection's queries from those of the others, and how true the
    probabilities are."""
    if len(folders) < 2:
        raise UsageError("one collection: give another, whose queries the first does not answer")
    predicting = QueryGenerator.load(resolve(generator))
    grounds = [Ground.of(folder, split, predicting, max_documents, max_queries) for folder in folders]
    figures: dict[str, dict[str, Figures]] = {}
    for name in encoders:
        figures[name] = {}
        for ground, measured in measure(Encoder.load(resolve(name)), grounds):
            figures[name][ground.name] = measured
            click.echo(f"{name:<14} {ground.name:<16} {len(ground.texts):>6,} documents  {_in_words(measured)}")
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def measure(encoder: Encoder, grounds: Sequence[Ground]) -> Iterator[tuple[Ground, Figures]]:
    """The figures of each collection."""
    name, _, digest = encoder.identity.partition("@")
    profile = IndexProfile(text_fields=["text"], encoder=ModelReference(name, digest), dimension=encoder.dimension)
    queries = {ground.name: encoder.encode(ground.queries, "query") for ground in grounds}
    everything = encoder.encode(far_questions(), "query")
    for ground in grounds:
        documents = encoder.encode(ground.texts, "passage")
        others = np.concatenate([each for name, each in queries.items() if name != ground.name])
        asked: Mapping[str, NDArray[np.float32]] = {
            "own": queries[ground.name],
            "others": others,
            "predicted": encoder.encode(ground.predicted, "query"),
            "far": everything,
        }
        nearest = {kind: (each @ documents.T).max(axis=1).astype(np.float64) for kind, each in asked.items()}
        yield ground, _figures(profile, nearest)


def _figures(profile: IndexProfile, nearest: Mapping[str, NDArray[np.float64]]) -> Figures:
    of_people = auc(nearest["own"], nearest["others"])
    own = auc(nearest["predicted"], nearest["far"])
    figures = Figures(*(round(each, 3) for each in (own.mean, of_people.mean, of_people.low, of_people.high)))
    try:
        made = calibrated(profile, nearest["predicted"], nearest["far"], Measurement("predicted", 0, "AUC", ""))
    except NotCalibrated:
        return figures
    served = msgspec.structs.replace(profile, calibration=made)
    probabilities = [
        np.array([confidence(served, score) or 0.0 for score in nearest[kind]]) for kind in ("own", "others")
    ]
    return msgspec.structs.replace(
        figures,
        error=round(calibration_error(*probabilities), 3),
        right=round(float(np.mean([(probabilities[0] > 0.5).mean(), (probabilities[1] <= 0.5).mean()])), 3),
    )


def calibration_error(answered: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How far probabilities are from the frequency of answered questions, over five bins of equal width, both kinds
    of questions weighing alike."""
    error = 0.0
    for lowest in range(N_BINS):
        found, missed = (
            each[np.minimum((each * N_BINS).astype(int), N_BINS - 1) == lowest] for each in (answered, others)
        )
        shares = found.size / answered.size / 2, missed.size / others.size / 2
        mass = found.sum() / answered.size / 2 + missed.sum() / others.size / 2
        error += abs(shares[0] - float(mass))
    return error


def _predicted(generator: QueryGenerator, texts: Sequence[str], chosen: Sequence[int]) -> Iterator[str]:
    for start in range(0, len(chosen), AT_ONCE):
        batch = [texts[place] for place in chosen[start : start + AT_ONCE]]
        predicted = generator.generate(batch, n_queries=1, max_new_tokens=QUESTION_TOKENS, seed=SEED)
        yield from (query for queries in predicted for query in queries if query)


def _in_words(measured: Figures) -> str:
    told = f"AUC {measured.auc:.3f} [{measured.low:.3f}, {measured.high:.3f}], predicted {measured.own_auc:.3f}"
    if measured.error is None or measured.right is None:
        return f"{told}; no calibration"
    return f"{told}; error of probabilities {measured.error:.3f}, {measured.right:.1%} on the right side"
