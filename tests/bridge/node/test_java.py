"""Which Java is found, from folders that look like installations."""

from pathlib import Path

import pytest

from bridge.node.java import find_javas, read_java


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
