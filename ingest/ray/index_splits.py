"""An index cut into splits that several machines read: slices of one point in time, then what has to be read again.

What a slice holds never changes while its point in time lives, so a part of it that was lost with a machine
is made again just so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.records import Document
from ingest.ray.reach import Reach
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.sources.index import IndexDocuments
from ingest.sources.source import Source, SourceItem
from ingest.writing.retry import RetryLimits

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
    """Documents that are to be read as they are now; of each only id and routing count."""

    documents: tuple[Document, ...]


@dataclass(frozen=True)
class SplitIndex(Source[Slice | Changed]):
    """The documents of an index in splits; `fields` and `text_fields` as of `IndexDocuments`. `pit` is the point in
    time that slices are of."""

    reach: Reach
    index: str
    fields: tuple[str, ...]
    text_fields: tuple[str, ...]
    retry: RetryLimits
    pit: str = ""
    splits: Sequence[Slice | Changed] = ()

    def parts(self) -> Sequence[Slice | Changed]:
        """See `Source`."""
        return self.splits

    def read(self, part: Slice | Changed) -> Iterator[SourceItem]:
        """The items of one split; of a slice the same ones in the same order each time.

        Raises:
            PointInTimeLost: a slice cannot be read on.
            BridgeError: what `IndexDocuments` says.
        """
        with self.reach.client() as client:
            documents = IndexDocuments(client, self.index, self.fields, text_fields=self.text_fields, retry=self.retry)
            if isinstance(part, Slice):
                yield from documents.slice(self.pit, part.number, part.n_slices)
            else:
                yield from documents.read_again(part.documents)

    def total(self) -> None:
        """Not known: what is read again is counted again."""


def slices(n_documents: int, n_shards: int, *, slice_documents: int = SLICE_DOCUMENTS) -> list[Slice]:
    """Slices of about `slice_documents` each, no more of them than a cluster allows, and as many of each shard."""
    of_each_shard = max(1, min(-(-n_documents // (n_shards * slice_documents)), _MOST_SLICES // n_shards))
    n_slices = of_each_shard * n_shards
    return [Slice(number, n_slices) for number in range(n_slices)]


def changed(documents: Sequence[Document]) -> list[Changed]:
    """Documents that are to be read again, in splits that are a batch each."""
    begins = range(0, len(documents), BATCH_DOCUMENTS)
    return [Changed(tuple(documents[begin : begin + BATCH_DOCUMENTS])) for begin in begins]
