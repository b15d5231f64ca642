"""The options of a run on several machines: `neural-bridge ingest|backfill --runner ray`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from bridge.commands import invocation_of
from bridge.commands.options.signature import option

if TYPE_CHECKING:
    from bridge.settings import IngestSettings, Settings
    from ingest.runs.run import Executor


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Where the stages of a run work."""

    runner: Literal["local", "ray"] = option(
        "--runner",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Run the stages in this process, or on the machines of a Ray cluster (extra: ray).",
    )
    ray_address: str | None = option(
        "--ray-address",
        help="Address of a Ray cluster (auto: the one on this machine). Without it, Ray is started here.",
    )
    workers: int = option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        help="With Ray: most actors that run models, each on --threads CPUs (1 by default).",
    )
    writers: int = option(
        "--writers",
        type=click.IntRange(min=1),
        default=2,
        help="With Ray: actors that write; more of them put more load on the cluster.",
    )

    def local_settings(self, settings: "IngestSettings") -> "IngestSettings":
        """The settings for models in this process. With Ray they only name the workers' models, which may need GPUs."""
        from bridge.models.session import CPU

        return settings if self.runner == "local" else settings.model_copy(update={"providers": [CPU]})

    def executor(self, ctx: click.Context, settings: "Settings") -> "Executor":
        """The executor of the run.

        Raises:
            UsageError: Ray is not installed, or the settings limit the rate.
        """
        from ingest.runs.run import LOCAL

        if self.runner == "local":
            return LOCAL
        from bridge.errors import UsageError
        from bridge.models.session import CPU
        from ingest.ray.cluster_address import ClusterAddress
        from ingest.ray.executor import RayExecutor  # which cannot be imported without Ray

        if settings.ingest.max_documents_per_s:
            raise UsageError("--max-docs-per-second is of one machine: with --runner ray choose fewer --writers")
        return RayExecutor(
            ClusterAddress.of(settings.cluster, invocation_of(ctx).config_file),
            workers=self.workers,
            writers=self.writers,
            threads=settings.ingest.threads or 1,
            gpus=int(settings.ingest.providers[:1] != [CPU]),
            address=self.ray_address,
        )
