"""Text before any model reads it: halves of surrogate pairs, a document's fields, passages, sentences, and the scripts
of words.

Pure, and shared: ingest embeds exactly the text that the proxy later hands to the cross-encoder.
"""

import hashlib
import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

import msgspec

from bridge.profile import PassageSettings
from bridge.records import Passage

T = TypeVar("T")

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""Text → character offsets `[start, end)` of its tokens, in order, without special tokens."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]|\n\s*")
_SENTENCE_CLOSERS = ".!?…:;。！？"
_SENTENCE_BREAK = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s++"  # no second search in a run of full stops, however long
    r"|[。！？｡।॥۔؟።။។][\"'”’」』）]*+\s*+"
    r"|\n\s*+"
)
"""Where a sentence may end, in the writing systems that mark it; Thai and Lao do not."""
_ABBREVIATIONS = re.compile(
    r"abs|al|approx|art|bzw|ca|capt|cf|co|col|corp|dr|etc|fig|figs|fr|gen|gov|hr|inc|jr|lt|ltd|mr"
    r"|mrs|ms|mt|no|nos|nr|op|pp|prof|rep|rev|sen|sgt|sr|sra|st|str|u|usw|vgl|vol|vs",
    re.IGNORECASE,
)
_WORD_CHARS = 20
"""Of what stands before a full stop, to tell whether it ends a sentence."""
_BEFORE_ORDINALS = frozenset(("ab", "am", "bis", "das", "dem", "den", "der", "des", "die", "im", "vom", "zum"))
"""In German, which writes what follows the number with a capital letter."""
_STRETCH_CHARS = 100_000
"""Longest text given to a tokenizer at once: their time and memory grow faster than the text does."""

KNOWN_SHARE = 0.001
"""Share of a vocabulary below which a script has letters in it but no words. (English BERT: Cyrillic 0.0003.)"""

_BYTE_LEVEL = "\u0120"
"""Stands for a space where a vocabulary holds bytes written as Latin letters, whatever script they belong to."""

_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")

_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\[\s\S]"  # any other escape: also of a backslash, behind which a `u` is only a letter
    rb"|(?P<raw>\xed[\xa0-\xbf][\x80-\xbf])"  # a half that was encoded like a character
)

_TOKEN = re.compile(rb'"(?:[^"\\]|\\[\s\S])*+"?|[\[{}\]]')
"""A string, or a bracket outside of one."""

READABLE_LEVELS = 150
"""Of JSON that is taken apart by recursion: Python follows a thousand calls, of which one level may take several."""

_UNDECODED = re.compile("[\udc80-\udcff]")
_BEFORE_UNDECODED = 0xDC00
"""What Python adds to a byte that is no UTF-8."""

DIGEST_DIGITS = 16
"""64 bits: among a billion documents, one wrong "unchanged" in 18 billion runs."""

_NUMBERS_AS_TEXT = json.JSONDecoder(parse_int=str, parse_float=str)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)

_MARKS = [chr(code).encode() for code in range(0x7FF, 0xA0, -1)]
"""Characters of two bytes in UTF-8, the rarest first."""


def enriched_text(texts: Mapping[str, str]) -> str:
    """Joins a document's text fields, in the mapping's order, as sentences: `title. body`.

    Empty fields are left out; a field that ends like a sentence gets no second full stop.
    """
    joined = ""
    for text in texts.values():
        if stripped := text.strip():
            separator = " " if joined.endswith(tuple(_SENTENCE_CLOSERS)) else ". "
            joined = f"{joined}{separator}{stripped}" if joined else stripped
    return joined


def text_digest(texts: Mapping[str, str]) -> str:
    """A hash of a document's texts, in the mapping's order: the second part of the document's stamp."""
    return digest(msgspec.json.encode(list(texts.values())))


def source_digest(source: bytes, names: Sequence[str]) -> str | None:
    """The `text_digest` of these fields of a document; None if they cannot be read."""
    try:
        return text_digest(texts_in(source, names))
    except (ValueError, RecursionError):
        return None


def digest_in_stamp(stamp: str) -> str:
    """The `text_digest` that a stamp (`ingest.stages.stamps`) holds."""
    return stamp.split(".", 2)[1].partition("-")[0] if "." in stamp else ""


def digest(content: bytes) -> str:
    """A hash of `DIGEST_DIGITS` hex digits."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]


def texts_in(source: bytes, names: Sequence[str]) -> dict[str, str]:
    """`field_texts` of a document in JSON, with numbers as they are written.

    Raises:
        ValueError: this is no JSON.
        RecursionError: it is nested too deeply.
    """
    if not any("." in name for name in names):
        # Most documents hold one string in each field: the others of their members need not be decoded.
        with suppress(msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError):
            members = _MEMBERS.decode(source)
            return {name: _STRING.decode(members[name]) for name in names}
    return field_texts(_NUMBERS_AS_TEXT.decode(as_utf_8(source).decode()), names)


def field_texts(values: Mapping[str, object], names: Sequence[str]) -> dict[str, str]:
    """The texts of the named fields of a document, in the order of `names`; empty if there is none.

    Several values (an array, or one field in several places) become lines of one text.
    """
    return {name: _as_text(list(values_at(values, name))) for name in names}


def first_text(values: Mapping[str, object], name: str | None) -> str | None:
    """The first text of the named field of a document; None if it has none, or no field is named."""
    return next(_strings(list(values_at(values, name))), None) if name is not None else None


def strings_in(source: bytes, names: Sequence[str]) -> dict[str, list[str]]:
    """The values of the named fields of a document in JSON, each by itself, with numbers as they are written.

    Raises:
        ValueError: this is no JSON.
        RecursionError: it is nested too deeply.
    """
    values = _NUMBERS_AS_TEXT.decode(as_utf_8(source).decode())
    return {name: list(_strings(list(values_at(values, name)))) for name in names}


def value_at(values: Mapping[str, object], name: str) -> object:
    """The value of a field with a dotted name; a list if there are several, None if there is none."""
    all_values = list(values_at(values, name))
    return all_values if len(all_values) > 1 else next(iter(all_values), None)


def values_at(values: Mapping[str, object], name: str) -> Iterator[object]:
    """All values of a field with a dotted name, in the document's order, as the cluster reads them: a key may hold any
    part of the name, dots included, and arrays of objects may be nested."""
    for key, value in values.items():
        if key == name:
            yield value
        elif name.startswith(f"{key}."):
            for inner in _objects(value):
                yield from values_at(inner, name[len(key) + 1 :])


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _objects(entry)


def _as_text(value: object) -> str:
    return "\n".join(_strings(value))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)


def sentences(text: str, max_chars: int) -> Iterator[tuple[int, int]]:
    """Character offsets `[start, end)` of the sentences of a text, in order, without the space around them.

    A longer one than `max_chars` is cut between words, a longer word anywhere. Initials, common abbreviations, German
    ordinals and the line breaks of wrapped text end no sentence; rather two of them stay together than one is torn.
    """
    start = 0
    for found in _SENTENCE_BREAK.finditer(text):
        if _ends_sentence(text, found):
            yield from _pieces(text, start, found.end(), max_chars)
            start = found.end()
    yield from _pieces(text, start, len(text), max_chars)


def _ends_sentence(text: str, mark: re.Match[str]) -> bool:
    following = text[mark.end() : mark.end() + 1]
    if mark[0][0] == "\n":
        return not following.islower()
    if mark[0].rstrip() != ".":
        return True
    before = text[max(mark.start() - _WORD_CHARS, 0) : mark.start()].split()
    word = before[-1].lstrip("([\"'“‘„«") if before else ""
    is_short = len(word) == 1 and word.isalpha()
    is_ordinal = word.isdecimal() and len(before) > 1 and before[-2].casefold() in _BEFORE_ORDINALS
    is_abbreviated = is_short or is_ordinal or "." in word or bool(_ABBREVIATIONS.fullmatch(word))
    return not (is_abbreviated or following.islower())


def _pieces(text: str, start: int, end: int, max_chars: int) -> Iterator[tuple[int, int]]:
    """The offsets of a stretch without the space around it, in pieces of at most `max_chars`."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    while end - start > max_chars:
        # What lies at the limit may be the space itself.
        cut = next((at for at in range(start + max_chars, start, -1) if text[at].isspace()), start + max_chars)
        stop = cut
        while text[stop - 1].isspace():
            stop -= 1
        yield start, stop
        start = cut
        while text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def split_passages(text: str, settings: PassageSettings, token_spans: TokenSpans) -> list[Passage]:
    """Splits a text into overlapping passages of whole sentences where they fit.

    A passage holds at most `max_tokens` tokens and begins at most `overlap_tokens` before the end of
    the one before it. A sentence longer than a passage is cut between words, a longer word between
    tokens. Layout single gives one passage, however long: the encoder reads its beginning.
    An empty or blank text has no passage.
    """
    if not text.strip():
        return []
    if settings.layout == "single":
        return [Passage(text, 0, len(text))]
    spans = list(_spans_by_stretch(text, token_spans))
    if len(spans) <= settings.max_tokens:
        return [Passage(text, 0, len(text))]
    return [
        Passage(text[start:end], start, end)
        for first, last in _windows(text, spans, settings.max_tokens, settings.overlap_tokens)
        for start, end in [(spans[first][0], spans[last - 1][1])]
    ]


def _spans_by_stretch(text: str, token_spans: TokenSpans) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < len(text):
        end = begin + _STRETCH_CHARS
        if end < len(text) and (blank := max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))) > begin:
            end = blank
        for start, stop in token_spans(text[begin:end]):
            yield begin + start, begin + stop
        begin = end


def _windows(
    text: str, spans: Sequence[tuple[int, int]], max_tokens: int, overlap_tokens: int
) -> Iterator[tuple[int, int]]:
    """Token ranges `[first, last)` of the passages; every token is in one at least."""
    token_starts = [start for start, _ in spans]
    ends_of_sentences = (match.end() for match in _SENTENCE_END.finditer(text))
    sentences = sorted({bisect_left(token_starts, end) for end in ends_of_sentences} - {0, len(spans)})
    words = [i for i in range(1, len(spans)) if spans[i][0] > spans[i - 1][1]]
    first = 0
    while first + max_tokens < len(spans):
        limit = first + max_tokens
        last = _last_between(sentences, first, limit) or _last_between(words, first, limit) or limit
        yield first, last
        overlap = max(last - overlap_tokens, first + 1)
        first = _first_between(sentences, overlap, last) or _first_between(words, overlap, last) or last
    yield first, len(spans)


def _last_between(boundaries: Sequence[int], low: int, high: int) -> int | None:
    """The last boundary in `(low, high]`."""
    found = bisect_right(boundaries, high) - 1
    return boundaries[found] if found >= 0 and boundaries[found] > low else None


def _first_between(boundaries: Sequence[int], low: int, high: int) -> int | None:
    """The first boundary in `[low, high]`."""
    found = bisect_left(boundaries, low)
    return boundaries[found] if found < len(boundaries) and boundaries[found] <= high else None


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

    A text in another script than a model's words is noise to it. The language of a few Latin letters is never certain,
    and a wrong guess would cost a search its stages; the script is certain. The gate finds out whether models know an
    index's language.

    Full-width and other forms of a letter count as the letter.
    """
    letters = [character for character in unicodedata.normalize("NFKC", text) if character.isalpha()]
    return bool(scripts) and 2 * sum(script_of(letter) not in scripts for letter in letters) > len(letters)


class NestedTooDeeply(msgspec.DecodeError, ValueError):
    """JSON of more levels than can be followed."""


def decode(body: bytes, kind: type[T]) -> T:
    r"""Decodes JSON as `msgspec.json.decode` does; halves of surrogate pairs become replacement characters.

    Clusters take and return them, Unicode and every decoder refuse them. They come from strings that were cut by UTF-16
    units, as JavaScript and Java do: `"Rain cape \ud83d"`.

    Raises:
        NestedTooDeeply: it has too many levels.
        msgspec.DecodeError: this is no JSON in UTF-8, or not a `kind`.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError as error:
        raise NestedTooDeeply("it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        readable = replace_lone_surrogates(body)
        if readable != body:
            return decode(readable, kind)
        if isinstance(error, UnicodeDecodeError):
            raise msgspec.DecodeError(f"it is not UTF-8: {error}") from error
        raise


def decode_answer(body: bytes, kind: type[T]) -> T:
    """`decode` for answers of a cluster: bytes that are no UTF-8 become replacement characters too, and values below
    `READABLE_LEVELS` strings.

    Nodes check how characters are encoded less strictly than decoders do, and return a document's bytes as they came.

    Raises:
        msgspec.DecodeError: this is no JSON, or not a `kind`.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode(decodable(as_utf_8(body))[0], kind)


def as_utf_8(body: bytes) -> bytes:
    """JSON with U+FFFD in place of each half of a surrogate pair, and of whatever else is no UTF-8."""
    return replace_lone_surrogates(body).decode("utf-8", "replace").encode()


def decodable(body: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """JSON that decoders take, and what gives any stretch of it its own bytes back.

    Characters that `body` does not hold stand for what decoders refuse: one for the backslash and the `u` of each
    escaped half of a pair, one before the digits of each byte that is no UTF-8, one before the number of each value
    below `READABLE_LEVELS`, which becomes a string.
    """
    marks = list(islice((mark for mark in _MARKS if mark not in body), 3))
    if len(marks) < 3:
        return as_utf_8(body), bytes
    half, byte, deep = marks
    text = _ESCAPE.sub(lambda escape: half + escape["half"][2:] if escape["half"] else escape[0], body)
    text = _UNDECODED.sub(
        lambda found: f"{byte.decode()}{ord(found[0]) - _BEFORE_UNDECODED:02x}", text.decode("utf-8", "surrogateescape")
    ).encode()
    parts: list[bytes] = []
    values: list[bytes] = []
    at = 0
    for start, end in deep_values(text, READABLE_LEVELS):
        parts += (text[at:start], b'"%b%d"' % (deep, len(values)))
        values.append(text[start:end])
        at = end
    of_value, of_byte = re.compile(b'"%b([0-9]+)"' % deep), re.compile(b"%b(..)" % byte)

    def restored(stretch: bytes) -> bytes:
        whole = of_value.sub(lambda found: values[int(found[1])], stretch).replace(half, b"\\u")
        return of_byte.sub(lambda found: bytes.fromhex(found[1].decode()), whole)

    return b"".join((*parts, text[at:])), restored


def deep_values(body: bytes, levels: int) -> Iterator[tuple[int, int]]:
    """Where the arrays and objects stand, `[start, end)`, that lie below so many levels of JSON, the outermost ones."""
    if body.count(b"{") + body.count(b"[") <= levels:
        return
    level = start = 0
    for token in _TOKEN.finditer(body):
        if token[0] in (b"{", b"["):
            level += 1
            start = token.start() if level == levels + 1 else start
        elif token[0] in (b"}", b"]"):
            if level == levels + 1:
                yield start, token.end()
            level -= 1
    if level > levels:
        yield start, len(body)


def changed(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """`change(body)`, for a change that decodes JSON and adds nothing to it; what cannot be decoded stays as it is.

    Raises:
        msgspec.DecodeError: as `change` does for a body that is no JSON.
    """
    try:
        return change(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        readable, restored = decodable(body)
        try:
            return restored(change(readable))
        except RecursionError as error:
            raise NestedTooDeeply("it is nested too deeply") from error


def replace_lone_surrogates(body: bytes) -> bytes:
    """JSON with U+FFFD in place of each half of a surrogate pair; every other byte stays, and so does the length."""
    # A pattern is looked for fifty times as long as a byte.
    if b"\\u" not in body and b"\xed" not in body:
        return body
    return _ESCAPE.sub(_replaced, body) if _SUSPECT.search(body) else body


def _replaced(escape: re.Match[bytes]) -> bytes:
    if escape["half"]:
        return b"\\ufffd"
    return b"\xef\xbf\xbd" if escape["raw"] else escape[0]
