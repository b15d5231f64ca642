"""`neural-bridge tune`: the settings that serve an index best, within a budget of time."""

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import settings_of
from bridge.commands.evaluate import stage_names
from bridge.commands.options.judgements import Asked, Measured, measured, measured_options
from bridge.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.console import Display
    from bridge.evaluation.tuning.cached_search import SearchCache
    from bridge.evaluation.tuning.search import HeldOut
    from bridge.evaluation.tuning.setting import Setting
    from bridge.evaluation.tuning.trials import Trials
    from bridge.processes.services import Overrides
    from bridge.profile import IndexProfile, Stage, TuningRecord

FEWEST_QUERIES = 20
"""Fewer cannot be chosen by and be measured on."""

MEASURES = ("ndcg@10", "mrr@10", "recall@100")


@click.command(name="tune")
@measured_options
@click.option("--measure", type=click.Choice(MEASURES), default="ndcg@10", show_default=True, help="What to raise.")
@click.option(
    "--budget-ms", type=click.FloatRange(min=0, min_open=True), help="Longest 95th percentile of a search, estimated."
)
@click.option("--stages", help="Stages that may be chosen, comma-separated; without it all that the gate lets through.")
@click.option("--folds", type=click.IntRange(2, 20), default=5, show_default=True, help="Parts of the queries.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture (PNG).")
@click.option("--apply", "apply_it", is_flag=True, help="Write the settings into the index; else they are only shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measure: str,
    budget_ms: float | None,
    stages: str | None,
    folds: int,
    plot_file: Path | None,
    apply_it: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Find fusion, weights, window, rerank depth and blending that answer an index's judged queries best.

    Every leg is asked once and every document read once; hundreds of settings are then tried on what they said.
    All figures are of queries that had no part in the choice (cross-validation). Stages that the gate keeps off
    are not tried. Without --apply nothing is written.
    """
    names = stage_names(stages) if stages is not None else None
    plot_front = _plot_front() if plot_file is not None else None
    from bridge.console import Display, wide_console
    from bridge.evaluation.stage_results import REPORTED

    display = Display(wide_console(stderr=True))
    with measured(ctx, Asked(**asked), display, servers=_with_small_model(ctx)) as subject:
        tuned = _Tuning(subject, REPORTED[measure], display, folds=folds, names=names)
        chosen, front = tuned.run(budget_ms)
        record = tuned.record(chosen, front)
        if apply_it:
            from bridge.cluster.index import put_profile

            index = subject.index
            put_profile(index.cluster, index.name, lambda profile: tuned.applied(profile, chosen, record))
    if plot_file is not None and plot_front is not None:
        plot_front(plot_file, f"{subject.name}: what time buys", REPORTED[measure], front, chosen)
    if as_json:
        import msgspec

        told = {"index": subject.index.name, "setting": str(chosen.setting), "p_value": round(chosen.p_value, 4)}
        click.echo(json.dumps({**told, **msgspec.to_builtins(record), "written": apply_it}))
    else:
        from bridge.evaluation.tuning.report import front_table, in_words

        wide_console().print(front_table(front, record))
        click.echo(in_words(tuned.default, chosen, record))
        click.echo("written to the index" if apply_it else "nothing was written: --apply does")


def _plot_front() -> "Callable[..., None]":
    """What draws, looked for before minutes of work and not after them.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        from bridge.evaluation.tuning.plot import plot_front
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--plot needs the package {error.name}: pip install 'opensearch-neural-bridge[plot]', or leave it out"
        ) from error
    return plot_front


def _with_small_model(ctx: click.Context) -> "Overrides":
    """The cascade's small model as one that can be asked for by name, where it is installed."""
    from bridge.models.artifact import resolve

    settings = settings_of(ctx).sidecar
    if not settings.cascade_model:
        return {}
    try:
        resolve(settings.cascade_model)
    except ModelError:
        return {}
    return {"sidecar": {"more_rerank_models": [*settings.more_rerank_models, settings.cascade_model]}}


class _Tuning:
    """One run: what is asked of cluster and sidecar, tried, chosen and kept."""

    def __init__(
        self, subject: Measured, measure: str, display: "Display", *, folds: int, names: list[str] | None
    ) -> None:
        """`names`: of the stages that may be chosen; None leaves that to the gate."""
        from bridge.evaluation.stage_results import NAMES
        from bridge.evaluation.tuning.setting import Setting

        self._subject = subject
        self._wanted = None if names is None else frozenset(NAMES[name] for name in names)
        self._measure = measure
        self._display = display
        self._folds = folds
        profile = subject.index.profile
        serving = [stage for stage in profile.stages if self._wanted is None or stage in self._wanted]
        if not serving:
            raise UsageError(f"--stages: none of them serves the index, which has {', '.join(profile.stages)}")
        self.default: Setting = Setting.of(profile, serving[-1])

    def run(self, budget_ms: float | None) -> "tuple[HeldOut, list[HeldOut]]":
        """The choice within the budget, and what other budgets would buy.

        Raises:
            UsageError: too few queries.
            BridgeError: cluster or sidecar do not answer.
        """
        from bridge.evaluation.tuning.cached_search import SearchCache
        from bridge.evaluation.tuning.search import cross_validate, front
        from bridge.model_servers.client import SidecarClient

        index, servers = self._subject.index, self._subject.index.servers
        key = servers.settings.sidecar.api_key
        with SidecarClient(servers.sidecar_url, api_key=key.get_secret_value() if key else None) as sidecar:
            cache = SearchCache(
                index.cluster, sidecar, index=index.name, profile=index.profile, body_of=self._subject.body_of
            )
            trials = self._trials(cache)
            allowed = self._allowed(has_cascade=sidecar.cascade_model is not None)
            seeds = self._seeds(allowed)
            with self._display.progress("Choose without each fold", self._folds + 1) as show:
                choices = count(1)
                chosen = cross_validate(
                    trials,
                    self.default,
                    seeds,
                    budget_ms=budget_ms,
                    allowed=allowed,
                    folds=self._folds,
                    on_fold=lambda: show(next(choices)),
                )
            with self._display.step("Weigh quality against time"):
                points = front(trials, self.default, seeds, allowed=allowed, folds=self._folds)
            self._display.say(f"{len(trials.tried()):,} settings tried on {len(trials.searches):,} queries")
        return chosen, points

    def _trials(self, cache: "SearchCache") -> "Trials":
        from bridge.evaluation.tuning.trials import Trials

        judged, searches = self._subject.judged, []
        with self._display.progress("Ask every leg once", len(judged.queries)) as show:
            for done, (query_id, text) in enumerate(judged.queries.items(), start=1):
                if (search := cache.search(query_id, text)) is not None:
                    searches.append(search)
                show(done)
        if len(searches) < FEWEST_QUERIES:
            raise UsageError(
                f"{len(searches)} queries can be tuned by, expected {FEWEST_QUERIES} at least: judge more queries; the "
                f"proxy leaves {len(judged.queries) - len(searches)} alone whatever the settings"
            )
        return Trials(searches, cache, self._subject.index.profile, judged, measure=self._measure)

    def _allowed(self, *, has_cascade: bool) -> "frozenset[Stage]":
        """Stages that may serve: what the gate let through, or all that this sidecar can do; of these, those that are
        wanted."""
        profile = self._subject.index.profile
        reranked: list[Stage] = ["rerank", "cascade"] if has_cascade else ["rerank"]
        possible = frozenset({"lexical", "expansion", "hybrid", self.default.stage, *reranked})
        if profile.gate is not None:
            possible = frozenset(profile.stages)
        return possible if self._wanted is None else possible & self._wanted

    def _seeds(self, allowed: "frozenset[Stage]") -> "list[Setting]":
        """What the index has now, first, and its settings at the earlier stages."""
        from dataclasses import replace

        stages: list[Stage] = ["hybrid", "expansion", "lexical"]
        return [self.default, *(replace(self.default, stage=stage) for stage in stages if stage in allowed)]

    def record(self, chosen: "HeldOut", points: "list[HeldOut]") -> "TuningRecord":
        """What is kept in the profile."""
        from bridge.evaluation.provenance import measured_now
        from bridge.profile import TunedPoint, TuningRecord

        return TuningRecord(
            measurement=measured_now(self._subject.judged, self._measure),
            folds=self._folds,
            budget_p95_ms=chosen.budget_ms,
            default_mean=round(chosen.default, 4),
            tuned_mean=round(chosen.tuned, 4),
            low=round(chosen.difference.low, 4),
            high=round(chosen.difference.high, 4),
            front=[TunedPoint(round(each.p95_ms, 1), round(each.tuned, 4), str(each.setting)) for each in points],
        )

    @staticmethod
    def applied(profile: "IndexProfile", chosen: "HeldOut", record: "TuningRecord") -> "IndexProfile":
        """The profile with the chosen settings, and where they come from."""
        import msgspec

        return msgspec.structs.replace(chosen.setting.applied_to(profile), tuning=record)
