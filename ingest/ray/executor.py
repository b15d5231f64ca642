"""A run on several machines: Ray Data (https://docs.ray.io) runs its stages, and the books are kept here.

Ids are the documents' own, so work that Ray repeats after a worker died changes nothing. Versions of one document in
different parts of the source may be written in any order: ids must be unique in it. A run that was cut off is run
again: unchanged documents are left alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bridge.errors import AnswerNotUnderstood, BridgeError, IngestError, UsageError
from bridge.records import Document
from ingest.books.books import Books
from ingest.job import Job
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.index_splits import SLICE_DOCUMENTS, SplitIndex, changed, slices
from ingest.ray.stages import Enrich, Part, WorkerJob, Write, parts
from ingest.sources.index import IndexDocuments, PointInTimeLost
from ingest.sources.source import Source
from ingest.stages.models import Models, load_models
from ingest.writing.pace import Backoff
from ingest.writing.writer import BulkLimits

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
class RayExecutor:
    """Runs the stages on Ray's machines, which connect to `cluster`.

    At most `workers` actors run models, each on `threads` CPUs and `gpus` GPUs; at most `writers` write, and more of
    them put more load on the cluster. `address` is of a Ray cluster, None starts Ray on this machine. `open_models`
    replaces the models that the settings name.
    """

    cluster: ClusterAddress
    workers: int
    writers: int
    threads: int = 1
    gpus: int = 0
    address: str | None = None
    slice_documents: int = SLICE_DOCUMENTS
    open_models: Callable[[], Models] | None = None

    @property
    def in_order(self) -> bool:
        """See `ingest.runs.run.Executor`."""
        return False

    @contextmanager
    def start(self, job: Job, books: Books, *, in_place: bool) -> "Iterator[_RayRun]":
        """See `ingest.runs.run.Executor`. Errors of a stage on its machine are raised here; nothing is known of the
        items that did not come back then."""
        models = partial(load_models, job.settings.model_copy(update={"threads": self.threads}))
        open_models = self.open_models or models
        with _ray_at(self.address):
            yield _RayRun(self, job, books, open_models, in_place=in_place)


class _RayRun:
    def __init__(
        self, executor: RayExecutor, job: Job, books: Books, open_models: Callable[[], Models], *, in_place: bool
    ) -> None:
        self._executor = executor
        self._job = job
        self._books = books
        self._open_models = open_models
        self._in_place = in_place
        self._retry = BulkLimits.of(job.settings).retry

    def send(self, source: Source[Any], *, is_empty: bool = False) -> None:
        """See `ingest.runs.run.StartedRun`. Documents are compared in any case: Ray repeats work."""
        if isinstance(source, IndexDocuments):
            self._send_index(source)
        else:
            self._send(source)

    def send_again(self, source: IndexDocuments, documents: Sequence[Document]) -> None:
        """See `ingest.runs.run.StartedRun`."""
        self._send(replace(self._split_index(), splits=changed(documents)))

    def _send_index(self, source: IndexDocuments) -> None:
        """Sends all slices of a point in time, and of another one if it is lost.

        Raises:
            AnswerNotUnderstood: they are lost again and again, and nothing is written meanwhile.
        """
        parts = slices(source.total(), source.n_shards, slice_documents=self._executor.slice_documents)
        backoff = Backoff(self._retry, self._job.stopped)
        while True:
            written_before = self._books.ledger.written
            try:
                with source.point_in_time() as pit:
                    self._send(replace(self._split_index(), pit=pit, splits=parts))
                return
            except PointInTimeLost as lost:
                if self._books.ledger.written > written_before:
                    backoff = Backoff(self._retry, self._job.stopped)
                if not backoff.wait():
                    raise AnswerNotUnderstood(f"{lost}; it happens again and again") from lost

    def _split_index(self) -> SplitIndex:
        texts = tuple(self._job.profile.text_fields)
        fields = (*texts, self._job.profile.stamp_field)
        index = self._job.profile.beside or self._job.index
        return SplitIndex(
            self._executor.cluster, index, fields, texts, self._retry, image_field=self._job.profile.image_field
        )

    def _send(self, source: Source[Any]) -> None:
        job = self._job
        settings, cluster = job.settings, self._executor.cluster
        read = 0
        try:
            worker_job = WorkerJob(
                source, job.index, job.profile, settings, cluster, self._open_models, in_place=self._in_place
            )
            for part in _gathered(worker_job, self._executor):
                self._books.sent_again += part.sent_again
                self._books.without_text += part.without_text
                self._books.book(part.ended)
                answered = self._books.ledger.answered
                self._books.show(read=answered, expanded=answered, embedded=answered)
                read += part.n_read or 0
                if job.stopped.is_set():
                    return
        except BaseException:
            self._books.count_answered_as_read()
            raise
        self._books.count_read(read)


@contextmanager
def _ray_at(address: str | None) -> Iterator[None]:
    """Ray while the context is entered: the one that this process is connected to, by address, or started here."""
    if ray.is_initialized():
        yield
        return
    # The run reports its progress itself.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Without "local", Ray takes any cluster that was started on this machine, or what is left of one.
    ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _gathered(job: WorkerJob, executor: RayExecutor) -> Iterator[Part]:
    """Every batch of every part of the source, in no order.

    Raises:
        BridgeError: what a stage raised on its machine.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A part is a block: it goes on when it is made, and is all that is lost with a worker.
    context.target_max_block_size = 1
    rows = [{"part": part} for part in job.source.parts()]
    done = (
        ray.data.from_items(rows, override_num_blocks=max(1, len(rows)))
        .flat_map(parts, fn_args=(job,), num_cpus=_READ_CPUS)
        .map(
            Enrich,
            fn_constructor_args=(job,),
            num_cpus=executor.threads,
            num_gpus=executor.gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=executor.workers),
        )
        .map(
            Write,
            fn_constructor_args=(job,),
            num_cpus=_WRITE_CPUS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=executor.writers),
        )
    )
    try:
        for row in done.iter_rows():
            yield row["part"]
    except ray.exceptions.RayError as error:
        raise _our_error(error) from error


def _our_error(error: BaseException) -> BridgeError:
    """The error of ours that a machine met, or one that says what Ray says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BridgeError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return IngestError(f"Ray gave the run up: {str(error).strip().splitlines()[-1]}; run it again, it goes on")
