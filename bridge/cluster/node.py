"""The embedded node: a real OpenSearch with the k-NN plugin, started, found again, and stopped.

Two ways to have one. Detached, it lives until somebody stops it (`neural-bridge node start`):

    node = EmbeddedNode.start("default")

Owned, it has fresh data, and ends with the block or with this process, however this process ends:

    with EmbeddedNode.owned("tests") as node:
        OpenSearch(node.url)

Kept, it is owned, but has the data of the last time and leaves them for the next: `EmbeddedNode.kept`.

Every node listens on loopback only. `node_assembly` says where its files come from.
"""

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.cluster.node_assembly import cache_folder, locked, make_folder
from bridge.cluster.node_launch import choose, http_url, launch, log_file, prepare
from bridge.errors import NodeError
from bridge.settings import NodeSettings

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
STATE_FILE = "node.json"
POLL_S = 0.2
ANSWER_TIMEOUT_S = 5.0
STOP_GRACE_S = 20.0
GUARD_GRACE_S = 30.0
SHOWN_LOG_LINES = 15


@dataclass(frozen=True)
class EmbeddedNode:
    """A node that runs and has answered.

    Attributes:
        name: of the instance.
        version: of OpenSearch.
        url: `http://127.0.0.1:PORT`.
        pid: of the Java process.
        folder: its configuration, data and logs.
    """

    name: str
    version: str
    url: str
    pid: int
    folder: Path

    @property
    def log_file(self) -> Path:
        return log_file(self.folder)

    @classmethod
    def start(
        cls, name: str = "default", settings: NodeSettings | None = None, version: str | None = None
    ) -> "EmbeddedNode":
        """Starts the instance detached, or finds it where it runs already; returns when it is ready.

        Args:
            version: of OpenSearch; by default that of the instance's data, else the best that Java allows.

        Raises:
            NodeError: no fitting Java, files that cannot be fetched, no space, a taken port, data of another
                version, or a node that does not become ready (its last log lines are in the message).
        """
        settings = settings or NodeSettings()
        folder = _instance_folder(name, settings)
        with _instance_lock(folder):
            process = _NodeProcess.read(folder)
            if process is not None and version not in (None, process.version):
                raise NodeError(
                    f"node {name!r} belongs to OpenSearch {process.version}, not {version}: name another "
                    f"instance, or remove this one and its data (neural-bridge node clean --name {name})"
                )
            if process is None or not process.is_alive(folder):
                blueprint, java = choose(settings, process.version if process else version)
                make_folder(folder)
                command = prepare(folder, blueprint, java, settings, {})
                pid, _ = launch(command, folder, owned=False)
                process = _NodeProcess(pid, blueprint.version)
                process.write(folder)
            try:
                return _wait_until_ready(name, folder, process, settings.start_timeout_s)
            except BaseException:
                process.end(folder)
                raise

    @classmethod
    @contextlib.contextmanager
    def owned(
        cls,
        name: str,
        settings: NodeSettings | None = None,
        version: str | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> "Iterator[EmbeddedNode]":
        """A node with fresh data for the length of a `with` block; nothing of it stays behind.

        Where this process ends without leaving the block, even by SIGKILL, the guard stops the node and
        removes its folder.

        Args:
            configuration: entries of opensearch.yml that replace or join ours.

        Raises:
            NodeError: as for `start`; the folder with the log is kept then.
        """
        settings = settings or NodeSettings()
        blueprint, java = choose(settings, version)
        parent = _instance_folder(name, settings).parent
        make_folder(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        command = prepare(folder, blueprint, java, settings, configuration or {})
        pid, guard = launch(command, folder, owned=True)
        try:
            yield _wait_until_ready(name, folder, _NodeProcess(pid, blueprint.version), settings.start_timeout_s)
        finally:
            guard.terminate()
            guard.wait(GUARD_GRACE_S)
        shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    @contextlib.contextmanager
    def kept(cls, name: str, settings: NodeSettings | None = None) -> "Iterator[EmbeddedNode]":
        """The instance with its data of earlier times, for the length of a `with` block; the data stay.

        Where this process ends without leaving the block, even by SIGKILL, the guard stops the node.

        Raises:
            NodeError: as for `start`, or the instance runs already.
        """
        settings = settings or NodeSettings()
        folder = _instance_folder(name, settings)
        with _instance_lock(folder):
            before = _NodeProcess.read(folder)
            if before is not None and before.is_alive(folder):
                raise NodeError(f"node {name!r} runs already (pid {before.pid}): neural-bridge node stop --name {name}")
            blueprint, java = choose(settings, before.version if before else None)
            make_folder(folder)
            command = prepare(folder, blueprint, java, settings, {})
            pid, guard = launch(command, folder, owned=True, remove=False)
            process = _NodeProcess(pid, blueprint.version)
            process.write(folder)
        try:
            yield _wait_until_ready(name, folder, process, settings.start_timeout_s)
        finally:
            guard.terminate()
            guard.wait(GUARD_GRACE_S)

    @classmethod
    def find(cls, name: str = "default", settings: NodeSettings | None = None) -> "EmbeddedNode | None":
        """The instance, where it runs and answers."""
        folder = _instance_folder(name, settings or NodeSettings())
        process = _NodeProcess.read(folder)
        if process is None or not process.is_alive(folder):
            return None
        return _ready(name, folder, process)


def stop(name: str = "default", settings: NodeSettings | None = None) -> bool:
    """Stops a detached instance and keeps its data; returns whether it ran.

    Raises:
        NodeError: the process belongs to another user.
    """
    folder = _instance_folder(name, settings or NodeSettings())
    with _instance_lock(folder):
        process = _NodeProcess.read(folder)
        return process is not None and process.end(folder)


def clean(name: str = "default", settings: NodeSettings | None = None) -> bool:
    """Stops a detached instance and removes its data, configuration and logs; returns whether there was one.

    Raises:
        NodeError: the process or the folder belongs to another user.
    """
    settings = settings or NodeSettings()
    stop(name, settings)
    folder = _instance_folder(name, settings)
    with _instance_lock(folder):
        if not folder.exists():
            return False
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise NodeError(f"{folder} cannot be removed: {error}; remove it as its owner") from error
    return True


@dataclass(frozen=True)
class _NodeProcess:
    """The Java process of an instance, as its state file records it; it may be gone."""

    pid: int
    version: str

    @classmethod
    def read(cls, folder: Path) -> "_NodeProcess | None":
        """What was started last in `folder`; None where nothing was."""
        file = folder / STATE_FILE
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            return cls(int(state["pid"]), str(state["version"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NodeError(
                f"{file} cannot be understood ({error}): remove the instance with neural-bridge node clean"
            ) from error

    def write(self, folder: Path) -> None:
        """Replaces the state file whole: a reader never sees half of it."""
        unfinished = folder / f"{STATE_FILE}.new"
        unfinished.write_text(json.dumps({"pid": self.pid, "version": self.version}), encoding="utf-8")
        unfinished.replace(folder / STATE_FILE)

    def is_alive(self, folder: Path) -> bool:
        """Whether the id still names this instance's Java: ids are used again, and a zombie has no command."""
        return str(folder / "config") in _command_line(self.pid)

    def end(self, folder: Path) -> bool:
        """SIGTERM, after a grace SIGKILL; returns whether it was alive."""
        if not self.is_alive(folder):
            return False
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(self.pid, kind)
            except ProcessLookupError:
                return True
            except PermissionError as error:
                raise NodeError(
                    f"process {self.pid} of {folder} belongs to another user: stop it as that user or as root"
                ) from error
            deadline = time.monotonic() + STOP_GRACE_S
            while time.monotonic() < deadline:
                if not self.is_alive(folder):
                    return True
                time.sleep(POLL_S)
        raise NodeError(f"process {self.pid} of {folder} does not end, not even by SIGKILL: see what holds it")


def _instance_folder(name: str, settings: NodeSettings) -> Path:
    if not NAME.fullmatch(name):
        raise NodeError(f"{name!r} cannot name a node: up to 41 of a-z, 0-9, - and _, the first a letter or digit")
    return cache_folder(settings.cache_dir) / "nodes" / name


@contextlib.contextmanager
def _instance_lock(folder: Path) -> Iterator[None]:
    """One start, stop or removal of an instance at a time."""
    try:
        make_folder(folder.parent)
        with locked(folder.with_name(f"{folder.name}.lock")):
            yield
    except PermissionError as error:
        raise NodeError(
            f"{folder.parent} cannot be written: {error}; name another folder with BRIDGE_NODE__CACHE_DIR"
        ) from error


def _wait_until_ready(name: str, folder: Path, process: _NodeProcess, timeout_s: float) -> EmbeddedNode:
    started = time.monotonic()
    while True:
        if (node := _ready(name, folder, process)) is not None:
            log.info("node ready", extra={"node": name, "url": node.url, "took_s": time.monotonic() - started})
            return node
        if not process.is_alive(folder):
            raise NodeError(f"node {name!r} died while it started; {_last_words(folder)}")
        if time.monotonic() - started > timeout_s:
            raise NodeError(
                f"node {name!r} was not ready in {timeout_s:g} s; wait longer with "
                f"BRIDGE_NODE__START_TIMEOUT_S; {_last_words(folder)}"
            )
        time.sleep(POLL_S)


def _ready(name: str, folder: Path, process: _NodeProcess) -> EmbeddedNode | None:
    url = http_url(folder)
    if url is None or not _has_manager(url):
        return None
    return EmbeddedNode(name, process.version, url, process.pid, folder)


def _has_manager(url: str) -> bool:
    """Whether the node answers and its indices can be searched; asks for one second only.

    The standard library's client is used since it follows no proxy settings of the environment.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_TIMEOUT_S)
    try:
        # Without the second time limit a poll waits 30 s where no manager is elected yet.
        connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s&cluster_manager_timeout=1s")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_words(folder: Path) -> str:
    """The end of the log without the frames of stack traces, for an error message."""
    file = log_file(folder)
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if not line.startswith(("\tat ", "\t... "))]
    return "\n".join([f"its log {file} ends:", *told[-SHOWN_LOG_LINES:]])


def _command_line(pid: int) -> str:
    """The command of a process; empty where there is none, or only a zombie."""
    file = Path(f"/proc/{pid}/cmdline")
    if file.parent.parent.joinpath("self").exists():
        try:
            return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607 systems without /proc
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return shown.stdout
