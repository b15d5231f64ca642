"""What docs/explanation/sizing.md says that a collection costs follows from the rates that it says were measured."""

import pytest

from tests.sizing_table import DOCUMENT, rates, table


def test_the_table_follows_from_the_rates() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert table(rates(text)) in text, "python -m tests.sizing_table prints the table that belongs there"


def test_what_ray_takes_is_paid_in_hours() -> None:
    measured = {"r_vectors": 100.0, "r_queries": 50.0, "f": 0.5, "b": 1000.0}
    text = table(measured)
    # 10 million at 100 a second are 28 hours, of which Ray makes 56.
    assert "| vectors alone: hours of one worker | 56 | 5,556 |" in text
    assert "| vectors alone: workers to be done in a day | 3 | 232 |" in text
    assert "| disk, with one replica | 20 GB | 2.0 TB |" in text


def test_rates_are_read_with_their_units() -> None:
    found = rates("| `f` | 12.5 % | lost |\n| `b` | 4,321 bytes | growth |\n| `r_vectors` | 80.1 documents/s | |")
    assert found == {"f": pytest.approx(0.125), "b": 4321.0, "r_vectors": 80.1}
