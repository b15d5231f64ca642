"""The demo's stack: an embedded node, the sidecar and the proxy.

Owned, it ends with the demo, however the demo ends. Kept, it goes on in the background until
`neural-bridge demo --stop`. Data and logs stay in both cases, so that the next demo starts quickly.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bridge.cluster import node as nodes
from bridge.cluster.node import EmbeddedNode
from bridge.cluster.node_assembly import cache_folder
from bridge.errors import ServiceError, UsageError
from bridge.serving import Overrides, as_environment, neural_bridge, sidecar_and_proxy, stop_timeout_s, with_ports
from bridge.settings import NodeSettings, Settings, load_settings
from bridge.supervision import Service, Supervisor, answers

log = logging.getLogger(__name__)

NODE = "demo"
"""The name of the node's instance."""

STATE_FILE = "stack.json"
POLL_S = 0.2

MEASURING: Overrides = {
    # A measured ranking must not depend on how busy the machine is: no stage is cut short.
    "proxy": {"port": 0, "admin_port": 0, "budget_ms": 30_000},
    "sidecar": {"port": 0},
}


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that runs: addresses of node and proxy."""

    node_url: str
    proxy_url: str


def folder_of(settings: NodeSettings) -> Path:
    """Where the demo keeps its logs, checkpoint and state; made where it is missing."""
    folder = cache_folder(settings.cache_dir) / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def running_node(settings: NodeSettings, *, keep: bool) -> Iterator[EmbeddedNode]:
    """The demo's node with the data of earlier demos; with `keep` it goes on after the block, unless the
    block fails.

    Raises:
        NodeError: it cannot be made or started, or runs for a kept stack already.
    """
    if not keep:
        with EmbeddedNode.kept(NODE, settings) as node:
            yield node
        return
    ran_before = EmbeddedNode.find(NODE, settings) is not None
    node = EmbeddedNode.start(NODE, settings)
    try:
        yield node
    except BaseException:
        if not ran_before:
            nodes.stop(NODE, settings)
        raise


@contextmanager
def running_servers(settings: Settings, node: EmbeddedNode, *, config_file: Path | None, keep: bool) -> Iterator[Stack]:
    """Sidecar and proxy before `node`, each a process of its own; with `keep` they go on after the block,
    unless the block fails.

    Raises:
        ServiceError: one of them does not come up.
    """
    folder = folder_of(settings.node)
    overrides = with_ports(
        {**MEASURING, "cluster": {"url": node.url}},
        load_settings(config_file, **MEASURING),
    )
    settings = load_settings(config_file, **overrides)
    stack = Stack(node.url, f"http://{settings.proxy.host}:{settings.proxy.port}")
    services = sidecar_and_proxy(settings, config_file=config_file, overrides=overrides, log_folder=folder)
    if not keep:
        for service in services:
            _start_log_afresh(service.log_file)
        with Supervisor(services, stop_timeout_s=stop_timeout_s(settings)):
            yield stack
        return
    background = _Background(folder)
    ran_before = background.find()
    kept = ran_before or background.start(stack, services, neural_bridge(config_file, "serve"), overrides)
    try:
        yield kept
    except BaseException:
        if ran_before is None:
            background.stop(stop_timeout_s(settings))
        raise


def is_kept(settings: NodeSettings) -> bool:
    """Whether a kept stack runs, or its node alone."""
    return _Background(folder_of(settings)).find() is not None or EmbeddedNode.find(NODE, settings) is not None


def stop(settings: Settings) -> bool:
    """Stops a kept stack; its data stay. Returns whether anything of it ran.

    Raises:
        NodeError: the node belongs to another user.
    """
    served = _Background(folder_of(settings.node)).stop(stop_timeout_s(settings))
    return nodes.stop(NODE, settings.node) or served


class _Background:
    """`neural-bridge serve` without a terminal, known by a state file.

    It inherits the locked file and so holds the lock exactly as long as it lives: nobody mistakes
    another process that was given the same id for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / STATE_FILE

    def find(self) -> Stack | None:
        """Where the servers answer; None where they do not run."""
        with self._opened() as file:
            return None if _try_lock(file) else Stack(**json.load(file)["stack"])

    def start(self, stack: Stack, services: list[Service], command: list[str], overrides: Overrides) -> Stack:
        """Starts the servers and waits until they are ready.

        Raises:
            ServiceError: they ended, or were not ready in time; they are stopped then.
            UsageError: another demo started them at this very moment.
        """
        log_file = self._folder / "serve.log"
        _start_log_afresh(log_file)
        with self._opened() as file, log_file.open("ab") as output:
            if not _try_lock(file):
                raise UsageError(f"another demo holds {self._file}: wait for it, or stop it")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **as_environment(overrides)},
                start_new_session=True,
                pass_fds=[file.fileno()],
            )
            file.truncate(0)
            json.dump({"pid": process.pid, "stack": {"node_url": stack.node_url, "proxy_url": stack.proxy_url}}, file)
        try:
            self._wait_until_ready(process, services, log_file)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        return stack

    def stop(self, timeout_s: float) -> bool:
        """SIGTERM, after a grace SIGKILL; returns whether they ran."""
        with self._opened() as file:
            if _try_lock(file):
                return False
            pid = json.load(file)["pid"]
            for kind in (signal.SIGTERM, signal.SIGKILL):
                os.kill(pid, kind)
                deadline = time.monotonic() + timeout_s
                while time.monotonic() < deadline:
                    if _try_lock(file):
                        return True
                    time.sleep(POLL_S)
        raise ServiceError(f"process {pid} of {self._file} does not end: see what holds it")

    @staticmethod
    def _wait_until_ready(process: subprocess.Popen[bytes], services: list[Service], log_file: Path) -> None:
        deadline = time.monotonic() + sum(service.start_timeout_s for service in services)
        while not all(answers(service.ready_url) for service in services):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"the servers did not become ready: see {log_file}")
            time.sleep(POLL_S)

    def _opened(self) -> TextIO:
        self._file.touch()
        return self._file.open("r+", encoding="utf-8")


def _try_lock(file: TextIO) -> bool:
    """Locks an open file, unless somebody else has it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start_log_afresh(file: Path | None) -> None:
    """Keeps the log of the time before as `NAME.log.1`."""
    if file is not None and file.exists():
        shutil.move(file, f"{file}.1")
