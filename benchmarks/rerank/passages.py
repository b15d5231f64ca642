"""What is reranked: stretches of the Python language reference, which comes with every interpreter."""

import random
from pydoc_data.topics import topics

import numpy as np

QUERY = "what happens when an exception is raised inside a with statement"

MEDIAN_WORDS, LENGTH_SPREAD, MOST_WORDS = 38, 0.6, 350
"""Lengths as passages have them: many short ones, few long ones; 80 tokens on average."""


def passages(n_passages: int, *, seed: int = 20) -> list[str]:
    """Stretches with lengths drawn from a log-normal distribution; the same for the same seed and Python."""
    chosen = random.Random(seed)
    words = " ".join(topics[name] for name in sorted(topics)).split()
    texts = []
    for _ in range(n_passages):
        n_words = min(MOST_WORDS, int(chosen.lognormvariate(np.log(MEDIAN_WORDS), LENGTH_SPREAD)) + 3)
        start = chosen.randrange(len(words) - n_words)
        texts.append(" ".join(words[start : start + n_words]))
    return texts


def sections() -> tuple[list[str], dict[str, set[int]]]:
    """Paragraph-sized passages of the whole reference, and questions that some of them answer: the heading of each
    topic, answered by the topic's passages (their own headings cut off). For collections at hand only."""
    texts: list[str] = []
    answers: dict[str, set[int]] = {}
    for name in sorted(topics):
        heading, _, body = topics[name].partition("\n")
        words = body.strip("*=-~\n ").split()
        first = len(texts)
        texts += [" ".join(words[start : start + MOST_WORDS // 3]) for start in range(0, len(words), MOST_WORDS // 3)]
        answers.setdefault(heading.strip(' "'), set()).update(range(first, len(texts)))
    return texts, answers
