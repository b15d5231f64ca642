"""The options of a run on more than one machine, and such a run: `neural-bridge ingest --runner ray`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

import click

from bridge.commands import Invocation
from bridge.commands.enriching import Command, collected_as

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.profile import IndexProfile
    from bridge.settings import Settings
    from ingest.field_choice import FieldChoice
    from ingest.file_source import Format
    from ingest.report import Progress, Report


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where a run's stages work, as the options of `distribution_options` say it."""

    runner: Literal["local", "ray"]
    ray_address: str | None
    workers: int
    writers: int

    def ingest(
        self,
        ctx: click.Context,
        sources: Sequence[str],
        fields: "FieldChoice",
        file_format: "Format",
        *,
        index: str,
        profile: "IndexProfile",
        client: "OpenSearch",
        settings: "Settings",
        state_folder: Path,
        on_progress: "Callable[[Progress], None]",
        stopped: Event,
    ) -> "Report":
        """Runs on Ray; see `ingest.ray_run.run_ray_ingest`.

        Raises:
            UsageError: Ray is not installed, the files cannot be split, or the pace is to be held.
        """
        from bridge.errors import UsageError
        from ingest.ray_run import run_ray_ingest
        from ingest.splits import SplitFiles

        if settings.ingest.max_documents_per_s:
            raise UsageError("--max-docs-per-second is of one machine: with --runner ray choose fewer --writers")
        invocation = ctx.find_object(Invocation) or Invocation()
        return run_ray_ingest(
            SplitFiles(sources, fields, max_doc_bytes=settings.ingest.max_doc_bytes, file_format=file_format),
            index=index,
            profile=profile,
            client=client,
            settings=settings,
            state_folder=state_folder,
            workers=self.workers,
            writers=self.writers,
            address=self.ray_address,
            config_file=invocation.config_file,
            on_progress=on_progress,
            stopped=stopped,
        )


def distribution_options(command: Command) -> Command:
    """Adds the options of `Distribution`; the command gets them as `distribution`."""
    collected = collected_as(Distribution, "distribution", command)
    for option in (
        click.option(
            "--writers",
            type=click.IntRange(min=1),
            default=2,
            show_default=True,
            help="With Ray: actors that write; more of them press harder on the cluster.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="With Ray: most actors that run models, one CPU each.",
        ),
        click.option(
            "--ray-address", help="Of a Ray cluster (auto: the one that runs here); else Ray is started here."
        ),
        click.option(
            "--runner",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where the stages work: in this process, or on the machines of Ray (extra: ray).",
        ),
    ):
        collected = option(collected)
    return collected
