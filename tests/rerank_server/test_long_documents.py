"""Windows of documents that are longer than a cross-encoder reads."""

import pytest

from bridge.models.cross_encoder import CrossEncoder
from bridge.models.tokenization import TextTokenizer
from rerank_server.errors import TooLarge
from rerank_server.long_documents import best_windows, refuse_long_texts, windows
from tests.toys import make_toy_cross_encoder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return CrossEncoder.load(make_toy_cross_encoder(tmp_path_factory.mktemp("toy")), threads=1).tokenizer


def test_windows_cover_the_document_and_overlap(tokenizer: TextTokenizer) -> None:
    document = " ".join(["cat", "dog", "fish", "bird"] * 10)

    [short, long] = windows(tokenizer, "cat", ["dog", document], max_pair_tokens=16, max_tokens_per_doc=1000)

    assert short == ["dog"]
    assert len(long) > 3
    assert long[0].startswith("cat dog")
    assert document.endswith(long[-1])
    assert sum(len(window.split()) for window in long) > len(document.split())  # neighbours share words
    assert all(window in document for window in long)


def test_a_document_is_read_up_to_its_limit(tokenizer: TextTokenizer) -> None:
    [[window]] = windows(tokenizer, "cat", ["dog fish cat bird"], max_pair_tokens=32, max_tokens_per_doc=2)

    assert window == "dog fish"


def test_an_empty_document_has_one_window(tokenizer: TextTokenizer) -> None:
    assert windows(tokenizer, "cat", [""], max_pair_tokens=16, max_tokens_per_doc=10) == [[""]]


def test_the_best_window_of_each_document_counts() -> None:
    assert best_windows([2, 1, 3], [0.1, 0.9, 0.3, 0.2, 0.8, 0.7]) == [1, 2, 4]


def test_a_text_that_would_be_cut_is_named(tokenizer: TextTokenizer) -> None:
    documents = ["dog", "dog " * 50]

    with pytest.raises(TooLarge, match=r"^texts\.1: it has more than"):
        refuse_long_texts(tokenizer, "cat", documents, max_pair_tokens=16, max_tokens_per_doc=None, field="texts")
    with pytest.raises(TooLarge, match=r"^query: it has more than"):
        refuse_long_texts(tokenizer, "cat " * 50, ["dog"], max_pair_tokens=16, max_tokens_per_doc=None, field="texts")
    refuse_long_texts(tokenizer, "cat", ["dog"], max_pair_tokens=16, max_tokens_per_doc=None, field="texts")
