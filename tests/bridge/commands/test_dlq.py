"""`neural-bridge dlq`: what is listed, and which files are refused."""

from pathlib import Path

import msgspec
import pytest

from bridge.errors import UsageError
from bridge.profile import companion_of
from ingest.books.state_folder import DeadLetter
from tests.bridge.commands.products import Call, refusal
from tests.command_line import answer, output, run
from tests.fake_bulk import FakeCluster
from tests.proxy_stack import PREFIX


def written(folder: Path, *letters: DeadLetter) -> str:
    file = folder / "dead.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters))
    return str(file)


def letter(doc_id: str | None, *, index: str = "shop", reason: str = "failed to parse") -> DeadLetter:
    error = {"type": "mapper_parsing_exception", "reason": reason, "status": 400}
    return DeadLetter(index, "a.jsonl:3", error, "2026-01-01T00:00:00Z", doc_id, document='{"secret":1}')


def test_letters_are_counted_by_cause_and_the_first_ones_listed(tmp_path: Path) -> None:
    file = written(tmp_path, letter("d1"), letter(None), letter("d3"))
    shown = answer("dlq", "show", file, "--limit", "2")
    assert shown["letters"] == 3
    assert [each["id"] for each in shown["first"]] == ["d1", None]
    lines = output("dlq", "show", file).splitlines()
    assert lines[0].split()[0] == "3"
    assert "a.jsonl:3  (no id)  mapper_parsing_exception: failed to parse" in lines
    assert "secret" not in "".join(lines)


@pytest.mark.case("S13")
def test_ids_and_reasons_cannot_steer_the_terminal(tmp_path: Path) -> None:
    file = written(tmp_path, letter("d\x1b[2J\x9b31m", reason="bad value \x1b]52;c;eA==\x07"))
    printed = output("dlq", "show", file)
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    assert r"d\x1b[2J\x9b31m" in printed
    assert r"bad value \x1b]52;c;eA==\x07" in printed


def test_letters_of_two_indices_are_not_replayed_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds letters of 2 indices, expected one"):
        run("dlq", "replay", written(tmp_path, letter("d1"), letter("d2", index="other")))


def test_an_index_that_is_not_enriched_takes_no_letters(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.mapping = {"properties": {}}
    with pytest.raises(UsageError, match="index shop is not enriched"):
        run("dlq", "replay", written(tmp_path, letter("d1")))


def test_letters_of_a_companion_lead_to_the_run_that_reads_the_documents_anew(
    call: Call, products_beside: str, tmp_path: Path
) -> None:
    file = written(tmp_path, letter("d1", index=companion_of(products_beside, PREFIX)))
    told = refusal(call("dlq", "replay", file))
    assert f"run `neural-bridge backfill {products_beside}` again" in told
