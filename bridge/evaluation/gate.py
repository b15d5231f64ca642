"""The do-no-harm gate: decides by judged queries which stages may serve an index.

Each stage is compared with the last stage that passed. It passes if the 95 % bootstrap interval of the paired
difference reaches at most `tolerance` below zero: a test of non-inferiority (Wellek 2010, "Testing statistical
hypotheses of equivalence and noninferiority"). So a stage fails if it does harm, and also if there are too few queries
to rule harm out.

No evidence is no verdict: with fewer than `FEWEST_QUERIES` queries, or an interval of no width that shows no harm, a
stage serves if it served before, and the record says why.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import FEWEST_QUERIES
from bridge.evaluation.measures import Estimate, bootstrap_interval
from bridge.evaluation.stages import StageResult
from bridge.profile import GateRecord, IndexProfile, Measurement, Stage, StageVerdict

MEASURE = "nDCG@10"

TOLERANCE = 0.02
"""In units of the measure: a difference that readers of result lists hardly notice."""


@dataclass(frozen=True, slots=True)
class Forced:
    """A stage that the operator enables regardless of its figures, and the reason."""

    stage: Stage
    reason: str


def judge(
    results: Sequence[StageResult],
    *,
    tolerance: float,
    measurement: Measurement,
    forced: Sequence[Forced] = (),
    serving: Collection[Stage] = (),
) -> GateRecord:
    """The verdict on each stage, in the order of measurement. The first stage is the baseline and always passes.

    `serving`: the stages that serve the index now, and go on to if the measurement decides nothing.

    Raises:
        UsageError: a forced stage was not measured.
    """
    reasons = {each.stage: each.reason for each in forced}
    if unknown := reasons.keys() - {result.stage for result in results[1:]}:
        raise UsageError(f"--force {', '.join(sorted(unknown))}: only a stage that is measured can be forced with it")
    before, verdicts = results[0], [_beginning(results[0])]
    for result in results[1:]:
        verdict = _compared(before, result, tolerance, forced=reasons.get(result.stage), serves=result.stage in serving)
        verdicts.append(verdict)
        if verdict.enabled:
            before = result
    return GateRecord(verdicts, tolerance, measurement)


def _beginning(result: StageResult) -> StageVerdict:
    p50, p95 = result.latencies()
    return StageVerdict(
        result.stage,
        enabled=True,
        mean=_short(result.evaluation.mean(MEASURE)),
        p50_ms=round(p50, 1),
        p95_ms=round(p95, 1),
    )


def _compared(
    before: StageResult, after: StageResult, tolerance: float, *, forced: str | None, serves: bool
) -> StageVerdict:
    differences = after.evaluation.values[MEASURE] - before.evaluation.values[MEASURE]
    difference = bootstrap_interval(differences)
    harmless = difference.low >= -tolerance
    undecided = None
    if forced is None:
        undecided = _undecided(differences.size, difference, harmless=harmless)
    return msgspec.structs.replace(
        _beginning(after),
        enabled=forced is not None or (harmless if undecided is None else serves),
        against=before.stage,
        difference=_short(difference.mean),
        low=_short(difference.low),
        high=_short(difference.high),
        forced=forced,
        undecided=undecided,
    )


def _undecided(n_queries: int, difference: Estimate, *, harmless: bool) -> str | None:
    """Why the interval is no evidence; None if it is."""
    if n_queries < FEWEST_QUERIES:
        return f"{n_queries} judged {'query' if n_queries == 1 else 'queries'}, at least {FEWEST_QUERIES} are needed"
    if harmless and difference.low == difference.high:
        return f"the interval has no width: every query differs by {difference.mean:+.3f}"
    return None


def force(profile: IndexProfile, forced: Sequence[Forced]) -> GateRecord:
    """Enables some stages without a measurement. Earlier figures stay in the record."""
    kept = profile.gate or GateRecord([StageVerdict(stage, enabled=True) for stage in profile.stages], TOLERANCE)
    verdicts: Mapping[Stage, StageVerdict] = {verdict.stage: verdict for verdict in kept.verdicts}
    known = list(dict.fromkeys([*(verdict.stage for verdict in kept.verdicts), *(each.stage for each in forced)]))
    reasons = {each.stage: each.reason for each in forced}
    changed = [
        msgspec.structs.replace(
            verdicts.get(stage, StageVerdict(stage, enabled=True)),
            **({"enabled": True, "forced": reasons[stage], "undecided": None} if stage in reasons else {}),
        )
        for stage in known
    ]
    return msgspec.structs.replace(kept, verdicts=changed)


def gated(profile: IndexProfile, record: GateRecord) -> IndexProfile:
    """The profile with the record applied: a search stops at the last enabled stage.

    A measurement that decides nothing changes no stage, and replaces no verdict of an earlier one.
    """
    if not _decides(record):
        return msgspec.structs.replace(profile, gate=profile.gate or record)
    enabled = [verdict.stage for verdict in record.verdicts if verdict.enabled]
    return msgspec.structs.replace(profile, stages=enabled, gate=record)


def _decides(record: GateRecord) -> bool:
    """Whether any stage but the first passed, failed or was forced; if there is no other, the first decides."""
    return any(verdict.undecided is None for verdict in record.verdicts[1:] or record.verdicts)


def _short(value: float) -> float:
    return round(value, 4)
