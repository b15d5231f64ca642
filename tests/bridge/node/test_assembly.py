"""From artifacts to a home: toy artifacts from a local repository, no network."""

import hashlib
import io
import multiprocessing
import os
import shutil
import stat
import sys
import time
import zipfile
from pathlib import Path
from threading import Thread

import pytest

from bridge.errors import NodeError
from bridge.node import assembly as node_assembly
from bridge.node.assembly import assemble, cache_folder, locked
from bridge.node.blueprint import Artifact, Blueprint, Part

JAR = b"a jar"


def plugin_zip() -> bytes:
    """A plugin as it is published: it extends one plugin that a node has, and one that it has not."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("plugin-descriptor.properties", "name=vectors\nextended.plugins=scripts,absent\nversion=1\n")
        archive.writestr("vectors.jar", JAR)
    return content.getvalue()


def publish(repository: Path, name: str, content: bytes, packaging: str = "jar") -> Artifact:
    """Puts a file into a folder of Maven's layout."""
    artifact = Artifact("org.toy", name, "1", packaging, hashlib.sha256(content).hexdigest())
    file = repository / artifact.repository_path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return artifact


def toy(repository: Path) -> Blueprint:
    """A blueprint of three parts."""
    scripts, vectors = publish(repository, "scripts", JAR), publish(repository, "vectors", plugin_zip(), "zip")
    return Blueprint(
        version="9.9.9",
        flavour="plain",
        java_minimum=21,
        java_before=None,
        parts=(
            Part("lib", (publish(repository, "core", JAR),), "", (), ()),
            Part("modules/scripts", (scripts,), "org.toy.Scripts", (), ("java.net.SocketPermission",)),
            Part("plugins/vectors", (vectors,), "", ("scripts",), ()),
        ),
        identity="0123456789ab",
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_home_holds_every_part(repository: Path, cache: Path) -> None:
    home = assemble(toy(repository), cache, repository)

    assert sorted(str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()) == [
        "lib/core-1.jar",
        "modules/scripts/plugin-descriptor.properties",
        "modules/scripts/plugin-security.policy",
        "modules/scripts/scripts-1.jar",
        "plugins/vectors/plugin-descriptor.properties",
        "plugins/vectors/vectors.jar",
    ]


def test_a_module_gets_a_descriptor_and_its_permissions(repository: Path, cache: Path) -> None:
    module = assemble(toy(repository), cache, repository) / "modules" / "scripts"

    descriptor = (module / "plugin-descriptor.properties").read_text()
    assert "name=scripts\n" in descriptor
    assert "classname=org.toy.Scripts\n" in descriptor
    assert "opensearch.version=9.9.9\n" in descriptor
    assert (module / "plugin-security.policy").read_text() == (
        "grant {\n    permission java.net.SocketPermission;\n};\n"
    )


def test_a_published_plugin_extends_only_what_the_node_has(repository: Path, cache: Path) -> None:
    plugin = assemble(toy(repository), cache, repository) / "plugins" / "vectors"

    lines = (plugin / "plugin-descriptor.properties").read_text().splitlines()
    assert lines == ["name=vectors", "version=1", "extended.plugins=scripts"]


def test_every_user_may_read_a_home_made_under_a_strict_umask(repository: Path, cache: Path) -> None:
    blueprint = toy(repository)
    before = os.umask(0o077)
    try:
        home = assemble(blueprint, cache, repository)
    finally:
        os.umask(before)

    everyone = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
    assert all(path.stat().st_mode & everyone == everyone for path in (cache, home, *home.rglob("*")))


def test_a_finished_home_is_used_again(repository: Path, cache: Path) -> None:
    blueprint = toy(repository)
    home = assemble(blueprint, cache, repository)
    made = home.stat().st_mtime_ns
    shutil.rmtree(repository)
    shutil.rmtree(cache / "downloads")

    assert assemble(blueprint, cache, repository) == home
    assert home.stat().st_mtime_ns == made


def test_what_an_interrupted_assembly_left_is_no_home(repository: Path, cache: Path) -> None:
    (cache / "homes" / ".assembling-killed" / "home" / "lib").mkdir(parents=True)

    assert (assemble(toy(repository), cache, repository) / "lib" / "core-1.jar").is_file()


def test_several_processes_make_one_home(repository: Path, cache: Path) -> None:
    blueprint = toy(repository)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        homes = pool.starmap(assemble, [(blueprint, cache, repository)] * 3)

    assert len(set(homes)) == 1
    assert [folder.name for folder in (cache / "homes").iterdir()] == [homes[0].name]


def test_a_damaged_download_is_fetched_again(repository: Path, cache: Path) -> None:
    blueprint = toy(repository)
    damaged = cache / "downloads" / blueprint.artifacts[0].repository_path
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a j")

    assert (assemble(blueprint, cache, repository) / "lib" / "core-1.jar").read_bytes() == JAR


@pytest.fixture
def no_jgo(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the extra `node`."""
    monkeypatch.setitem(sys.modules, "jgo", None)


def mvn_that(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a program `mvn` on the path; `$OUT` is the folder it is asked to fill."""
    folder.mkdir()
    program = folder / "mvn"
    program.write_text(
        '#!/bin/sh\nfor word; do case "$word" in -DoutputDirectory=*) OUT="${word#*=}";; esac; done\n' + script
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")


@pytest.mark.usefixtures("no_jgo")
def test_without_jgo_and_maven_the_message_says_what_to_install(
    repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NodeError, match=r"neither jgo nor mvn.*opensearch-neural-bridge\[node\]"):
        assemble(toy(repository), cache)


@pytest.mark.usefixtures("no_jgo")
def test_maven_fetches_what_is_missing(
    repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = toy(repository)
    mvn_that(tmp_path / "bin", monkeypatch, f'mkdir -p "$OUT" && cp -r {repository}/. "$OUT"')

    assert (assemble(blueprint, cache) / "lib" / "core-1.jar").read_bytes() == JAR


@pytest.mark.usefixtures("no_jgo")
def test_mavens_own_error_is_passed_on(
    repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mvn_that(tmp_path / "bin", monkeypatch, "echo '[ERROR] no route to host'; exit 1")

    with pytest.raises(NodeError, match=r"3 of 3 files.*org\.toy:core:1:jar.*no route to host.*MIRROR_DIR"):
        assemble(toy(repository), cache)


@pytest.mark.usefixtures("no_jgo")
def test_a_file_with_a_wrong_digest_is_never_used(
    repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = toy(repository)
    tampered = repository / blueprint.artifacts[0].repository_path
    tampered.write_bytes(b"another jar")
    mvn_that(tmp_path / "bin", monkeypatch, f'mkdir -p "$OUT" && cp -r {repository}/. "$OUT"')

    with pytest.raises(NodeError, match=r"1 of 3 files.*org\.toy:core:1:jar.*digest is not the expected one"):
        assemble(blueprint, cache, repository)
    assert not (cache / "downloads" / blueprint.artifacts[0].repository_path).exists()
    assert list((cache / "homes").iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_fetched(
    repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_assembly, "NEEDED_BYTES", 1 << 60)

    with pytest.raises(NodeError, match=r"MB free, an embedded node needs .* BRIDGE_NODE__CACHE_DIR"):
        assemble(toy(repository), cache, repository)
    assert not (cache / "downloads").exists()


def test_a_cache_that_is_a_file_names_the_remedy(repository: Path, cache: Path) -> None:
    cache.write_text("")

    with pytest.raises(NodeError, match="BRIDGE_NODE__CACHE_DIR"):
        assemble(toy(repository), cache, repository)


def test_the_cache_is_where_it_was_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    assert cache_folder(tmp_path / "named") == tmp_path / "named"
    assert cache_folder(None) == tmp_path / "xdg" / "neural-bridge"


def hold(file: Path, log: Path) -> None:
    """Takes the lock, removes its file, and writes down that nobody else held it meanwhile."""
    with locked(file):
        log.write_text(log.read_text() + "in ")
        time.sleep(0.05)
        log.write_text(log.read_text() + "out ")
        file.unlink()


def test_a_lock_whose_file_is_removed_still_keeps_others_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    holders = [Thread(target=hold, args=(tmp_path / "lock", log)) for _ in range(6)]
    for holder in holders:
        holder.start()
    for holder in holders:
        holder.join()

    assert log.read_text() == "in out " * 6
