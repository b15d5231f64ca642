"""Ingest on several machines: the stages of `ingest.ray_stages`, carried by Ray Data (https://docs.ray.io).

Ids are the documents' own and writes say the whole document, so what Ray does again after a worker died
changes nothing; the books are kept here, where every part of every split is gathered. A run that was cut
off is run again: what the index holds just so is left alone.

Versions of one document in different splits may be written in any order: ids must be unique in the source.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import without_refresh
from bridge.errors import BridgeError, IngestError, UsageError
from bridge.profile import IndexProfile
from bridge.settings import Settings
from ingest.accounts import Accounts
from ingest.models import Models, load_models
from ingest.ray_stages import Enrich, Job, Part, Write, parts
from ingest.report import Progress, Report
from ingest.splits import SplitFiles

try:
    import ray
    import ray.data
except ImportError as error:
    raise UsageError(
        "--runner ray needs Ray, which is not installed: pip install 'opensearch-neural-bridge[ray]'"
    ) from error

_READ_CPUS = 0.25
_WRITE_CPUS = 0.1
"""Reading and writing mostly wait; the CPUs are the models'."""


def run_ray_ingest(
    source: SplitFiles,
    *,
    index: str,
    profile: IndexProfile,
    client: OpenSearch,
    settings: Settings,
    state_folder: Path,
    workers: int,
    writers: int,
    address: str | None = None,
    config_file: Path | None = None,
    open_models: Callable[[], Models] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Event | None = None,
) -> Report:
    """Enriches what a source holds and writes it to an index that exists, on Ray's machines.

    `workers` actors run models, `writers` write: more of these press harder on the cluster. `address` is of a
    Ray cluster, None starts Ray on this machine. `config_file` is read on each machine for the cluster's
    password. `stopped`, once set, ends the run at the next part.

    Raises:
        IndexUnsuitable, CheckpointUnusable, BridgeError: as `run_ingest` says.
        LedgerUnbalanced: a part did not come back, or came twice.
    """
    profile = indices.fitted(client, profile)
    state = indices.check(client, index, profile)
    indices.refuse_data_stream(state)
    job = Job(
        source=source,
        index=state.name,
        profile=profile,
        settings=settings.ingest,
        cluster=settings.cluster.model_copy(update={"password": None}),
        open_models=open_models or partial(load_models, settings.ingest),
        config_file=config_file,
    )
    stopped = stopped or Event()
    began = time.monotonic()
    read = sent_again = without_text = 0
    with (
        Accounts(
            state_folder,
            source,
            index=state.name,
            index_identity=indices.identity(state),
            recipe=job.recipe,
            from_start=True,
        ) as accounts,
        without_refresh(client, state.name, is_empty=indices.count(client, state.name) == 0),
        _ray(address),
    ):
        indices.keep_profile(client, state, profile)
        for part in _gathered(job, workers=workers, writers=writers):
            accounts.book(part.ended)
            read += part.n_read or 0
            sent_again += part.sent_again
            without_text += part.without_text
            answered, seconds = accounts.ledger.answered, time.monotonic() - began
            if on_progress is not None:
                on_progress(Progress(answered, answered, answered, answered, 0, None, seconds))
            if accounts.ledger.dead_lettered > settings.ingest.max_errors:
                raise IngestError(
                    f"{accounts.ledger.dead_lettered:,} dead letters, ingest.max_errors allows "
                    f"{settings.ingest.max_errors:,}: see {accounts.dead_letters} for the reasons, then run it again"
                )
            if stopped.is_set():
                break
        else:
            accounts.complete(read=read)
        client.indices.refresh(index=state.name)
        return Report(
            index=state.name,
            source=source.identity,
            ledger=accounts.ledger,
            complete=not stopped.is_set(),
            seconds=time.monotonic() - began,
            without_text=without_text,
            sent_again=sent_again,
            dead_letters=str(accounts.dead_letters) if accounts.ledger.dead_lettered else None,
            models=[model.identity for model in (profile.generator, profile.encoder) if model],
        )


def _gathered(job: Job, *, workers: int, writers: int) -> Iterator[Part]:
    """Every part of every split, in no order.

    Raises:
        BridgeError: what a stage raised on its machine.
    """
    ray.data.DataContext.get_current().enable_progress_bars = False
    splits = ray.data.from_items(
        [{"split": split} for split in job.source.splits], override_num_blocks=max(1, len(job.source.splits))
    )
    done = (
        splits.flat_map(parts, fn_args=(job,), num_cpus=_READ_CPUS)
        .map(Enrich, fn_constructor_args=(job,), compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers))
        .map(
            Write,
            fn_constructor_args=(job,),
            num_cpus=_WRITE_CPUS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=writers),
        )
    )
    try:
        for row in done.iter_rows():
            yield row["part"]
    except ray.exceptions.RayError as error:
        raise _ours(error) from error


def _ours(error: BaseException) -> BridgeError:
    """The error of ours that a machine met, or one that names what Ray says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BridgeError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return IngestError(f"Ray gave the run up: {str(error).strip().splitlines()[-1]}; run it again, it goes on")


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray for the length of the block: as this process is connected already, or by address, or started here."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
