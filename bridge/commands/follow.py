"""`neural-bridge follow`: enriches what anybody writes to an index, a few seconds later."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import cluster_option, json_option, say, settings_of, show
from bridge.commands.options.enrich import RunOptions, run_options, versions_option

if TYPE_CHECKING:
    from ingest.follow.state import FollowStatus

_LINE_EVERY_S = 10.0
_WHAT = {"all": "all fields", "vectors": "vectors", "predicted_queries": "predicted queries"}


@click.command(name="follow")
@click.argument("index")
@click.option("--generation", type=click.IntRange(min=1), help="Number of the generation. Defaults to the serving one.")
@click.option("--once", is_flag=True, help="Process the writes so far, and end.")
@click.option("--encoder", help="Encoder that made the generation: path or built-in.")
@click.option("--generator", help="Generator that predicted its queries: path or built-in.")
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics on this port of 127.0.0.1."
)
@run_options
@versions_option
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
    run: RunOptions,
    external_versions: str | None,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Enrich new and changed documents of INDEX, whoever writes them, until SIGTERM or SIGINT.

    The index must have been enriched once: see `neural-bridge backfill`. Vectors are made first, and predicted
    queries with the computing time that they leave. Only our own object is set, and only if a document has not
    changed since it was read. A restart goes on where the last run ended; while the cluster does not answer, it
    waits. A signal ends it normally: exit code 0, or 3 if there are dead letters.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        ingest={
            "encoder": encoder,
            "generator": generator,
            "threads": threads,
            "external_versions": external_versions,
            **run.limits(),
        },
    )
    from bridge.cluster import companion
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
    name = state.name
    if state.profile is None:
        state = companion.find(client, name, settings.companion.prefix) or state
    kept = state.profile if generation is None else state.generation(generation)
    made = settings.ingest if kept and kept.generator else settings.ingest.model_copy(update={"generator": None})
    models = load_models(made)
    profile = followed_profile(state, generation, models)
    folder = run.folder("follow", f"{name}-generation-{profile.generation}")
    with ExitStack() as stack:
        request = stack.enter_context(stop_on_signals())
        followed = state.name if profile.beside else index
        followers = stack.enter_context(FollowerPair(Job(followed, profile, models, client, made, folder), request))
        if metrics_port is not None:
            port = stack.enter_context(metrics_served(followers.status, host="127.0.0.1", port=metrics_port))
            say(f"metrics: http://127.0.0.1:{port}/metrics", err=True)
        ended = followers.follow(once=once, on_status=None if run.quiet else _Lines())
    lines = []
    for last, dead_letters in zip(ended, followers.dead_letters, strict=True):
        lines.append(f"{last.index}, generation {last.generation}, {_WHAT[last.fields]}: {last.ledger}")
        if last.ledger.dead_lettered:
            lines.append(f"  why documents are dead letters: {dead_letters}")
    show(msgspec.to_builtins(ended), *lines, as_json=as_json)
    ctx.exit(EXIT_DEAD_LETTERS if any(last.ledger.dead_lettered for last in ended) else 0)


class _Lines:
    """Writes a line per follower on stderr if something happened, every ten seconds at most; and at once when it starts
    or stops waiting."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, int, bool]] = {}

    def __call__(self, status: "FollowStatus") -> None:
        now, answered, waits = time.monotonic(), status.ledger.answered, status.waiting is not None
        shown_at, shown, waited = self._shown.get(status.fields, (-_LINE_EVERY_S, 0, False))
        due = now - shown_at >= _LINE_EVERY_S and answered != shown
        if not due and waits == waited:
            return
        self._shown[status.fields] = (now, answered, waits)
        what = f"follow {status.index}, {_WHAT[status.fields]}"
        waiting = f"; waits for {status.waiting}" if status.waiting else ""
        say(f"{what}: lag {status.lag_s:.1f} s; {status.ledger}{waiting}", err=True)
