"""A PostgreSQL of the tests' own on a free port of loopback: Debian's, or that of the PyPI package pgserver."""

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port

_START_S = 120
_STOP_S = 60


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None if there is none."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    # Found, not imported: importing it starts watching processes.
    if (spec := importlib.util.find_spec("pgserver")) is not None and spec.origin:
        folders.append(Path(spec.origin).parent / "pginstall" / "bin")
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


@contextmanager
def postgresql() -> Iterator[str]:
    """A running server's address, with a user and a password, as SQLAlchemy writes it."""
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql, or pip install pgserver")
    password = secrets.token_hex(8)
    port = free_port()
    # PostgreSQL refuses to run as root, so root lets another user run it.
    account = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="bridge-postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if account is not None:
            for path in (folder, folder / "password"):
                os.chown(path, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
        made: list[str | Path] = [
            found / "initdb",
            "--pgdata",
            folder / "data",
            "--username",
            "sesame",
            "--auth",
            "scram-sha-256",
        ]
        made += ["--pwfile", folder / "password", "--encoding", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, user=account, cwd=folder, timeout=_START_S)
        served: list[str | Path] = [
            found / "postgres",
            "-D",
            folder / "data",
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-k",
            folder,
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([*served, "-F"], stdout=log, stderr=log, user=account, cwd=folder)
        try:
            _wait_until_ready(server, port, folder / "log")
            yield f"postgresql+psycopg://sesame:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(_STOP_S)


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while b"database system is ready" not in log.read_bytes():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"PostgreSQL did not come up on port {port}: {log.read_text()}"
        time.sleep(0.05)
