"""Models in this process and on servers can stand for one another."""

import inspect
from typing import Any

import pytest

from bridge.models import protocols
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from ingest.stages.served_models import ServedEncoder, ServedGenerator, ServedScorer


@pytest.mark.parametrize(
    ("method", "model"),
    [
        (protocols.Encoder.encode, Encoder.encode),
        (protocols.Encoder.encode, ServedEncoder.encode),
        (protocols.Scorer.score, CrossEncoder.score),
        (protocols.Scorer.score, ServedScorer.score),
        (protocols.QueryGenerator.generate, QueryGenerator.generate),
        (protocols.QueryGenerator.generate, ServedGenerator.generate),
    ],
    ids=lambda function: function.__qualname__,
)
def test_a_model_takes_every_argument_that_its_protocol_names(method: Any, model: Any) -> None:
    wanted, taken = inspect.signature(method).parameters, inspect.signature(model).parameters
    empty = inspect.Parameter.empty
    assert {name: taken[name].kind for name in wanted} == {name: each.kind for name, each in wanted.items()}
    assert all(each.default is not empty for name, each in taken.items() if name not in wanted)
    optional = {name: each.default for name, each in wanted.items() if each.default is not empty}
    assert {name: taken[name].default for name in optional} == optional
