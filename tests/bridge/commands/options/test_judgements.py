"""Options that `evaluate`, `gate`, `tune` and `bench` refuse before anything is started."""

import sys
from pathlib import Path

import pytest

from bridge.errors import UsageError
from tests.command_line import run

FILE = "judged.csv"


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


@pytest.mark.parametrize("command", [["evaluate"], ["gate"], ["tune"], ["bench", "search"]])
def test_a_missing_extra_is_named_with_its_remedy(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"ir_measures: pip install 'opensearch-neural-bridge\[node,evaluate"):
        run(*command, "--collection", str(tmp_path))


def test_a_folder_that_is_no_collection_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ir_measures")
    with pytest.raises(UsageError, match=r"corpus\.jsonl is missing"):
        run("evaluate", "--collection", str(tmp_path))
