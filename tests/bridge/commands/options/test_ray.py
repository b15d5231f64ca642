"""`--runner ray`: what a worker takes of its machine, and what this process leaves to the workers."""

from typing import Any

import click
import pytest

from bridge.commands.options.ray import RayOptions
from bridge.errors import SettingsError, UsageError
from bridge.models.session import CPU
from bridge.settings import IngestSettings, Settings
from ingest.stages.models import load_models

GPU = "CUDAExecutionProvider"
CONTEXT = click.Context(click.Command("ingest"))
BY_RAY = RayOptions("ray", "auto", workers=16, writers=4)


@pytest.mark.parametrize(
    ("ingest", "threads", "gpus"),
    [({}, 1, 0), ({"threads": 4}, 4, 0), ({"providers": [GPU, CPU]}, 1, 1), ({"providers": [CPU]}, 1, 0)],
)
def test_a_worker_takes_the_cpus_of_its_threads_and_a_gpu_where_models_run_on_one(
    ingest: dict[str, Any], threads: int, gpus: int
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    from ingest.ray.executor import RayExecutor

    executor = BY_RAY.executor(CONTEXT, Settings(ingest=IngestSettings(**ingest)))
    assert isinstance(executor, RayExecutor)
    assert (executor.workers, executor.writers, executor.address) == (16, 4, "auto")
    assert (executor.threads, executor.gpus) == (threads, gpus)


def test_a_pace_is_refused_since_many_machines_do_not_hold_it() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    with pytest.raises(UsageError, match="choose fewer --writers"):
        BY_RAY.executor(CONTEXT, Settings(ingest=IngestSettings(max_documents_per_s=5)))


def test_this_process_leaves_gpus_to_the_workers() -> None:
    settings = IngestSettings(providers=[GPU, CPU])
    assert BY_RAY.local_settings(settings).providers == [CPU]
    assert RayOptions("local", None, workers=1, writers=1).local_settings(settings) == settings


def test_a_provider_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"ingest\.providers: there is no Imaginary here"):
        load_models(IngestSettings(providers=["Imaginary"]))
