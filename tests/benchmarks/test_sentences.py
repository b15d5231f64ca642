"""A sentence is right if it holds an annotated answer, and questions that models know can be left out."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.sentences import command, measure, read, ways
from bridge.errors import UsageError
from tests.toys import make_toy_cross_encoder, make_toy_encoder

TEXT = "The wing is red. The shoe is worn by a bird."
QUESTIONS = {"what is worn": "shoe", "which wing": "red", "what is both": "red. The"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    asked = [
        {"question": question, "answers": [{"answer_start": TEXT.index(answer), "text": answer}]}
        for question, answer in QUESTIONS.items()
    ]
    paragraph = {"context": TEXT, "qas": [*asked, {"question": "nothing", "answers": []}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "A_bird", "paragraphs": [paragraph]}]}))
    return path


def test_an_answer_makes_the_sentence_right_that_holds_the_whole_of_it(file: Path) -> None:
    assert {each.question: each.right for each in read(file)} == {
        "what is worn": [False, True],
        "which wing": [True, False],
        "what is both": [False, False],
    }


def test_every_way_is_measured_against_the_first_sentence(file: Path, tmp_path: Path) -> None:
    encoder = str(make_toy_encoder(tmp_path / "encoder").path)
    reranker = str(make_toy_cross_encoder(tmp_path / "reranker").path)
    asked = read(file)

    figures = dict(measure(asked, ways(asked, [reranker], [encoder])))

    assert figures["the first sentence"].right == pytest.approx(1 / 3)
    assert figures["the first sentence"].page_ms is None
    assert figures["BM25"].right == pytest.approx(2 / 3)
    assert figures["BM25"].more_than_first[0] == pytest.approx(1 / 3)
    assert {encoder, reranker, f"{reranker} and words, as the proxy does"} <= figures.keys()


def test_questions_that_models_know_are_left_out(file: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.jsonl"
    known.write_text("\n".join(json.dumps({"query": question, "passage": "x"}) for question in QUESTIONS))
    refused = CliRunner().invoke(command, [str(file), "--leave-out", str(known)])
    assert isinstance(refused.exception, UsageError)
    assert "has no question" in str(refused.exception)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"queries": []}')
    with pytest.raises(UsageError, match="not in SQuAD's JSON"):
        read(tmp_path / "other.json")
