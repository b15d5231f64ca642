"""The gate: what passes, what stays off, what an operator can force, and what the profile says afterwards."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from bridge.errors import UsageError
from bridge.evaluation.gate import MEASURE, TOLERANCE, Forced, force, gated, judge
from bridge.evaluation.measures import Evaluation
from bridge.evaluation.stages import StageResult, StageRun
from bridge.profile import IndexProfile, Measurement, ModelReference, Stage, profile_of

MEASURED = Measurement("by hand", 100, MEASURE, "2026-01-02T03:04:05Z")
PROFILE = IndexProfile(text_fields=["body"], encoder=ModelReference("e", "0" * 12), dimension=8)


def result(name: Stage, values: Sequence[float]) -> StageResult:
    query_ids = [str(n) for n in range(len(values))]
    run = StageRun(name, {query_id: [] for query_id in query_ids}, np.full(len(values), 20.0))
    return StageResult(name, run, Evaluation(query_ids, {MEASURE: np.array(values)}), None)


def around(mean: float, *, spread: float = 0.05, n: int = 100, seed: int = 3) -> list[float]:
    """Values with exactly this mean, the same for each call with the same seed."""
    noise = np.random.default_rng(seed).uniform(-spread, spread, n)
    return list(mean + noise - noise.mean())


def verdicts(*results: StageResult, forced: Sequence[Forced] = (), tolerance: float = TOLERANCE) -> dict[str, bool]:
    record = judge(results, tolerance=tolerance, measurement=MEASURED, forced=forced)
    return {verdict.stage: verdict.enabled for verdict in record.verdicts}


def test_better_and_equal_stages_pass() -> None:
    equal = result("expansion", around(0.4, seed=4))
    passed = verdicts(result("lexical", around(0.4)), equal, result("hybrid", around(0.5)))
    assert passed == {"lexical": True, "expansion": True, "hybrid": True}


def test_a_stage_that_harms_stays_off() -> None:
    assert verdicts(result("lexical", around(0.4)), result("hybrid", around(0.35))) == {
        "lexical": True,
        "hybrid": False,
    }


def test_harm_within_the_tolerance_passes() -> None:
    worse = result("lexical", around(0.4)), result("hybrid", around(0.39, spread=0.049))
    assert verdicts(*worse, tolerance=0.02)["hybrid"]
    assert not verdicts(*worse, tolerance=0.005)["hybrid"]


def test_few_queries_cannot_clear_a_stage() -> None:
    before, after = [0.0, 1.0, 0.5, 0.2, 0.9], [1.0, 0.0, 0.6, 0.3, 0.8]
    assert not verdicts(result("lexical", before), result("hybrid", after))["hybrid"]


SERVING: list[list[Stage]] = [["lexical"], ["lexical", "hybrid", "rerank"]]


@pytest.mark.case("M2")
@pytest.mark.parametrize("serving", SERVING)
@pytest.mark.parametrize(("before", "after"), [(0.1, 0.9), (0.4, 0.4), (0.9, 0.1)])
@pytest.mark.parametrize("n", [1, 19])
def test_few_queries_decide_nothing(n: int, before: float, after: float, serving: list[Stage]) -> None:
    results = result("lexical", [before] * n), result("hybrid", around(after, n=n))
    record = judge(results, tolerance=TOLERANCE, measurement=MEASURED, serving=serving)
    hybrid = record.verdicts[1]
    assert hybrid.enabled == ("hybrid" in serving)
    assert hybrid.undecided is not None
    assert hybrid.undecided.startswith(f"{n} judged quer")
    profile = msgspec.structs.replace(PROFILE, stages=serving)
    assert gated(profile, record).stages == serving


@pytest.mark.case("M2")
@pytest.mark.parametrize("serving", SERVING)
def test_an_interval_without_width_is_no_pass(serving: list[Stage]) -> None:
    zeros = result("lexical", [0.0] * 50), result("hybrid", [0.0] * 50)
    record = judge(zeros, tolerance=TOLERANCE, measurement=MEASURED, serving=serving)
    assert record.verdicts[1].enabled == ("hybrid" in serving)
    assert record.verdicts[1].undecided == "the interval has no width: every query differs by +0.000"
    assert gated(msgspec.structs.replace(PROFILE, stages=serving), record).stages == serving


@pytest.mark.case("M2")
def test_harm_to_every_query_alike_is_a_verdict() -> None:
    results = result("lexical", [1.0] * 50), result("hybrid", [0.0] * 50)
    hybrid = judge(results, tolerance=TOLERANCE, measurement=MEASURED, serving=["lexical", "hybrid"]).verdicts[1]
    assert (hybrid.enabled, hybrid.undecided) == (False, None)


@pytest.mark.case("M2")
def test_a_measurement_without_evidence_replaces_no_verdict() -> None:
    results = result("lexical", around(0.4)), result("hybrid", around(0.3, spread=0.04))
    proven = gated(PROFILE, judge(results, tolerance=TOLERANCE, measurement=MEASURED))
    one_query = result("lexical", [0.0]), result("hybrid", [1.0])
    assert gated(proven, judge(one_query, tolerance=TOLERANCE, measurement=MEASURED)) == proven


def test_forcing_needs_no_evidence() -> None:
    results = result("lexical", [0.5]), result("hybrid", [0.4])
    forced = [Forced("hybrid", "we looked at it")]
    hybrid = judge(results, tolerance=TOLERANCE, measurement=MEASURED, forced=forced).verdicts[1]
    assert (hybrid.enabled, hybrid.undecided) == (True, None)


def test_a_stage_is_compared_with_the_last_that_passed() -> None:
    """Hybrid harms, and rerank on top of it is better than hybrid, but worse than BM25."""
    results = result("lexical", around(0.4)), result("hybrid", around(0.2)), result("rerank", around(0.3))
    record = judge(results, tolerance=TOLERANCE, measurement=MEASURED)
    rerank = record.verdicts[2]
    assert (rerank.against, rerank.enabled) == ("lexical", False)
    assert rerank.difference == pytest.approx(-0.1)


def test_a_forced_stage_is_enabled_by_name_and_keeps_its_evidence() -> None:
    results = result("lexical", around(0.4)), result("hybrid", around(0.3))
    record = judge(
        results, tolerance=TOLERANCE, measurement=MEASURED, forced=[Forced("hybrid", "synonyms matter more here")]
    )
    hybrid = record.verdicts[1]
    assert (hybrid.enabled, hybrid.forced) == (True, "synonyms matter more here")
    assert hybrid.high is not None
    assert hybrid.high < 0


def test_what_is_not_measured_cannot_be_forced_with_it() -> None:
    with pytest.raises(UsageError, match="cascade"):
        verdicts(result("lexical", around(0.4)), forced=[Forced("cascade", "why not")])


def test_searches_stop_at_the_last_stage_that_passed() -> None:
    results = result("lexical", around(0.4)), result("hybrid", around(0.5, seed=4)), result("rerank", around(0.2))
    record = judge(results, tolerance=TOLERANCE, measurement=MEASURED)
    profile = gated(PROFILE, record)
    assert profile.stages == ["lexical", "hybrid"]
    assert profile_of({"neural_bridge": msgspec.to_builtins(profile)}, index="i") == profile


def test_forcing_alone_keeps_what_was_measured() -> None:
    results = result("lexical", around(0.4)), result("hybrid", around(0.3)), result("rerank", around(0.5, seed=4))
    before = gated(PROFILE, judge(results, tolerance=TOLERANCE, measurement=MEASURED))
    after = gated(before, force(before, [Forced("hybrid", "faster")]))
    assert before.stages == ["lexical", "rerank"]
    assert after.stages == ["lexical", "hybrid", "rerank"]
    assert after.gate is not None
    assert after.gate.measurement == MEASURED
    assert after.gate.verdicts[1].mean == pytest.approx(0.3)


def test_a_stage_can_be_forced_on_an_index_that_was_never_judged() -> None:
    forced = gated(PROFILE, force(PROFILE, [Forced("cascade", "to try")]))
    assert forced.stages == [*PROFILE.stages, "cascade"]
