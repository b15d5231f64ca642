"""The demo's stack: an embedded node, the sidecar and the proxy.

By default it ends with the demo, however the demo ends. With `--keep` it runs on in the background until
`neural-bridge demo --stop`. Data and logs stay in both cases, so that the next demo starts quickly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.node import node as nodes
from bridge.node.assembly import cache_folder
from bridge.node.node import EmbeddedNode
from bridge.processes.background import Background, Stack
from bridge.processes.services import (
    MeasuringServers,
    as_environment,
    neural_bridge,
    small_model_by_name,
    stop_timeout_s,
)
from bridge.settings import NodeSettings, Settings

NODE = "demo"
"""The name of the node's instance."""

STATE_FILE = "stack.json"

START_TIMEOUT_S = 180.0
"""A demo often runs on a cold and busy machine."""

PROFILE_TTL_S = 1.0
"""The proxy sees a tuned profile after this time."""


def folder_of(settings: NodeSettings) -> Path:
    """The folder of the demo's logs, checkpoint and state; created if missing."""
    folder = cache_folder(settings.cache_dir) / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def running_node(settings: NodeSettings, *, keep: bool) -> Iterator[EmbeddedNode]:
    """The demo's node with the data of earlier demos; with `keep` it runs on after the block, unless the block
    fails.

    Raises:
        NodeError: it cannot be assembled or started, or runs for a kept stack already.
    """
    settings = settings.model_copy(update={"start_timeout_s": max(settings.start_timeout_s, START_TIMEOUT_S)})
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
    """Sidecar and proxy before `node`, each a process of its own; with `keep` they run on after the block,
    unless the block fails.

    Raises:
        ServiceError: one of them does not come up.
    """
    folder = folder_of(settings.node)
    more = {**small_model_by_name(settings.sidecar), "proxy": {"profile_ttl_s": PROFILE_TTL_S}}
    servers = MeasuringServers.before(node.url, config_file, log_folder=folder, more=more)
    stack = Stack(node.url, servers.proxy_url, servers.sidecar_url)
    if not keep:
        with servers.supervised():
            yield stack
        return
    background = Background(folder / STATE_FILE)
    found = background.find()
    if found is not None and found.node_url != node.url:
        background.stop(stop_timeout_s(servers.settings))  # it serves a node that is gone
        found = None
    if found is None:
        background.start(
            neural_bridge(config_file, "serve"),
            stack,
            environment=as_environment(servers.overrides),
            ready_urls=[service.ready_url for service in servers.services],
            timeout_s=sum(service.start_timeout_s for service in servers.services),
            log_file=folder / "serve.log",
        )
    try:
        yield found or stack
    except BaseException:
        if found is None:
            background.stop(stop_timeout_s(servers.settings))
        raise


def is_kept(settings: NodeSettings) -> bool:
    """Whether the servers of a kept stack run."""
    return Background(folder_of(settings) / STATE_FILE).find() is not None


def stop(settings: Settings) -> bool:
    """Stops a kept stack; its data stay. Returns whether anything of it ran.

    Raises:
        NodeError: the node belongs to another user.
        ServiceError: the servers do not end.
    """
    served = Background(folder_of(settings.node) / STATE_FILE).stop(stop_timeout_s(settings))
    return nodes.stop(NODE, settings.node) or served
