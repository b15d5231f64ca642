"""The units for systemd: valid, complete, and running commands that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.test_manifests import assert_is_a_command

OPERATIONS = Path(__file__).parent.parent.parent / "scripts" / "operations"
UNITS = sorted([*OPERATIONS.glob("*.service"), *OPERATIONS.glob("*.timer")])
_RUNS_OURS = re.compile(r"^ExecStart=\S+/neural-bridge --config \S+ (.*)$", re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """All units as they are installed for the index `products`, with a program in the place of ours."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/neural-bridge/bin/neural-bridge", "/bin/true")
        (tmp_path / unit.name.replace("@.", "@products.")).write_text(text, encoding="utf-8")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_one_that_systemd_takes(unit: Path, installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed / unit.name.replace("@.", "@products.")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if _RUNS_OURS.search(unit.read_text(encoding="utf-8"))], ids=lambda path: path.name
)
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    [words] = _RUNS_OURS.findall(unit.read_text(encoding="utf-8"))
    assert_is_a_command(words.replace("%i", "products").split())


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_what_a_unit_starts_is_there(unit: Path) -> None:
    named = re.findall(r"^OnFailure=(\S+)@%i(\.service)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    if unit.suffix == ".timer":
        named = [(unit.stem.removesuffix("@"), ".service")]
    for name, suffix in named:
        assert (OPERATIONS / f"{name}@{suffix}").is_file()
