"""Which score a predicted query has to reach to be kept: a fixed one, or the one that the index's profile names."""

from bridge.errors import IndexUnsuitable
from bridge.profile import FilterThreshold, IndexProfile
from bridge.settings import IngestSettings


def filter_threshold(profile: IndexProfile, settings: IngestSettings) -> float:
    """The lowest score that is kept.

    Raises:
        IndexUnsuitable: `ingest.filter_percentile` asks for a score that the profile does not name.
    """
    if settings.filter_percentile is None:
        return settings.filter_threshold
    found = known_threshold(profile, profile, settings)
    if found is None:
        raise IndexUnsuitable(
            f"which score the lowest {settings.filter_percentile:g} % of predicted queries miss "
            f"(ingest.filter_percentile) is not known of this index: `neural-bridge backfill` or `ingest` finds it out"
        )
    return found.score


def known_threshold(
    kept: IndexProfile | None, wanted: IndexProfile, settings: IngestSettings
) -> FilterThreshold | None:
    """What `kept` knows of the queries that `wanted` and `settings` ask for; None where that is nothing."""
    found = kept.filter_threshold if kept is not None else None
    generator = wanted.generator.identity if wanted.generator else ""
    asked = (generator, settings.filter_model, settings.filter_percentile)
    return found if found and (found.generator, found.model, found.percentile) == asked else None
