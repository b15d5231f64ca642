"""One run on several machines: the stages of `ingest.ray_stages`, carried by Ray Data (https://docs.ray.io).

Ids are the documents' own, so what Ray does again after a worker died changes nothing; the books are kept here,
where every part of every split is gathered. A run that was cut off is run again: what the index holds just so is
left alone.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from bridge.cluster import index as indices
from bridge.errors import BridgeError, IngestError, UsageError
from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.books.accounts import Accounts
from ingest.books.report import Progress, Report
from ingest.ray.stages import Enrich, Job, Part, Write, parts
from ingest.runs.run import VERSION_CONFLICT
from ingest.sources.source import Source
from ingest.stages.models import Models, load_models

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


@dataclass(frozen=True, slots=True)
class Pools:
    """At most `workers` actors run models, each on `threads` CPUs and `gpus` GPUs; at most `writers` write: more of
    these press harder on the cluster. `address` is of a Ray cluster, None starts Ray on this machine."""

    workers: int
    writers: int
    threads: int = 1
    gpus: int = 0
    address: str | None = None

    def opener(self, settings: IngestSettings) -> Callable[[], Models]:
        """Opens the models that `settings` name, on the CPUs of one actor."""
        return partial(load_models, settings.model_copy(update={"threads": self.threads}))


class RayRun:
    """The books of one run, and what it counts. It may be sent several jobs, one after another."""

    def __init__(
        self,
        accounts: Accounts,
        pools: Pools,
        *,
        max_errors: int,
        total: int | None,
        on_progress: Callable[[Progress], None] | None,
        stopped: Event,
    ) -> None:
        """`total` items are expected, as far as that is known. `stopped`, once set, ends the run at the next part."""
        self._accounts = accounts
        self._pools = pools
        self._max_errors = max_errors
        self._total = total
        self._on_progress = on_progress or (lambda _: None)
        self._stopped = stopped
        self._began = time.monotonic()
        self._read = self._sent_again = self._without_text = 0
        self.conflicts: list[Document] = []
        """Documents that somebody else changed between reading and writing; of each only id and routing are left."""

    @property
    def written(self) -> int:
        """Documents written so far."""
        return self._accounts.ledger.written

    def send(self, job: Job) -> None:
        """Takes every item of a job from its reading to its end.

        Raises:
            IngestError: too many dead letters, or the disk refuses the books.
            BridgeError: what a stage raised on its machine; of the items that did not come back nothing is known.
        """
        read = 0
        try:
            for part in _gathered(job, self._pools):
                self._book(part)
                read += part.n_read or 0
                if self._stopped.is_set():
                    break
        except BridgeError:
            # Splits were cut short: what they were answered for is all that counts as read of them.
            self._read = self._accounts.ledger.answered
            raise
        self._read += read

    def finish(self) -> None:
        """Ends a run that was sent everything, unless it was stopped.

        Raises:
            LedgerUnbalanced: a part did not come back, or came twice.
        """
        if not self._stopped.is_set():
            self._accounts.complete(read=self._read)

    def report(self, index: str, source: str, profile: IndexProfile) -> Report:
        """How the run ended."""
        accounts = self._accounts
        return Report(
            index=index,
            source=source,
            ledger=accounts.ledger,
            complete=not self._stopped.is_set(),
            seconds=time.monotonic() - self._began,
            without_text=self._without_text,
            sent_again=self._sent_again,
            dead_letters=str(accounts.dead_letters) if accounts.ledger.dead_lettered else None,
            models=[model.identity for model in (profile.generator, profile.encoder) if model],
        )

    def _book(self, part: Part) -> None:
        ledger = self._accounts.ledger
        self._accounts.book(part.ended)
        self._sent_again += part.sent_again
        self._without_text += part.without_text
        self.conflicts += [
            item
            for item, outcome in part.ended
            if isinstance(item, Document) and outcome.failure is not None and outcome.failure.kind == VERSION_CONFLICT
        ]
        answered, seconds = ledger.answered, time.monotonic() - self._began
        self._on_progress(Progress(answered, answered, answered, answered, 0, self._total, seconds))
        if ledger.dead_lettered > self._max_errors:
            raise IngestError(
                f"{ledger.dead_lettered:,} dead letters, ingest.max_errors allows {self._max_errors:,}: see "
                f"{self._accounts.dead_letters} for the reasons, then run it again"
            )


@contextmanager
def opened_ray_run(
    job: Job,
    source: Source[Any],
    state: indices.IndexState,
    *,
    pools: Pools,
    state_folder: Path,
    on_progress: Callable[[Progress], None] | None,
    stopped: Event,
) -> Iterator[RayRun]:
    """A run into the index `state` with its books open, and Ray at hand; `source` names in the books what `job` reads.

    Raises:
        CheckpointUnusable: the state folder is in use.
        IngestError: the dead letters cannot be written.
    """
    with (
        Accounts(
            state_folder,
            source,
            index=state.name,
            index_identity=indices.identity(state),
            recipe=job.recipe,
            from_start=True,
            partial=job.in_place,
        ) as accounts,
        _ray_at(pools.address),
    ):
        yield RayRun(
            accounts,
            pools,
            max_errors=job.settings.max_errors,
            total=source.total(),
            on_progress=on_progress,
            stopped=stopped,
        )


@contextmanager
def _ray_at(address: str | None) -> Iterator[None]:
    """Ray for the length of the block: as this process is connected already, or by address, or started here."""
    if ray.is_initialized():
        yield
        return
    # How a run goes on is told by the run itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Without "local", Ray takes any cluster that was started on this machine, or what is left of one.
    ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _gathered(job: Job, pools: Pools) -> Iterator[Part]:
    """Every part of every split, in no order.

    Raises:
        BridgeError: what a stage raised on its machine.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A part is a block: it goes on when it is made, and is all that is lost with a worker.
    context.target_max_block_size = 1
    rows = [{"part": part} for part in job.source.parts()]
    splits = ray.data.from_items(rows, override_num_blocks=max(1, len(rows)))
    done = (
        splits.flat_map(parts, fn_args=(job,), num_cpus=_READ_CPUS)
        .map(
            Enrich,
            fn_constructor_args=(job,),
            num_cpus=pools.threads,
            num_gpus=pools.gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pools.workers),
        )
        .map(
            Write,
            fn_constructor_args=(job,),
            num_cpus=_WRITE_CPUS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pools.writers),
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
