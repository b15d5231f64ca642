"""`scripts/bench typing COLLECTION...`: queries with one typing error, and suggestions while a query is typed.

One word of each query gets an error, chosen by the query's id: a letter is left out, added, replaced, or swapped with
the next. The correct and the misspelt queries are searched as today and with repair. Suggestions come from 100,000
predicted queries, which are made: words that follow each other in the first collection's documents, after a question
word.
"""

import json
import random
import re
import statistics
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from benchmarks.collapse import PAGE, enrich, fill, first_documents, groups_of, hits_of, query
from benchmarks.companion import remembering
from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect, exchange
from bridge.commands import progress_display
from bridge.console import Display
from bridge.evaluation.collections import load_collection
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval, evaluate
from bridge.evaluation.stack import FIELDS, NODE_START_TIMEOUT_S, MeasuredIndex, own_index
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, ModelReference, companion_of
from bridge.settings import ClusterSettings, Settings, load_settings
from bridge.text import text_digest
from ingest.stages.models import Models, load_models, profile_for

STAGES = ("lexical", "expansion", "hybrid", "rerank")
"""lexical: the application's own query, which no repair touches; expansion: the bridge's search by text alone."""
WAYS = ("in place", "beside")
N_PREDICTED, PER_DOCUMENT = 100_000, 5
TYPED, WARM = 500, 50
"""Requests for suggestions that are measured, and those before."""
SEED = 32
_BULK_DOCUMENTS = 1_000

_CONTENT = re.compile(r"[A-Za-z]{4,}")
_FUNCTION_WORDS = frozenset(
    [
        "about",
        "also",
        "been",
        "being",
        "between",
        "both",
        "does",
        "down",
        "during",
        "each",
        "from",
        "have",
        "having",
        "here",
        "into",
        "just",
        "more",
        "most",
        "much",
        "must",
        "only",
        "other",
        "over",
        "same",
        "should",
        "some",
        "such",
        "than",
        "that",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "under",
        "until",
        "very",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "whom",
        "whose",
        "will",
        "with",
        "would",
        "your",
    ]
)
_QUESTION_WORDS = ("what is", "how does", "why is", "where are", "which", "who made")


class Figures(msgspec.Struct):
    """Of one stage, nDCG@10: of the correct queries and of the misspelt ones (`typed`) as today, of these repaired, and
    of the correct ones with repair on; with the paired differences of the last three from the value before them
    (`harmless` from `correct`) and their 95 % intervals. The last two are None for a stage without repair."""

    correct: float
    typed: float
    lost: tuple[float, float, float]
    repaired: float | None = None
    gained: tuple[float, float, float] | None = None
    harmless: float | None = None
    changed: tuple[float, float, float] | None = None


class Latency(msgspec.Struct):
    """Milliseconds of a request for suggestions at the client, and how many suggestions came on average."""

    p50_ms: float
    p95_ms: float
    suggestions: float


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), default=100, show_default=True, help="Evenly spread.")
@click.option("--max-documents", type=click.IntRange(min=1), help="The first of the collection; by default all.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(folders: tuple[Path, ...], split: str, max_queries: int, max_documents: int | None, as_json: bool) -> None:
    """Prints nDCG@10 of correct and misspelt queries, with and without repair, and the latency of suggestions."""
    settings, display = load_settings(node={"start_timeout_s": NODE_START_TIMEOUT_S}), progress_display()
    figures: dict[str, dict[str, Figures]] = {}
    latencies: dict[str, Latency] = {}
    with ExitStack() as running:
        node = running.enter_context(EmbeddedNode.owned("typing-benchmark", settings.node))
        settings = settings.model_copy(update={"cluster": ClusterSettings(url=node.url)})
        client = running.enter_context(connect(settings.cluster))
        models = remembering(load_models(settings.ingest))
        for folder in folders:
            collection = load_collection(folder, split)
            documents = first_documents(collection, max_documents)
            judged = collection.judged.of_index(collection.name, documents).spread(max_queries)
            name = f"{collection.name.lower()}-typing"
            fill(client, name, documents, made=lambda title, text: [{"title": title, "text": text}])
            enrich(client, name, models, settings, beside=False, display=display)
            with own_index(name, settings, display, config_file=None) as index:
                typed = misspelt(judged.queries)
                click.echo(f"{name}: {len(documents):,} documents, {len(typed)} queries with an error")
                figures[collection.name] = {stage: measure(index, judged, typed, stage, display) for stage in STAGES}
            _show(figures[collection.name])
        first = load_collection(folders[0], split)
        for way in WAYS:
            texts = first_documents(first, max_documents)
            latencies[way] = latency(client, texts, models, settings, beside=way == "beside", display=display)
            _show_latency(way, latencies[way])
    if as_json:
        measured = {"queries": figures, "suggestions": latencies}
        click.echo(json.dumps(msgspec.to_builtins(measured, str_keys=True)))


def misspelt(queries: Mapping[str, str]) -> dict[str, str]:
    """The queries that have a content word, each with one error in one."""
    typed = {query_id: with_error(words, random.Random(f"{SEED}:{query_id}")) for query_id, words in queries.items()}
    return {query_id: words for query_id, words in typed.items() if words is not None}


def with_error(text: str, chance: random.Random) -> str | None:
    """The text with one error in one of its content words, wherever in the word; None if it has none."""
    words = [match for match in _CONTENT.finditer(text) if match[0].lower() not in _FUNCTION_WORDS]
    if not words:
        return None
    word = chance.choice(words)
    wrong = word[0]
    while wrong == word[0]:
        place, letter = chance.randrange(len(word[0]) - 1), chance.choice(string.ascii_lowercase)
        before, here, following, after = word[0][:place], word[0][place], word[0][place + 1], word[0][place + 2 :]
        errors = {
            "left out": before + following + after,
            "added": before + letter + here + following + after,
            "replaced": before + letter + following + after,
            "swapped": before + following + here + after,
        }
        wrong = errors[chance.choice(sorted(errors))]
    return text[: word.start()] + wrong + text[word.end() :]


def measure(
    index: MeasuredIndex, judged: JudgedQueries, typed: Mapping[str, str], stage: str, display: Display
) -> Figures:
    """The figures of a stage."""
    qrels = {query_id: judged.qrels[query_id] for query_id in typed}
    correct = {query_id: judged.queries[query_id] for query_id in typed}
    controls = {"today": stage} if stage == "lexical" else {"today": stage, "repair": f"{stage}, repair"}
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    with display.progress(f"Search {index.name}, {stage}", 2 * len(controls) * len(typed)) as show:
        n = 0
        for how, control in controls.items():
            for kind, queries in (("correct", correct), ("typed", typed)):
                run: dict[str, list[str]] = {}
                for query_id, words in queries.items():
                    run[query_id] = groups_of(hits_of(index.proxy, index.name, {**query(words), "size": PAGE}, control))
                    n += 1
                    show(n)
                values[how, kind] = evaluate(qrels, run, ["nDCG@10"]).values["nDCG@10"]
    today, lost = values["today", "correct"], values["today", "typed"]
    figures = Figures(float(today.mean()), float(lost.mean()), _difference(lost - today))
    if "repair" not in controls:
        return figures
    repaired, harmless = values["repair", "typed"], values["repair", "correct"]
    return msgspec.structs.replace(
        figures,
        repaired=float(repaired.mean()),
        gained=_difference(repaired - lost),
        harmless=float(harmless.mean()),
        changed=_difference(harmless - today),
    )


def _difference(values: NDArray[np.float64]) -> tuple[float, float, float]:
    estimate = bootstrap_interval(values)
    return estimate.mean, estimate.low, estimate.high


def latency(
    client: OpenSearch,
    documents: Mapping[str, tuple[str, str]],
    models: Models,
    settings: Settings,
    *,
    beside: bool,
    display: Display,
) -> Latency:
    """How long suggestions take from an index of `N_PREDICTED` made predicted queries."""
    name = f"suggestions-{'beside' if beside else 'in-place'}"
    profile = msgspec.structs.replace(profile_for(models, FIELDS), generator=ModelReference("made", "0" * 12))
    written = list(islice(_made(documents), N_PREDICTED // PER_DOCUMENT))
    with display.step(f"Write {N_PREDICTED:,} predicted queries, {'beside' if beside else 'in place'}"):
        _write(client, name, written, profile, settings.companion.prefix if beside else None)
    chance = random.Random(SEED)
    queries = [query for _, _, predicted in written for query in predicted]
    typed = [each[: chance.randrange(1, len(each))] for each in chance.sample(queries, TYPED + WARM)]
    applications = {"proxy": {"suggest": "applications"}}
    times: list[float] = []
    counts: list[int] = []
    with own_index(name, settings, display, config_file=None, servers=applications) as index:
        for each in typed:
            started = time.perf_counter()
            answer = exchange(index.proxy, "GET", f"/_bridge/suggest?{urlencode({'index': name, 'prefix': each})}")
            times.append((time.perf_counter() - started) * 1000)
            if answer.status != 200:
                raise click.ClickException(f"suggestions of {name}: status {answer.status}: {answer.body.decode()}")
            counts.append(len(json.loads(answer.body)["suggestions"]))
    measured = sorted(times[WARM:])
    return Latency(
        round(statistics.median(measured), 1),
        round(measured[len(measured) * 95 // 100], 1),
        round(statistics.fmean(counts[WARM:]), 1),
    )


def _made(documents: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Title and text of documents, the same again and again, each time with other predicted queries."""
    chance = random.Random(SEED)
    for title, text in cycle(documents.values()):
        words = re.findall(r"\w+", text) or [title or "nothing"]
        predicted: list[str] = []
        for _ in range(PER_DOCUMENT):
            start = chance.randrange(len(words))
            predicted.append(" ".join([chance.choice(_QUESTION_WORDS), *words[start : start + chance.randrange(3, 8)]]))
        yield title, text, predicted


def _write(
    client: OpenSearch,
    name: str,
    documents: Sequence[tuple[str, str, list[str]]],
    profile: IndexProfile,
    prefix: str | None,
) -> None:
    """Makes the index, and with `prefix` its companion: as enriched ones, without vectors in the documents."""
    properties = {field: {"type": "text", "analyzer": "english"} for field in FIELDS}
    shards = {"number_of_shards": 1, "number_of_replicas": 0}
    if prefix is None:
        indices.create(client, name, profile, properties=properties, settings=shards)
    else:
        client.indices.create(index=name, body={"settings": shards, "mappings": {"properties": properties}})
        state = indices.find(client, name)
        if state is None:
            raise click.ClickException(f"index {name} is not there")
        companion.create(client, state, profile, prefix)
    for start in range(0, len(documents), _BULK_DOCUMENTS):
        own: list[dict[str, Any]] = []
        ours: list[dict[str, Any]] = []
        for n, (title, text, predicted) in enumerate(documents[start : start + _BULK_DOCUMENTS], start):
            texts = dict(zip(FIELDS, (title, text), strict=True))
            made = {"predicted_queries": predicted, "stamp": f"made.{text_digest(texts)}"}
            action = {"index": {"_id": str(n)}}
            own += [action, texts if prefix is not None else {**texts, profile.object_field: made}]
            ours += [action, {**texts, profile.object_field: {**made, "id": str(n)}}]
        _bulk(client, name, own)
        if prefix is not None:
            _bulk(client, companion_of(name, prefix), ours)
    client.indices.refresh(index=name if prefix is None else f"{name},{companion_of(name, prefix)}")


def _bulk(client: OpenSearch, name: str, lines: Sequence[dict[str, Any]]) -> None:
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    if client.bulk(index=name, body=body, params={"filter_path": "errors"})["errors"]:
        raise click.ClickException(f"index {name} refused documents")


def _show(figures: Mapping[str, Figures]) -> None:
    click.echo(f"  {'stage':<10} {'queries':<22} {'nDCG@10':>8} {'of correct':>11} {'difference':>26}")
    for stage, each in figures.items():
        rows: list[tuple[str, float | None, tuple[float, float, float] | None]] = [
            ("correct", each.correct, None),
            ("misspelt", each.typed, each.lost),
            ("misspelt, repaired", each.repaired, each.gained),
            ("correct, with repair", each.harmless, each.changed),
        ]
        for name, value, difference in rows:
            if value is not None:
                share = f"{value / each.correct:.1%}" if each.correct else "-"
                told = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*difference) if difference else ""
                click.echo(f"  {stage:<10} {name:<22} {value:>8.4f} {share:>11} {told:>26}")


def _show_latency(way: str, each: Latency) -> None:
    click.echo(
        f"suggestions from {N_PREDICTED:,} made predicted queries, {way}: median {each.p50_ms} ms, 95 % within "
        f"{each.p95_ms} ms, {each.suggestions} suggestions on average"
    )
