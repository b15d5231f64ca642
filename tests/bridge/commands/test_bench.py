"""`neural-bridge bench`: numbers of clients and documents; tests/integration puts a proxy under load."""

import pytest

from bridge.commands.bench import _numbers
from bridge.errors import UsageError
from tests.command_line import run


def test_numbers_are_read_from_a_list() -> None:
    assert _numbers("--clients", "1, 4,16") == [1, 4, 16]
    assert _numbers("--grow-to", "") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clients", "one"], "--clients one: expected whole numbers"),
        (["--grow-to", "0"], "--grow-to 0: expected numbers from 1 on"),
    ],
)
def test_values_that_mean_nothing(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run("bench", "search", "--collection", ".", *options)
