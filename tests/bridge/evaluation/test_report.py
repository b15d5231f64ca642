"""Runs that trec_eval can read."""

from pathlib import Path

import ir_measures

from bridge.evaluation.report import run_file, write_run


def test_a_written_run_keeps_its_order_when_it_is_read(tmp_path: Path) -> None:
    write_run(tmp_path / "new/x.run", {"q1": ["b", "a", "c d"], "q2": []}, "hybrid")
    lines = list(ir_measures.read_trec_run(str(tmp_path / "new/x.run")))
    ranked = sorted(lines, key=lambda line: -line.score)
    assert [(line.query_id, line.doc_id) for line in ranked] == [("q1", "b"), ("q1", "a"), ("q1", "c_d")]


def test_several_stages_have_a_file_each() -> None:
    assert run_file(Path("runs/x.run"), "bm25", several=True) == Path("runs/x-bm25.run")
    assert run_file(Path("runs/x.run"), "bm25", several=False) == Path("runs/x.run")
