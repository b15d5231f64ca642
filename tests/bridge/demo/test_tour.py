"""The demo takes fewer documents evenly; tests/integration runs it."""

import pytest

from bridge.demo.documents import DocumentationEntry
from bridge.demo.tour import _spread

ENTRIES = [DocumentationEntry(f"n{n}", "function", "", "text", "m") for n in range(10)]


@pytest.mark.parametrize(("limit", "names"), [(None, range(10)), (20, range(10)), (5, (0, 2, 4, 6, 8)), (1, (0,))])
def test_a_limit_takes_documents_at_even_distances(limit: int | None, names: range | tuple[int, ...]) -> None:
    assert [entry.name for entry in _spread(ENTRIES, limit)] == [f"n{n}" for n in names]
