"""Which cases of the reliability catalogue the tests prove.

As a pytest plugin it gathers, per `@pytest.mark.case("P13")`, the outcomes of the marked tests into
`var/cases.json`; as a program (`scripts/cases`) it prints a line per case from the last run. A case has
passed when at least one marked test passed and none failed.
"""

import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

REPORT = Path(__file__).parent.parent / "var" / "cases.json"
LETTERS = {"I": 54, "R": 30, "P": 72, "S": 20, "M": 8, "N": 1}
"""Cases of each letter, in both catalogues and beyond."""
CASES = [f"{letter}{number}" for letter, count in LETTERS.items() for number in range(1, count + 1)]

PROPERTY = "case"


def pytest_configure(config: pytest.Config) -> None:
    # Of several processes, only the one that the others report to.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Gatherer())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("case"):
            unknown = [name for name in mark.args if name not in CASES]
            if unknown or not mark.args:
                known = ", ".join(f"{letter}1…{letter}{count}" for letter, count in LETTERS.items())
                raise pytest.UsageError(f"{item.nodeid}: no case {unknown}: {known}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tells the report which cases it is of: a worker sends reports to the process that gathers them."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        report.user_properties += [(PROPERTY, name) for mark in item.iter_markers("case") for name in mark.args]
    return report


class Gatherer:
    """Gathers outcomes from reports, and writes them at the end."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, name in report.user_properties:
            if key == PROPERTY:
                self.outcomes.setdefault(str(name), {})[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        if self.outcomes:
            REPORT.parent.mkdir(exist_ok=True)
            REPORT.write_text(json.dumps(self.outcomes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def lines(outcomes: dict[str, dict[str, str]]) -> list[str]:
    """A line per case of the catalogue, in its order: `P13 passed tests/…`, `P14 failed …`, `P15 absent`."""
    report = []
    for name in CASES:
        tests = outcomes.get(name, {})
        failed = sorted(test for test, outcome in tests.items() if outcome == "failed")
        passed = sorted(test for test, outcome in tests.items() if outcome == "passed")
        if failed:
            report.append(f"{name} failed {' '.join(failed)}")
        elif passed:
            report.append(f"{name} passed {' '.join(passed)}")
        else:
            report.append(f"{name} absent")
    return report


def main() -> None:
    if not REPORT.is_file():
        sys.exit("no test run has been recorded: run scripts/test first")
    sys.stdout.write("\n".join(lines(json.loads(REPORT.read_text(encoding="utf-8")))) + "\n")


if __name__ == "__main__":
    main()
