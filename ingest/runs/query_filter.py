"""Doc2Query−− keeps the best share of all the queries that were predicted for a collection (Gospodinov et al. 2023,
"Doc2Query--: when less is more": https://arxiv.org/abs/2301.03266).

A collection in use has no end. So queries are predicted and scored for a sample of its documents first, and the score
that divides them is kept in the index's profile: every document is filtered by the same one, by whichever run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from threading import Event
from typing import Any

import msgspec
import numpy as np
from opensearchpy import OpenSearch

from bridge.errors import UsageError
from bridge.models.session import compute_threads
from bridge.profile import FilterThreshold, IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.sources.index import IndexDocuments
from ingest.sources.source import Source, SourceItem
from ingest.stages.expansion import Expansion, QueryFilter, known_threshold
from ingest.stages.models import Models
from ingest.writing.pace import RetryLimits

SAMPLE_DOCUMENTS = 500
"""Two thousand queries at the default: the score at a percentile is then within two percent of the queries."""


def with_filter_threshold(
    profile: IndexProfile,
    kept: IndexProfile | None,
    models: Models,
    settings: IngestSettings,
    sample: Callable[[], Iterable[SourceItem]],
) -> IndexProfile:
    """`profile` with the score that `ingest.filter_percentile` asks for: the one that `kept`, the index's own profile,
    knows already, or one that is found on documents of `sample`. Without that setting it stays as it is.

    Raises:
        UsageError: no query was predicted for the sample.
        ModelError: a model failed.
    """
    if settings.filter_percentile is None or models.scorer is None or profile.generator is None:
        return profile
    found = known_threshold(kept, profile, settings)
    if found is None:
        documents = (item for item in sample() if isinstance(item, Document))
        scores = _scores(list(islice(documents, SAMPLE_DOCUMENTS)), profile, models, settings)
        if not scores:
            raise UsageError(
                "ingest.filter_percentile: no query was predicted for a sample of the documents, so there is no score "
                "to divide them by: see whether the text fields hold text, or set ingest.filter_threshold instead"
            )
        score = float(np.percentile(scores, settings.filter_percentile, method="higher"))
        model = settings.filter_model or ""
        found = FilterThreshold(profile.generator.identity, model, settings.filter_percentile, score)
    return msgspec.structs.replace(profile, filter_threshold=found)


def sample_of_files(source: Source[Any]) -> Iterator[SourceItem]:
    """The first items of a source of files, which the run reads again.

    Raises:
        UsageError: it can be read only once.
    """
    if not source.resumable:
        raise UsageError(
            "ingest.filter_percentile needs to look at documents before the run, and standard input can be read only "
            "once: name a file, or set ingest.filter_threshold instead"
        )
    return source.items()


def sample_of_index(client: OpenSearch, index: str, text_fields: Sequence[str]) -> Iterator[SourceItem]:
    """Documents of an index, chosen at random."""
    source = IndexDocuments(client, index, text_fields, text_fields=text_fields, retry=RetryLimits(), stopped=Event())
    return source.sample(SAMPLE_DOCUMENTS)


def _scores(
    documents: Sequence[Document], profile: IndexProfile, models: Models, settings: IngestSettings
) -> list[float]:
    """The score of each query that is predicted for these documents."""
    if models.scorer is None:
        return []
    scored = QueryFilter(models.scorer, threshold=0.0, threads=compute_threads(settings.threads))
    found: list[float] = []

    def note(passages: Sequence[str], queries: Sequence[Sequence[str]]) -> list[list[str]]:
        found.extend(chain.from_iterable(scored.scores(passages, queries)))
        return [[] for _ in passages]

    expand = Expansion.of(profile, models, settings, keep=note)
    for begin in range(0, len(documents), BATCH_DOCUMENTS):
        expand(documents[begin : begin + BATCH_DOCUMENTS])
    return found
