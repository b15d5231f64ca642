"""`neural-bridge undo` asks first; tests/integration removes everything from a real index."""

import pytest

from bridge.errors import UsageError
from tests.command_line import run
from tests.fake_bulk import FakeCluster


def test_nothing_is_removed_before_somebody_agrees(cluster: FakeCluster) -> None:
    with pytest.raises(UsageError, match="give --yes"):
        run("undo", "shop", input="")
    refused = run("undo", "shop", input="n\n")
    assert refused.exit_code == 1
    assert "Remove predicted queries, vectors and stamps from index shop?" in refused.stderr
    assert [request.path for request in cluster.requests if request.method != "GET"] == []
