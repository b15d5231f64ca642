"""Slow searches are noticed by what the cluster counts itself."""

import pytest

from bridge.cluster.shard_progress import IndexProgress
from ingest.writing.search_load import SearchLoad


def counted(searches: int, search_ms: int) -> IndexProgress:
    return IndexProgress("things", "u1", {}, searches, search_ms)


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        pytest.param(counted(110, 2500), "150 ms per shard", id="slow"),
        pytest.param(counted(110, 2000), None, id="just-so"),
        pytest.param(counted(100, 1000), None, id="no-search"),
        pytest.param(counted(3, 9000), None, id="nodes-restarted"),
    ],
)
def test_searches_since_the_last_look_count(later: IndexProgress, reason: str | None) -> None:
    load = SearchLoad(100)
    assert load.too_high(counted(100, 1000)) is None, "nothing to compare with yet"
    found = load.too_high(later)
    assert found is None if reason is None else reason in (found or "")


def test_without_a_limit_nothing_is_too_slow() -> None:
    load = SearchLoad(0)
    load.too_high(counted(0, 0))
    assert load.too_high(counted(1, 10**9)) is None
