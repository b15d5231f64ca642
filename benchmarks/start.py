"""How long the commands and servers take to start, and what an installation weighs; `scripts/bench proxy` prints it."""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import click
import msgspec

PACKAGE = "opensearch-neural-bridge"
ROUNDS = 5
_HEAVIEST = 8
_SERVERS: Mapping[str, list[str]] = {
    # Nothing answers there: a proxy is ready for requests before its cluster is.
    "proxy": ["proxy", "--port", "0", "--admin-port", "0", "--cluster", "http://127.0.0.1:9"],
    "sidecar": ["rerank", "--port", "0"],
}
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Start(msgspec.Struct, frozen=True):
    """Seconds until `neural-bridge --help` has ended, and until the proxy and the sidecar listen, the latter with its
    models loaded: medians of `ROUNDS`. `install_mb`: the package with all that it needs, without extras; `heaviest_mb`:
    what weighs most of it, `models` being the built-in ones.
    """

    help_s: float
    proxy_ready_s: float
    sidecar_ready_s: float
    install_mb: float
    heaviest_mb: dict[str, float]


def measured() -> Start:
    """Starts everything `ROUNDS` times, in turn.

    Raises:
        ClickException: a server does not start.
    """
    taken: dict[str, list[float]] = {"help": [], **{name: [] for name in _SERVERS}}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([*_COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
        taken["help"].append(time.perf_counter() - began)
        for name, arguments in _SERVERS.items():
            taken[name].append(_until_listening(arguments))
    medians = {name: round(statistics.median(seconds), 2) for name, seconds in taken.items()}
    weights = {name: _bytes(package) / 1e6 for name, package in needed(PACKAGE).items()}
    models = Path(__file__).parent.parent / "bridge" / "models" / "builtin"
    weights["models"] = sum(file.stat().st_size for file in models.rglob("*") if file.is_file()) / 1e6
    heaviest = sorted(weights, key=lambda name: -weights[name])[:_HEAVIEST]
    return Start(
        help_s=medians["help"],
        proxy_ready_s=medians["proxy"],
        sidecar_ready_s=medians["sidecar"],
        install_mb=round(sum(weights.values()), 1),
        heaviest_mb={name: round(weights[name], 1) for name in heaviest},
    )


_COMMAND = [sys.executable, "-m", "bridge.cli"]


def _until_listening(arguments: list[str]) -> float:
    began = time.perf_counter()
    process = subprocess.Popen([*_COMMAND, "serve", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        # The first line of its log says where it listens.
        if process.stderr is None or not process.stderr.readline():
            raise click.ClickException(f"neural-bridge serve {' '.join(arguments)} did not start")
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate()


def needed(package: str) -> dict[str, Distribution]:
    """A package and all that it needs on this machine, directly or not, without extras; by name."""
    found: dict[str, Distribution] = {}
    waiting = [package]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another system or Python
            continue
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement and (match := _NAME.match(requirement)) is not None:
                waiting.append(match[0])
    return found


def _bytes(package: Distribution) -> int:
    """What its files take, compiled ones included."""
    files = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(file.stat().st_size for file in files if file.is_file())
