"""The options of a run on more than one machine: `neural-bridge ingest|backfill --runner ray`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from bridge.commands import Invocation
from bridge.commands.options.enrich import Command, collected_as

if TYPE_CHECKING:
    from bridge.settings import IngestSettings, Settings
    from ingest.ray.reach import Reach
    from ingest.ray.run import Pools


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where a run's stages work, as the options of `distribution_options` say it."""

    runner: Literal["local", "ray"]
    ray_address: str | None
    workers: int
    writers: int

    def here(self, settings: "IngestSettings") -> "IngestSettings":
        """The settings for models in this process: with Ray they only name what the workers open, where GPUs are."""
        from bridge.models.session import CPU

        return settings if self.runner == "local" else settings.model_copy(update={"providers": [CPU]})

    def reach(self, ctx: click.Context, settings: "Settings") -> "Reach":
        """How the machines reach the cluster."""
        from ingest.ray.reach import Reach

        return Reach.of(settings.cluster, (ctx.find_object(Invocation) or Invocation()).config_file)

    def pools(self, settings: "Settings") -> "Pools":
        """What works at the stages, and where.

        Raises:
            UsageError: Ray is not installed, or the pace is to be held.
        """
        from bridge.errors import UsageError
        from bridge.models.session import CPU
        from ingest.ray.run import Pools

        if settings.ingest.max_documents_per_s:
            raise UsageError("--max-docs-per-second is of one machine: with --runner ray choose fewer --writers")
        gpus = int(settings.ingest.providers[:1] != [CPU])
        return Pools(self.workers, self.writers, settings.ingest.threads or 1, gpus, self.ray_address)


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
            help="With Ray: most actors that run models, each on --threads CPUs (1 by default).",
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
