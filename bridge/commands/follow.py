"""`neural-bridge follow`: enriches what anybody writes to an index, a few seconds later."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import CLUSTER, INDEX, JSON, say, settings_of, show
from bridge.commands.options.enrich import EXTERNAL_VERSIONS, RunOptions
from bridge.commands.options.signature import EXISTING_FOLDER, cli_command, one_of, option

if TYPE_CHECKING:
    from ingest.follow.state import FollowStatus

_LINE_EVERY_S = 10.0
_WHAT = {"all": "all fields", "vectors": "vectors", "predicted_queries": "predicted queries"}


@cli_command("follow")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    wanted: str | None = one_of(
        option(
            "--in-place",
            flag_value="in_place",
            help="Refuse what is enriched beside, and extend the mapping of each index that comes.",
        ),
        option(
            "--beside",
            flag_value="beside",
            help="Refuse what is enriched in place, and make a companion for each index that comes.",
        ),
    ),
    generation: int | None = option(
        "--generation", type=click.IntRange(min=1), help="Number of the generation. Defaults to the serving one."
    ),
    once: bool = option("--once", help="Process the writes so far, and end."),
    encoder: str | None = option("--encoder", help="Encoder that made the generation: path or built-in."),
    sparse_encoder: str | None = option("--sparse-encoder", help="Sparse encoder that made it: path or built-in."),
    image_encoder: str | None = option("--image-encoder", help="Image encoder that embedded its pictures."),
    image_folder: Path | None = option(
        "--image-folder",
        type=EXISTING_FOLDER,
        help="Folder below which the pictures lie that documents name by a path.",
    ),
    generator: str | None = option("--generator", help="Generator that predicted its queries: path or built-in."),
    threads: int | None = option(
        "--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used."
    ),
    metrics_port: int | None = option(
        "--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics on this port of 127.0.0.1."
    ),
    run: RunOptions,
    external_versions: str | None = EXTERNAL_VERSIONS,
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Enrich new and changed documents of INDEX, whoever writes them, until SIGTERM or SIGINT.

    INDEX may be an alias, a data stream or a pattern, or several with commas between. The index, or one of them,
    must have been enriched once: see `neural-bridge backfill`. Each is followed where its profile is. An index that
    comes later gets a companion if the others have one. Vectors are made first, and predicted queries with the
    computing time that they leave. In place, only our own object is set, and only if a document has not changed
    since it was read; beside, INDEX is only read. A restart goes on where the last run ended; while the cluster
    does not answer, it waits. A signal ends it normally: exit code 0, or 3 if there are dead letters.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        ingest={
            "encoder": encoder,
            "sparse_encoder": sparse_encoder,
            "image_encoder": image_encoder,
            "image_folder": image_folder,
            "generator": generator,
            "threads": threads,
            "external_versions": external_versions,
            **run.limits(),
        },
    )
    from bridge.cluster.connection import connect
    from bridge.errors import EXIT_DEAD_LETTERS
    from bridge.logs import write_json_lines
    from ingest.follow.indices import FollowedIndices, FollowRequest
    from ingest.follow.metrics import metrics_served
    from ingest.signals import stop_on_signals
    from ingest.stages.models import load_models

    def folder(name: str, generation: int) -> Path:
        if run.state_folder is not None and name != index:
            return run.state_folder / name
        return run.folder("follow", f"{name}-generation-{generation}")

    write_json_lines()
    client, prefix = connect(settings.cluster), settings.companion.prefix
    what = FollowRequest(index, client, settings.ingest, prefix, folder, generation, wanted)
    expanded = any(profile.generator for profile in what.profiles())
    models = load_models(settings.ingest if expanded else settings.ingest.model_copy(update={"generator": None}))
    with ExitStack() as stack:
        request = stack.enter_context(stop_on_signals())
        followers = stack.enter_context(FollowedIndices(what, models, request))
        if metrics_port is not None:
            port = stack.enter_context(metrics_served(followers.status, host="127.0.0.1", port=metrics_port))
            say(f"metrics: http://127.0.0.1:{port}/metrics", err=True)
        pairs = followers.follow(once=once, on_status=None if run.quiet else _Lines())
    ended = [status for pair in pairs for status in pair.status()]
    lines = []
    for last, dead_letters in zip(ended, (path for pair in pairs for path in pair.dead_letters), strict=True):
        removed = f"; {last.removed:,} deleted ones removed from the companion" if last.removed else ""
        lines.append(f"{last.index}, generation {last.generation}, {_WHAT[last.fields]}: {last.ledger}{removed}")
        if last.ledger.dead_lettered:
            lines.append(f"  why documents are dead letters: {dead_letters}")
    show(msgspec.to_builtins(ended), *lines, as_json=as_json)
    ctx.exit(EXIT_DEAD_LETTERS if any(last.ledger.dead_lettered for last in ended) else 0)


class _Lines:
    """Writes a line per follower on stderr if something happened, every ten seconds at most; and at once when it starts
    or stops waiting."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], tuple[float, int, bool]] = {}

    def __call__(self, status: "FollowStatus") -> None:
        now, answered, waits = time.monotonic(), status.ledger.answered, status.waiting is not None
        which = (status.index, status.fields)
        shown_at, shown, waited = self._shown.get(which, (-_LINE_EVERY_S, 0, False))
        due = now - shown_at >= _LINE_EVERY_S and answered != shown
        if not due and waits == waited:
            return
        self._shown[which] = (now, answered, waits)
        what = f"follow {status.index}, {_WHAT[status.fields]}"
        waiting = f"; waits for {status.waiting}" if status.waiting else ""
        say(f"{what}: lag {status.lag_s:.1f} s; {status.ledger}{waiting}", err=True)
