"""Searches at a steady rate while faults come and go on a seeded schedule.

Every search goes to the proxies and, at the same time, straight to the node. One that fails through the proxies
although the node answered every search around that moment is a finding. So is a proxy whose memory or descriptors
grow.
"""

import asyncio
import json
import random
import signal
import socket
import statistics
import struct
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from bridge.errors import BridgeError
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.node import node as nodes
from bridge.node.node import EmbeddedNode
from bridge.settings import load_settings
from tests.campaign.findings import Findings
from tests.campaign.servers import START_TIMEOUT_S, Server, nginx, proxy, sidecar
from tests.campaign.sidecar_front import LIES, SidecarFront
from tests.campaign.stand import documents
from tests.proxy_stack import ProxyStack
from tests.servers import client, free_port
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder

INDEX = "soak"
MAX_UNDER_WAY = 64
CLIENT_TIMEOUT_S = 60.0
AROUND_S = 0.5
"""Searches that the node was asked so shortly before and after decide whether it would have answered."""
SAMPLE_EVERY_S = 1.0
GROWTH_MB, GROWTH = 15.0, 1.15
"""Memory at the end of a run is at most this much above, or this many times, that after the warm-up."""
MORE_DESCRIPTORS = 10
"""At rest after a run, beside the rest before it."""
REST_S = 180
"""In this time every connection that nobody uses is closed."""
WARM_UP = 0.25
"""Share of the samples that are the warm-up."""
FULL_BYTES = 1
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Outcome:
    """One search of one side: when it was asked and answered, whether well, what was wrong, how it was marked."""

    began: float
    ended: float
    ok: bool
    what: str = ""
    mark: str = ""
    total: int | None = None


@dataclass
class Traffic:
    """Searches by both ways."""

    http: aiohttp.ClientSession
    proxied_url: str
    node_url: str
    chance: random.Random
    direct: list[Outcome] = field(default_factory=list)
    proxied: list[Outcome] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)
    searches: int = 0

    async def one(self, index: str = INDEX) -> Outcome:
        """One search by both ways; the proxies' outcome."""
        self.searches += 1
        words = " ".join(self.chance.choices(WORDS, k=3))
        # Another number in each, so that no cache answers.
        body = {"query": {"match": {"title": f"{words} {self.searches}"}}, "size": 10, "track_total_hits": True}
        direct, proxied = await asyncio.gather(
            self._ask(f"{self.node_url}/{index}/_search", body), self._ask(f"{self.proxied_url}/{index}/_search", body)
        )
        self.direct.append(direct)
        self.proxied.append(proxied)
        self.marks[proxied.mark] += 1
        return proxied

    async def _ask(self, url: str, body: dict[str, object]) -> Outcome:
        began = time.monotonic()
        try:
            async with self.http.post(url, json=body) as answer:
                content = await answer.read()
                mark = answer.headers.get("X-Bridge", "").partition(";")[0]
                if answer.status != 200:
                    what = f"status {answer.status}"
                    return Outcome(began, time.monotonic(), ok=False, what=what, mark=content[:300].decode("latin-1"))
                hits = json.loads(content)["hits"]
                total = hits["total"]["value"]
                ok = bool(hits["hits"]) == bool(total)
                return Outcome(began, time.monotonic(), ok, "" if ok else "no hits", mark, total)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            return Outcome(began, time.monotonic(), ok=False, what=type(error).__name__, mark=str(error)[:300])

    async def load(self, rate: float, over: asyncio.Event) -> None:
        """Searches until it is over; like a pool of clients, it waits when too many hang."""
        under_way: set[asyncio.Task[Outcome]] = set()
        while not over.is_set():
            under_way.add(asyncio.create_task(self.one()))
            await asyncio.sleep(1 / rate)
            under_way = {task for task in under_way if not task.done()}
            if len(under_way) >= MAX_UNDER_WAY:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*under_way)

    def harmed(self) -> list[Outcome]:
        """Failed searches around which the node answered every one."""
        failed_directly = [(each.began, each.ended) for each in self.direct if not each.ok]
        return [
            outcome
            for outcome in self.proxied
            if not outcome.ok
            and not any(
                ended > outcome.began - AROUND_S and began < outcome.ended + AROUND_S
                for began, ended in failed_directly
            )
        ]

    def differing(self) -> int:
        """Searches whose totals the proxies gave otherwise than the node."""
        pairs = zip(self.direct, self.proxied, strict=True)
        return sum(one.ok and other.ok and one.total != other.total for one, other in pairs)


@dataclass
class Ground:
    """What a soak runs on."""

    folder: Path
    node_name: str
    node_port: int
    node_url: str
    sidecar: Server
    front: SidecarFront
    proxies: list[Server]
    balancer: Server | None
    chance: random.Random

    @property
    def url(self) -> str:
        """Where clients search."""
        return (self.balancer or self.proxies[0]).url

    async def restart_node(self) -> None:
        """Stops the node and starts it again with its data."""
        settings = load_settings().node.model_copy(update={"port": self.node_port, "start_timeout_s": START_TIMEOUT_S})
        await asyncio.to_thread(nodes.stop, self.node_name, settings)
        await asyncio.to_thread(EmbeddedNode.start, self.node_name, settings)


Fault = Callable[[Ground, float], Awaitable[None]]


async def node_restart(ground: Ground, held_s: float) -> None:
    """The node is away for as long as it takes to start."""
    await ground.restart_node()


async def rolling_restart(ground: Ground, held_s: float) -> None:
    """Each proxy but the first, which is watched, is stopped and started while the others serve."""
    for each in ground.proxies[1:] if ground.balancer else []:
        await each.end()
        await each.start()


async def sidecar_killed(ground: Ground, held_s: float) -> None:
    """The sidecar is killed, and started again later."""
    await ground.sidecar.end(signal.SIGKILL)
    await asyncio.sleep(held_s)
    await ground.sidecar.start()


async def sidecar_slow(ground: Ground, held_s: float) -> None:
    """The sidecar answers far too late."""
    ground.front.mode = "slow"
    await asyncio.sleep(held_s)
    ground.front.mode = "sound"


async def sidecar_lies(ground: Ground, held_s: float) -> None:
    """Answers of wrong lengths, with NaN, pages of HTML, answers that are cut off or never end."""
    for mode in ground.chance.sample(LIES, k=len(LIES)):
        ground.front.mode = mode
        await asyncio.sleep(held_s / len(LIES))
    ground.front.mode = "sound"


async def disk_full(ground: Ground, held_s: float) -> None:
    """No proxy can append to its log, nor to the log of events."""
    for each in ground.proxies:
        each.limit_files(FULL_BYTES)
    await asyncio.sleep(held_s)
    for each in ground.proxies:
        each.limit_files(-1)


async def poisoned_connections(ground: Ground, held_s: float) -> None:
    """Other clients send what spoils connections: too many headers, half a body, requests whose end or answer is never
    waited for; with FIN or RST."""
    until = time.monotonic() + held_s
    body = b'{"query":{"match":{"title":"wing"}},"size":50}'
    head = f"POST /{INDEX}/_search HTTP/1.1\r\nHost: cluster\r\nContent-Type: application/json\r\n".encode()
    other = f"PUT /{INDEX}-not-there/_settings HTTP/1.1\r\nHost: cluster\r\nContent-Type: application/json\r\n".encode()
    many = b"".join(b"X-Large-%d: %s\r\n" % (n, b"x" * 1800) for n in range(ground.chance.randrange(3, 12)))
    while time.monotonic() < until:
        start = ground.chance.choice((head, other))
        length = b"Content-Length: %d\r\n" % len(body)
        sent = ground.chance.choice(
            (
                start + many + length + b"\r\n" + body,
                start + many + b"Content-Length: 100000\r\n\r\n",
                start + length + b"\r\n" + body[: len(body) // 2],
                start + length + b"\r\n" + body,
                start + b"Transfer-Encoding: chunked\r\n\r\n2e\r\n" + body + b"\r\n",
                start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
                start + b"Expect: 100-continue\r\n" + length + b"\r\n",
            )
        )
        how = ground.chance.choice(("half-closed", "reset", "left", "read"))
        place = urlsplit(ground.chance.choice(ground.proxies).url)
        await asyncio.to_thread(_poison, (str(place.hostname), int(place.port or 0)), sent, how)
        await asyncio.sleep(0.02)


def _poison(place: tuple[str, int], sent: bytes, how: str) -> None:
    with suppress(OSError), socket.create_connection(place, timeout=2) as connection:
        connection.sendall(sent)
        if how == "half-closed":
            connection.shutdown(socket.SHUT_WR)
        if how in ("half-closed", "read"):
            connection.settimeout(0.5)
            connection.recv(65536)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


FAULTS: tuple[Fault, ...] = (
    sidecar_killed,
    sidecar_slow,
    sidecar_lies,
    disk_full,
    poisoned_connections,
    rolling_restart,
    node_restart,
)


async def run(findings: Findings, minutes: float, rate: float, faults: Sequence[Fault] = FAULTS) -> dict[str, object]:
    """Searches and faults for so many minutes, or until it is cancelled; the figures that are no counts of findings."""
    chance = random.Random(findings.seed)
    samples: list[float] = []
    done: Counter[str] = Counter()
    async with _ground(chance) as ground, _session() as http:
        traffic = Traffic(http, ground.url, ground.node_url, random.Random(findings.seed))
        await reranked(traffic)
        descriptors = ground.proxies[0].descriptors()
        for before in (traffic.direct, traffic.proxied, traffic.marks):
            before.clear()
        over = asyncio.Event()
        load = asyncio.create_task(traffic.load(rate, over))
        sampling = asyncio.create_task(_sample(ground.proxies[0], samples))
        # Ctrl-C cancels this task: what was seen until then is judged.
        with suppress(asyncio.CancelledError):
            await _spoil(ground, faults, minutes * 60, done, findings, traffic)
            over.set()
            await load
            # Once everything is well again, everything is ranked again.
            await reranked(traffic)
        for task in (load, sampling):
            task.cancel()
        figures = _judged(findings, traffic, samples, done, ground)
        return figures | await _rested(findings, ground.proxies[0], descriptors)


async def _spoil(
    ground: Ground,
    faults: Sequence[Fault],
    seconds: float,
    done: Counter[str],
    findings: Findings,
    traffic: Traffic,
) -> None:
    """Lets faults come and go, each of them once before any comes again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for fault in ground.chance.sample(faults, k=len(faults)):
            if (left := until - time.monotonic()) <= 0:
                break
            findings.progress(f"{traffic.searches} searches, {fault.__name__}, {left:.0f} s left")
            try:
                await fault(ground, min(ground.chance.uniform(2, 12), max(2.0, seconds / 20)))
            except BridgeError as error:
                findings.note(f"{fault.__name__} did not come to its end", error=str(error))
                return
            done[fault.__name__] += 1
            await asyncio.sleep(min(ground.chance.uniform(1, 4), seconds / 40))


def _judged(
    findings: Findings, traffic: Traffic, samples: list[float], done: Counter[str], ground: Ground
) -> dict[str, object]:
    harmed = traffic.harmed()
    for outcome in harmed:
        findings.note(
            f"a failed search: {outcome.what}", at=outcome.began, took_s=outcome.ended - outcome.began, why=outcome.mark
        )
    if differing := traffic.differing():
        findings.note("totals differ", searches=differing)
    for server in ground.proxies:
        for trace in [line for line in server.log.read_text(errors="replace").splitlines() if '"exception"' in line]:
            findings.note("proxy: an unforeseen exception", server=server.name, log=trace[:3000])
    figures: dict[str, object] = {
        "searches": traffic.searches,
        "failed by both ways": sum(not each.ok for each in traffic.proxied) - len(harmed),
        "faults": dict(done),
        "marks": dict(traffic.marks.most_common(8)),
        "nginx": ground.balancer is not None,
    }
    warm, last = _ends(samples)
    if warm and last:
        memory = [statistics.median(part) for part in (warm, last)]
        bound = max(memory[0] + GROWTH_MB, memory[0] * GROWTH)
        figures |= {
            "memory_mb": [round(each, 1) for each in memory],
            "memory_bound_mb": round(bound, 1),
        }
        if memory[1] > bound:
            findings.note("memory grows", megabytes=memory, bound=bound)
    return figures


async def _rested(findings: Findings, server: Server, before: int) -> dict[str, object]:
    """Waits until a proxy that nobody asks has closed its connections: what stays open then has leaked."""
    for _ in range(REST_S):
        if (after := server.descriptors()) <= before + MORE_DESCRIPTORS:
            break
        await asyncio.sleep(1)
    else:
        findings.note("descriptors grow", before=before, after=after)
    return {"descriptors": [before, after]}


def _ends(samples: list[float]) -> tuple[list[float], list[float]]:
    """The samples of the quarter after the warm-up, and of the last quarter."""
    quarter = int(len(samples) * WARM_UP)
    return samples[quarter : 2 * quarter], samples[-quarter:] if quarter else []


async def _sample(server: Server, samples: list[float]) -> None:
    while True:
        samples.append(server.memory_mb())
        await asyncio.sleep(SAMPLE_EVERY_S)


async def reranked(traffic: Traffic) -> None:
    """Returns when a search has come through all stages."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while "rerank" not in (await traffic.one()).mark:
            pass


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
    )


@asynccontextmanager
async def _ground(chance: random.Random) -> AsyncIterator[Ground]:
    """Everything up, and the index filled."""
    name, port = f"soak-{uuid.uuid4().hex[:8]}", free_port()
    settings = load_settings().node.model_copy(update={"port": port, "start_timeout_s": START_TIMEOUT_S})
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for kind, make in (("encoder", make_toy_encoder), ("cross_encoder", make_toy_cross_encoder)):
            make(folder / kind)
        stack.push_async_callback(asyncio.to_thread, nodes.clean, name, settings)
        node = await asyncio.to_thread(EmbeddedNode.start, name, settings)
        await asyncio.to_thread(fill, node.url, folder)
        models = sidecar(folder)
        stack.push_async_callback(models.end, signal.SIGKILL)
        await models.start()
        front = SidecarFront(models.url)
        front_url = await stack.enter_async_context(front.running())
        given = {
            "BRIDGE_PROXY__BUDGET_MS": "2000",
            "BRIDGE_PROXY__BREAKER_RESET_S": "0.5",
            "BRIDGE_PROXY__DRAIN_S": "1",
            "BRIDGE_PROXY__LOG_SEARCHES": "true",
        }
        mixing = {"BRIDGE_PROXY__MODE": "interleave", "BRIDGE_PROXY__EVENT_LOG": str(folder / "events.jsonl")}
        proxies = [
            proxy("steady", folder, node.url, front_url, given),
            proxy("interleaving", folder, node.url, front_url, {**given, **mixing}),
        ]
        for each in proxies:
            stack.push_async_callback(each.end, signal.SIGKILL)
            await each.start()
        balancer = nginx(folder, proxies)
        if balancer is not None:
            stack.push_async_callback(balancer.end)
            await balancer.start()
        yield Ground(folder, name, port, node.url, models, front, proxies, balancer, chance)


def fill(node_url: str, models: Path, index: str = INDEX) -> None:
    """Creates the index and enriches it with the toy encoder that `models` has."""
    encoder = Encoder.load(resolve(str(models / "encoder")), threads=1)
    made = documents(random.Random(1))
    mapping = {"kind": {"type": "keyword"}, "tags": {"type": "keyword"}}
    with client(node_url) as direct:
        stack = ProxyStack("", "", encoder)
        stack.fill(direct, index, made, properties=mapping, settings={"number_of_replicas": 0})
