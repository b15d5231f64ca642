"""The do-no-harm gate: decides by judged queries which stages may serve an index.

Each stage is compared with the last stage that passed. It passes if the 95 % bootstrap interval of the paired
difference reaches at most `tolerance` below zero: a test of non-inferiority (Wellek 2010, "Testing statistical
hypotheses of equivalence and noninferiority"). So a stage fails if it does harm, and also if there are too few queries
to rule harm out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bridge.errors import UsageError
from bridge.evaluation.measures import bootstrap_interval
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
    results: Sequence[StageResult], *, tolerance: float, measurement: Measurement, forced: Sequence[Forced] = ()
) -> GateRecord:
    """The verdict on each stage, in the order of measurement. The first stage is the baseline and always passes.

    Raises:
        UsageError: a forced stage was not measured.
    """
    reasons = {each.stage: each.reason for each in forced}
    if unknown := reasons.keys() - {result.stage for result in results[1:]}:
        raise UsageError(f"--force {', '.join(sorted(unknown))}: only a stage that is measured can be forced with it")
    before, verdicts = results[0], [_beginning(results[0])]
    for result in results[1:]:
        verdict = _compared(before, result, tolerance, reasons.get(result.stage))
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


def _compared(before: StageResult, after: StageResult, tolerance: float, reason: str | None) -> StageVerdict:
    difference = bootstrap_interval(after.evaluation.values[MEASURE] - before.evaluation.values[MEASURE])
    return msgspec.structs.replace(
        _beginning(after),
        enabled=difference.low >= -tolerance or reason is not None,
        against=before.stage,
        difference=_short(difference.mean),
        low=_short(difference.low),
        high=_short(difference.high),
        forced=reason,
    )


def force(profile: IndexProfile, forced: Sequence[Forced]) -> GateRecord:
    """Enables some stages without a measurement. Earlier figures stay in the record."""
    kept = profile.gate or GateRecord([StageVerdict(stage, enabled=True) for stage in profile.stages], TOLERANCE)
    verdicts: Mapping[Stage, StageVerdict] = {verdict.stage: verdict for verdict in kept.verdicts}
    known = list(dict.fromkeys([*(verdict.stage for verdict in kept.verdicts), *(each.stage for each in forced)]))
    reasons = {each.stage: each.reason for each in forced}
    changed = [
        msgspec.structs.replace(
            verdicts.get(stage, StageVerdict(stage, enabled=True)),
            **({"enabled": True, "forced": reasons[stage]} if stage in reasons else {}),
        )
        for stage in known
    ]
    return msgspec.structs.replace(kept, verdicts=changed)


def gated(profile: IndexProfile, record: GateRecord) -> IndexProfile:
    """The profile with the record applied: a search stops at the last enabled stage."""
    enabled = [verdict.stage for verdict in record.verdicts if verdict.enabled]
    return msgspec.structs.replace(profile, stages=enabled, gate=record)


def _short(value: float) -> float:
    return round(value, 4)
