"""The scripts in which texts are written: a text in another script than a model's words is noise to it.

The language of a few Latin letters is never certain, and a wrong guess would cost a search its stages; the script is
certain. The gate finds out whether models know an index's language.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

KNOWN_SHARE = 0.001
"""Share of a vocabulary below which a script has letters in it but no words. (English BERT: Cyrillic 0.0003.)"""

_BYTE_LEVEL = "\u0120"
"""Stands for a space where a vocabulary holds bytes written as Latin letters, whatever script they belong to."""


def script_of(letter: str) -> str:
    """The first word of the letter's Unicode name, in lower case: latin, cyrillic, cjk."""
    return unicodedata.name(letter, "unknown").partition(" ")[0].lower()


def scripts_of_words(words: Iterable[str]) -> list[str]:
    """Scripts of at least `KNOWN_SHARE` of the words that have several letters, sorted; none if the words are bytes."""
    counts: Counter[str] = Counter()
    for word in words:
        if word.startswith(_BYTE_LEVEL):
            return []
        letters = [character for character in word if character.isalpha()]
        scripts = {script_of(letter) for letter in letters}
        if len(letters) > 1 and len(scripts) == 1:
            counts[scripts.pop()] += 1
    return sorted(script for script, count in counts.items() if count >= KNOWN_SHARE * counts.total())


def is_foreign(text: str, scripts: Sequence[str]) -> bool:
    """Whether most letters of the text belong to none of these scripts; never if no script is named.

    Full-width and other forms of a letter count as the letter.
    """
    letters = [character for character in unicodedata.normalize("NFKC", text) if character.isalpha()]
    return bool(scripts) and 2 * sum(script_of(letter) not in scripts for letter in letters) > len(letters)
