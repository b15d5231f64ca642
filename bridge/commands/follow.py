"""`neural-bridge follow`: enriches what anybody writes to an index, a few seconds later."""

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import cluster_option, json_option, settings_of
from bridge.commands.options.enrich import Running, running_options

if TYPE_CHECKING:
    from ingest.follow.state import FollowStatus

_LINE_EVERY_S = 10.0
_WHAT = {"all": "all fields", "vectors": "vectors", "predicted_queries": "predicted queries"}


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

    The index must have been enriched once: see `neural-bridge backfill`. Vectors are made first, and predicted
    queries with the computing time that they leave. Only our own object is set, and only where a document still
    is as it was read. A restart goes on where the last run was; while the cluster is
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
    from bridge.logs import write_json_lines
    from ingest.follow.fields import followed_profile
    from ingest.follow.metrics import metrics_served
    from ingest.follow.pair import FollowerPair
    from ingest.job import Job
    from ingest.signals import stop_on_signals
    from ingest.stages.models import load_models

    write_json_lines()
    client = connect(settings.cluster)
    state = indices.look(client, index)
    kept = state.profile if generation is None else state.generation(generation)
    made = settings.ingest if kept and kept.generator else settings.ingest.model_copy(update={"generator": None})
    models = load_models(made)
    profile = followed_profile(state, generation, models)
    folder = running.folder("follow", f"{state.name}-generation-{profile.generation}")
    with ExitStack() as held:
        request = held.enter_context(stop_on_signals())
        followers = held.enter_context(FollowerPair(Job(index, profile, models, client, made, folder), request))
        if metrics_port is not None:
            port = held.enter_context(metrics_served(followers.status, host="127.0.0.1", port=metrics_port))
            click.echo(f"metrics: http://127.0.0.1:{port}/metrics", err=True)
        ended = followers.follow(once=once, on_status=None if running.quiet else _Lines())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(ended), indent=2))
    else:
        for last, dead_letters in zip(ended, followers.dead_letters, strict=True):
            click.echo(f"{last.index}, generation {last.generation}, {_WHAT[last.fields]}: {last.ledger}")
            if last.ledger.dead_lettered:
                click.echo(f"  why documents are dead letters: {dead_letters}")
    ctx.exit(EXIT_DEAD_LETTERS if any(last.ledger.dead_lettered for last in ended) else 0)


class _Lines:
    """Of each follower a line on stderr when something happened, every ten seconds at most; and at once when it
    begins or ends to wait."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int, bool]] = {}

    def __call__(self, status: "FollowStatus") -> None:
        now, answered, waits = time.monotonic(), status.ledger.answered, status.waiting is not None
        told_at, told, waited = self._told.get(status.fields, (-_LINE_EVERY_S, 0, False))
        due = now - told_at >= _LINE_EVERY_S and answered != told
        if not due and waits == waited:
            return
        self._told[status.fields] = (now, answered, waits)
        what = f"follow {status.index}, {_WHAT[status.fields]}"
        waiting = f"; waits for {status.waiting}" if status.waiting else ""
        click.echo(f"{what}: lag {status.lag_s:.1f} s; {status.ledger}{waiting}", err=True)
