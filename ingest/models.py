"""The models that enrich documents, and the profile of an index that is made with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.passages import TokenSpans
from bridge.profile import IndexProfile, ModelReference, PassageSettings, TextField
from ingest.embedding import PassageEncoder
from ingest.expansion import QueryGenerator, Scorer


@dataclass(frozen=True, slots=True)
class Models:
    """Opened models, with the names that profiles and stamps know them by. `token_spans` is the encoder's
    view of a text; `scorer` filters predicted queries."""

    encoder: PassageEncoder
    encoder_reference: ModelReference
    token_spans: TokenSpans
    generator: QueryGenerator | None = None
    generator_reference: ModelReference | None = None
    scorer: Scorer | None = None


def profile_for(models: Models, text_fields: Sequence[str], *, passages: PassageSettings | None = None) -> IndexProfile:
    """The profile of an index whose documents these models enrich."""
    return IndexProfile(
        text_fields=[TextField(name) for name in text_fields],
        encoder=models.encoder_reference,
        dimension=models.encoder.dimension,
        generator=models.generator_reference,
        passages=passages or PassageSettings(),
    )
