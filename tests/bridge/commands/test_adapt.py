"""`neural-bridge adapt`: what it says at the end, and which indices it refuses; tests/bridge/adaptation adapts."""

from pathlib import Path

import pytest

from bridge.errors import IndexUnsuitable
from tests.command_line import run
from tests.fake_bulk import FakeCluster

pytest.importorskip("torch", reason="training needs the train extra")


def test_conclusions_name_the_next_step() -> None:
    from bridge.adaptation.adaptation import Verdict
    from bridge.commands.adapt import _conclusion

    helps = Verdict("cross_encoder", "models/mine", [], True)
    assert _conclusion("shop", [helps], None).endswith("set sidecar.rerank_model to models/mine")
    assert "neural-bridge generation cutover shop" in _conclusion("shop", [], 2)
    assert _conclusion("shop", [], None) == "no adapted model helps the searches of shop: they go on as they are"


def test_an_index_that_is_not_enriched_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.mapping = {"properties": {}}
    with pytest.raises(IndexUnsuitable, match="start with `neural-bridge backfill shop`"):
        run("adapt", "shop", "--base", str(tmp_path))
