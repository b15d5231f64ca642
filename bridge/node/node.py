"""The embedded node: a real OpenSearch with the k-NN plugin, started, found again, and stopped.

Detached, it lives until somebody stops it (`neural-bridge node start`):

    node = EmbeddedNode.start("default")

Owned, it has fresh data, and ends with the block or with this process, however this process ends:

    with EmbeddedNode.owned("tests") as node:
        OpenSearch(node.url)

Kept, it is owned, but has the data of the last time and leaves them for the next: `EmbeddedNode.kept`.

Every node listens on loopback only. `bridge.node.assembly` has its files.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import NodeError
from bridge.node.assembly import cache_folder, locked, make_folder
from bridge.node.launch import NodePlan, launch_detached, launch_owned, plan_node
from bridge.node.process import NodeProcess, log_file
from bridge.settings import NodeSettings

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


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
        """Starts the instance detached, or finds it running; returns when it is ready.

        Args:
            version: of OpenSearch; by default that of the instance's data, else the best that Java allows.

        Raises:
            NodeError: no fitting Java, files that cannot be fetched, no space, a taken port, data of another
                version, or a node that does not become ready (its last log lines are in the message).
        """
        settings = settings or NodeSettings()
        folder = _instance_folder(name, settings)
        with _instance_lock(folder):
            before = NodeProcess.read(folder)
            if before is not None and version not in (None, before.version):
                raise NodeError(
                    f"node {name!r} belongs to OpenSearch {before.version}, not {version}: name another "
                    f"instance, or remove this one and its data (neural-bridge node clean --name {name})"
                )
            if before is not None and before.is_alive():
                process = before
            else:
                process = launch_detached(folder, plan_node(settings, before.version if before else version))
            try:
                return _answering(name, process, settings)
            except BaseException:
                process.end()
                raise

    @classmethod
    def owned(
        cls, name: str, settings: NodeSettings | None = None, version: str | None = None
    ) -> "AbstractContextManager[EmbeddedNode]":
        """A node with fresh data for the length of a `with` block; nothing of it stays behind.

        If this process ends without leaving the block, even by SIGKILL, the guard stops the node and
        removes its folder.

        Raises:
            NodeError: as for `start`; the folder with the log is kept then.
        """
        return cls.owned_as_planned(name, plan_node(settings or NodeSettings(), version))

    @classmethod
    @contextlib.contextmanager
    def owned_as_planned(cls, name: str, plan: NodePlan) -> "Iterator[EmbeddedNode]":
        """`owned`, after a plan that has entries of configuration or a flavour of its own."""
        parent = _instance_folder(name, plan.settings).parent
        make_folder(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        log_is_wanted = False
        try:
            with launch_owned(folder, plan, remove=True) as process:
                try:
                    node = _answering(name, process, plan.settings)
                except NodeError:
                    log_is_wanted = True
                    raise
                yield node
        finally:
            if not log_is_wanted:
                shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    @contextlib.contextmanager
    def kept(cls, name: str, settings: NodeSettings | None = None) -> "Iterator[EmbeddedNode]":
        """The instance with its data of earlier times, for the length of a `with` block; the data stay.

        If this process ends without leaving the block, even by SIGKILL, the guard stops the node.

        Raises:
            NodeError: as for `start`, or the instance runs already.
        """
        settings = settings or NodeSettings()
        folder = _instance_folder(name, settings)
        with contextlib.ExitStack() as running:
            with _instance_lock(folder):
                before = NodeProcess.read(folder)
                if before is not None and before.is_alive():
                    raise NodeError(
                        f"node {name!r} runs already (pid {before.pid}): "
                        f"stop it first (neural-bridge node stop --name {name})"
                    )
                plan = plan_node(settings, before.version if before else None)
                process = running.enter_context(launch_owned(folder, plan, remove=False))
            yield _answering(name, process, settings)

    @classmethod
    def find(cls, name: str = "default", settings: NodeSettings | None = None) -> "EmbeddedNode | None":
        """The instance; None unless it runs and answers."""
        process = find_process(name, settings)
        url = process.ready_url() if process is not None else None
        return _node(name, process, url) if process is not None and url is not None else None


def find_process(name: str = "default", settings: NodeSettings | None = None) -> NodeProcess | None:
    """The process of the instance, even if it does not answer; None unless it lives."""
    process = NodeProcess.read(_instance_folder(name, settings or NodeSettings()))
    return process if process is not None and process.is_alive() else None


def stop(name: str = "default", settings: NodeSettings | None = None) -> bool:
    """Stops an instance and keeps its data; returns whether it ran.

    Raises:
        NodeError: the process belongs to another user, or does not end.
    """
    folder = _instance_folder(name, settings or NodeSettings())
    with _instance_lock(folder):
        process = NodeProcess.read(folder)
        return process is not None and process.end()


def clean(name: str = "default", settings: NodeSettings | None = None) -> bool:
    """Stops an instance and removes its data, configuration and logs; returns whether there was one.

    Raises:
        NodeError: the process or the folder belongs to another user.
    """
    folder = _instance_folder(name, settings or NodeSettings())
    with _instance_lock(folder):
        process = NodeProcess.read(folder)
        if process is not None:
            process.end()
        existed = folder.exists()
        try:
            if existed:
                shutil.rmtree(folder)
            _lock_file(folder).unlink()
        except OSError as error:
            raise NodeError(f"{folder} cannot be removed: {error}; remove it as its owner") from error
    return existed


def _instance_folder(name: str, settings: NodeSettings) -> Path:
    if not NAME.fullmatch(name):
        raise NodeError(f"{name!r} cannot name a node: up to 41 of a-z, 0-9, - and _, the first a letter or digit")
    return cache_folder(settings.cache_dir) / "nodes" / name


@contextlib.contextmanager
def _instance_lock(folder: Path) -> Iterator[None]:
    """One start, stop or removal of an instance at a time."""
    make_folder(folder.parent)
    with locked(_lock_file(folder)):
        yield


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _answering(name: str, process: NodeProcess, settings: NodeSettings) -> EmbeddedNode:
    url = process.wait_until_ready(settings.start_timeout_s)
    process.compare_vectors_without_graphs(url, settings.start_timeout_s)
    return _node(name, process, url)


def _node(name: str, process: NodeProcess, url: str) -> EmbeddedNode:
    return EmbeddedNode(name, process.version, url, process.pid, process.folder)
