"""Errors as clients read them."""

import json

import pytest

from bridge.errors import ModelError
from rerank_server.errors import (
    STATUSES,
    EmptyRequest,
    InvalidRequest,
    NotServed,
    Overloaded,
    error_answer,
    status_of,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EmptyRequest("nothing", field="texts"), (400, "empty")),
        (NotServed("no such model", field="model"), (404, "not_served")),
        (InvalidRequest("wrong", field="query"), (422, "validation")),
        (Overloaded("full", retry_after_s=2), (429, "overloaded")),
        (ModelError("it fails"), (500, "model")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_nearest_class_decides_the_status(error: Exception, expected: tuple[int, str]) -> None:
    assert status_of(error) == expected


def test_every_refusal_has_a_status_that_says_whose_fault_it_is() -> None:
    assert {status for status, _ in STATUSES.values()} == {400, 404, 413, 422, 429, 500, 504}
    assert len({kind for _, kind in STATUSES.values()}) == len(STATUSES)


def test_openais_clients_get_their_shape_and_other_clients_ours() -> None:
    ours = error_answer(422, "validation", "`input` is missing", path="/rerank", field="input")
    theirs = error_answer(422, "validation", "`input` is missing", path="/v1/embeddings", field="input")

    assert (ours.status, json.loads(str(ours.text))) == (
        422,
        {"error": "`input` is missing", "error_type": "validation", "field": "input"},
    )
    assert (theirs.status, json.loads(str(theirs.text))) == (
        400,
        {
            "error": {
                "message": "`input` is missing",
                "type": "invalid_request_error",
                "param": "input",
                "code": "validation",
            }
        },
    )
