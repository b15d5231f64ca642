"""Passages to predicted queries."""

import sys
from itertools import pairwise

import msgspec
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, builtin_names, resolve
from bridge.models.query_generator import QueryGenerator
from tests.toys import WORDS, make_toy_query_generator

pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")

PASSAGES = ["red dress shoe", "", "the cat and the dog write a file", "  ", "cat"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_query_generator(tmp_path_factory.mktemp("toy"))


def test_queries_are_about_their_own_passage(toy: ModelFolder) -> None:
    queries = QueryGenerator.load(toy, threads=2).generate(PASSAGES, n_queries=4, max_new_tokens=6)
    assert [bool(given) for given in queries] == [True, False, True, False, True]
    for passage, given in zip(PASSAGES, queries, strict=True):
        assert {word for query in given for word in query.split()} <= set(passage.split())


def test_queries_are_different_and_at_most_as_many_and_as_long_as_asked(toy: ModelFolder) -> None:
    queries = QueryGenerator.load(toy).generate(["cat", "red dress shoe"], n_queries=5, max_new_tokens=2)
    assert queries[0] == ["cat"]
    assert len(queries[1]) == len(set(queries[1]))
    assert 1 < len(queries[1]) <= 5
    assert all(len(query.split()) <= 2 for query in queries[1])


def test_no_query_has_a_piece_of_a_word_twice_in_a_row(toy: ModelFolder) -> None:
    """The toy repeats the words of a short passage."""
    [queries] = QueryGenerator.load(toy).generate(["red dress"], n_queries=20, max_new_tokens=6)
    assert len(queries) > 1
    for query in queries:
        words = query.split()
        assert all(word != following for word, following in pairwise(words))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_call_gives_the_same_queries(toy: ModelFolder, threads: int) -> None:
    generator = QueryGenerator.load(toy, threads=threads)
    passages = PASSAGES * 30
    first = generator.generate(passages, n_queries=3, max_new_tokens=8, seed=1)
    assert generator.generate(passages, n_queries=3, max_new_tokens=8, seed=1) == first
    assert generator.generate(passages, n_queries=3, max_new_tokens=8, seed=2) != first


def test_no_passages_and_no_queries_are_no_error(toy: ModelFolder) -> None:
    generator = QueryGenerator.load(toy)
    assert generator.generate([], n_queries=3) == []
    assert generator.generate(["cat"], n_queries=0) == [[]]


def test_weights_of_no_known_engine_are_refused(toy: ModelFolder) -> None:
    files = {name: digest for name, digest in toy.manifest.files.items() if name != "model.bin"}
    manifest = msgspec.structs.replace(toy.manifest, files=files, file="config.json")
    with pytest.raises(ModelError, match=r"has neither model\.bin nor encoder_model\.onnx"):
        QueryGenerator.load(ModelFolder(toy.path, manifest))


def test_without_ctranslate2_the_error_says_what_to_install(toy: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bridge.models.ctranslate2_engine", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)  # as if it were not installed
    with pytest.raises(ModelError, match=r"pip install 'opensearch-neural-bridge\[ctranslate2\]'"):
        QueryGenerator.load(toy)


@pytest.mark.skipif(
    "doc2query-small" not in builtin_names(), reason="doc2query-small's weights are not in this checkout"
)
def test_the_builtin_generator_writes_queries_with_words_of_the_passage() -> None:
    passage = "Return the sine of x, an angle in radians, computed by the mathematics library."
    queries = QueryGenerator.load(resolve("doc2query-small")).generate([passage], n_queries=8)[0]
    assert len(queries) > 3
    words = {word for query in queries for word in query.split()}
    assert words & {"sine", "angle", "radians", "mathematics", "library", "math"}


def test_apostrophes_inside_words_are_closed_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_toy_query_generator(tmp_path_factory.mktemp("toy"), ["'", "s", *WORDS])
    queries = QueryGenerator.load(folder).generate(["' s"], n_queries=40, max_new_tokens=3)[0]
    assert "s's" in queries
    assert not [query for query in queries if "' s" in query]
