"""Three nodes as one cluster, for tests of what happens when nodes come and go."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.errors import NodeError
from bridge.node.assembly import assemble, cache_folder, make_folder
from bridge.node.launch import NodePlan, launch_owned, plan_node
from bridge.node.process import NodeProcess
from bridge.settings import load_settings

START_TIMEOUT_S = 600
JOIN_TIMEOUT_S = 300


@dataclass
class ClusterNode:
    """One node; it keeps its data and its port from one start to the next."""

    folder: Path
    plan: NodePlan
    url: str
    _running: AbstractContextManager[NodeProcess] | None = field(default=None, init=False)
    _process: NodeProcess | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return self.folder.name

    def start(self) -> None:
        """Starts the node and waits until it knows a manager."""
        self._running = launch_owned(self.folder, self.plan, remove=True)
        self._process = self._running.__enter__()
        self._process.wait_until_ready(START_TIMEOUT_S)

    def stop(self) -> None:
        """Ends the node in order; one that does not run is left alone."""
        running, self._running, self._process = self._running, None, None
        if running is not None:
            running.__exit__(None, None, None)

    def kill(self) -> None:
        """Ends the node as a crash would: no word to the others."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self.stop()


@dataclass(frozen=True)
class NodeCluster:
    """Nodes that found each other."""

    nodes: list[ClusterNode]

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def client(self) -> OpenSearch:
        """A client that knows every node and tries the next where one is away."""
        return OpenSearch(self.urls, max_retries=3, retry_on_timeout=True, timeout=30)

    def manager(self) -> ClusterNode:
        """The node that was elected."""
        with self.client() as client:
            name = client.cat.cluster_manager(params={"h": "node"}).strip()
        return next(node for node in self.nodes if node.name == name)

    def wait_until_green(self, nodes: int) -> None:
        """Waits until as many nodes are joined, and every copy of every shard is in its place."""
        with self.client() as client:
            health = client.cluster.health(
                params={"wait_for_nodes": str(nodes), "wait_for_status": "green", "timeout": f"{JOIN_TIMEOUT_S}s"},
                request_timeout=JOIN_TIMEOUT_S + 10,
            )
        assert not health["timed_out"], health


@contextmanager
def start_cluster(size: int = 3) -> Iterator[NodeCluster]:
    """A cluster of `size` nodes that ends with the block; skips the test where no Java can run it."""
    try:
        plan = plan_node(load_settings().node)
    except NodeError as error:
        pytest.skip(str(error))
    cache = cache_folder(plan.settings.cache_dir)
    assemble(plan.blueprint, cache, plan.settings.mirror_dir)
    make_folder(cache / "nodes")
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=cache / "nodes"))
    folder.chmod(0o755)
    ports = _free_ports(2 * size)
    http_ports, transport_ports = ports[:size], ports[size:]
    shared = {
        "cluster.name": folder.name,
        "discovery.type": None,
        "discovery.seed_hosts": [f"127.0.0.1:{port}" for port in transport_ports],
        # One node begins, the others join: several that begin at once would have to agree first.
        "cluster.initial_cluster_manager_nodes": ["node-0"],
    }
    nodes = [
        ClusterNode(
            folder / f"node-{number}",
            replace(
                plan,
                settings=plan.settings.model_copy(update={"port": http_ports[number]}),
                configuration=shared | {"transport.port": transport_ports[number]},
            ),
            f"http://127.0.0.1:{http_ports[number]}",
        )
        for number in range(size)
    ]
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        for node in nodes:
            cleanup.callback(node.stop)
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(ClusterNode.start, nodes))
        cluster = NodeCluster(nodes)
        cluster.wait_until_green(size)
        yield cluster


def _free_ports(count: int) -> list[int]:
    """Ports that are free now: a node that comes back must have the one that the others know."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(port.getsockname()[1]) for port in sockets]
