"""`neural-bridge evaluate`: which stages it measures; tests/integration runs it."""

import pytest

from bridge.commands.evaluate import STAGES, named_stages
from bridge.errors import UsageError
from bridge.evaluation import stages
from tests.command_line import run


def test_stages_are_those_of_the_tables() -> None:
    assert tuple(stages.shown_name(stage) for stage in stages.STAGES) == STAGES


def test_each_stage_is_measured_once() -> None:
    assert named_stages("rerank, bm25,rerank,lexical") == ["rerank", "lexical"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "bm25,magic"], "no stage magic; choose from bm25, expansion"),
        (["--stages", ","], "no stage at all"),
        (["--require", "much better"], "--require"),
    ],
)
def test_values_that_mean_nothing(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run("evaluate", *options)
