"""A tuning from judged queries to a profile, on a cluster and a sidecar that answer by script over real HTTP."""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest
from rich.console import Console

from bridge.cluster.connection import connect
from bridge.console import Display
from bridge.errors import UsageError
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.judged_queries import FEWEST_QUERIES, JudgedQueries
from bridge.evaluation.tuning.setting import BOOSTS, Setting
from bridge.evaluation.tuning.tuner import Tuner, tuned
from bridge.model_servers.client import SidecarClient
from bridge.profile import GateRecord, IndexProfile, Stage
from bridge.settings import ClusterSettings
from tests.bridge.evaluation.tuning.by_hand import PROFILE, RIGHT
from tests.bridge.proxy.scripted_index import leg_of
from tests.fake_bulk import FakeCluster, Recorded, Reply, fake_cluster


def judged(n_queries: int, text: str = "red shoe") -> JudgedQueries:
    names = [f"q{n}" for n in range(n_queries)]
    return JudgedQueries("by hand", dict.fromkeys(names, text), {name: {RIGHT: 1} for name in names})


def answer(request: Recorded) -> Reply:
    """Vectors find the right document first, words find it last."""
    legs: list[dict[str, Any]] = []
    for line in request.body.splitlines()[1::2]:
        found = [f"wrong{n}" for n in range(4)]
        found.insert(0 if leg_of(json.loads(line)) in ("vector", "exact") else 4, RIGHT)
        hits = [{"_index": "i", "_id": doc_id, "_score": 9.0 - rank} for rank, doc_id in enumerate(found)]
        legs.append({"status": 200, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}})
    return Reply(body=json.dumps({"responses": legs}).encode())


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        running.on_request = answer
        yield running


@pytest.fixture
def sidecar() -> Iterator[SidecarClient]:
    answers = {"/info": {"embedding_model_ids": ["encoder"]}, "/embed": [[1.0] * PROFILE.dimension]}
    with fake_cluster() as running:
        running.on_request = lambda request: Reply(body=json.dumps(answers[request.path]).encode())
        with SidecarClient(running.url) as client:
            yield client


@contextmanager
def tuner(
    cluster: FakeCluster,
    sidecar: SidecarClient,
    queries: JudgedQueries,
    *stages: Stage,
    profile: IndexProfile = PROFILE,
) -> Iterator[Tuner]:
    with ExitStack() as running:
        client = running.enter_context(connect(ClusterSettings(url=cluster.url)))
        display = Display(Console(file=io.StringIO(), width=160))
        yield Tuner(
            client,
            sidecar,
            "products",
            profile,
            queries,
            multi_match(["body"]),
            measure="RR@10",
            display=display,
            stages=frozenset(stages) or None,
            folds=2,
        )


def test_the_leg_that_is_right_is_found_and_the_profile_says_why(cluster: FakeCluster, sidecar: SidecarClient) -> None:
    profile = msgspec.structs.replace(PROFILE, stages=["lexical", "expansion", "hybrid"])
    with tuner(cluster, sidecar, judged(FEWEST_QUERIES), "lexical", "expansion", "hybrid", profile=profile) as running:
        assert running.default == Setting.of(profile, "hybrid")
        chosen, points = running.run(None)
        record = running.record(chosen, points)
    assert (chosen.setting.stage, chosen.tuned) == ("hybrid", 1.0)
    assert (record.tuned_mean, record.folds, record.budget_p95_ms) == (1.0, 2, None)
    assert (record.measurement.queries, record.measurement.measure) == (FEWEST_QUERIES, "RR@10")
    assert [point.setting for point in record.front] == [str(point.setting) for point in points]
    # Four to measure a query, one that compares vectors exactly, and one for each boost: not one for each setting.
    assert len(cluster.requests) <= FEWEST_QUERIES * (5 + len(BOOSTS))
    after = tuned(profile, chosen.setting, record)
    assert after.tuning == record
    assert Setting.of(after, "hybrid") == chosen.setting


def test_stages_that_the_gate_did_not_pass_are_not_chosen(cluster: FakeCluster, sidecar: SidecarClient) -> None:
    gated = msgspec.structs.replace(PROFILE, stages=["lexical", "expansion"], gate=GateRecord([], 0.0))
    with tuner(cluster, sidecar, judged(FEWEST_QUERIES), profile=gated) as running:
        assert running.choose(None).setting.stage in ("lexical", "expansion")


def test_stages_that_do_not_serve_the_index_are_refused(cluster: FakeCluster, sidecar: SidecarClient) -> None:
    with (
        pytest.raises(UsageError, match="none of them serves the index, which has lexical, expansion, vector"),
        tuner(cluster, sidecar, judged(FEWEST_QUERIES), "cascade") as running,
    ):
        running.run(None)
    assert not cluster.requests


@pytest.mark.parametrize(
    ("queries", "told"),
    [
        (judged(FEWEST_QUERIES - 1), f"{FEWEST_QUERIES - 1} queries to tune with, expected at least {FEWEST_QUERIES}"),
        (judged(FEWEST_QUERIES, '"red shoe"'), f"the proxy leaves {FEWEST_QUERIES} unchanged whatever the settings"),
    ],
)
def test_too_few_queries_that_settings_can_change_are_refused(
    queries: JudgedQueries, told: str, cluster: FakeCluster, sidecar: SidecarClient
) -> None:
    with pytest.raises(UsageError, match=told), tuner(cluster, sidecar, queries) as running:
        running.run(None)
