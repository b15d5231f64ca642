"""The compatibility page says what the tests found, and speaks of every feature that they name."""

from pathlib import Path

from tests.compatibility_report import features, page

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "compatibility.md"


def test_a_feature_works_where_each_of_its_tests_passed() -> None:
    first, second, third = features()[:3]
    kept = {
        "elasticsearch 8.16.6": {first: ["passed"], second: ["passed", "failed"]},
        "opensearch 2.19.1": {first: ["passed", "passed"], third: ["skipped"]},
        "opensearch 3.6.0": {first: ["passed"]},
    }
    rows = page(kept).splitlines()
    assert "| feature | opensearch 3.6.0 | opensearch 2.19.1 | elasticsearch 8.16.6 |" in rows
    assert f"| {first} | yes | yes | yes |" in rows
    assert f"| {second} | not tested | not tested | no |" in rows
    assert f"| {third} | not tested | not tested | not tested |" in rows


def test_the_page_has_a_row_for_every_feature_and_no_other() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert rows == ["feature", *features()], (
        "docs/reference/compatibility.md is stale: scripts/test --elasticsearch tests/integration/compatibility, then "
        "python -m tests.compatibility_report > docs/reference/compatibility.md"
    )
