"""Are an index's searches slow just now? Then enriching it waits: applications come first."""

from bridge.cluster.shard_progress import IndexProgress


class SearchLoad:
    """Mean time of an index's searches between two looks at its statistics."""

    def __init__(self, max_ms: float) -> None:
        """More than `max_ms` for a search in a shard is too much; 0 never is."""
        self._max_ms = max_ms
        self._before: IndexProgress | None = None

    def too_high(self, now: IndexProgress) -> str | None:
        """What is too slow, for people; None where nothing is. No search since the last look is no load."""
        before, self._before = self._before, now
        if before is None or not self._max_ms or now.searches <= before.searches:
            return None
        mean_ms = (now.search_ms - before.search_ms) / (now.searches - before.searches)
        if mean_ms <= self._max_ms:
            return None
        return f"searches, which take {mean_ms:.0f} ms per shard (ingest.max_search_ms: {self._max_ms:g})"
