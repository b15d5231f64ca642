"""Processes that a campaign starts, ends and limits."""

import signal
import sys
from pathlib import Path

from tests.campaign.servers import Server, nginx
from tests.servers import free_port

APPENDING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with open(sys.argv[2], "a") as file:
                file.write("a line")
            code = 200
        except OSError:
            code = 507
        self.send_response(code)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_a_server_starts_meets_a_full_disk_and_ends(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", APPENDING, str(port), str(tmp_path / "written")]
    server = Server("appending", command, f"http://127.0.0.1:{port}", "/", tmp_path / "log")
    await server.start()
    try:
        assert server.memory_mb() > 1
        assert server.descriptors() > 3
        server.limit_files(1)
        assert await server.status() == 507
        server.limit_files(-1)
        assert await server.status() == 200
        assert server.last_words is None
    finally:
        await server.end()
    assert await server.status() is None
    assert server.last_words == f"appending ended with {-signal.SIGTERM}: "


def test_nginx_balances_proxies_alone(tmp_path: Path) -> None:
    proxies = [Server(str(n), [], f"http://127.0.0.1:{n}", "/", tmp_path / "log") for n in (9001, 9002)]

    if nginx(tmp_path, proxies) is not None:
        text = (tmp_path / "nginx.conf").read_text("utf-8")
        assert text.count("server 127.0.0.1:900") == 3
        assert "opensearch" not in text
