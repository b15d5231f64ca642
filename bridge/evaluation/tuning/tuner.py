"""Tunes an index: runs every leg once for its judged queries, evaluates settings on the answers, and chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import msgspec
import numpy as np
from opensearchpy import OpenSearch

from bridge.console import Display
from bridge.errors import UsageError
from bridge.evaluation.application_query import BodyOf
from bridge.evaluation.judged_queries import FEWEST_QUERIES, JudgedQueries
from bridge.evaluation.tuning.answers import ClusterAndSidecar, RememberedSearch
from bridge.evaluation.tuning.beside import CompanionAndSidecar, ProxySearches
from bridge.evaluation.tuning.search import FOLDS, CrossValidated, choose, cross_validate, front
from bridge.evaluation.tuning.setting import MOST_PASSAGES, WINDOWS, Setting
from bridge.evaluation.tuning.trials import Trial, Trials
from bridge.model_servers.client import SidecarClient
from bridge.profile import IndexProfile, Stage, TunedPoint, TuningRecord
from bridge.search import json_tree
from bridge.search.request import LeaveAlone, parse


@dataclass(frozen=True, slots=True)
class Tuner:
    """One tuning of one index, whose `searches` are the proxy's if the index has a companion.

    `measure`: in the notation of ir-measures. `stages`: the stages to choose from; None means all that the gate allows.
    """

    cluster: OpenSearch
    sidecar: SidecarClient
    index: str
    profile: IndexProfile
    judged: JudgedQueries
    body_of: BodyOf
    measure: str
    display: Display
    stages: frozenset[Stage] | None = None
    folds: int = FOLDS
    searches: ProxySearches | None = None

    @property
    def default(self) -> Setting:
        """The present settings of the index.

        Raises:
            UsageError: none of `stages` serves the index.
        """
        serving = [stage for stage in self.profile.stages if self.stages is None or stage in self.stages]
        if not serving:
            raise UsageError(f"--stages: none of them serves the index, which has {', '.join(self.profile.stages)}")
        return Setting.of(self.profile, serving[-1])

    def run(self, budget_ms: float | None) -> tuple[CrossValidated, list[CrossValidated]]:
        """The best setting within the budget, cross-validated, and the best settings of other budgets.

        Raises:
            UsageError: there are fewer than `FEWEST_QUERIES` queries.
            BridgeError: cluster or sidecar do not answer.
        """
        allowed, trials = self._allowed(), self._trials()
        seeds = self._seeds(allowed)
        with self.display.progress("Choose without each fold", self.folds + 1) as show:
            choices = count(1)
            chosen = cross_validate(
                trials,
                self.default,
                seeds,
                budget_ms=budget_ms,
                allowed=allowed,
                folds=self.folds,
                on_fold=lambda: show(next(choices)),
            )
        with self.display.step("Weigh quality against time"):
            points = front(trials, self.default, seeds, allowed=allowed, folds=self.folds)
        self.display.say(f"{len(trials.tried()):,} settings tried on {len(trials.searches):,} queries")
        return chosen, points

    def choose(self, budget_ms: float | None) -> Trial:
        """The best setting within the budget by all queries, to be measured on others. Raises as `run`."""
        allowed, trials = self._allowed(), self._trials()
        rows = np.arange(len(trials.searches))
        return choose(trials, self._seeds(allowed), rows, budget_ms=budget_ms, allowed=allowed)

    def record(self, chosen: CrossValidated, points: Sequence[CrossValidated]) -> TuningRecord:
        """The evidence for the profile."""
        return TuningRecord(
            measurement=self.judged.measurement(self.measure),
            folds=self.folds,
            budget_p95_ms=chosen.budget_ms,
            default_mean=round(chosen.default, 4),
            tuned_mean=round(chosen.tuned, 4),
            low=round(chosen.difference.low, 4),
            high=round(chosen.difference.high, 4),
            front=[TunedPoint(round(each.p95_ms, 1), round(each.tuned, 4), str(each.setting)) for each in points],
        )

    def _trials(self) -> Trials:
        searches = []
        with self.display.progress("Ask every leg once", len(self.judged.queries)) as show:
            for done, (query_id, text) in enumerate(self.judged.queries.items(), start=1):
                if (search := self._remembered(query_id, text)) is not None:
                    search.measure(self.profile)
                    searches.append(search)
                show(done)
        if len(searches) < FEWEST_QUERIES:
            raise UsageError(
                f"{len(searches)} queries to tune with, expected at least {FEWEST_QUERIES}: judge more queries; the "
                f"proxy leaves {len(self.judged.queries) - len(searches)} unchanged whatever the settings"
            )
        return Trials(searches, self.profile, self.judged, measure=self.measure)

    def _remembered(self, query_id: str, text: str) -> RememberedSearch | None:
        """The search that the application sends for a query; None if the proxy passes it."""
        profile = self.profile
        request = parse(
            json_tree.write(self.body_of(text)),
            "",
            text_fields=profile.text_fields,
            object_field=profile.object_field,
            rules=profile.rules,
        )
        if isinstance(request, LeaveAlone):
            return None
        asked = (self.cluster, self.sidecar, self.index, profile, request.scope)
        return RememberedSearch(
            query_id,
            request,
            CompanionAndSidecar(*asked, request, self.searches) if self.searches else ClusterAndSidecar(*asked),
            most_hits=max(*WINDOWS, profile.window),
            most_passages=max(MOST_PASSAGES, profile.rerank.passages),
        )

    def _allowed(self) -> frozenset[Stage]:
        """Stages to choose from: those that passed the gate, or all that this sidecar can run."""
        reranked: list[Stage] = ["rerank", "cascade"] if self.sidecar.cascade_model is not None else ["rerank"]
        smoothed: list[Stage] = ["smoothing"] if self.profile.has_codes else []
        possible = frozenset({"lexical", "expansion", "hybrid", self.default.stage, *smoothed, *reranked})
        if self.profile.gate is not None:
            possible = frozenset(self.profile.stages)
        return possible if self.stages is None else possible & self.stages

    def _seeds(self, allowed: frozenset[Stage]) -> list[Setting]:
        """The present setting first, then the same at the earlier stages."""
        stages: list[Stage] = ["hybrid", "expansion", "lexical"]
        plain = replace(self.default, smoothing=0.0)
        return [self.default, *(replace(plain, stage=stage) for stage in stages if stage in allowed)]


def tuned(profile: IndexProfile, setting: Setting, record: TuningRecord | None) -> IndexProfile:
    """The profile with the chosen setting and its evidence."""
    return msgspec.structs.replace(setting.applied_to(profile), tuning=record)
