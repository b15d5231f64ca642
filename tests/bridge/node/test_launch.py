"""What is planned for which Java, and what the Java process is told; no Java is started."""

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bridge.errors import NodeError
from bridge.node.launch import NodePlan, launch_detached, plan_node
from bridge.settings import NodeSettings
from tests.bridge.node.test_assembly import toy
from tests.bridge.node.test_blueprint import install


@pytest.mark.parametrize(
    ("java", "version"), [("25", "3.6.0"), ("21", "3.6.0"), ("20", "2.19.1"), ("17", "2.19.1"), ("11", "2.19.1")]
)
def test_the_newest_version_that_the_java_can_run_is_planned(tmp_path: Path, java: str, version: str) -> None:
    plan = plan_node(NodeSettings(java_home=install(tmp_path / "jdk", java)))

    assert plan.blueprint.version == version


def test_a_named_version_is_planned_though_a_newer_would_do(tmp_path: Path) -> None:
    plan = plan_node(NodeSettings(java_home=install(tmp_path / "jdk", "21")), "2.19.1")

    assert plan.blueprint.version == "2.19.1"


@pytest.mark.parametrize(
    ("java", "version", "expected"),
    [
        ("8", None, r"3\.6\.0 needs Java 21 or newer; OpenSearch 2\.19\.1 needs Java 11 to 23; found: Java 8 at"),
        ("17", "3.6.0", r"OpenSearch 3\.6\.0 needs Java 21 or newer; found: Java 17 at"),
        (None, None, "found: none"),
    ],
)
def test_without_a_fitting_java_what_was_found_is_listed(
    tmp_path: Path, java: str | None, version: str | None, expected: str
) -> None:
    home = install(tmp_path / "jdk", java) if java else tmp_path / "missing"

    with pytest.raises(NodeError, match=expected) as caught:
        plan_node(NodeSettings(java_home=home), version)
    assert "BRIDGE_NODE__JAVA_HOME" in str(caught.value)


@pytest.fixture
def plan(tmp_path: Path) -> NodePlan:
    """A plan whose Java is a script that prints how it was called."""
    home = install(tmp_path / "jdk", "25")
    (home / "bin" / "java").write_text('#!/bin/sh\nfor word; do echo "$word"; done; env; sleep 0.2\n')
    settings = NodeSettings(
        cache_dir=tmp_path / "cache", mirror_dir=tmp_path / "repository", java_home=home, heap_mb=300
    )
    java = plan_node(settings).java
    return NodePlan(toy(tmp_path / "repository"), java, settings)


@pytest.fixture
def open_tmp_path(tmp_path: Path) -> Path:
    """A folder that the unprivileged user may enter, also where root runs the tests."""
    for folder in (tmp_path, *tmp_path.parents):
        # One is of this run's worker, if there are several.
        if folder.name.startswith(("pytest-", "popen-")) or folder == tmp_path:
            folder.chmod(0o755)
    return tmp_path


def printed(plan: NodePlan, folder: Path) -> list[str]:
    """Starts the plan's Java and returns what it printed."""
    process = launch_detached(folder, plan)
    while process.is_alive():
        time.sleep(0.05)
    return process.log_file.read_text().splitlines()


def test_java_gets_the_heap_and_the_folders(plan: NodePlan, open_tmp_path: Path) -> None:
    folder = open_tmp_path / "cache" / "nodes" / "one"

    words = printed(plan, folder)

    assert "-Xmx300m" in words
    assert f"-Dopensearch.path.conf={folder}/config" in words
    assert words[words.index("-cp") + 2] == "org.opensearch.bootstrap.OpenSearch"


def test_further_options_of_java_come_after_our_own(plan: NodePlan, open_tmp_path: Path) -> None:
    settings = plan.settings.model_copy(update={"java_options": "-XX:TieredStopAtLevel=1 -Xmx400m"})

    words = printed(replace(plan, settings=settings), open_tmp_path / "cache" / "nodes" / "one")

    assert words.index("-Xmx300m") < words.index("-XX:TieredStopAtLevel=1") < words.index("-Xmx400m")
    assert words.index("-Xmx400m") < words.index("-cp")


def test_nothing_of_our_environment_reaches_the_node(
    plan: NodePlan, open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_CLUSTER__PASSWORD", "swordfish")

    assert not any("swordfish" in word for word in printed(plan, open_tmp_path / "cache" / "nodes" / "one"))


def test_the_node_listens_on_loopback_and_takes_free_ports(plan: NodePlan, open_tmp_path: Path) -> None:
    folder = open_tmp_path / "cache" / "nodes" / "one"
    printed(plan, folder)

    entries = yaml.safe_load((folder / "config" / "opensearch.yml").read_text())
    assert entries["network.host"] == "127.0.0.1"
    assert (entries["http.port"], entries["transport.port"], entries["node.portsfile"]) == (0, 0, True)


def test_ports_of_an_earlier_run_are_forgotten(plan: NodePlan, open_tmp_path: Path) -> None:
    folder = open_tmp_path / "cache" / "nodes" / "one"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "http.ports").write_text("127.0.0.1:1\n")

    process = launch_detached(folder, plan)

    assert process.ready_url() is None
    assert not (folder / "logs" / "http.ports").exists()


def test_a_port_that_is_taken_is_named(plan: NodePlan, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = plan.settings.model_copy(update={"port": port})

        with pytest.raises(NodeError, match=rf"port {port} on 127\.0\.0\.1 cannot be used .*--port"):
            launch_detached(tmp_path / "cache" / "nodes" / "one", NodePlan(plan.blueprint, plan.java, settings))


def test_a_java_that_cannot_be_started_is_named(plan: NodePlan, open_tmp_path: Path) -> None:
    plan.java.executable.chmod(0o644)

    with pytest.raises(NodeError, match=r"Java 25 at .* could not be started: .*Permission denied"):
        launch_detached(open_tmp_path / "cache" / "nodes" / "one", plan)


def test_a_plan_may_replace_and_take_away_entries(plan: NodePlan, open_tmp_path: Path) -> None:
    folder = open_tmp_path / "cache" / "nodes" / "one"
    printed(replace(plan, configuration={"cluster.name": "ours", "discovery.type": None}), folder)

    entries = yaml.safe_load((folder / "config" / "opensearch.yml").read_text())
    assert entries["cluster.name"] == "ours"
    assert "discovery.type" not in entries


def test_files_of_a_plan_are_read_by_the_node_alone(plan: NodePlan, open_tmp_path: Path) -> None:
    folder = open_tmp_path / "cache" / "nodes" / "one"
    printed(replace(plan, files={"secrets/users.yml": "admin: {}"}), folder)

    file = folder / "config" / "secrets" / "users.yml"
    assert file.read_text() == "admin: {}"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
