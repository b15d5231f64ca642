"""Instances by name, without starting one; `tests/integration/test_node.py` starts real ones."""

from pathlib import Path

import pytest

from bridge.errors import NodeError
from bridge.node import node as nodes
from bridge.node.node import EmbeddedNode
from bridge.node.process import NodeProcess
from bridge.settings import NodeSettings


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(cache_dir=tmp_path, java_home=tmp_path / "no-java")


@pytest.fixture
def stopped(tmp_path: Path) -> NodeProcess:
    """An instance `old` of 2.19.1 that ran once."""
    folder = tmp_path / "nodes" / "old"
    folder.mkdir(parents=True)
    process = NodeProcess(folder, 2**22 + 1, "2.19.1")
    process.write()
    return process


@pytest.mark.parametrize("name", ["", "Default", "../etc", "a/b", "-a", "a" * 42, "a.b", "ä"])
def test_a_name_that_is_no_folder_is_refused(settings: NodeSettings, name: str) -> None:
    with pytest.raises(NodeError, match="cannot name a node"):
        EmbeddedNode.start(name, settings)


def test_an_instance_that_never_ran_is_neither_found_nor_stopped(settings: NodeSettings) -> None:
    assert EmbeddedNode.find("none", settings) is None
    assert nodes.find_process("none", settings) is None
    assert not nodes.stop("none", settings)
    assert not nodes.clean("none", settings)


def test_a_stopped_instance_is_kept_until_it_is_cleaned(settings: NodeSettings, stopped: NodeProcess) -> None:
    assert not nodes.stop("old", settings)
    assert stopped.folder.exists()

    assert nodes.clean("old", settings)
    assert not stopped.folder.exists()


@pytest.mark.usefixtures("stopped")
def test_data_of_another_version_are_not_opened(settings: NodeSettings) -> None:
    with pytest.raises(NodeError, match=r"belongs to OpenSearch 2\.19\.1, not 3\.6\.0.*node clean --name old"):
        EmbeddedNode.start("old", settings, "3.6.0")


@pytest.mark.usefixtures("stopped")
def test_an_instance_is_started_with_the_version_of_its_data(settings: NodeSettings) -> None:
    with pytest.raises(NodeError, match=r"OpenSearch 2\.19\.1 needs") as caught:
        EmbeddedNode.start("old", settings)
    assert "3.6.0" not in str(caught.value)


def test_an_owned_node_that_cannot_be_planned_leaves_nothing(settings: NodeSettings, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="found: none"), EmbeddedNode.owned("mine", settings):
        pass

    assert list(tmp_path.iterdir()) == []
