"""The application's own search body, filled in without harm to JSON."""

import json
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.application_query import DEPTH, from_template, multi_match


def test_words_go_wherever_the_template_says(tmp_path: Path) -> None:
    template = {"from": 20, "size": 5, "query": {"bool": {"should": [{"match": {"t": "%SearchText%"}}]}}, "n": 1}
    (tmp_path / "body.json").write_text(json.dumps(template))
    body = from_template(tmp_path / "body.json")('a "quoted" \\ word')
    assert body == {"size": DEPTH, "query": {"bool": {"should": [{"match": {"t": 'a "quoted" \\ word'}}]}}, "n": 1}


@pytest.mark.parametrize("content", ["no json", "[]", '{"query": {"match_all": {}}}'])
def test_a_body_without_a_place_for_words_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "body.json").write_text(content)
    with pytest.raises(UsageError, match=r"body\.json"):
        from_template(tmp_path / "body.json")


def test_fields_are_searched_together() -> None:
    query = {"multi_match": {"query": "x", "fields": ["title^2", "text"]}}
    assert multi_match(["title^2", "text"])("x") == {"size": DEPTH, "query": query}
