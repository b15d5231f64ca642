"""The committed lists of artifacts, and what is read from them."""

import re
from pathlib import Path

import pytest

from bridge.errors import NodeError
from bridge.node.blueprint import VERSIONS, read_blueprint
from bridge.node.java import Java


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_has_coordinates_and_a_digest(version: str) -> None:
    blueprint = read_blueprint(version)

    assert all(re.fullmatch(r"[0-9a-f]{64}", artifact.sha256) for artifact in blueprint.artifacts)
    assert all(artifact.packaging in {"jar", "zip"} for artifact in blueprint.artifacts)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_two_versions_of_one_artifact_are_needed(version: str) -> None:
    """Maven would keep one of them only."""
    projects = [(artifact.group, artifact.name) for artifact in read_blueprint(version).artifacts]

    assert len(projects) == len(set(projects))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_node_has_vectors_scripts_and_a_network(version: str) -> None:
    folders = {part.folder for part in read_blueprint(version).parts}

    assert {"lib", "modules/lang-painless", "modules/transport-netty4", "plugins/opensearch-knn"} <= folders


def test_the_security_plugin_is_there_only_when_asked_for() -> None:
    plain, secured = read_blueprint("2.19.1"), read_blueprint("2.19.1", "security")

    assert {part.name for part in secured.parts} - {part.name for part in plain.parts} == {"opensearch-security"}
    assert plain.identity != secured.identity


@pytest.mark.parametrize(
    ("version", "major", "runs"),
    [
        ("3.6.0", 20, False),
        ("3.6.0", 21, True),
        ("3.6.0", 25, True),
        ("2.19.1", 8, False),
        ("2.19.1", 11, True),
        ("2.19.1", 17, True),
        ("2.19.1", 24, False),
    ],
)
def test_each_version_runs_on_its_range_of_java(version: str, major: int, runs: bool) -> None:
    assert read_blueprint(version).runs_on(Java(Path("/jdk"), major, complete=True)) is runs


def test_a_trimmed_java_does_not_do() -> None:
    assert not read_blueprint("3.6.0").runs_on(Java(Path("/jdk"), 25, complete=False))


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(NodeError, match=r"OpenSearch 1\.3\.0: choose 3\.6\.0 or 2\.19\.1"):
        read_blueprint("1.3.0")


def test_a_flavour_that_is_not_published_names_the_others() -> None:
    with pytest.raises(NodeError, match=r"3\.6\.0 has no flavour 'security'.*choose plain"):
        read_blueprint("3.6.0", "security")


def test_the_path_in_a_repository_is_mavens() -> None:
    artifact = next(a for a in read_blueprint("3.6.0").artifacts if a.packaging == "zip")

    assert artifact.repository_path == ("org/opensearch/plugin/opensearch-knn/3.6.0.0/opensearch-knn-3.6.0.0.zip")
