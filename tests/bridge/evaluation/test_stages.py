"""Stages through a proxy that answers by script: what is measured, what is left out, and what is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.errors import AnswerNotUnderstood
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.report import remarks, stages_table, to_json
from bridge.evaluation.stages import StageResult, measure_stages
from bridge.profile import Stage
from bridge.settings import ClusterSettings

Answer = tuple[int, str, list[str]]
"""Status, marker, doc_ids."""

JUDGED = JudgedQueries(
    "by hand",
    queries={"q1": "red shoe", "q2": "blue shoe", "q3": "shoe"},
    qrels={"q1": {"d1": 1}, "q2": {"d2": 1}, "q3": {"d3": 1}},
)


@contextmanager
def scripted_proxy(answer: Callable[[str, str], Answer]) -> Iterator[OpenSearch]:
    """A server that answers a stage and a query's text as the script says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = asked["query"]["multi_match"]["query"]
            status, marker, doc_ids = answer(self.headers["x-bridge"], text)
            body = json.dumps({"hits": {"hits": [{"_id": doc_id} for doc_id in doc_ids]}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if marker:
                self.send_header("X-Bridge", marker)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with connect(ClusterSettings(url=f"http://127.0.0.1:{server.server_port}")) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def measured(
    answer: Callable[[str, str], Answer], stages: list[Stage], judged: JudgedQueries = JUDGED
) -> tuple[list[StageResult], list[str]]:
    said: list[str] = []
    with scripted_proxy(answer) as proxy:
        results = measure_stages(
            proxy,
            "products",
            queries=judged.queries,
            qrels=judged.qrels,
            stages=stages,
            body_of=multi_match(["text"]),
            say=said.append,
            own_documents=judged.own_documents,
        )
    return results, said


RIGHT = {"red shoe": "d1", "blue shoe": "d2", "shoe": "d3"}


def by_stage(stage: str, text: str) -> Answer:
    """BM25 finds two answers second, hybrid finds all first but loses the third, rerank is not there."""
    if stage == "lexical":
        return 200, "pass; reason=lexical", (["x", RIGHT[text]] if text != "shoe" else ["d3"])
    if stage == "hybrid":
        return 200, "hybrid; took_ms=3", ([RIGHT[text], "x"] if text != "shoe" else ["x"])
    return 200, "hybrid; degraded=rerank_unavailable; took_ms=9", ["x"]


def test_stages_are_measured_and_compared_with_the_first() -> None:
    [bm25, hybrid], said = measured(by_stage, ["lexical", "hybrid"])
    assert bm25.evaluation.values["RR@10"].tolist() == [0.5, 0.5, 1.0]
    assert hybrid.evaluation.values["RR@10"].tolist() == [1.0, 1.0, 0.0]
    assert bm25.p_value is None
    assert hybrid.p_value is not None
    assert hybrid.run.took_ms.shape == (3,)
    assert said == []


def test_a_stage_that_nothing_reaches_is_left_out_and_told() -> None:
    results, said = measured(by_stage, ["lexical", "rerank", "cascade"])
    assert [result.name for result in results] == ["bm25"]
    assert [line.split(":")[0] for line in said] == ["stage rerank is left out", "stage cascade is left out"]
    assert "degraded=rerank_unavailable" in said[0]


@pytest.mark.parametrize("stage", ["cascade", "sparse"])
def test_a_stage_that_was_not_done_is_not_that_stage(stage: Stage) -> None:
    results, said = measured(lambda _stage, _text: (200, "hybrid+rerank; took_ms=5", ["d1"]), ["rerank", stage])
    assert [result.name for result in results] == ["rerank"]
    assert "hybrid+rerank" in said[0]


def test_the_sparse_leg_is_measured_alone() -> None:
    results, said = measured(lambda _stage, _text: (200, "sparse; took_ms=5", ["d1"]), ["sparse"])
    assert ([result.name for result in results], said) == (["sparse"], [])


def test_single_searches_that_go_wrong_are_counted_and_told() -> None:
    def answer(stage: str, text: str) -> Answer:
        return {
            "red shoe": (200, "hybrid; degraded=embedder_slow; took_ms=5", ["d1"]),
            "blue shoe": (200, "pass; reason=identifier", ["d2"]),
            "shoe": (400, "", []),
        }.get(text if stage == "hybrid" else "", (200, "pass; reason=lexical", []))

    judged = JudgedQueries("s", {**JUDGED.queries, "q4": "fine"}, {**JUDGED.qrels, "q4": {"d4": 1}})

    def fine(stage: str, text: str) -> Answer:
        return (200, "hybrid; took_ms=1", ["d4"]) if text == "fine" else answer(stage, text)

    [hybrid], _ = measured(fine, ["hybrid"], judged)
    assert (hybrid.run.degraded, dict(hybrid.run.left_alone), dict(hybrid.run.refused)) == (
        1,
        {"identifier": 1},
        {400: 1},
    )
    assert hybrid.evaluation.values["RR@10"].tolist() == [1.0, 1.0, 0.0, 1.0]
    told = "\n".join(remarks(judged, [hybrid]))
    for part in ("1 of 4 searches were answered by an earlier stage", "identifier", "status 400"):
        assert part in told


@pytest.mark.parametrize("marker", ["", "pass; reason=no_profile", "pass; reason=mapping_unreadable"])
def test_an_index_that_the_proxy_does_not_serve_is_an_error(marker: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match="expected the stage"):
        measured(lambda _stage, _text: (200, marker, ["d1"]), ["hybrid"])


def test_an_index_that_refuses_every_search_is_an_error() -> None:
    with pytest.raises(AnswerNotUnderstood, match="every search of index products with status 404"):
        measured(lambda _stage, _text: (404, "", []), ["lexical"])


def test_a_query_that_is_a_document_does_not_find_itself() -> None:
    judged = JudgedQueries("s", {"d7": "red shoe"}, {"d7": {"d1": 1}}, own_documents=frozenset({"d7"}))
    [bm25], _ = measured(lambda _stage, _text: (200, "pass; reason=lexical", ["d7", "d1"]), ["lexical"], judged)
    assert bm25.evaluation.values["RR@10"].tolist() == [1.0]


def test_json_has_the_figures_of_every_stage() -> None:
    results, _ = measured(by_stage, ["lexical", "hybrid"])
    told = to_json("products", 7, JUDGED, results)
    assert (told["collection"], told["documents"], told["queries"]) == ("products", 7, 3)
    assert list(told["stages"]) == ["bm25", "hybrid"]
    assert list(told["stages"]["bm25"]) == ["ndcg@10", "mrr@10", "recall@100", "p50_ms", "p95_ms"]
    assert told["stages"]["bm25"]["mrr@10"] == pytest.approx(2 / 3, abs=1e-4)
    assert stages_table("t", results).row_count == 2
