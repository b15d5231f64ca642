"""Fixtures that every test may ask for; `servers` holds what they start."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import structlog
from opensearchpy import OpenSearch

from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.settings import CompanionSettings
from tests import servers
from tests.secured_node import SecuredNode, start_secured_node

# The environment for training has no hypothesis, and its tests need none.
with suppress(ImportError):
    import hypothesis

    # How long an example takes is the machine's business.
    hypothesis.settings.register_profile("house", deadline=None)
    hypothesis.settings.load_profile("house")

# Half the processor time of a node that lives for minutes went into Java's second compiler.
os.environ.setdefault("BRIDGE_NODE__JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

_SHARED = {
    "engines": ("tests/integration/compatibility/",),
    "secured_node": (
        "tests/campaign/test_security.py",
        "tests/integration/test_companion_security.py",
        "tests/integration/test_docs_run.py",
        "tests/integration/test_least_privileges.py",
        "tests/integration/test_proxy_security.py",
        "tests/integration/test_restricted_ingest.py",
        "tests/integration/test_secured_node.py",
    ),
}
"""Files that share a node which no other test needs, so that one worker starts it."""

_RAY_MARKS = (
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray leaves sockets of its own processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--elasticsearch",
        action="store_true",
        help="also test against Elasticsearch nodes: 0.9 GB to fetch for each version, once",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that asks for a node, so that `-m "not node"` leaves all of them out; and those with Ray.
    Long files begin."""
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if {"node", "secured_node"} & asked:
            item.add_marker(pytest.mark.node)
        if "ray_here" in asked:
            for mark in _RAY_MARKS:
                item.add_marker(mark)
    # Short files come last, so that no worker is left with a long one while the others have ended.
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("node")}
    items.sort(key=lambda item: (_shared(item.nodeid) is None, item.path not in long))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file's tests run on one worker, as they share what is dear to start; so do files that share a node."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _shared(nodeid) or nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # that of the collection
    return ByFile(config, log)


def _shared(nodeid: str) -> str | None:
    """What the test's file shares with others, if that is started for them alone."""
    return next((name for name, files in _SHARED.items() if nodeid.startswith(files)), None)


@pytest.fixture
def hangups_count() -> Iterator[None]:
    """Under nohup they are ignored, and processes that are started inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """A command that a test runs decides where logs go; that ends with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def node() -> Iterator[EmbeddedNode]:
    """One embedded node for the whole run; it ends with it."""
    with servers.embedded_node() as running:
        yield running


@pytest.fixture(scope="session")
def secured_node() -> Iterator[SecuredNode]:
    """One node with the security plugin, for the tests that ask who may see what."""
    with start_secured_node() as running:
        yield running


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray on this machine, started once for a module: that takes longer than its runs."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        # Ray's workers give way to whatever else the machine does: here that would only take longer.
        environment.setenv("RAY_worker_niceness", "0")
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def opensearch(node: EmbeddedNode) -> Iterator[OpenSearch]:
    """A client of that node."""
    with servers.client(node.url) as client:
        yield client


@pytest.fixture
def fresh_index(opensearch: OpenSearch) -> Iterator[str]:
    """The name of an index that does not exist yet, and is removed afterwards."""
    name = servers.unused_index_name()
    yield name
    opensearch.indices.delete(index=name, params={"ignore_unavailable": "true"})


@pytest.fixture
def ours(fresh_index: str, opensearch: OpenSearch) -> Iterator[str]:
    """The name of that index's companion, which is removed afterwards."""
    name = companion_of(fresh_index, CompanionSettings().prefix)
    yield name
    opensearch.indices.delete(index=name, params={"ignore_unavailable": "true"})
