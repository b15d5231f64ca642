"""`neural-bridge follow`: enriches what anybody writes to an index, a few seconds later."""

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import settings_of
from bridge.commands.enriching import Running, running_options
from bridge.commands.index import cluster_option, json_option

if TYPE_CHECKING:
    from ingest.follow import FollowStatus

_LINE_EVERY_S = 10.0


@click.command(name="follow")
@click.argument("index")
@click.option("--generation", type=click.IntRange(min=1), help="Which generation; the serving one by default.")
@click.option("--once", is_flag=True, help="Catch up with what was written so far, and end.")
@click.option("--encoder", help="Encoder that made the generation: path or built-in.")
@click.option("--generator", help="Generator that predicted its queries: path or built-in.")
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics on this port of 127.0.0.1."
)
@running_options
@cluster_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    generation: int | None,
    once: bool,
    encoder: str | None,
    generator: str | None,
    threads: int | None,
    metrics_port: int | None,
    running: Running,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Enrich new and changed documents of INDEX, whoever writes them, until SIGTERM or SIGINT.

    The index must have been enriched once: see `neural-bridge backfill`. Only our own object is set, and only
    where a document still is as it was read. A restart goes on where the last run was; while the cluster is
    away, it waits. A signal is its ordinary end: exit code 0, or 3 where there are dead letters.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        ingest={"encoder": encoder, "generator": generator, "threads": threads, **running.limits()},
    )
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.errors import EXIT_DEAD_LETTERS
    from ingest.follow import Follower
    from ingest.follow_metrics import metrics_served
    from ingest.models import load_models
    from ingest.signals import stop_on_signals

    client = connect(settings.cluster)
    state = indices.look(client, index)
    kept = state.profile if generation is None else state.generation(generation)
    made = settings.ingest if kept and kept.generator else settings.ingest.model_copy(update={"generator": None})
    number = kept.generation if kept else 1
    with ExitStack() as held:
        request = held.enter_context(stop_on_signals())
        follower = Follower(
            client,
            index,
            generation=generation,
            models=load_models(made),
            settings=made,
            state_folder=running.folder("follow", f"{state.name}-generation-{number}"),
            stop=request,
        )
        held.enter_context(follower)
        if metrics_port is not None:
            port = held.enter_context(metrics_served(follower.status, host="127.0.0.1", port=metrics_port))
            click.echo(f"metrics: http://127.0.0.1:{port}/metrics", err=True)
        last = follower.follow(once=once, on_status=None if running.quiet else _Lines())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(last), indent=2))
    else:
        click.echo(f"{last.index}, generation {last.generation}: {last.ledger}")
        if last.ledger.dead_lettered:
            click.echo(f"  why documents are dead letters: {follower.dead_letters}")
    ctx.exit(EXIT_DEAD_LETTERS if last.ledger.dead_lettered else 0)


class _Lines:
    """A line on stderr when something happened, every ten seconds at most; and at once when it begins or ends
    to wait."""

    def __init__(self) -> None:
        self._next = time.monotonic()
        self._answered = 0
        self._waits = False

    def __call__(self, status: "FollowStatus") -> None:
        answered, waits = status.ledger.answered, status.waiting is not None
        due = time.monotonic() >= self._next and answered != self._answered
        if not due and waits == self._waits:
            return
        self._next, self._answered, self._waits = time.monotonic() + _LINE_EVERY_S, answered, waits
        waiting = f"; waits for {status.waiting}" if status.waiting else ""
        click.echo(f"follow {status.index}: lag {status.lag_s:.1f} s; {status.ledger}{waiting}", err=True)
