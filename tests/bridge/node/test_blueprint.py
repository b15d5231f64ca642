"""The artifacts that a version consists of, and the Java that can run it."""

import re
from pathlib import Path

import pytest

from bridge.errors import NodeError
from bridge.node.blueprint import VERSIONS, Java, find_javas, read_blueprint, read_java


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


def install(folder: Path, version: str, modules: str | None = "java.base jdk.incubator.vector") -> Path:
    """A folder that looks like a JDK."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch(mode=0o755)
    lines = [f'JAVA_VERSION="{version}"', *([f'MODULES="{modules}"'] if modules is not None else [])]
    (folder / "release").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("version", "major"),
    [("25.0.3", 25), ("21", 21), ("17.0.15", 17), ("11.0.2", 11), ("1.8.0_402", 8), ("26-ea", 26)],
)
def test_the_feature_release_is_read(tmp_path: Path, version: str, major: int) -> None:
    java = read_java(install(tmp_path / "jdk", version))

    assert java is not None
    assert java.major == major


@pytest.mark.parametrize("text", ["", "JAVA_VERSION=unquoted", 'IMPLEMENTOR="x"'])
def test_a_folder_without_a_java_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "release").write_text(text)

    assert read_java(tmp_path) is None
    assert read_java(tmp_path / "missing") is None


def test_a_release_file_without_the_program_is_no_java(tmp_path: Path) -> None:
    (install(tmp_path, "21") / "bin" / "java").unlink()

    assert read_java(tmp_path) is None


@pytest.mark.parametrize(
    ("modules", "complete"),
    [("java.base jdk.incubator.vector", True), ("java.base java.logging", False), (None, True)],
)
def test_a_trimmed_java_is_told_apart(tmp_path: Path, modules: str | None, complete: bool) -> None:
    java = read_java(install(tmp_path / "jdk", "25", modules))

    assert java is not None
    assert java.complete is complete
    assert ("without jdk.incubator.vector" in str(java)) is not complete


def test_java_home_comes_first_then_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = install(tmp_path / "named", "11")
    for version in ("17", "25", "21"):
        install(tmp_path / ".sdkman" / "candidates" / "java" / version, version)
    monkeypatch.setenv("JAVA_HOME", str(named))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")

    majors = [java.major for java in find_javas() if java.home.is_relative_to(tmp_path)]

    assert majors == [11, 25, 21, 17]


def test_a_named_place_is_the_only_one(tmp_path: Path) -> None:
    assert [java.major for java in find_javas(install(tmp_path / "jdk", "17"))] == [17]
    assert find_javas(tmp_path / "missing") == []
