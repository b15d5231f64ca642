"""What the benchmark of replicas stands on: several servers of one kind, nginx before them, a cluster from memory."""

import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import aiohttp
from aiohttp import web

from bridge.errors import UsageError
from bridge.processes.services import START_TIMEOUT_S, Overrides, as_environment, neural_bridge
from bridge.processes.supervisor import Service, Supervisor

NGINX_EXAMPLE = Path(__file__).parent.parent / "docker" / "nginx.conf"
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PASSED_HEADERS = ("content-type", "x-opaque-id")


@contextmanager
def served(
    name: Literal["rerank", "proxy"], overrides: Overrides, n_processes: int
) -> Iterator[tuple[list[str], list[int]]]:
    """So many servers with these settings: their addresses and process ids.

    Raises:
        ServiceError: one does not come up.
    """
    section, health = ("sidecar", "/ready") if name == "rerank" else ("proxy", "/_bridge/ready")
    urls, services = [], []
    for number, (port, admin_port) in enumerate(zip(*[iter(_free_ports(2 * n_processes))] * 2, strict=True)):
        own = {"port": port} | ({"admin_port": admin_port} if name == "proxy" else {})
        settings = {**overrides, section: {**overrides.get(section, {}), **own}}
        urls.append(f"http://127.0.0.1:{port}")
        services.append(
            Service(
                f"{name} {number + 1}",
                [*neural_bridge(None, "serve"), name],
                ready_url=f"http://127.0.0.1:{admin_port if name == 'proxy' else port}{health}",
                environment=as_environment(settings),
                log_file=Path(os.devnull),
                start_timeout_s=START_TIMEOUT_S,
            )
        )
    with Supervisor(services) as running:
        yield urls, [pid for pid in running.process_ids().values() if pid is not None]


@contextmanager
def behind_nginx(folder: Path, bridges: Sequence[str], cluster: str) -> Iterator[str]:
    """The example's nginx before these proxies and this cluster: its address.

    Raises:
        UsageError: nginx is not installed.
        ServiceError: it does not come up.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise UsageError("nginx is not installed: apt-get install nginx-light")
    [port] = _free_ports(1)
    text = NGINX_EXAMPLE.read_text(encoding="utf-8")
    servers = "\n".join(f"        server {url.removeprefix('http://')} max_fails=0;" for url in bridges)
    text = re.sub(r"^ *server proxy:9280 .*$", servers, text, flags=re.MULTILINE)
    text = text.replace("opensearch:9200", cluster.removeprefix("http://"))
    text = text.replace("listen 9200", f"listen 127.0.0.1:{port}")
    # Where it may write, and as whom; the example leaves both to its image.
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {folder}/nginx.pid;\n" + text.replace("http {\n", f"http {{ {paths}\n", 1),
        encoding="utf-8",
    )
    service = Service("nginx", [program, "-e", f"{folder}/nginx.log", "-c", str(file)], f"http://127.0.0.1:{port}/")
    with Supervisor([service]):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def remembering(cluster_url: str) -> AsyncIterator[str]:
    """A cluster that gives each request the answer that the one at `cluster_url` gave it the first time: its
    address."""
    answers: dict[tuple[str, str, bytes], tuple[bytes, int, str]] = {}
    async with aiohttp.ClientSession(auto_decompress=True) as session:

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            asked = (request.method, request.raw_path, body)
            if asked not in answers:
                headers = {name: request.headers[name] for name in _PASSED_HEADERS if name in request.headers}
                async with session.request(
                    request.method, f"{cluster_url}{request.raw_path}", data=body, headers=headers
                ) as found:
                    answers[asked] = await found.read(), found.status, found.content_type
            text, status, content_type = answers[asked]
            return web.Response(body=text, status=status, content_type=content_type)

        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds that these processes have spent, in user and kernel mode."""
    ticks = 0
    for pid in pids:
        # The fields behind the command, which may hold anything: utime and stime are the 12th and 13th of them.
        user, system = _stat(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / _CLOCK_TICKS_PER_S


def machine_cpu_s() -> float:
    """Processor seconds that all processes of this machine have spent."""
    user, nice, system = _stat("/proc/stat").split()[1:4]
    return (int(user) + int(nice) + int(system)) / _CLOCK_TICKS_PER_S


def _stat(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")


def _free_ports(n: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
