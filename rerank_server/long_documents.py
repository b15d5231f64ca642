"""Documents that are longer than a cross-encoder reads: overlapping windows, of which the best one counts (Dai and
Callan 2019, "Deeper text understanding for IR with contextual neural language modeling":
https://arxiv.org/abs/1905.09217)."""

from collections.abc import Sequence

from bridge.models.tokenization import TextTokenizer
from bridge.profile import PassageSettings
from bridge.text import split_passages
from rerank_server.errors import TooLarge

OVERLAP_TOKENS = 16
"""What neighbours share: a sentence that one of them cuts is whole in the other."""


def windows(
    tokenizer: TextTokenizer, query: str, documents: Sequence[str], *, max_pair_tokens: int, max_tokens_per_doc: int
) -> list[list[str]]:
    """The windows of each document, input order, at least one each: what fits into a pair beside the query, over
    the document's first `max_tokens_per_doc` tokens."""
    room = tokenizer.passage_room(query, max_tokens=max_pair_tokens)
    settings = PassageSettings(layout="nested", max_tokens=room, overlap_tokens=min(OVERLAP_TOKENS, room // 4))
    return [
        [window.text for window in split_passages(beginning, settings, tokenizer.token_offsets)] or [beginning]
        for beginning in (tokenizer.beginning(document, max_tokens=max_tokens_per_doc) for document in documents)
    ]


def best_windows(n_windows: Sequence[int], scores: Sequence[float]) -> list[int]:
    """For each document the place of its best window in `scores`, which holds all windows one document after the
    other, `n_windows` of each."""
    best: list[int] = []
    start = 0
    for count in n_windows:
        best.append(max(range(start, start + count), key=scores.__getitem__))
        start += count
    return best


def refuse_long_texts(
    tokenizer: TextTokenizer,
    query: str,
    documents: Sequence[str],
    *,
    max_pair_tokens: int,
    max_tokens_per_doc: int | None,
    field: str,
) -> None:
    """Refuses texts that would be cut; `field` names the field of the documents.

    Raises:
        TooLarge: the query, or a document, would be cut.
    """
    remedy = "send a shorter one, or leave `truncate: false` out to have it cut"
    query_room = tokenizer.query_room(max_tokens=max_pair_tokens)
    if tokenizer.is_longer(query, query_room):
        raise TooLarge(f"query: it has more than {query_room} tokens, which is all that is read of it: {remedy}")
    room = max_tokens_per_doc or tokenizer.passage_room(query, max_tokens=max_pair_tokens)
    for place, document in enumerate(documents):
        if tokenizer.is_longer(document, room):
            raise TooLarge(
                f"{field}.{place}: it has more than {room} tokens, which is all that is read of it: {remedy}"
            )
