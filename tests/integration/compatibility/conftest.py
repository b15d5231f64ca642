"""The same tests against every engine, one after another; `docs/reference/compatibility.md` is made from how they end.

OpenSearch runs wherever a Java for it is found, Elasticsearch where `--elasticsearch` asks for it.
`BRIDGE_TEST_CLUSTER` names the address of a cluster to test in their place: it gets indices called `test-…`.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from benchmarks.pictures import SHAPES_CLIP
from bridge.cluster.connection import capabilities, connect
from bridge.cluster.dialects import Capabilities
from bridge.models.encoder import Encoder
from bridge.node.blueprint import VERSIONS
from bridge.settings import ClusterSettings
from tests import compatibility_report, servers
from tests.elasticsearch_node import RELEASES, start_elasticsearch
from tests.proxy_stack import ProxyStack, proxy_stack

CLUSTER = "BRIDGE_TEST_CLUSTER"
TIMEOUT_S = 1200
"""The first test of an engine waits for its node, which a busy machine takes minutes to start."""

_ENDED = pytest.StashKey[dict[str, compatibility_report.Outcomes]]()


@dataclass(frozen=True)
class Engine:
    """A cluster of some engine and version."""

    url: str
    found: Capabilities

    @property
    def is_elasticsearch(self) -> bool:
        return self.found.distribution == "elasticsearch"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        names = [f"opensearch-{version}" for version in VERSIONS]
        if metafunc.config.getoption("--elasticsearch"):
            names += [f"elasticsearch-{version}" for version in RELEASES]
        metafunc.parametrize("engine", ["cluster"] if CLUSTER in os.environ else names, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    engine = getattr(item, "funcargs", {}).get("engine")
    mark = item.get_closest_marker("feature")
    if engine is not None and mark is not None and (report.when == "call" or report.failed):
        outcomes = item.config.stash.setdefault(_ENDED, {}).setdefault(str(engine.found), {})
        outcomes.setdefault(mark.args[0], []).append(report.outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if ended := session.config.stash.get(_ENDED, None):
        compatibility_report.keep(ended)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One engine after the other: beside the run's own node, two are never up at once for these tests."""
    distribution, _, version = request.param.partition("-")
    with ExitStack() as running:
        if distribution == "cluster":
            url = os.environ[CLUSTER]
        elif distribution == "elasticsearch":
            url = running.enter_context(start_elasticsearch(version)).url
        elif version == servers.node_plan().blueprint.version:
            url = request.getfixturevalue("node").url
        else:
            url = running.enter_context(servers.embedded_node(version)).url
        with connect(ClusterSettings(url=url)) as client:
            found = capabilities(client)
        yield Engine(url, found)


@pytest.fixture
def client(engine: Engine) -> Iterator[OpenSearch]:
    """The bridge's own client of the engine."""
    with connect(ClusterSettings(url=engine.url)) as opened:
        yield opened


@pytest.fixture
def index_name(client: OpenSearch) -> Iterator[str]:
    """The name of an index that does not exist yet; it and its copy are removed afterwards."""
    name = servers.unused_index_name()
    yield name
    for each in (name, f"{name}-copy"):
        client.indices.delete(index=each, params={"ignore_unavailable": "true"})


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy models that the sidecar serves."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def stack(engine: Engine, model_folder: Path) -> Iterator[ProxyStack]:
    """The proxy before the engine, with time enough for a busy machine."""
    pictures = Encoder.load(str(SHAPES_CLIP), threads=1)
    settings = ClusterSettings(url=engine.url)
    with proxy_stack(settings, model_folder, more_encoders=[pictures], budget_ms=60_000) as running:
        yield running
