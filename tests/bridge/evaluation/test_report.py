"""Runs that trec_eval can read, and tables that nothing in them can steer."""

from pathlib import Path

import ir_measures
import pytest
from rich.console import Console

from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.losses import Loss
from bridge.evaluation.report import losses_table, run_file, stages_table, write_run


def test_a_written_run_keeps_its_order_when_it_is_read(tmp_path: Path) -> None:
    write_run(tmp_path / "new/x.run", {"q1": ["b", "a", "c d"], "q2": []}, "hybrid")
    lines = list(ir_measures.read_trec_run(str(tmp_path / "new/x.run")))
    ranked = sorted(lines, key=lambda line: -line.score)
    assert [(line.query_id, line.doc_id) for line in ranked] == [("q1", "b"), ("q1", "a"), ("q1", "c_d")]


def test_several_stages_have_a_file_each() -> None:
    assert run_file(Path("runs/x.run"), "bm25", several=True) == Path("runs/x-bm25.run")
    assert run_file(Path("runs/x.run"), "bm25", several=False) == Path("runs/x.run")


@pytest.mark.case("S13")
def test_queries_ids_and_titles_cannot_steer_the_terminal(tmp_path: Path) -> None:
    judged = JudgedQueries("a\x1b[2J", {"q": "red\x07 [/shoe]"}, {"q": {"d\x1b": 1}})
    loss = Loss("q", 1.0, 0.0, ["d\x1b"], ["e"])
    with (tmp_path / "out").open("w+") as file:
        console = Console(file=file, width=160)
        console.print(stages_table(f"shop ({judged.source})", []))
        console.print(losses_table("bm25", "rerank", [loss], judged, {"e": "title\x9b31m"}))
        file.seek(0)
        printed = file.read()
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    for shown in (r"a\x1b[2J", r"red\x07 [/shoe]", r"+ d\x1b", r"title\x9b31m"):
        assert shown in printed
