"""`scripts/bench sentences FILE...`: does the chosen sentence of a paragraph hold the answer?

Files in SQuAD's JSON (version 1.1, as XQuAD has it): paragraphs, questions, and where an annotator marked the answer. A
sentence is right if it holds the whole of one answer. Models run in this process; texts are cut into sentences as the
proxy does.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import click
import msgspec
import numpy as np

from bridge.errors import UsageError
from bridge.evaluation.measures import bootstrap_interval
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.search.highlighting import MAX_SENTENCE_CHARS, WORDS_WEIGHT, scores_by_words, sentences_to_read

PAGE = 10
"""Hits of a page, of which each lacks a highlight."""
K1, B = 0.9, 0.4
_WORD = re.compile(r"\w+")


class _Squad(msgspec.Struct):
    class Article(msgspec.Struct):
        class Paragraph(msgspec.Struct):
            class Question(msgspec.Struct):
                class Answer(msgspec.Struct):
                    answer_start: int
                    text: str

                question: str
                answers: list[Answer]

            context: str
            qas: list[Question]

        paragraphs: list[Paragraph]
        title: str = ""

    data: list[Article]


class _Trained(msgspec.Struct):
    query: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the sentences of the paragraph that answers it, and which of them hold an answer."""

    question: str
    title: str
    sentences: Sequence[str]
    right: Sequence[bool]


class Figures(msgspec.Struct, frozen=True):
    """Of one way of choosing: the share of questions whose sentence is right, its 95 % interval, its difference from
    the first sentence with the paired interval, and the median time of a page of ten in milliseconds, None if nothing
    is computed."""

    right: float
    low: float
    high: float
    more_than_first: tuple[float, float, float]
    page_ms: float | None


Scores: TypeAlias = Callable[[Asked], Sequence[float]]
"""Scores of the sentences; the first of the highest is chosen."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=["rerank-base", "rerank-tiny"],
    show_default=True,
    help="Repeatable.",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    default=["embed-base", "embed-static"],
    show_default=True,
    help="Repeatable.",
)
@click.option("--max-questions", type=click.IntRange(min=1), help="Evenly spread; by default all.")
@click.option(
    "--leave-out",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="JSON lines with a `query` each: questions that models were trained on.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    files: tuple[Path, ...],
    rerankers: tuple[str, ...],
    encoders: tuple[str, ...],
    max_questions: int | None,
    leave_out: Path | None,
    as_json: bool,
) -> None:
    """Prints how often the sentence that each way chooses holds the answer, and what a page of ten hits takes."""
    figures: dict[str, dict[str, Figures]] = {}
    trained = frozenset(_queries(leave_out)) if leave_out else frozenset()
    for file in files:
        asked = [each for each in read(file) if each.question not in trained]
        if max_questions is not None and asked:
            step = max(len(asked) / max_questions, 1)
            asked = [asked[int(n * step)] for n in range(min(max_questions, len(asked)))]
        if not asked:
            raise UsageError(f"{file} has no question that is asked: expected SQuAD's JSON with answers")
        n_sentences = sum(len(each.sentences) for each in asked) / len(asked)
        click.echo(f"{file.name}: {len(asked):,} questions, {n_sentences:.1f} sentences in a paragraph")
        figures[file.name] = {}
        for name, measured in measure(asked, ways(asked, rerankers, encoders)):
            figures[file.name][name] = measured
            difference = "{:+.1%} [{:+.1%}, {:+.1%}]".format(*measured.more_than_first)
            page = "" if measured.page_ms is None else f"{measured.page_ms:6.1f} ms a page"
            click.echo(
                f"  {name:<36} {measured.right:6.1%} [{measured.low:.1%}, {measured.high:.1%}]  {difference:<26} {page}"
            )
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def read(file: Path) -> list[Asked]:
    """The questions of a file that have an answer.

    Raises:
        UsageError: it is not in SQuAD's JSON.
    """
    try:
        articles = msgspec.json.decode(file.read_bytes(), type=_Squad).data
    except msgspec.DecodeError as error:
        raise UsageError(f"{file} is not in SQuAD's JSON: {error}") from error
    asked: list[Asked] = []
    for article in articles:
        for paragraph in article.paragraphs:
            text = paragraph.context
            for each in paragraph.qas:
                spans = [(answer.answer_start, answer.answer_start + len(answer.text)) for answer in each.answers]
                found = sentences_to_read([text], max_chars=MAX_SENTENCE_CHARS, passage=None, query=each.question)
                right = [any(start <= first and last <= end for first, last in spans) for _, start, end in found]
                if spans:
                    texts = [text[start:end] for _, start, end in found]
                    asked.append(Asked(each.question, article.title.replace("_", " "), texts, right))
    return asked


def _queries(file: Path) -> Iterator[str]:
    for line in file.read_bytes().splitlines():
        yield msgspec.json.decode(line, type=_Trained).query


def ways(asked: Sequence[Asked], rerankers: Sequence[str], encoders: Sequence[str]) -> Iterator[tuple[str, Scores]]:
    """Each way of choosing by its name."""
    yield "BM25", _by_words(asked)
    for name in encoders:
        encoder = Encoder.load(resolve(name))
        yield name, partial(_by_vectors, encoder)
        encoder.close()
    for name in rerankers:
        reranker = CrossEncoder.load(resolve(name))
        for beside, texts in CONTEXTS.items():
            yield f"{name}{beside}", partial(_by_reading, reranker, texts)
        yield f"{name} and words, as the proxy does", partial(_as_the_proxy, reranker)
        reranker.close()


CONTEXTS: Mapping[str, Callable[[Asked], Sequence[str]]] = {
    "": lambda each: each.sentences,
    ", after the sentence before": lambda each: [
        " ".join(pair) for pair in zip(["", *each.sentences], each.sentences, strict=False)
    ],
    ", after the title": lambda each: [f"{each.title}. {sentence}" for sentence in each.sentences],
}
"""What a cross-encoder reads of each sentence."""


def _by_words(asked: Sequence[Asked]) -> Scores:
    """BM25 (k1 0.9, b 0.4) of words as they are, among the sentences of all paragraphs."""
    words_of = {text: _WORD.findall(text.casefold()) for each in asked for text in each.sentences}
    with_word = Counter(word for words in words_of.values() for word in set(words))
    rarity = {word: math.log(1 + (len(words_of) - n + 0.5) / (n + 0.5)) for word, n in with_word.items()}
    mean_length = sum(map(len, words_of.values())) / len(words_of)

    def score(question: Sequence[str], sentence: str) -> float:
        words = Counter(words_of[sentence])
        length = K1 * (1 - B + B * words.total() / mean_length)
        return sum(rarity[word] * words[word] / (words[word] + length) for word in question if word in words)

    def scores(each: Asked) -> Sequence[float]:
        question = _WORD.findall(each.question.casefold())
        return [score(question, sentence) for sentence in each.sentences]

    return scores


def _by_reading(reranker: CrossEncoder, texts: Callable[[Asked], Sequence[str]], each: Asked) -> Sequence[float]:
    scores: list[float] = reranker.score(each.question, texts(each)).tolist()
    return scores


def _as_the_proxy(reranker: CrossEncoder, each: Asked) -> Sequence[float]:
    logits = _by_reading(reranker, CONTEXTS[""], each)
    by_words = scores_by_words(each.question, each.sentences)
    return [logit + WORDS_WEIGHT * words for logit, words in zip(logits, by_words, strict=True)]


def _by_vectors(encoder: Encoder, each: Asked) -> Sequence[float]:
    [query], vectors = encoder.encode([each.question], "query"), encoder.encode(each.sentences, "passage")
    near: list[float] = (vectors @ query).tolist()
    return near


def measure(asked: Sequence[Asked], chosen_by: Iterator[tuple[str, Scores]]) -> Iterator[tuple[str, Figures]]:
    """The figures of the first sentence, and of each way."""
    first = np.array([each.right[0] for each in asked], dtype=np.float64)
    whole = bootstrap_interval(first)
    yield "the first sentence", Figures(whole.mean, whole.low, whole.high, (0.0, 0.0, 0.0), None)
    for name, scores in chosen_by:
        right, pages = [], []
        for start in range(0, len(asked), PAGE):
            page = asked[start : start + PAGE]
            began = time.perf_counter()
            scored = [scores(each) for each in page]
            pages.append((time.perf_counter() - began) * 1000)
            right += [each.right[int(np.argmax(found))] for each, found in zip(page, scored, strict=True)]
        values = np.array(right, dtype=np.float64)
        share, more = bootstrap_interval(values), bootstrap_interval(values - first)
        difference = (more.mean, more.low, more.high)
        yield name, Figures(share.mean, share.low, share.high, difference, round(float(np.median(pages)), 1))
