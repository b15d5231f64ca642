"""The case report: a line per case of the catalogue."""

from tests.case_report import CASES, lines


def test_the_catalogue_has_each_case_once_and_those_that_a_campaign_found() -> None:
    assert len(set(CASES)) == len(CASES) > 165


def test_a_failed_test_outweighs_passed_ones() -> None:
    report = lines(
        {"P13": {"tests/a.py::x": "passed"}, "P14": {"t::a": "passed", "t::b": "failed"}, "I9": {"t": "skipped"}}
    )
    assert "P13 passed tests/a.py::x" in report
    assert "P14 failed t::b" in report
    assert "P15 absent" in report
    assert "I9 absent" in report
    assert len(report) == len(CASES)
