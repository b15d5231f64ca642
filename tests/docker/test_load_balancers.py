"""The examples for nginx and Envoy, run by nginx and Envoy: what meets the bridge, and what happens without it."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

DOCKER = Path(__file__).parent.parent.parent / "docker"


class Backend:
    """Answers everything with its own name, and remembers the request lines."""

    def __init__(self, name: str) -> None:
        backend = self
        self.asked: list[str] = []
        self.is_away = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if backend.is_away:  # a connection kept alive ends without an answer
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                backend.asked.append(f"{self.command} {self.path} {body.decode()}".strip())
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 the names are http.server's

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port = self._server.server_port

    def leave(self) -> None:
        """Takes no new connection, and answers on none."""
        if not self.is_away:
            self.is_away = True
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class Balanced:
    """A load balancer before a bridge and a cluster."""

    def __init__(self, port: int, bridge: Backend, cluster: Backend) -> None:
        self.port = port
        self.bridge = bridge
        self.cluster = cluster

    def ask(self, method: str, target: str, body: str = "") -> str:
        """Who answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with closing(connection):
            connection.request(method, target, body=body)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return answer.read().decode()


@contextmanager
def nginx(folder: Path, port: int, bridge: int, cluster: int) -> Iterator[None]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no nginx on the path: `apt-get install nginx-light`")
    text = (DOCKER / "nginx.conf").read_text(encoding="utf-8")
    text = moved(text, port, bridge, cluster).replace("listen ", "listen 127.0.0.1:")
    # Where it may write, and as whom; the example leaves both to the image.
    user = "user root;\n" if os.geteuid() == 0 else ""
    paths = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"{user}daemon off;\npid {folder}/pid;\n" + text.replace("http {\n", f"http {{\n{paths}", 1)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    with process([program, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]):
        yield


@contextmanager
def envoy(folder: Path, port: int, bridge: int, cluster: int) -> Iterator[None]:
    program = Path(sys.executable).parent / "envoy"
    text = moved((DOCKER / "envoy.yaml").read_text(encoding="utf-8"), port, bridge, cluster)
    (folder / "envoy.yaml").write_text(text.replace("0.0.0.0", "127.0.0.1"), encoding="utf-8")
    options = ["--concurrency", "1", "--base-id", str(port), "--log-level", "warning"]
    with process([str(program), "-c", f"{folder}/envoy.yaml", *options]):
        yield


def moved(text: str, port: int, bridge: int, cluster: int) -> str:
    """The example with addresses of this test in the place of the containers' names."""
    text = re.sub(r"\bproxy:9280", f"127.0.0.1:{bridge}", text)
    text = re.sub(r"address: proxy, port_value: 9280", f"address: 127.0.0.1, port_value: {bridge}", text)
    text = re.sub(r"\bopensearch:9200", f"127.0.0.1:{cluster}", text)
    text = re.sub(r"address: opensearch, port_value: 9200", f"address: 127.0.0.1, port_value: {cluster}", text)
    return re.sub(r"(listen |0\.0\.0\.0, port_value: )9200", rf"\g<1>{port}", text)


@contextmanager
def process(words: list[str]) -> Iterator[None]:
    running = subprocess.Popen(words)
    try:
        yield
        assert running.poll() is None, f"{words[0]} ended by itself"
    finally:
        running.terminate()
        running.wait(60)


@pytest.fixture(params=[nginx, envoy], ids=["nginx", "envoy"])
def balanced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Balanced]:
    with ExitStack() as stack:
        bridge, cluster = Backend("bridge"), Backend("cluster")
        stack.callback(cluster.leave)
        stack.callback(bridge.leave)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        stack.enter_context(request.param(tmp_path, port, bridge.port, cluster.port))
        wait_until_open(port)
        yield Balanced(port, bridge, cluster)


def wait_until_open(port: int) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the load balancer never listened")


@pytest.mark.parametrize(
    ("method", "target", "who"),
    [
        ("POST", "/products/_search", "bridge"),
        ("GET", "/products/_search?q=a%20b&size=3", "bridge"),
        ("POST", "/_search", "bridge"),
        ("POST", "/products/_msearch", "bridge"),
        ("POST", "/_msearch?max_concurrent_searches=2", "bridge"),
        ("POST", "/a%2Cb,c*/_search", "bridge"),
        ("POST", "/products/_search/template", "cluster"),
        ("POST", "/products/_search/point_in_time", "cluster"),
        ("POST", "/_search/scroll", "cluster"),
        ("PUT", "/products/_doc/_search_", "cluster"),
        ("POST", "/products/_bulk", "cluster"),
        ("GET", "/", "cluster"),
        ("DELETE", "/products", "cluster"),
        ("GET", "/a//b/../c%2e?x=%2F", "cluster"),
    ],
)
def test_searches_meet_the_bridge_and_nothing_else_does(balanced: Balanced, method: str, target: str, who: str) -> None:
    body = '{"query": {}}' if method in ("POST", "PUT") else ""

    assert balanced.ask(method, target, body) == who

    backend = balanced.bridge if who == "bridge" else balanced.cluster
    assert backend.asked == [f"{method} {target} {body}".strip()]


def test_searches_go_to_the_cluster_while_the_bridge_is_away(balanced: Balanced) -> None:
    assert balanced.ask("POST", "/products/_search", "{}") == "bridge"

    balanced.bridge.leave()

    assert [balanced.ask("POST", "/products/_search", "{}") for _ in range(5)] == ["cluster"] * 5
