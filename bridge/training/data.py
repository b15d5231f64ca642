"""Reads pairs of query and passage, and sets how many of each source a model sees.

A training folder has `NAME.jsonl` or `NAME.jsonl.gz`; each line has `query`, `passage`, `title` (may be empty) and
`label` (1 relevant; 0 on topic, but no answer). Collections in the BEIR layout give pairs by their judgements.
"""

import gzip
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import msgspec

from bridge.errors import UsageError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A query, one passage, and whether the passage answers it."""

    query: str
    passage: str
    title: str
    relevant: bool
    source: str


@dataclass(frozen=True, slots=True)
class Source:
    """Use of one file of pairs.

    `domain`: passages of one domain are negatives for each other, so a negative differs in its answer and not in its
    style. `ranking_pairs` and `generation_pairs`: the most pairs per epoch of the cross-encoder and of the query
    generator. `trusted_cosine`: an unjudged passage closer to the query than this may be relevant and is no negative; 0
    for vague queries, which accept no passage closer than the judged one. `sentence_pairs`: the number of further
    passages whose own sentence becomes the query (see `sentence_queries`).
    """

    name: str
    domain: str
    ranking_pairs: int
    generation_pairs: int
    trusted_cosine: float
    licence: str
    sentence_pairs: int = 0


# Questions that people really asked come whole; templated and weak labels (a title, a
# heading) only in numbers that cannot drown them.
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("fairytaleqa", "stories", 6000, 8548, 0.7, "Apache-2.0"),
        Source("squad2-dev", "encyclopaedia", 6078, 6078, 0.75, "CC BY-SA 4.0"),
        Source("qed", "encyclopaedia", 1355, 1355, 0.75, "CC BY-SA 3.0"),
        Source("clapnq", "encyclopaedia", 600, 600, 0.75, "Apache-2.0"),
        Source("clapnq-answers", "encyclopaedia", 2254, 2254, 0.75, "Apache-2.0"),
        Source("nq-dev-gold", "encyclopaedia", 2655, 2655, 0.75, "CC BY-SA 3.0"),
        Source("boolq-dev", "encyclopaedia", 3270, 3270, 0.75, "CC BY-SA 3.0"),
        Source("selqa", "encyclopaedia", 2375, 2375, 0.75, "Apache-2.0, CC BY-SA 3.0"),
        Source("fool-me-twice", "statements", 25280, 2549, 0.75, "Apache-2.0, CC BY-SA 3.0"),
        Source("pubmedqa", "health", 1000, 1000, 0.8, "MIT"),
        Source("covid-qa", "health", 1380, 1380, 0.75, "Apache-2.0"),
        Source("medquad", "health", 3000, 3000, 0.8, "CC BY 4.0"),
        Source("azure-faq", "manuals", 181, 181, 0.75, "CC BY 4.0"),
        Source("gnome-help", "manuals", 607, 607, 0.75, "CC BY-SA 3.0"),
        Source("libreoffice-help-en-US", "manuals", 6696, 6696, 0.0, "MPL-2.0"),
        Source("docs-sections", "manuals", 5000, 8000, 0.0, "Apache-2.0, CC BY 4.0"),
        Source("tldr", "commands", 5000, 4000, 0.0, "CC BY 4.0"),
        Source("arxiv-2025-2026", "papers", 1500, 3000, 0.0, "CC0 metadata", sentence_pairs=2500),
        Source("arxiv-to-2017", "papers", 2000, 5000, 0.0, "CC0 metadata", sentence_pairs=3500),
        Source("scifact", "claims", 919, 919, 0.8, "CC BY 4.0, abstracts ODC-By"),
    )
}


def source_named(name: str) -> Source:
    """The known source of this name, or a source without limits and with its own domain."""
    return SOURCES.get(name) or Source(name, name, 10**9, 10**9, 0.75, "as given by its owner")


def write_value(value: object, file: Path) -> None:
    """Writes as JSON, gzipped if the name ends in `.gz`; `read_value` reads it back."""
    with gzip.open(file, "wb", compresslevel=3) if file.suffix == ".gz" else file.open("wb") as out:
        out.write(msgspec.json.encode(value))


def read_value(file: Path, kind: type[Value]) -> Value:
    with _opened(file) as content:
        return msgspec.json.decode(content.read(), type=kind)


def read_pairs(folder: Path) -> list[LabelledPair]:
    """All pairs of a training folder, ordered by file name and line.

    Raises:
        UsageError: there is no file of pairs, or a line is not a pair.
    """
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not files:
        raise UsageError(f"no training pairs in {folder}: expected NAME.jsonl or NAME.jsonl.gz")
    decoder = msgspec.json.Decoder(_PairLine)
    return [
        LabelledPair(
            query=line.query.strip(),
            passage=line.passage.strip(),
            title=line.title.strip(),
            relevant=line.label > 0,
            source=file.name.removesuffix(".gz").removesuffix(".jsonl"),
        )
        for file in files
        for line in _read_lines(file, decoder)
    ]


class _PairLine(msgspec.Struct):
    query: str
    passage: str
    title: str = ""
    label: int = 1


def _read_lines(file: Path, decoder: msgspec.json.Decoder[Value]) -> Iterator[Value]:
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise UsageError(f"{file}:{number}: {error}; expected one JSON object in each line") from error


def _opened(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


class _CorpusLine(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """A test collection in memory.

    `documents`: doc_id → (title, text); `queries`: query_id → text, only judged ones;
    `judgements`: query_id → doc_id → grade, relevant above 0.
    """

    name: str
    documents: Mapping[str, tuple[str, str]]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]


def read_corpus(file: Path) -> dict[str, tuple[str, str]]:
    """doc_id → (title, text) of a `corpus.jsonl` in BEIR's layout.

    Raises:
        UsageError: a line is not a document.
    """
    lines = _read_lines(file, msgspec.json.Decoder(_CorpusLine))
    return {line.id: (line.title.strip(), line.text.strip()) for line in lines}


def pairs_of(collection: JudgedCollection, *, held_out: int) -> list[LabelledPair]:
    """Relevant pairs of a collection, without its first `held_out` queries (by query_id), which are
    `development_queries`."""
    held = set(development_queries(collection, held_out))
    return [
        LabelledPair(
            query=collection.queries[query_id],
            passage=collection.documents[doc_id][1],
            title=collection.documents[doc_id][0],
            relevant=True,
            source=collection.name,
        )
        for query_id, grades in collection.judgements.items()
        if query_id not in held
        for doc_id, grade in grades.items()
        if grade > 0 and doc_id in collection.documents
    ]


def development_queries(collection: JudgedCollection, count: int) -> list[str]:
    """The query_ids that a training run evaluates on; the same on every run."""
    return sorted(collection.queries)[:count]


def sample_per_source(pairs: Iterable[LabelledPair], limits: Mapping[str, int], *, seed: int) -> list[LabelledPair]:
    """At most `limits[source]` pairs of each source, without replacement; all pairs of a source without a limit.

    Ordered by source, then as read, so equal seeds give equal samples.
    """
    by_source: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        by_source.setdefault(pair.source, []).append(pair)
    sampled: list[LabelledPair] = []
    for name in sorted(by_source):
        available = by_source[name]
        limit = limits.get(name, len(available))
        if limit < len(available):
            chosen = random.Random(f"{seed}:{name}").sample(range(len(available)), limit)
            available = [available[index] for index in sorted(chosen)]
        sampled.extend(available)
    return sampled


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_SENTENCE_WORDS = range(8, 36)
_LEAST_WORDS = 40


def sentence_queries(pairs: Iterable[LabelledPair], limits: Mapping[str, int], *, seed: int) -> list[LabelledPair]:
    """Pairs of a sentence and the rest of its passage: a claim and the text that supports it (inverse cloze task, Lee
    et al. 2019). At most `limits[source]` of each source.

    The sentence is from the passage's second half, which usually states results. Passages are skipped if fewer than 40
    words remain, or if no sentence in that half has 8 to 35 words.
    """
    made: list[LabelledPair] = []
    for pair in sample_per_source(pairs, limits, seed=seed):
        sentences = _SENTENCE_END.split(pair.passage)
        chosen = random.Random(f"{seed}:{pair.passage}")
        late = range(len(sentences) // 2, len(sentences))
        eligible = [number for number in late if len(sentences[number].split()) in _SENTENCE_WORDS]
        if not eligible:
            continue
        place = chosen.choice(eligible)
        rest = " ".join(sentence for number, sentence in enumerate(sentences) if number != place)
        if len(rest.split()) >= _LEAST_WORDS:
            made.append(replace(pair, query=sentences[place], passage=rest))
    return made
