"""Every program in examples/ runs before a real cluster and a real bridge, and finds the boots."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.node.node import EmbeddedNode
from tests import servers
from tests.docs.prepared import INDEX, Addresses, write_as_an_application
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAMS = {
    "curl/search.sh": ["bash"],
    "opensearch-py/search.py": [sys.executable],
    "python/enrich.py": [sys.executable],
    "langchain/retrieve.py": [sys.executable],
    "haystack/pipeline.py": [sys.executable],
    "llamaindex/retrieve.py": [sys.executable],
    "javascript/search.mjs": ["node"],
    "javascript/client.mjs": ["node"],
}
NEW_INDEX = "catalogue-of-an-example"
PACKAGES = {
    "langchain/retrieve.py": "langchain_core",
    "haystack/pipeline.py": "haystack_integrations",
    "llamaindex/retrieve.py": "llama_index",
}


@dataclass(frozen=True, slots=True)
class Bridge:
    """A running bridge before an enriched index, by the variables that the programs read."""

    addresses: Addresses
    environment: dict[str, str]


@pytest.fixture(scope="module")
def bridge(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    addresses = Addresses(node.url)
    program = [sys.executable, "-m", "bridge.cli"]
    folder = tmp_path_factory.mktemp("examples")
    environment = {**os.environ, **addresses.environment(), "XDG_STATE_HOME": str(folder)}
    with servers.client(node.url) as client:
        client.indices.delete(index=f"{INDEX},{NEW_INDEX}", params={"ignore_unavailable": "true"})
        write_as_an_application(client, {"index.knn": True, "index.number_of_replicas": 0})
        enrich = ["backfill", INDEX, "--text-field", "title", "--text-field", "body", "--quiet"]
        subprocess.run([*program, *enrich], env=environment, check=True, timeout=300)
        serving = subprocess.Popen([*program, "serve"], env=environment, cwd=folder)
        try:
            for port, path in ((addresses.sidecar, "/ready"), (addresses.admin, "/_bridge/ready")):
                wait_until_answered(port, path)
            yield Bridge(
                addresses,
                {
                    "BRIDGE_URL": f"http://127.0.0.1:{addresses.proxy}",
                    "BRIDGE_ADMIN_URL": f"http://127.0.0.1:{addresses.admin}",
                    "SIDECAR_URL": f"http://127.0.0.1:{addresses.sidecar}",
                    "INDEX": INDEX,
                    "NEW_INDEX": NEW_INDEX,
                    "BRIDGE_CLUSTER__URL": node.url,
                    "HAYSTACK_TELEMETRY_ENABLED": "False",
                },
            )
        finally:
            serving.terminate()
            serving.wait(60)
            client.indices.delete(index=f"{INDEX},{NEW_INDEX}", params={"ignore_unavailable": "true"})


def test_every_example_is_run() -> None:
    programs = [path for path in EXAMPLES.rglob("*") if path.suffix in (".sh", ".py", ".mjs", ".conf")]
    assert {path.relative_to(EXAMPLES).as_posix() for path in programs} == {*PROGRAMS, "nginx/nginx.conf"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_finds_what_the_words_alone_do_not(name: str, bridge: Bridge, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    if shutil.which(program[0]) is None:
        pytest.skip(f"no {program[0]} here")
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"extra clients: examples/{name}")
    file = EXAMPLES / name
    if name == "javascript/client.mjs":
        file = installed(file, tmp_path)
    done = subprocess.run(
        [*program, str(file)],
        env={**os.environ, **bridge.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("boot", done.stdout, re.IGNORECASE), done.stdout


def installed(program: Path, folder: Path) -> Path:
    """A copy of the program beside the packages that it names."""
    for file in (program, program.parent / "package.json"):
        shutil.copy(file, folder)
    npm = shutil.which("npm")
    words = [npm or "npm", "install", "--silent", "--no-audit", "--no-fund"]
    if npm is None or subprocess.run(words, cwd=folder, check=False, timeout=120).returncode != 0:
        pytest.skip("npm cannot install @opensearch-project/opensearch here")
    return folder / program.name


def test_nginx_leads_searches_through_the_bridge(bridge: Bridge, node: EmbeddedNode, tmp_path: Path) -> None:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no nginx on the path: `apt-get install nginx-light`")
    port = free_port()
    text = (EXAMPLES / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:9201", node.url.removeprefix("http://"))
    text = text.replace("127.0.0.1:9280", f"127.0.0.1:{bridge.addresses.proxy}").replace(":9200;", f":{port};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off;\npid {tmp_path}/pid;\n"
        + text.replace("http {\n", f"http {{\n{paths}    access_log off;\n", 1),
        encoding="utf-8",
    )
    running = subprocess.Popen([program, "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"])
    try:
        wait_until_answered(port, "/")
        assert mark(port, f"/{INDEX}/_search?q=title:boots") is not None
        assert mark(port, f"/{INDEX}/_doc/boot") is None
    finally:
        running.terminate()
        running.wait(60)


def wait_until_answered(port: int, target: str) -> None:
    ends = time.monotonic() + 120
    while True:
        try:
            mark(port, target)
            return
        except OSError:
            assert time.monotonic() < ends, target
            time.sleep(0.2)


def mark(port: int, target: str) -> str | None:
    """What X-Bridge says of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ConnectionError(answer.status)
        return answer.headers["X-Bridge"]
    finally:
        connection.close()
