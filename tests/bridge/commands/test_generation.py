"""`neural-bridge generation`: what is shown and refused; tests/integration changes generations on a real node."""

import msgspec
import pytest

from bridge.commands.generation import _verification_lines
from bridge.errors import BridgeError
from ingest.runs.verify import Verification
from tests.command_line import answer, output, run
from tests.fake_bulk import FakeCluster

SOUND = Verification("shop", 2, "b@2", 12, 12, 12, 10, 0, 5, 0.98, [])


def test_status_names_the_generation_that_serves(cluster: FakeCluster) -> None:
    shown = answer("generation", "status", "shop")
    assert [(each["generation"], each["serves"]) for each in shown["generations"]] == [(1, True)]
    assert "  generation 1 serves searches: in 2 documents, under _neural" in output("generation", "status", "shop")


def test_status_of_an_index_that_is_not_enriched(cluster: FakeCluster) -> None:
    cluster.mapping = {"properties": {}}
    assert output("generation", "status", "shop") == "shop: 2 documents\n  not enriched by the bridge\n"


@pytest.mark.parametrize("command", ["verify", "cutover", "rollback", "drop"])
def test_without_a_second_generation_there_is_nothing_to_change(cluster: FakeCluster, command: str) -> None:
    with pytest.raises(BridgeError, match="generation"):
        run("generation", command, "shop")


def test_a_verification_ends_with_its_problems_or_with_its_consent() -> None:
    assert _verification_lines(SOUND)[-1] == "  it may serve searches"
    unsound = msgspec.structs.replace(SOUND, recall=None, problems=["1 document lacks its fields"])
    lines = _verification_lines(unsound)
    assert lines[-1] == "  problem: 1 document lacks its fields"
    assert any("not measured, no document has a vector" in line for line in lines)
