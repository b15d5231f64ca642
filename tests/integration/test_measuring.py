"""`evaluate`, `gate` and `tune` as an operator runs them, on an index of a real node.

Forty documents hold two words each that no other document holds together, and a word of filling. A query asks for the
two words with the filling, so that BM25, the toy encoder and the toy cross-encoder all find its document.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opensearchpy import OpenSearch

from bridge.cluster.companion import enriched
from bridge.cluster.index import look
from bridge.evaluation.click_judgements import FEWEST_PAGES
from bridge.evaluation.growth import grow
from bridge.models.artifact import ModelFolder
from bridge.node.node import EmbeddedNode
from bridge.profile import RerankSettings, companion_of
from bridge.proxy.experiments.event_log import Click, EventLog, Impression
from bridge.settings import ClusterSettings
from tests.command_line import output
from tests.proxy_stack import PREFIX, ProxyStack, proxy_stack
from tests.servers import unused_index_name
from tests.toys import (
    WORDS,
    make_negated_cross_encoder,
    make_toy_cross_encoder,
    make_toy_encoder,
)
from tests.ubi_standard import MAPPINGS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FILLING = ("cat", "dog")
PAIRS = list(combinations([word for word in WORDS if word not in FILLING][:10], 2))[:40]
DOCUMENTS = {
    f"d{n}": {"title": " ".join(pair), "body": f"{pair[0]} {pair[1]} {FILLING[n % 2]}"} for n, pair in enumerate(PAIRS)
}
QUERIES = {f"{' '.join(pair)} {FILLING[(n + 1) % 2]}": f"d{n}" for n, pair in enumerate(PAIRS)}
"""Text → the right document, which has the other filling."""


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    pytest.importorskip("ir_measures")
    with proxy_stack(ClusterSettings(url=node.url), tmp_path_factory.mktemp("models"), profile_ttl_s=0) as running:
        yield running


@pytest.fixture
def index(stack: ProxyStack, opensearch: OpenSearch) -> Iterator[str]:
    name = unused_index_name()
    stack.fill(
        opensearch,
        name,
        {doc_id: (document, [document["title"]]) for doc_id, document in DOCUMENTS.items()},
        rerank=RerankSettings(blend=0.0),
    )
    yield name
    opensearch.indices.delete(index=name)


@pytest.fixture
def index_beside(stack: ProxyStack, opensearch: OpenSearch) -> Iterator[str]:
    """`index`, enriched beside itself; nothing of it may change."""
    name = unused_index_name()
    documents = {doc_id: (document, [document["title"]]) for doc_id, document in DOCUMENTS.items()}
    stack.fill_beside(opensearch, name, documents, rerank=RerankSettings(blend=0.0))
    before = opensearch.indices.get(index=name), opensearch.indices.stats(index=name, metric="indexing")["_all"]
    yield name
    assert before == (
        opensearch.indices.get(index=name),
        opensearch.indices.stats(index=name, metric="indexing")["_all"],
    )
    opensearch.indices.delete(index=f"{name},{companion_of(name, PREFIX)}")


@pytest.fixture
def judgements(tmp_path: Path) -> Path:
    file = tmp_path / "judged.csv"
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["query", "docid", "rating"])
        rows.writerows([query, doc_id, 1] for query, doc_id in QUERIES.items())
    return file


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(node: EmbeddedNode, judgements: Path, tmp_path: Path) -> Run:
    """Runs a command on an index with the judgements and a reranker."""
    encoder = make_toy_encoder(tmp_path / "encoder").path

    def run_command(
        command: str,
        index: str,
        *options: str,
        reranker: ModelFolder | None = None,
        judged: Sequence[str] = ("--judgements", str(judgements)),
    ) -> subprocess.CompletedProcess[str]:
        chosen = reranker or make_toy_cross_encoder(tmp_path / "honest")
        config = tmp_path / "settings.yaml"
        sidecar = {"rerank_model": str(chosen.path), "cascade_model": None, "encoder": str(encoder), "threads": 1}
        config.write_text(json.dumps({"sidecar": sidecar, "node": {"cache_dir": str(tmp_path / "cache")}}))
        arguments = ["--index", index, "--cluster", node.url, *judged, *options]
        return subprocess.run(
            [sys.executable, "-m", "bridge.cli", "--config", str(config), command, *arguments],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run_command


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def stopped_at(stack: ProxyStack, index: str) -> str:
    """Where the proxy stops a search of an application that asks for nothing special."""
    with OpenSearch(stack.url) as client:
        answer = client.transport.perform_request(
            "POST",
            f"/{index}/_search",
            body={"query": {"multi_match": {"query": "red", "fields": ["title"]}}},
            headers={"x-bridge": "explain"},
        )
    return str(answer["_bridge"]["stages"])


def test_evaluate_measures_the_stages_of_an_index_and_judges_a_requirement(
    run: Run, index: str, tmp_path: Path
) -> None:
    done = run(
        "evaluate", index, "--json", "--run-file", str(tmp_path / "x.run"), "--require", "rerank:ndcg@10>=bm25-0.01"
    )
    figures = told(done)
    assert (figures["collection"], figures["documents"], figures["queries"]) == (index, 40, 40)
    assert list(figures["stages"]) == ["bm25", "expansion", "vector", "hybrid", "smoothing", "rerank"]
    assert all(stage["ndcg@10"] > 0.9 for stage in figures["stages"].values())
    assert "stage cascade is left out" in done.stderr
    assert len((tmp_path / "x-hybrid.run").read_text().splitlines()) > 40

    failed = run("evaluate", index, "--stages", "bm25,hybrid", "--require", "ndcg@10>=bm25+0.5")
    assert failed.returncode == 1
    assert "not met: ndcg@10>=bm25+0.5" in failed.stderr
    assert "hybrid" in failed.stdout


@pytest.mark.case("M1")
@pytest.mark.case("M3")
@pytest.mark.parametrize("command", ["evaluate", "gate", "tune"])
def test_judgements_of_other_documents_are_refused(
    command: str, run: Run, index: str, opensearch: OpenSearch, tmp_path: Path
) -> None:
    before = look(opensearch, index).profile
    file = tmp_path / "by-sku.csv"
    rows = "".join(f"{query},sku-{doc_id},1\n" for query, doc_id in QUERIES.items())
    file.write_text(f"query,docid,rating\n{rows}", encoding="utf-8")
    done = run(command, index, judged=("--judgements", str(file)))
    assert done.returncode == 2
    assert f"0 of 40 judged documents are in {index}: are these its _id?" in " ".join(done.stderr.split())
    assert look(opensearch, index).profile == before


@pytest.mark.case("M2")
def test_gate_decides_nothing_by_one_query(
    run: Run, stack: ProxyStack, index: str, opensearch: OpenSearch, tmp_path: Path
) -> None:
    profile = look(opensearch, index).profile
    assert profile is not None
    file = tmp_path / "one.csv"
    query, doc_id = next(iter(QUERIES.items()))
    file.write_text(f"query,docid,rating\n{query},{doc_id},1\n", encoding="utf-8")
    done = run("gate", index, "--stages", "hybrid", "--json", judged=("--judgements", str(file)))
    assert told(done)["verdicts"][-1]["undecided"] == "1 judged query, at least 20 are needed"
    assert "stage hybrid is as it was" in done.stderr
    after = look(opensearch, index).profile
    assert after is not None
    assert after.stages == profile.stages


@pytest.fixture
def event_log(index: str, tmp_path: Path) -> Path:
    """Each page shows a wrong document first, and every reader chooses the right one below it."""
    log = EventLog(tmp_path / "events.jsonl")
    for n, (query, doc_id) in enumerate(QUERIES.items()):
        own, right = (index, f"d{(n + 1) % len(QUERIES)}"), (index, doc_id)
        for reader in range(FEWEST_PAGES):
            page = f"{n}-{reader}"
            log.append(Impression(1.0, page, index, "hybrid", [own], [right], 0.5, 0.5, 9.0, query, 1, [own, right]))
            log.append(Click(2.0, page, doc_id))
    return tmp_path / "events.jsonl"


def test_clicks_of_the_proxys_readers_are_judgements(run: Run, index: str, event_log: Path) -> None:
    figures = told(run("evaluate", index, "--json", "--stages", "bm25,hybrid", judged=("--clicks", str(event_log))))
    assert figures["queries"] == len(QUERIES)
    assert all(stage["ndcg@10"] > 0.9 for stage in figures["stages"].values())


@pytest.fixture
def ubi_indices(opensearch: OpenSearch) -> Iterator[tuple[str, ...]]:
    """UBI's two indices, which take no field that the standard does not have."""
    for name, properties in MAPPINGS.items():
        opensearch.indices.create(index=name, body={"mappings": {"dynamic": "strict", "properties": properties}})
    yield tuple(MAPPINGS)
    opensearch.indices.delete(index=",".join(MAPPINGS))


def test_the_indices_of_ubi_take_the_log_and_judge_as_it_does(
    node: EmbeddedNode, opensearch: OpenSearch, ubi_indices: tuple[str, ...], event_log: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "events.ndjson"
    output("report", str(event_log), "--to-ubi", str(exported))
    for _ in range(2):
        done = opensearch.bulk(body=exported.read_bytes(), params={"refresh": "true"})
        assert not done["errors"], done
    n_pages = len(QUERIES) * FEWEST_PAGES
    assert [opensearch.count(index=name)["count"] for name in ubi_indices] == [n_pages, 3 * n_pages]

    # Clicks by rank, as the Workbench counts them.
    ranks = {"terms": {"field": "event_attributes.position.ordinal"}}
    body = {"size": 0, "aggs": {"actions": {"terms": {"field": "action_name"}, "aggs": {"ranks": ranks}}}}
    counted = {
        action["key"]: {rank["key"]: rank["doc_count"] for rank in action["ranks"]["buckets"]}
        for action in opensearch.search(index="ubi_events", body=body)["aggregations"]["actions"]["buckets"]
    }
    assert counted == {"impression": {1: n_pages, 2: n_pages}, "click": {2: n_pages}}

    output("judgements", str(tmp_path / "of-cluster.csv"), "--ubi", "--cluster", node.url)
    output("judgements", str(tmp_path / "of-log.csv"), "--clicks", str(event_log))
    assert sorted((tmp_path / "of-cluster.csv").read_text(encoding="utf-8").splitlines()) == sorted(
        (tmp_path / "of-log.csv").read_text(encoding="utf-8").splitlines()
    )


def test_gate_lets_an_honest_reranker_pass_and_writes_nothing_in_a_dry_run(
    run: Run, index: str, opensearch: OpenSearch
) -> None:
    before = look(opensearch, index).profile
    verdict = told(run("gate", index, "--stages", "hybrid,rerank", "--json", "--dry-run"))
    assert [(each["stage"], each["enabled"]) for each in verdict["verdicts"]] == [
        ("lexical", True),
        ("hybrid", True),
        ("rerank", True),
    ]
    assert verdict["measurement"]["queries"] == 40
    assert look(opensearch, index).profile == before


def sabotaged(folder: Path) -> ModelFolder:
    return make_negated_cross_encoder(folder)


def of_another_language(folder: Path) -> ModelFolder:
    """It knows the filling alone: every other word is the unknown one to it."""
    return make_toy_cross_encoder(folder, FILLING)


@pytest.mark.parametrize("make", [sabotaged, of_another_language])
def test_gate_keeps_a_harmful_reranker_off_until_it_is_forced(
    make: Callable[[Path], ModelFolder], run: Run, stack: ProxyStack, index: str, opensearch: OpenSearch, tmp_path: Path
) -> None:
    reranker = make(tmp_path / "harmful")
    assert stopped_at(stack, index).endswith("+rerank")
    verdicts = told(run("gate", index, "--stages", "hybrid,rerank", "--json", reranker=reranker))["verdicts"]
    assert (verdicts[-1]["stage"], verdicts[-1]["against"], verdicts[-1]["enabled"]) == ("rerank", "hybrid", False)
    assert verdicts[-1]["high"] < -0.1
    assert stopped_at(stack, index) == "hybrid"

    forcing = ["gate", "--index", index, "--cluster", stack.url, "--force", "rerank", "--reason", "to see it fail"]
    forced = subprocess.run(
        [sys.executable, "-m", "bridge.cli", *forcing, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told(forced)["verdicts"][-1]["forced"] == "to see it fail"
    assert stopped_at(stack, index).endswith("+rerank")
    profile = look(opensearch, index).profile
    assert profile is not None
    assert profile.gate is not None
    assert profile.gate.verdicts[-1].high is not None


def test_tune_finds_that_a_harmful_reranker_is_best_left_out(
    run: Run, stack: ProxyStack, index: str, opensearch: OpenSearch, tmp_path: Path
) -> None:
    reranker = sabotaged(tmp_path / "harmful")
    plot = tmp_path / "front.png"
    shown = told(run("tune", index, "--json", "--plot", str(plot), reranker=reranker))
    assert shown["written"] is False
    assert shown["tuned_mean"] > shown["default_mean"] + 0.1
    assert shown["low"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert stopped_at(stack, index).endswith("+rerank")

    told_of_words = told(run("tune", index, "--json", "--stages", "expansion,hybrid", reranker=reranker))
    assert told_of_words["setting"].startswith(("expansion", "hybrid"))
    assert told_of_words["default_mean"] > shown["default_mean"]

    done = run("tune", index, "--apply", reranker=reranker)
    assert done.returncode == 0, done.stderr
    assert "written to the index" in done.stdout
    profile = look(opensearch, index).profile
    assert profile is not None
    assert profile.tuning is not None
    assert profile.tuning.tuned_mean == pytest.approx(shown["tuned_mean"], abs=0.02)
    assert profile.rerank.blend > 0 or profile.stages[-1] != "rerank"


def test_a_grown_index_is_searched_like_the_real_one(stack: ProxyStack, index: str, opensearch: OpenSearch) -> None:
    profile = look(opensearch, index).profile
    assert profile is not None
    grown, written = unused_index_name(), list[int]()
    try:
        grow(opensearch, index, grown, profile, n_documents=60, on_written=written.append)
        assert written[-1] == opensearch.count(index=grown)["count"] == 60
        with OpenSearch(stack.url) as client:
            body = {"size": 60, "query": {"multi_match": {"query": "wing pressure", "fields": ["title", "body"]}}}
            answer = client.search(index=grown, body=body, headers={"x-bridge": "vector"})
        found = [hit["_id"] for hit in answer["hits"]["hits"]]
        assert len(found) == 60
        assert {doc_id.split("-")[0] for doc_id in found} == {"real", "synthetic"}
    finally:
        opensearch.indices.delete(index=grown, params={"ignore_unavailable": "true"})


def test_an_index_that_is_enriched_beside_is_measured_gated_and_tuned_as_in_place(
    run: Run, stack: ProxyStack, index: str, index_beside: str, opensearch: OpenSearch
) -> None:
    stages = ("--stages", "bm25,expansion,vector,hybrid,rerank")
    in_place, beside = (told(run("evaluate", each, "--json", *stages))["stages"] for each in (index, index_beside))
    assert list(beside) == list(in_place)
    for stage, figures in in_place.items():
        assert beside[stage]["ndcg@10"] == pytest.approx(figures["ndcg@10"], abs=0.002)

    verdict = told(run("gate", index_beside, "--stages", "hybrid,rerank", "--calibrate", "--json"))
    assert [each["mean"] for each in verdict["verdicts"][1:]] == pytest.approx(
        [in_place[stage]["ndcg@10"] for stage in ("hybrid", "rerank")], abs=0.002
    )
    profile = enriched(opensearch, index_beside, PREFIX).required_profile
    assert profile.gate is not None
    assert (profile.stages[-1], profile.beside) == ("rerank", index_beside)
    assert stopped_at(stack, index_beside).endswith("+rerank")
    assert profile.valid_calibration is not None
    assert msgspec.to_builtins(profile.calibration) == verdict["calibration"]
    assert (verdict["calibration"]["measurement"]["queries"], verdict["calibration"]["generation"]) == (40, 1)

    tuning = told(run("tune", index_beside, "--json", "--apply", "--stages", "lexical,hybrid"))
    assert tuning["default_mean"] == pytest.approx(in_place["hybrid"]["ndcg@10"], abs=0.002)
    tuned = enriched(opensearch, index_beside, PREFIX).required_profile
    assert tuned.tuning is not None
    assert tuned.gate == profile.gate


def test_an_index_that_was_not_enriched_is_refused(run: Run, opensearch: OpenSearch, fresh_index: str) -> None:
    opensearch.indices.create(index=fresh_index)
    done = run("evaluate", fresh_index, "--json")
    assert done.returncode == 2
    assert "is not enriched" in done.stderr
    assert done.stdout == ""
