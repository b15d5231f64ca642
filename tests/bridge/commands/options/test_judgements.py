"""What `evaluate`, `gate` and `tune` refuse before anything is started."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import cli
from bridge.errors import UsageError

FILE = "judged.csv"


def run(*arguments: str) -> None:
    CliRunner().invoke(cli, list(arguments), standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("command", ["evaluate", "gate", "tune"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --collection FOLDER or --index INDEX"),
        (["--collection", ".", "--index", "i"], "either --collection FOLDER or --index INDEX"),
        (["--index", "i"], "--index needs judgements"),
        (["--index", "i", "--queries", "q"], "belong together"),
        (["--index", "i", "--judgements", FILE, "--label-free", "5"], "several kinds of judgements"),
        (["--index", "i", "--clicks", FILE, "--judgements", FILE], "several kinds of judgements"),
        (["--collection", ".", "--judgements", FILE], "a collection has its own judgements"),
    ],
)
def test_options_that_contradict_each_other(command: str, options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(command, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluate", "--stages", "bm25,magic"], "no stage magic; choose from bm25, expansion"),
        (["evaluate", "--stages", ","], "no stage at all"),
        (["evaluate", "--require", "much better"], "--require"),
        (["gate", "--force", "rerank"], "--force and --reason belong together"),
        (["gate", "--reason", "because"], "--force and --reason belong together"),
        (["bench", "search", "--collection", ".", "--clients", "one"], "--clients one: expected whole numbers"),
        (["bench", "search", "--collection", ".", "--grow-to", "0"], "--grow-to 0: expected numbers from 1 on"),
    ],
)
def test_values_that_mean_nothing(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(*options)


@pytest.mark.parametrize("command", [["evaluate"], ["gate"], ["tune"], ["bench", "search"]])
def test_a_missing_extra_is_named_with_its_remedy(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"ir_measures: pip install 'opensearch-neural-bridge\[node,evaluate"):
        run(*command, "--collection", str(tmp_path))


def test_a_picture_that_cannot_be_drawn_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bridge.evaluation.tuning.plot", None)
    with pytest.raises(UsageError, match=r"opensearch-neural-bridge\[plot\]"):
        run("tune", "--collection", str(tmp_path), "--plot", str(tmp_path / "front.png"))


def test_a_folder_that_is_no_collection_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ir_measures")
    with pytest.raises(UsageError, match=r"corpus\.jsonl is missing"):
        run("evaluate", "--collection", str(tmp_path))
