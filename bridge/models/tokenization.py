"""Texts → token ids, cut before and after.

A tokenizer reads the whole text even when it keeps 256 tokens of it (one megabyte costs up to 1.6 s), so
characters are cut first.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Encoding, Tokenizer

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder

CHARACTERS_PER_TOKEN = 32
"""Characters kept for each token that will be: English needs 4 to 5, so only runs of spaces or of
meaningless characters lose anything that the model would have read."""

INPUT_NAMES = frozenset({"input_ids", "attention_mask", "token_type_ids"})

TokenArrays = dict[str, NDArray[np.int64]]
"""One sequence as a model takes it: arrays of shape (1, n_tokens) under `INPUT_NAMES`."""


class TextTokenizer:
    """A folder's tokenizer with the model's limit. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, prompt: Sequence[str] = ()) -> None:
        """Takes truncation and padding over from the tokenizer: its own settings for them are dropped.

        `prompt`: what a model that reads pairs as one text wants before the query, between it and the passage, and
        after; without it, pairs are joined as the tokenizer joins two texts.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._prompt = [tokenizer.encode(part, add_special_tokens=False) for part in prompt]
        self.max_tokens = max_tokens

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    @property
    def special_ids(self) -> list[int]:
        """Ids that stand for no text: of padding, unknown words, a text's beginning and end."""
        added: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        return [number for number, token in added.items() if token.special]

    @property
    def words(self) -> list[str]:
        """Every entry of the vocabulary, in no order."""
        return list(self._tokenizer.get_vocab(with_added_tokens=False))

    @property
    def pieces(self) -> list[str]:
        """The vocabulary in the order of its ids, added tokens included."""
        return [self._tokenizer.id_to_token(number) or "" for number in range(self.vocabulary_size)]

    def sequences(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[TokenArrays]:
        """Each text alone, special tokens added, cut to `max_tokens` (by default the model's limit)."""
        return [_arrays(self._finished(encoding, None)) for encoding in self._encodings(texts, max_tokens)]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text without special tokens, cut as in `sequences`."""
        return [encoding.ids for encoding in self._encodings(texts, None)]

    def pairs(self, query: str, passages: Sequence[str], *, max_tokens: int | None = None) -> list[TokenArrays]:
        """The query beside each passage, as one sequence of at most `max_tokens`.

        The query, tokenised once, keeps at most half of the room; the passage takes what is left.
        """
        limit, room = self._limit_and_room(max_tokens)
        if self._prompt:  # at whose seams some tokenizers make a token of a space
            query, passages = query.strip(), [passage.strip() for passage in passages]
        bounded_query = _bounded(query, limit)
        query_part = _cut(self._tokenizer.encode(bounded_query, add_special_tokens=False), room // 2)
        encodings = self._tokenizer.encode_batch_fast(
            [_bounded(passage, limit) for passage in passages], add_special_tokens=False
        )
        left = room - len(query_part.ids)
        return [_arrays(self._joined(query_part, _cut(encoding, left))) for encoding in encodings]

    def query_room(self, *, max_tokens: int | None = None) -> int:
        """Tokens that a query may have beside a passage: see `pairs`."""
        return self._limit_and_room(max_tokens)[1] // 2

    def passage_room(self, query: str, *, max_tokens: int | None = None) -> int:
        """Tokens that a passage may have beside `query`, at least one: see `pairs`."""
        limit, room = self._limit_and_room(max_tokens)
        return max(1, room - min(room // 2, len(self.token_offsets(query[: limit * CHARACTERS_PER_TOKEN]))))

    def beginning(self, text: str, *, max_tokens: int) -> str:
        """The first `max_tokens` tokens of `text`, as text."""
        bounded = text[: max_tokens * CHARACTERS_PER_TOKEN]
        offsets = self.token_offsets(bounded)
        return bounded[: offsets[max_tokens - 1][1]] if len(offsets) > max_tokens else bounded

    def is_longer(self, text: str, max_tokens: int) -> bool:
        """Whether `text` has more than `max_tokens` tokens, or so many characters that it would be cut unread."""
        longest = max_tokens * CHARACTERS_PER_TOKEN
        return len(text) > longest or len(self.token_offsets(text)) > max_tokens

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character offsets `[start, end)` of each token of the whole text, no special tokens."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(_encodable(text), add_special_tokens=False).offsets
        return offsets

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _encodings(self, texts: Sequence[str], max_tokens: int | None) -> list[Encoding]:
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        room = limit - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        encodings = self._tokenizer.encode_batch_fast(
            [_bounded(text, limit) for text in texts], add_special_tokens=False
        )
        return [_cut(encoding, room) for encoding in encodings]

    def _limit_and_room(self, max_tokens: int | None) -> tuple[int, int]:
        """Tokens of a whole pair, and those of them that query and passage share."""
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        around = self._tokenizer.num_special_tokens_to_add(is_pair=not self._prompt)
        return limit, limit - around - sum(len(part.ids) for part in self._prompt)

    def _joined(self, query: Encoding, passage: Encoding) -> Encoding:
        if not self._prompt:
            return self._finished(query, passage)
        before, between, after = self._prompt
        return self._finished(Encoding.merge([before, query, between, passage, after], growing_offsets=False), None)

    def _finished(self, first: Encoding, second: Encoding | None) -> Encoding:
        return self._tokenizer.post_process(first, second, add_special_tokens=True)


def load_tokenizer(folder: ModelFolder) -> TextTokenizer:
    """Opens a verified folder's `tokenizer.json`.

    Raises:
        ModelError: it is no tokenizer of the `tokenizers` library.
    """
    file = folder.tokenizer_file
    try:
        tokenizer = Tokenizer.from_buffer(file.read_bytes())
    except Exception as error:  # the binding raises bare Exception
        raise ModelError(f"tokenizer {file} cannot be read ({error}): export the model anew") from error
    return TextTokenizer(tokenizer, max_tokens=folder.manifest.max_tokens, prompt=folder.manifest.prompt)


def padded(sequences: Sequence[TokenArrays]) -> TokenArrays:
    """`sequences` as one batch: arrays of shape (n_sequences, n_tokens of the longest), zeros after each one's end."""
    shape = (len(sequences), max(sequence["input_ids"].size for sequence in sequences))
    batch = {name: np.zeros(shape, dtype=np.int64) for name in INPUT_NAMES}
    for row, sequence in enumerate(sequences):
        for name in INPUT_NAMES:
            batch[name][row, : sequence[name].size] = sequence[name][0]
    return batch


def _cut(encoding: Encoding, max_tokens: int) -> Encoding:
    encoding.truncate(max_tokens)
    return encoding


def _bounded(text: str, max_tokens: int) -> str:
    return _encodable(text[: max_tokens * CHARACTERS_PER_TOKEN])


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which have no UTF-8 form, as question marks: lengths stay the same."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _arrays(encoding: Encoding) -> TokenArrays:
    ids = np.array([encoding.ids], dtype=np.int64)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
    }
