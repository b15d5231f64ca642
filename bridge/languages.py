"""Which language texts are in, by their writing system and their commonest words; and what reads it.

Whole texts are told apart, not queries: a query of three words has no language that is certain. Counting function words
is the oldest way (Ingle 1976), and enough for the texts of an index: `scripts/bench languages` prints its share.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from bridge.text import script_of

READ_CHARS = 2_000
"""Of each text."""
LEAST_SHARE = 0.04
"""Of a text's words, weighed: below it the language is none of these."""
LEAST_LEAD = 1.2
"""How many times the share of the second language the first must have."""

MOSTLY = 0.5
MULTILINGUAL = "multilingual"
"""What cards of models say beside their languages, or instead of them."""
EXAMPLE = "intfloat/multilingual-e5-small"

_WORD = re.compile(r"[^\W\d_]+")
_KANA_SHARE = 0.05
"""Of the letters: Japanese is mostly written in Chinese characters, and never without kana."""


class Language(NamedTuple):
    """`name` in English; `analyzer`: the engines' own for it; `words` of which a text has many; for languages that are
    alone in their script, none are needed."""

    name: str
    analyzer: str
    words: str = ""


LANGUAGES: Mapping[str, Language] = {
    "ar": Language("Arabic", "arabic", "في من على أن إلى التي عن مع هذا هذه كان الذي لا ما أو بين"),
    "bg": Language("Bulgarian", "bulgarian", "и на в от за да се с не е че по са като или може при това който до"),
    "ca": Language(
        "Catalan", "catalan", "de la el i a les que en els un per amb una del és no al es més com són dels o"
    ),
    "cs": Language(
        "Czech", "czech", "a v se na je že s z do o k i jako pro jsou ale by tak po nebo které byl podle jeho"
    ),
    "da": Language(
        "Danish", "danish", "og i at det som en på er af for med til den har de ikke om et der kan fra du eller"
    ),
    "de": Language(
        "German", "german", "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch wird"
    ),
    "el": Language("Greek", "greek"),
    "en": Language(
        "English", "english", "the of and to in is that for it with as was on are by this be from at which or"
    ),
    "es": Language(
        "Spanish", "spanish", "de la que el en y a los del se las por un para con no una su al lo como más o"
    ),
    "fa": Language("Persian", "persian", "و در به از که این را با است برای آن یک می بر تا شما خود هم"),
    "fi": Language(
        "Finnish", "finnish", "ja on ei että se oli hän mutta kun myös ovat joka tai jos niin ole sen voit kuin"
    ),
    "fr": Language(
        "French", "french", "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se"
    ),
    "he": Language("Hebrew", "standard"),
    "hi": Language("Hindi", "hindi"),
    "hu": Language(
        "Hungarian", "hungarian", "a az és hogy nem is egy meg volt de ez csak mint már el vagy azt kell ha"
    ),
    "id": Language(
        "Indonesian", "indonesian", "yang dan di dari untuk dengan ini pada adalah dalam tidak ke akan anda itu"
    ),
    "it": Language(
        "Italian", "italian", "di e il la che in a per un è del della una con non sono da le si dei nel alla"
    ),
    "ja": Language("Japanese", "cjk"),
    "ko": Language("Korean", "cjk"),
    "nl": Language(
        "Dutch", "dutch", "de van het een en in is dat op te zijn met voor niet aan er om ook als maar uit door"
    ),
    "no": Language(
        "Norwegian", "norwegian", "og i at det som en på er av for med til den har de ikke om et du kan fra eller"
    ),
    "pl": Language(
        "Polish", "standard", "i w na z do się nie jest to że o jak od po przez dla są oraz lub można aby jej"
    ),
    "pt": Language(
        "Portuguese", "portuguese", "de a o que e do da em um para é com não uma os no se na por mais as dos ou"
    ),
    "ro": Language(
        "Romanian", "romanian", "și de în la a cu pe care nu este din pentru o mai sunt un al să ce sau dacă au"
    ),
    "ru": Language("Russian", "russian", "и в не на что с он по как это из но а к у его за от для или был были чтобы"),
    "sv": Language(
        "Swedish", "swedish", "och i att det som en på är av för med till den har de inte om ett du kan från"
    ),
    "th": Language("Thai", "thai"),
    "tr": Language(
        "Turkish", "turkish", "ve bir bu da de için ile olarak çok daha olan gibi en veya ne kadar sonra her"
    ),
    "uk": Language("Ukrainian", "standard", "і в не на що з він до як це та а у його за від для або є які якщо"),
    "vi": Language(
        "Vietnamese", "standard", "của và là có trong được cho không một các người để với này từ bạn khi hoặc"
    ),
    "zh": Language("Chinese", "cjk"),
}
"""By the two letters of ISO 639-1."""

_ALONE = {"cjk": "zh", "devanagari": "hi", "greek": "el", "hangul": "ko", "hebrew": "he", "thai": "th"}
"""The language of a script that others of `LANGUAGES` do not use."""


def _weights() -> dict[str, dict[str, float]]:
    """Word → language → weight: a word that several languages have counts less."""
    having = Counter(word for language in LANGUAGES.values() for word in set(language.words.split()))
    weights: dict[str, dict[str, float]] = {}
    for code, language in LANGUAGES.items():
        for word in set(language.words.split()):
            weights.setdefault(word, {})[code] = 1 / having[word]
    return weights


_WEIGHTS = _weights()


def language_of(text: str) -> str | None:
    """The text's language as a key of `LANGUAGES`; None if it has too few words, or is in none of them."""
    beginning = text[:READ_CHARS]
    scripts = Counter(script_of(letter) for letter in beginning if letter.isalpha())
    if not scripts:
        return None
    if scripts["hiragana"] + scripts["katakana"] > _KANA_SHARE * scripts.total():
        return "ja"
    if (alone := _ALONE.get(scripts.most_common(1)[0][0])) is not None:
        return alone
    words = [word.casefold() for word in _WORD.findall(beginning)]
    shares = dict.fromkeys(LANGUAGES, 0.0)
    for word in words:
        for code, weight in _WEIGHTS.get(word, {}).items():
            shares[code] += weight / len(words)
    [best, next_best] = sorted(shares, key=lambda code: -shares[code])[:2]
    share, second = shares[best], shares[next_best]
    return best if share >= LEAST_SHARE and share >= LEAST_LEAD * second else None


def languages_of(texts: Iterable[str], *, most: int = 1_000) -> dict[str, float]:
    """The share of texts in each language, the largest first; texts whose language is not known count in none."""
    known = [language for text in islice(texts, most) if (language := language_of(text)) is not None]
    return {code: n / len(known) for code, n in Counter(known).most_common()}


def unread_language(texts: Iterable[str], read: Sequence[str], model: str) -> str | None:
    """What to tell of texts that are mostly in a language which `model` does not read; None if it reads them, or if
    nobody says what it reads. `read`: its languages, also `multilingual`."""
    if not read or MULTILINGUAL in read:
        return None
    [(code, share)] = [*languages_of(texts).items(), ("", 0.0)][:1]
    if share < MOSTLY or code in read:
        return None
    reads = ", ".join(LANGUAGES[each].name if each in LANGUAGES else each for each in read)
    return (
        f"texts look {LANGUAGES[code].name} ({share:.0%} of those whose language is known), and {model} reads {reads}: "
        f"name an encoder that reads them, such as {EXAMPLE}, or let `neural-bridge gate` find out whether "
        f"vectors help"
    )
