"""An index cut into parts that several machines read: slices of one point in time, then documents to read again.

The content of a slice never changes while its point in time lives, so a part that was lost with a machine can be
read again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.records import Document
from ingest.ray.cluster_address import ClusterAddress
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.sources.index import IndexDocuments
from ingest.sources.source import Source, SourceItem
from ingest.writing.pace import RetryLimits

SLICE_DOCUMENTS = 10_000
_MOST_SLICES = 1024
"""What `index.max_slices_per_pit` allows by default."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Slice `number` of `n_slices`; see `IndexDocuments.slice`."""

    number: int
    n_slices: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Documents to be read as they are now; only their ids and routings count."""

    documents: tuple[Document, ...]


@dataclass(frozen=True)
class SplitIndex(Source[Slice | Changed]):
    """The documents of an index in `splits`; the fields as of `IndexDocuments`. Slices are of the point
    in time `pit`."""

    cluster: ClusterAddress
    index: str
    fields: tuple[str, ...]
    text_fields: tuple[str, ...]
    retry: RetryLimits
    pit: str = ""
    splits: Sequence[Slice | Changed] = ()
    image_field: str | None = None

    def parts(self) -> Sequence[Slice | Changed]:
        """See `Source`."""
        return self.splits

    def read(self, part: Slice | Changed) -> Iterator[SourceItem]:
        """The items of one split; those of a slice are the same ones in the same order each time.

        Raises:
            PointInTimeLost: a slice cannot be read on.
            BridgeError: what `IndexDocuments` says.
        """
        with self.cluster.client() as client:
            documents = IndexDocuments(
                client,
                self.index,
                self.fields,
                text_fields=self.text_fields,
                image_field=self.image_field,
                retry=self.retry,
            )
            if isinstance(part, Slice):
                yield from documents.slice(self.pit, part.number, part.n_slices)
            else:
                yield from documents.read_again(part.documents)

    def total(self) -> None:
        """Not known: what is read again is counted again."""


def slices(n_documents: int, n_shards: int, *, slice_documents: int = SLICE_DOCUMENTS) -> list[Slice]:
    """Slices of about `slice_documents` each, no more of them than a cluster allows, and equally many of each shard."""
    of_each_shard = max(1, min(-(-n_documents // (n_shards * slice_documents)), _MOST_SLICES // n_shards))
    n_slices = of_each_shard * n_shards
    return [Slice(number, n_slices) for number in range(n_slices)]


def changed(documents: Sequence[Document]) -> list[Changed]:
    """Documents to be read again, in splits of one batch each."""
    begins = range(0, len(documents), BATCH_DOCUMENTS)
    return [Changed(tuple(documents[begin : begin + BATCH_DOCUMENTS])) for begin in begins]
