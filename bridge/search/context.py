"""Which of the passages that a search found fit into a language model's context: no more tokens than it has room for,
and none twice."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_ALIKE = 0.7
"""Two passages of a larger resemblance are near-duplicates."""

_SHINGLE_CHARS = 8
_COMPARED_CHARS = 4_000
"""Of a passage: whole documents may be a thousand times as long, and differ at their beginning or not at all."""

_TOKEN = re.compile(r"[A-Za-z]{1,3}|[0-9]{1,2}|[^\sA-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The passages that fit: by their places in the list given, with their text, which is the beginning of the passage.

    `tokens`: of all of them. `near_duplicates`, `beyond_budget`: how many passages were left out, by reason.
    """

    texts: dict[int, str]
    tokens: int
    near_duplicates: int
    beyond_budget: int


def n_tokens(text: str) -> int:
    """An estimate of a text's tokens, on the safe side for prose in the vocabularies of common models: one for each
    three letters of a word's from A to Z, one for each two digits, and one for each other character that is no space.
    """
    return sum(1 for _ in _TOKEN.finditer(text))


def choose(texts: Sequence[str], *, max_passages: int, max_tokens: int) -> Chosen:
    """The first of `texts`, best first, of no more than `max_tokens` by `n_tokens` together.

    A text that is nearly one before it is left out (Broder 1997, "On the resemblance and containment of documents"),
    and so is one that does not fit; only if the best one does not fit, it is cut to what does.
    """
    chosen: dict[int, str] = {}
    shingles: list[set[str]] = []
    near_duplicates = beyond_budget = 0
    left = max_tokens
    for place, text in enumerate(texts):
        if len(chosen) == max_passages:
            break
        of_text = _shingles(text)
        if any(_resemblance(of_text, other) > MOST_ALIKE for other in shingles):
            near_duplicates += 1
            continue
        if not chosen:
            text = cut(text, left)
        if (tokens := n_tokens(text)) > left or not text:
            beyond_budget += 1
            continue
        chosen[place] = text
        shingles.append(of_text)
        left -= tokens
    return Chosen(chosen, max_tokens - left, near_duplicates, beyond_budget)


def cut(text: str, max_tokens: int) -> str:
    """The beginning of a text that has no more tokens, if possible up to the end of a word."""
    for n, token in enumerate(_TOKEN.finditer(text)):
        if n == max_tokens:
            whole_words = re.match(r".*\s", text[: token.start()], re.DOTALL)
            return (whole_words[0] if whole_words else text[: token.start()]).rstrip()
    return text


def _shingles(text: str) -> set[str]:
    """Overlapping pieces of the text, whatever its case and spaces: words would not do for scripts without spaces."""
    plain = " ".join(text[:_COMPARED_CHARS].casefold().split())
    return {plain[start : start + _SHINGLE_CHARS] for start in range(max(len(plain) - _SHINGLE_CHARS + 1, 1))}


def _resemblance(one: set[str], other: set[str]) -> float:
    """The share of their pieces that both texts have."""
    return len(one & other) / len(one | other)
