"""The demo's stack: an embedded node, the sidecar and the proxy.

Owned, it ends with the demo, however the demo ends. Kept, it goes on in the background until
`neural-bridge demo --stop`. Data and logs stay in both cases, so that the next demo starts quickly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.cluster import node as nodes
from bridge.cluster.node import EmbeddedNode
from bridge.cluster.node_assembly import cache_folder
from bridge.demo.background import Background, Stack, start_log_afresh
from bridge.serving import (
    MEASURING,
    as_environment,
    neural_bridge,
    sidecar_and_proxy,
    stop_timeout_s,
    with_ports,
)
from bridge.settings import NodeSettings, Settings, load_settings
from bridge.supervision import Supervisor

NODE = "demo"
"""The name of the node's instance."""

STATE_FILE = "stack.json"

START_TIMEOUT_S = 180.0
"""A demo is often the first thing that a machine is asked to do, and not the only one."""


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
            if service.log_file is not None:
                start_log_afresh(service.log_file)
        with Supervisor(services, stop_timeout_s=stop_timeout_s(settings)):
            yield stack
        return
    background = Background(folder / STATE_FILE)
    found = background.find()
    if found is not None and found.node_url != node.url:
        background.stop(stop_timeout_s(settings))  # it serves a node that is gone
        found = None
    if found is None:
        background.start(
            neural_bridge(config_file, "serve"),
            stack,
            environment=as_environment(overrides),
            ready_urls=[service.ready_url for service in services],
            timeout_s=sum(service.start_timeout_s for service in services),
            log_file=folder / "serve.log",
        )
    try:
        yield found or stack
    except BaseException:
        if found is None:
            background.stop(stop_timeout_s(settings))
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
