"""`neural-bridge demo`: what it prints at the end; tests/integration runs it."""

import json

import numpy as np

from bridge.commands.demo import _summary, _what_to_try
from bridge.demo.measurement import MRR
from bridge.demo.tour import Outcome
from bridge.evaluation.measures import Evaluation
from bridge.evaluation.stages import StageResult, StageRun
from tests.command_line import output


def test_the_last_line_holds_the_figures_of_every_stage() -> None:
    run = StageRun("lexical", {}, np.array([12.4]))
    stage = StageResult("bm25", run, Evaluation(["q"], {MRR: np.array([0.25678])}), None)
    summary = _summary(Outcome(5142, [stage], 153.26, "docs", None))
    assert json.dumps(summary) == '{"documents": 5142, "mrr_bm25": 0.2568, "seconds": 153.3}'


def test_a_kept_stack_is_named_with_what_to_try() -> None:
    text = _what_to_try("http://127.0.0.1:1234", "docs")
    assert "curl -s 'http://127.0.0.1:1234/docs/_search?pretty'" in text
    assert "neural-bridge demo --stop" in text


def test_stopping_what_does_not_run_is_no_error(tmp_path: object) -> None:
    environment = {"BRIDGE_NODE__CACHE_DIR": str(tmp_path)}
    assert output("demo", "--stop", env=environment) == "the demo's stack was not running\n"
