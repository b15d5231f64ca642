"""How fast this machine enriches documents of one kind: they go through the models, and nothing is written."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models
from ingest.stages.stamps import text_stamp

_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Documents that went through the models, in how many seconds."""

    documents: list[EnrichedDocument]
    seconds: float

    @property
    def per_s(self) -> float:
        """Documents a second; 0 where there were none."""
        return len(self.documents) / self.seconds if self.seconds else 0.0

    def hours(self, n_documents: int) -> float:
        """How long so many documents would take; 0 where nothing is known."""
        return n_documents / self.per_s / 3600 if self.per_s else 0.0


def measure(
    documents: Sequence[Document], profile: IndexProfile, models: Models, settings: IngestSettings, made_by: str
) -> Measured:
    """Enriches documents as a real run does, in an order by chance, for a bounded time. `made_by` as
    `ingest.stages.stamps.recipe` names it.

    Raises:
        ModelError: a model failed.
    """
    expand = Expansion.of(profile, models, settings)
    embed = Embedding.of(profile, models, partial(text_stamp, made_by))
    chosen = random.Random(0).sample(documents, len(documents))
    done: list[EnrichedDocument] = []
    began = time.monotonic()
    for begin in range(0, len(chosen), BATCH_DOCUMENTS):
        done += embed(expand(chosen[begin : begin + BATCH_DOCUMENTS]))
        if time.monotonic() - began >= _LONGEST_S:
            break
    return Measured(done, time.monotonic() - began)
