"""Finds the best setting within a time budget and measures it on queries that did not choose it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridge.evaluation.measures import Estimate, bootstrap_interval, randomisation_test
from bridge.evaluation.tuning.setting import (
    Setting,
    boosts_and_windows,
    further_legs,
    fusions,
    leads,
    passages,
    rerankings,
    smoothings,
    text_legs,
)
from bridge.evaluation.tuning.trials import Trial, Trials

_SURELY_TOO_SLOW = 1.1
"""Multiple of the budget. A setting beyond it over all queries is skipped without reading anything, because no fold can
be fast enough."""

BEAM = 3
"""Number of settings that each step varies."""

FOLDS = 5
FRONT_POINTS = 8

_SEED = 7

STEPS: tuple[Callable[[Setting], Iterable[Setting]], ...] = (
    fusions,
    text_legs,
    further_legs,
    boosts_and_windows,
    smoothings,
    rerankings,
    passages,
    leads,
)

Rows = NDArray[np.intp]
"""A subset of the queries, by row."""


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Cross-validated worth of choosing within a budget: each query was answered with the setting that the other folds
    chose.

    `mean`, `low`, `high`: the paired difference to the present setting. `setting`: chosen by all queries together;
    `p95_ms`: its estimated 95th percentile.
    """

    budget_ms: float | None
    setting: Setting
    tuned: float
    default: float
    difference: Estimate
    p_value: float
    p95_ms: float


def choose(
    trials: Trials, seeds: Sequence[Setting], rows: Rows, *, budget_ms: float | None, allowed: frozenset[str]
) -> Trial:
    """The best setting by some queries alone; the first of `seeds` if nothing is better.

    A beam search: each step varies the best few settings. Only settings with an `allowed` stage count whose 95th
    percentile on these queries is within the budget. Among equal means the quicker setting wins. If no setting is
    within the budget, the quickest is chosen.
    """
    met = {setting: trials.of(setting) for setting in seeds}
    for step in STEPS:
        best = [trial.setting for trial in _ranked(met.values(), rows, budget_ms)]
        bases = [setting for setting in best if next(iter(step(setting)), None) is not None][:BEAM]
        for setting in [varied for base in bases for varied in step(base) if varied.stage in allowed]:
            if budget_ms is None or trials.estimated_p95_ms(setting) <= budget_ms * _SURELY_TOO_SLOW:
                met[setting] = trials.of(setting)
    return _ranked(met.values(), rows, budget_ms)[0]


def _ranked(met: Iterable[Trial], rows: Rows, budget_ms: float | None) -> list[Trial]:
    order = sorted(met, key=lambda trial: (-round(trial.mean(rows), 6), trial.p95_ms(rows)))
    within = [trial for trial in order if budget_ms is None or trial.p95_ms(rows) <= budget_ms]
    return within or [min(order, key=lambda trial: trial.p95_ms(rows))]


def cross_validate(
    trials: Trials,
    default: Setting,
    seeds: Sequence[Setting],
    *,
    budget_ms: float | None,
    allowed: frozenset[str],
    folds: int = FOLDS,
    on_fold: Callable[[], object] = lambda: None,
) -> CrossValidated:
    """Chooses once without each fold of the queries and measures on that fold. Calls `on_fold` after each of the
    `folds` + 1 choices."""
    n_queries = len(trials.searches)
    shuffled = np.random.default_rng(_SEED).permutation(n_queries)
    held_out = np.zeros(n_queries)
    for fold in np.array_split(shuffled, folds):
        others = np.setdiff1d(shuffled, fold)
        held_out[fold] = choose(trials, seeds, others, budget_ms=budget_ms, allowed=allowed).values[fold]
        on_fold()
    chosen = choose(trials, seeds, shuffled, budget_ms=budget_ms, allowed=allowed)
    on_fold()
    before = trials.of(default).values
    return CrossValidated(
        budget_ms=budget_ms,
        setting=chosen.setting,
        tuned=float(held_out.mean()),
        default=float(before.mean()),
        difference=bootstrap_interval(held_out - before),
        p_value=randomisation_test(held_out, before),
        p95_ms=chosen.p95_ms(shuffled),
    )


def front(
    trials: Trials, default: Setting, seeds: Sequence[Setting], *, allowed: frozenset[str], folds: int = FOLDS
) -> list[CrossValidated]:
    """The best settings by time budget, quickest first: held-out worth at the budgets between which the choice changes,
    at most `FRONT_POINTS` of them."""
    everything = np.arange(len(trials.searches))
    best, steps = -np.inf, []
    for trial in sorted(trials.tried(), key=lambda trial: trial.p95_ms(everything)):
        if trial.setting.stage in allowed and trial.mean(everything) > best:
            best = trial.mean(everything)
            steps.append(trial.p95_ms(everything))
    few = [steps[i] for i in sorted({round(i) for i in np.linspace(0, len(steps) - 1, FRONT_POINTS)})]
    # The estimate of a fold differs a little from that of all queries.
    points = [
        cross_validate(trials, default, seeds, budget_ms=budget * 1.05, allowed=allowed, folds=folds) for budget in few
    ]
    return list({point.setting: point for point in points}.values())
