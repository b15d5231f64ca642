"""When and by what something was measured, as profiles keep it."""

from datetime import UTC, datetime

from bridge.evaluation.judged_queries import JudgedQueries
from bridge.profile import Measurement


def measured_now(judged: JudgedQueries, measure: str) -> Measurement:
    """A measurement on these queries, now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Measurement(judged.source, len(judged.queries), measure, now)
