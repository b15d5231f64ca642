"""`scripts/campaign NAME`: long runs that look for faults by chance. `--seed` makes a run the same again."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import structlog

from tests.campaign.findings import Findings
from tests.campaign.fuzz import Fuzzer
from tests.campaign.kills import run as run_kills
from tests.campaign.security import run as run_security
from tests.campaign.soak import FAULTS
from tests.campaign.soak import run as run_soak
from tests.campaign.stand import stand
from tests.campaign.switches import run as run_switches

_FAULTS = {fault.__name__: fault for fault in FAULTS}
LIMIT_MS = 50.0
"""The longest that the event loop may be held, in processor time."""


@click.group()
def main() -> None:
    """Long runs by chance. One that is stopped prints what it found so far, and goes on there when it is run again."""
    # The sidecar in this process writes a line for each request.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _options(command: Any) -> Any:
    for option in (
        click.option("--seed", type=int, help="Of the run; by default a new one, which is printed."),
        click.option("--minutes", type=float, help="At most so many minutes."),
        click.option("--folder", type=click.Path(path_type=Path), help="For findings; by default var/campaign/SEED."),
        click.option("--json", "as_json", is_flag=True, help="The summary as JSON."),
    ):
        command = option(command)
    return command


_requests = click.option("--requests", type=int, default=2000, show_default=True, help="At most so many requests.")


@main.command()
@_requests
@_options
def fuzz(**options: Any) -> None:
    """Generated requests to a node, through the proxy unchanged, and upgraded."""
    _fuzzed("fuzz", heavy=0.02, **options)


@main.command()
@_requests
@_options
def work(**options: Any) -> None:
    """The longest stretch that requests hold the proxy's event loop; every fifth request is a heavy one."""
    _fuzzed("work", heavy=0.2, **options)


def _fuzzed(
    name: str,
    *,
    heavy: float,
    seed: int | None,
    requests: int,
    minutes: float | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    findings = _findings(name, seed, folder)
    started = time.monotonic()
    until = _until(minutes)
    with stand() as running:
        with _stoppable():
            asyncio.run(Fuzzer(running, findings, requests, until, heavy).run())
        longest = running.longest_holds()
        log = running.holds.with_suffix(".log").read_text("utf-8")
    for trace in [line for line in log.splitlines() if '"exception"' in line]:
        findings.note("proxy: an unforeseen exception", log=trace)
    for stretch in longest:
        if stretch["cpu_ms"] > LIMIT_MS:
            findings.note("work: the event loop is held", **stretch)
    _tell(findings, time.monotonic() - started, as_json, longest_holds_ms=[each["cpu_ms"] for each in longest])


@main.command()
@click.option("--n", "n_kills", type=int, default=100, show_default=True, help="At most so many kills.")
@click.option("--trial", type=int, help="Only this trial of the seed, as a finding names it.")
@_options
def kills(
    n_kills: int,
    trial: int | None,
    seed: int | None,
    minutes: float | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Commands that enrich an index are killed at random moments, while an application writes to it."""
    findings = _findings("kills", seed, folder)
    started = time.monotonic()
    with _stoppable():
        run_kills(findings, n_kills, _until(minutes), only=trial)
    _tell(findings, time.monotonic() - started, as_json)


@main.command()
@click.option("--rate", type=float, default=50.0, show_default=True, help="Searches in a second.")
@click.option(
    "--fault", "names", type=click.Choice(sorted(_FAULTS)), multiple=True, help="Only this fault; repeatable."
)
@_options
def soak(
    names: tuple[str, ...], rate: float, seed: int | None, minutes: float | None, folder: Path | None, as_json: bool
) -> None:
    """Searches while nodes, proxies, sidecars, disks and connections fail, for a minute by default."""
    findings = _findings("soak", seed, folder)
    faults = [_FAULTS[name] for name in names] or list(FAULTS)
    started = time.monotonic()
    figures = asyncio.run(run_soak(findings, minutes or 1.0, rate, faults))
    _tell(findings, time.monotonic() - started, as_json, **figures)


@main.command()
@_options
def switches(seed: int | None, minutes: float | None, folder: Path | None, as_json: bool) -> None:
    """Generations, aliases, certificates and clocks are switched under load: once each, or for so many minutes."""
    findings = _findings("switches", seed, folder)
    started = time.monotonic()
    figures = asyncio.run(run_switches(findings, minutes))
    _tell(findings, time.monotonic() - started, as_json, **figures)


@main.command()
@click.option("--rounds", type=int, default=20, show_default=True, help="At most so many rounds of all cells.")
@_options
def security(rounds: int, seed: int | None, minutes: float | None, folder: Path | None, as_json: bool) -> None:
    """Callers of every kind on every path of a search: nobody may see more than the node itself shows him."""
    findings = _findings("security", seed, folder)
    started = time.monotonic()
    whole = None
    with _stoppable():
        whole = run_security(findings, rounds, _until(minutes))
    if whole is not None:
        click.echo(whole.table(), err=as_json)
    cells = {"cells": whole.cells()} if whole is not None and as_json else {}
    _tell(findings, time.monotonic() - started, as_json, rounds=findings.next, **cells)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ends the block, not the command, at Ctrl-C: what was done so far is still printed."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on", err=True)


def _until(minutes: float | None) -> float:
    return time.monotonic() + minutes * 60 if minutes is not None else float("inf")


def _findings(name: str, seed: int | None, folder: Path | None) -> Findings:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    return Findings(folder or Path("var", "campaign", str(seed)), name, seed)


def _tell(findings: Findings, took_s: float, as_json: bool, **more: Any) -> None:
    findings.save()
    summary = {
        "run": findings.name,
        "seed": findings.seed,
        "took_s": round(took_s, 1),
        **findings.figures,
        **more,
        "findings": dict(findings.counts.most_common()),
    }
    if as_json:
        click.echo(json.dumps(summary))
    else:
        for name, value in summary.items():
            if name != "findings":
                click.echo(f"{name:>20}  {value}")
        click.echo(f"{findings.counts.total():>20}  findings" + (f", in {findings.folder}" if findings.counts else ""))
        for kind, count in findings.counts.most_common():
            click.echo(f"{count:>22}  {kind}")
    raise SystemExit(1 if findings.counts else 0)


if __name__ == "__main__":
    main()
