"""`scripts/bench` knows each benchmark by its name."""

import importlib

import click
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import MODULES, main


@pytest.mark.parametrize("name", MODULES)
def test_each_name_is_a_benchmark_that_can_end_with_json(name: str) -> None:
    if name == "ray":
        pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    command = importlib.import_module(MODULES[name]).command
    assert isinstance(command, click.Command)
    assert "--json" in [option for each in command.params for option in each.opts]


def test_the_help_lists_every_name_without_importing_one() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert all(name in shown.output for name in MODULES)


def test_another_name_is_refused() -> None:
    refused = CliRunner().invoke(main, ["speed"])
    assert (refused.exit_code, "No such command 'speed'" in refused.output) == (2, True)
