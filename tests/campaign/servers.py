"""Servers of a campaign as processes with ports of their own: a node, a sidecar, proxies, and nginx before them."""

import asyncio
import os
import resource
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from bridge.processes import owned
from tests.servers import free_port

START_TIMEOUT_S = 600.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
EXAMPLE = Path(__file__).parents[2] / "docker" / "nginx.conf"


@dataclass
class Server:
    """A process that answers `url` plus `ready_path` when it is ready; what it writes goes to `log`."""

    name: str
    command: Sequence[str]
    url: str
    ready_path: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def last_words(self) -> str | None:
        """How it ended, and the end of its log; None while it runs."""
        code = self.process.returncode if self.process is not None else None
        return None if code is None else f"{self.name} ended with {code}: {self.log.read_text()[-2000:]}"

    async def start(self) -> None:
        """Returns when it is ready.

        Raises:
            RuntimeError: it ended before.
        """
        words = [sys.executable, str(owned.__file__), str(os.getpid()), *self.command]
        with self.log.open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                *words, env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.environment}, stdout=log, stderr=log
            )
        async with asyncio.timeout(START_TIMEOUT_S):
            while await self.status() != 200:
                if self.last_words:
                    raise RuntimeError(self.last_words)
                await asyncio.sleep(0.1)

    async def status(self) -> int | None:
        """Of its answer to a readiness check; None without an answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}{self.ready_path}", ssl=False) as answer:
                return answer.status
        return None

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal that ends it, and waits for that."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def limit_files(self, n_bytes: int) -> None:
        """From now on the process cannot write a file beyond so many bytes, as on a full disk; -1 lifts that."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    def memory_mb(self) -> float:
        """Resident memory, in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def sidecar(folder: Path, environment: Mapping[str, str] | None = None) -> Server:
    """A sidecar with the toy models that `folder` has."""
    port = free_port()
    given = {
        "BRIDGE_SIDECAR__PORT": str(port),
        "BRIDGE_SIDECAR__RERANK_MODEL": str(folder / "cross_encoder"),
        "BRIDGE_SIDECAR__ENCODER": str(folder / "encoder"),
        "BRIDGE_SIDECAR__THREADS": "1",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "rerank_server"]
    return Server("sidecar", command, f"http://127.0.0.1:{port}", "/ready", folder / "sidecar.log", given)


def proxy(
    name: str, folder: Path, cluster_url: str, sidecar_url: str, environment: Mapping[str, str] | None = None
) -> Server:
    """A proxy on a port of its own."""
    port = free_port()
    command = [sys.executable, "-m", "bridge.cli", "serve", "proxy", "--port", str(port), "--admin-port", "0"]
    command += ["--cluster", cluster_url, "--sidecar", sidecar_url]
    return Server(
        name, command, f"http://127.0.0.1:{port}", "/_cluster/health", folder / f"{name}.log", environment or {}
    )


def nginx(folder: Path, proxies: Sequence[Server]) -> Server | None:
    """nginx as the project's example has it, but with the proxies alone behind it: what fails there is seen. It never
    leaves one out: both say 502 while the node is away, and nothing else is there to answer when it is back. None if
    there is no nginx on this machine."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        return None
    port = free_port()
    places = [urlsplit(each.url).netloc for each in proxies]
    servers = "\n".join(f"server {place} max_fails=0;" for place in places)
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("server proxy:9280 max_fails=2 fail_timeout=5s;", servers)
    text = text.replace("server opensearch:9200 backup;", "").replace("opensearch:9200", places[0])
    text = text.replace("listen 9200", f"listen 127.0.0.1:{port}")
    # Where it may write, and as whom; the example leaves both to the image.
    user = "user root;\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    text = f"{user}daemon off;\npid {folder}/pid;\n" + text.replace("http {\n", f"http {{\n{paths}", 1)
    file = folder / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    command = [program, "-e", f"{folder}/nginx-errors.log", "-c", str(file)]
    return Server("nginx", command, f"http://127.0.0.1:{port}", "/_cluster/health", folder / "nginx.log")
