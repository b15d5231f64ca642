"""Options of the commands that enrich documents, how their runs show progress and stop, and their exit codes."""

import difflib
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

from bridge.commands import CLUSTER, JSON, QUIET, invocation_of, progress_display, say, settings_of
from bridge.commands.options.signature import EXISTING_FOLDER, FOLDER, one_of, option

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.cluster.index import IndexState
    from bridge.profile import IndexProfile, PassageSettings
    from bridge.settings import IngestSettings, Settings
    from ingest.books.ledger import Progress, Report
    from ingest.job import Job
    from ingest.runs.way import Wanted, Way
    from ingest.signals import StopRequest
    from ingest.sources.source import SourceItem
    from ingest.stages.models import Models

EXTERNAL_VERSIONS = option(
    "--external-versions",
    type=click.Choice(["detect", "yes", "no"]),
    help="Whether an application numbers the versions of documents itself: then INDEX is enriched beside.",
)
WAY = one_of(
    option(
        "--beside",
        flag_value="beside",
        help="Write to a hidden index of ours; INDEX is only read. By default if anything speaks against in place.",
    ),
    option(
        "--in-place",
        flag_value="in_place",
        help="Set our object in the documents of INDEX. By default if nothing speaks against it.",
    ),
)
"""See `ingest.runs.way.choose`."""


def check_names(names: Iterable[str], known: Collection[str], *, owner: str) -> None:
    """Checks that `owner` has fields of these names, or objects that hold `known` ones.

    Raises:
        UsageError: it has not; the nearest name is named.
    """
    for name in names:
        if name not in known and not any(each.startswith(f"{name}.") for each in known):
            from bridge.errors import UsageError

            nearest = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {nearest[0]}?" if nearest else "see its mapping for the names of its fields"
            raise UsageError(f"{owner} has no field {name}: {meant}")


def repeated(ctx: click.Context, command: str, *arguments: str, without: Collection[str] = ()) -> str:
    """Another command with the options that this one was called with, `without` some of them, as a shell takes it."""
    config_file = invocation_of(ctx).config_file
    words: list[object] = ["neural-bridge", *(["--config", config_file] if config_file else []), command, *arguments]
    for each in ctx.command.params:
        name = each.name or ""
        typed = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name in without or not isinstance(each, click.Option):
            continue
        if isinstance(each.flag_value, str) and ctx.params[name] != each.flag_value:
            continue  # Another option of this name was typed.
        values = ctx.params[name] if each.multiple else [ctx.params[name]]
        words += [each.opts[0]] if each.is_flag else [word for value in values for word in (each.opts[0], value)]
    return shlex.join(map(str, words))


@dataclass(frozen=True, slots=True)
class PassageOptions:
    """How documents are split into passages."""

    layout: Literal["single", "nested"] = option(
        "--passages",
        type=click.Choice(["single", "nested"]),
        default="single",
        help="One vector per document, or one per passage of long documents.",
    )
    max_tokens: int | None = option(
        "--max-tokens", type=click.IntRange(min=1), help="Longest passage, in tokens of the encoder."
    )
    overlap_tokens: int | None = option(
        "--overlap-tokens", type=click.IntRange(min=0), help="Tokens that consecutive passages share."
    )

    def settings(self) -> "PassageSettings":
        """The passage settings that the options choose; defaults for the rest."""
        from bridge.profile import PassageSettings

        chosen = {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}
        return PassageSettings(**chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichOptions:
    """How documents are enriched."""

    text_fields: tuple[str, ...] = option(
        "--text-field",
        multiple=True,
        help="Field to enrich; repeatable, in reading order. Defaults to the index's own fields if it is already "
        "enriched.",
    )
    passages: PassageOptions
    cluster_url: str | None = CLUSTER
    encoder: str | None = option("--encoder", help="Encoder of the vectors: path or built-in.")
    generator: str | None = option("--generator", help="Generator of predicted queries: path or built-in.")
    sparse_encoder: str | None = option(
        "--sparse-encoder", help="Sparse encoder that gives documents weighted terms: path or built-in."
    )
    image_field: str | None = option(
        "--image-field", help="Field that names or holds a picture, which gets a vector of its own."
    )
    image_encoder: str | None = option(
        "--image-encoder", help="Image encoder that embeds pictures: path or hub name (extra: images)."
    )
    image_folder: Path | None = option(
        "--image-folder",
        type=EXISTING_FOLDER,
        help="Folder below which the pictures lie that documents name by a path.",
    )
    no_expansion: bool = option("--no-expansion", help="Write no predicted queries.")
    queries_per_passage: int | None = option(
        "--queries", type=click.IntRange(min=1), help="Queries predicted per passage."
    )
    threads: int | None = option(
        "--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used."
    )
    as_json: bool = JSON

    def settings(self, ctx: click.Context, **ingest: object) -> "Settings":
        """The settings of this call; `ingest` has the values of more options, None for those that were left out.

        Raises:
            SettingsError: see `bridge.settings.load_settings`.
        """
        made_by = {
            "encoder": self.encoder,
            "sparse_encoder": self.sparse_encoder,
            "image_field": self.image_field,
            "image_encoder": self.image_encoder,
            "image_folder": self.image_folder,
            "generator": "" if self.no_expansion else self.generator,
            "queries_per_passage": self.queries_per_passage,
            "threads": self.threads,
        }
        return settings_of(ctx, cluster={"url": self.cluster_url}, ingest={**made_by, **ingest})

    def names(self, index: str, kept: "IndexProfile | None") -> tuple[str, ...]:
        """The text fields: those of the options, or those that the index is enriched for already.

        Raises:
            UsageError: there are neither.
        """
        names = self.text_fields or tuple(kept.text_fields if kept else ())
        if not names:
            from bridge.errors import UsageError

            raise UsageError(f"which fields of {index} hold text is not known: name them with --text-field")
        return names

    def names_in(self, state: "IndexState", kept: "IndexProfile | None") -> tuple[str, ...]:
        """The text fields, as `names` says, all of them in the mapping of an index.

        Raises:
            UsageError: the index has no such field, or one without text; the nearest one is named.
        """
        from bridge.cluster.schema import leaves, without_text
        from bridge.errors import UsageError

        names = self.names(state.name, kept)
        check_names(names, list(leaves(state.mapping)), owner=f"index {state.name}")
        if found := list(without_text(state.mapping, names)):
            raise UsageError(f"index {state.name}: {'; '.join(found)}")
        return names

    def chosen(
        self,
        client: "OpenSearch",
        index: str,
        wanted: "Wanted | None",
        settings: "Settings",
        models_by: "IngestSettings",
    ) -> "tuple[Models, list[tuple[Way, IndexProfile]]]":
        """How each index that a name stands for is enriched, and the models, of the settings `models_by`, that do it.

        Raises:
            UsageError: as `names_in` and `profile` say.
            IndexUnsuitable: the name stands for none; or as `ingest.runs.way.choose` says of one of them.
            AccessDenied: as `choose` says.
        """
        from bridge.cluster import index as indices
        from ingest.runs.query_filter import sample_of_index
        from ingest.runs.way import begun, choose
        from ingest.stages.models import load_models

        prefix, ingest = settings.companion.prefix, settings.ingest
        states = [indices.look(client, name) for name in sorted(indices.resolve(client, index)) or [index]]
        profiles = [begun(client, state, prefix) for state in states]
        names = [self.names_in(state, kept) for state, kept in zip(states, profiles, strict=True)]
        models = load_models(models_by)
        chosen = []
        for state, kept, texts in zip(states, profiles, names, strict=True):
            sample = partial(sample_of_index, client, state.name, texts)
            profile = self.profile(models, texts, kept, ingest, sample)
            way = choose(client, state, profile, ingest, kept=kept, wanted=wanted, prefix=prefix)
            chosen.append((way, profile))
        return models, chosen

    def profile(
        self,
        models: "Models",
        names: tuple[str, ...],
        kept: "IndexProfile | None",
        settings: "IngestSettings",
        sample: "Callable[[], Iterable[SourceItem]]",
    ) -> "IndexProfile":
        """The profile of the index; `kept` is the one that it has already, whose passages and object name stay.
        `sample` reads documents, if some setting depends on them.

        Raises:
            UsageError: see `ingest.runs.query_filter`.
        """
        from ingest.runs.query_filter import with_filter_threshold
        from ingest.stages.models import profile_for

        passages = kept.passages if kept else self.passages.settings()
        profile = profile_for(models, names, passages=passages, object_field=settings.object_field, kept=kept)
        return with_filter_threshold(profile, kept, models, settings, sample)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Limits and state of a run."""

    state_folder: Path | None = option(
        "--state-folder",
        type=FOLDER,
        help="Folder of the checkpoint and the dead letters. Defaults to one per task and index.",
    )
    max_documents_per_s: float | None = option(
        "--max-docs-per-second",
        type=click.FloatRange(min=0),
        help="Limit of documents enriched and written per second.",
    )
    max_errors: int | None = option(
        "--max-errors", type=click.IntRange(min=0), help="Dead letters after which the run stops."
    )
    quiet: bool = QUIET

    def limits(self) -> dict[str, object]:
        """The options that are settings of ingest."""
        return {"max_documents_per_s": self.max_documents_per_s, "max_errors": self.max_errors}

    def folder(self, task: str, index: str) -> Path:
        """The state folder of the run."""
        from bridge.folders import default_state_folder

        return self.state_folder or default_state_folder(task, index)

    @contextmanager
    def started(self, title: str, job: "Job") -> "Iterator[tuple[Job, StopRequest]]":
        """Shows the progress of a job and stops it at the first signal to, while the context is entered."""
        from ingest.signals import stop_on_signals

        with stop_on_signals() as request, shown_progress(title, quiet=self.quiet) as on_progress:
            yield replace(job, on_progress=on_progress, stopped=request.stopped), request


@contextmanager
def shown_progress(title: str, *, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """Shows a run's progress on stderr: a bar on a terminal, else a line every ten seconds."""
    with progress_display(quiet=quiet).progress(title) as show:
        yield lambda progress: show(
            progress.answered,
            progress.total,
            f"read {progress.read:,}, expanded {progress.expanded:,}, embedded {progress.embedded:,}",
        )


def end(ctx: click.Context, request: "StopRequest", *reports: "Report", n_runs: int = 1) -> None:
    """Ends a command with the exit code of its run, as `neural-bridge ingest --help` lists them; of several, with the
    first that is not 0. `n_runs`: how many there are unless a signal stops them."""
    complete = len(reports) == n_runs and all(report.complete for report in reports)
    if request.number is not None and not complete:
        from bridge.settings import masked

        words = [masked(word) if "://" in word else word for word in sys.argv[1:]]
        say(f"stopped; go on with: neural-bridge {shlex.join(words)}", err=True)
        ctx.exit(request.exit_code)
    ctx.exit(next((report.exit_code for report in reports if report.exit_code), 0))
