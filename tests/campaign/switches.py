"""What an operator switches while searches go on: generations, aliases, certificates, and the clock that jumps.

No search may fail that the node answers, and no ranking may mix what was before with what comes after.
"""

import asyncio
import json
import random
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
from opensearchpy import OpenSearch

from bridge.cluster.generations import serve
from bridge.node.node import EmbeddedNode
from tests.campaign import shifted_clock
from tests.campaign.application import TEXT_FIELDS
from tests.campaign.commands import Commands
from tests.campaign.findings import Findings
from tests.campaign.servers import Server, proxy, sidecar
from tests.campaign.stand import campaign_node
from tests.servers import client as client_of
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder

INDICES = ("switched-a", "switched-b")
ALIAS = "switched"
N_DOCUMENTS = 60
PAUSE_S = 0.02
CLIENT_TIMEOUT_S = 60.0
CERTIFICATE_PATIENCE_S = 60.0
HOUR_S = 3600.0
PROFILE_TTL_S = 0.2
STEADY_S = 2.0
"""After a switch; a busy machine reads a profile late."""
START_TIMEOUT_S = 600.0

Ranking = list[str]


@dataclass
class Answer:
    """A search's outcome: the mark of `X-Bridge` without its figures, ids in order, or what was wrong."""

    mark: str = ""
    ids: Ranking = field(default_factory=list)
    wrong: str = ""


@dataclass
class Ground:
    """What is switched, and how it is searched."""

    node: EmbeddedNode
    client: OpenSearch
    folder: Path
    http: aiohttp.ClientSession
    proxy: Server
    sidecar: Server
    clock: Path
    findings: Findings
    chance: random.Random
    marks: Counter[str] = field(default_factory=Counter)

    async def search(self, url: str, index: str, words: str, stages: str = "") -> Answer:
        """One search."""
        body = {"query": {"multi_match": {"query": words, "fields": list(TEXT_FIELDS)}}, "size": 20}
        headers = {"x-bridge": stages} if stages else {}
        try:
            async with self.http.post(f"{url}/{index}/_search", json=body, headers=headers) as answer:
                content = await answer.read()
                if answer.status != 200:
                    return Answer(wrong=f"status {answer.status}: {content[:300].decode('latin-1')}")
                mark = answer.headers.get("X-Bridge", "").partition(";")[0]
                return Answer(mark, [hit["_id"] for hit in json.loads(content)["hits"]["hits"]])
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Answer(wrong=f"{type(error).__name__}: {error}"[:300])

    async def searching(self, index: str, over: asyncio.Event, judge: Callable[[str, Answer], str | None]) -> None:
        """Searches until it is over; `judge` says what is wrong with an answer to these words."""
        while not over.is_set():
            words = self.chance.choice(QUERIES)
            direct, answer = await asyncio.gather(
                self.search(self.node.url, index, words), self.search(self.proxy.url, index, words)
            )
            self.findings.figures["searches"] += 1
            self.marks[answer.mark] += 1
            if answer.wrong and not direct.wrong:
                self.findings.note("a failed search", why=answer.wrong, words=words)
            elif not answer.wrong and (fault := judge(words, answer)):
                self.findings.note(fault, words=words, ids=answer.ids, mark=answer.mark)
            await asyncio.sleep(PAUSE_S)

    async def under_load(
        self, index: str, switch: Callable[[], Awaitable[None]], judge: Callable[[str, Answer], str | None]
    ) -> None:
        """Switches while two clients search."""
        over = asyncio.Event()
        clients = [asyncio.create_task(self.searching(index, over, judge)) for _ in range(2)]
        try:
            await switch()
        finally:
            over.set()
            await asyncio.gather(*clients)


QUERIES = tuple(f"{one} {other}" for one, other in zip(WORDS[:8], WORDS[8:16], strict=True))


async def generations(ground: Ground) -> None:
    """Searches change between two generations of vectors, back and forth."""
    steady: list[dict[tuple[str, str], Ranking]] = []
    for following in (2, 1):
        await asyncio.sleep(STEADY_S)
        rankings = {}
        for words in QUERIES:
            answer = await ground.search(ground.proxy.url, INDICES[0], words)
            rankings[words, answer.mark] = answer.ids
        steady.append(rankings)
        await asyncio.to_thread(serve, ground.client, INDICES[0], following)
    differing = sum(steady[1].get(key) not in (None, ids) for key, ids in steady[0].items())
    ground.findings.figures["rankings that tell generations apart"] += differing

    def judge(words: str, answer: Answer) -> str | None:
        known = [rankings[words, answer.mark] for rankings in steady if (words, answer.mark) in rankings]
        # A stage that a busy machine leaves out makes another ranking, and says so.
        return "a ranking of neither generation" if len(known) == 2 and answer.ids not in known else None

    async def switch() -> None:
        for following in (2, 1) * 3:
            await asyncio.to_thread(serve, ground.client, INDICES[0], following)
            await asyncio.sleep(ground.chance.uniform(PROFILE_TTL_S, 4 * PROFILE_TTL_S))

    await ground.under_load(INDICES[0], switch, judge)


async def aliases(ground: Ground) -> None:
    """An alias moves between two indices, back and forth."""

    async def switch() -> None:
        for number in range(8):
            old, new = INDICES[number % 2], INDICES[1 - number % 2]
            actions = [{"remove": {"index": old, "alias": ALIAS}}, {"add": {"index": new, "alias": ALIAS}}]
            await asyncio.to_thread(ground.client.indices.update_aliases, body={"actions": actions})
            await asyncio.sleep(ground.chance.uniform(0, 1))

    def judge(_: str, answer: Answer) -> str | None:
        return "hits of two indices" if len({doc_id[0] for doc_id in answer.ids}) > 1 else None

    await ground.under_load(ALIAS, switch, judge)


async def certificates(ground: Ground) -> None:
    """Certificates of the proxy and the sidecar are renewed, each file before its key, while each client connects
    anew."""

    async def switch() -> None:
        for name, server in (("proxy", ground.proxy), ("sidecar", ground.sidecar)):
            before = await asyncio.to_thread(shown_certificate, server)
            await asyncio.to_thread(_renew, ground.folder, name, "certificate")
            await asyncio.sleep(ground.chance.uniform(0, 8))
            await asyncio.to_thread(_renew, ground.folder, name, "key")
            until = time.monotonic() + CERTIFICATE_PATIENCE_S
            while await asyncio.to_thread(shown_certificate, server) == before:
                if time.monotonic() > until:
                    ground.findings.note(f"the {name} shows its old certificate")
                    return
                await asyncio.sleep(0.2)
            ground.findings.figures["certificates renewed"] += 1

    await ground.under_load(INDICES[0], switch, lambda *_: None)


async def clock(ground: Ground) -> None:
    """The wall clock jumps by an hour, forth and back."""

    async def switch() -> None:
        for shift in (HOUR_S, 0.0, -HOUR_S, 0.0):
            shifted_clock.shift(ground.clock, shift)
            await asyncio.sleep(STEADY_S)
            if abs(await _clock_of(ground) - time.time() - shift) < HOUR_S / 2:
                ground.findings.figures["clock jumps seen"] += 1

    await ground.under_load(INDICES[0], switch, lambda *_: None)
    await reranked(ground)


SWITCHES: tuple[Callable[[Ground], Awaitable[None]], ...] = (generations, aliases, certificates, clock)


async def run(findings: Findings, minutes: float | None) -> dict[str, Any]:
    """All switches once, or again and again for so many minutes; the figures that are no counts of findings."""
    done: Counter[str] = Counter()
    until = time.monotonic() + (minutes or 0) * 60
    marks: Counter[str] = Counter()
    # Ctrl-C cancels this task: what was seen until then is printed.
    with suppress(asyncio.CancelledError):
        async with _ground(findings) as ground:
            marks = ground.marks
            await reranked(ground)
            while not done or time.monotonic() < until:
                for switch in SWITCHES:
                    findings.progress(f"{switch.__name__}, {findings.figures['searches']} searches")
                    await switch(ground)
                    if words := ground.proxy.last_words or ground.sidecar.last_words:
                        findings.note("a server ended by itself", why=words)
                        return {"switches": dict(done), "marks": dict(marks.most_common(6))}
                    done[switch.__name__] += 1
    return {"switches": dict(done), "marks": dict(marks.most_common(6))}


async def reranked(ground: Ground) -> None:
    """Returns when a search has come through all stages, or a server has ended."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while not ground.proxy.last_words and not ground.sidecar.last_words:
            if "rerank" in (await ground.search(ground.proxy.url, INDICES[0], QUERIES[0])).mark:
                return


async def _clock_of(ground: Ground) -> float:
    """The wall clock of the sidecar, which dates its answers."""
    async with ground.http.get(f"{ground.sidecar.url}/ready") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def shown_certificate(server: Server) -> str:
    """The certificate that a server shows now."""
    host, _, port = server.url.removeprefix("https://").partition(":")
    return ssl.get_server_certificate((host, int(port)))


def _renew(folder: Path, name: str, part: str) -> None:
    """Exchanges both files' contents, so that the next renewal has another pair to show too."""
    served, following = folder / f"{name}-{part}.pem", folder / f"{name}-next-{part}.pem"
    content = following.read_bytes()
    following.write_bytes(served.read_bytes())
    served.write_bytes(content)


def make_certificates(folder: Path, name: str) -> list[Path]:
    """Writes a pair and the one after it; both certificates."""
    made = []
    for stem in (name, f"{name}-next"):
        certificate, key = folder / f"{stem}-certificate.pem", folder / f"{stem}-key.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        made.append(certificate)
    return made


@asynccontextmanager
async def _ground(findings: Findings) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_toy_cross_encoder(folder / "cross_encoder")
        make_toy_encoder(folder / "encoder")
        # It knows every other word alone, so it ranks otherwise.
        second = make_toy_encoder(folder / "second", WORDS[::2])
        trusted = folder / "trusted.pem"
        trusted.write_text(
            "".join(each.read_text() for name in ("proxy", "sidecar") for each in make_certificates(folder, name))
        )
        clock = folder / "clock"
        clock.write_bytes(shifted_clock.SHIFT.pack(0.0))
        shutil.copy(shifted_clock.__file__, folder / "sitecustomize.py")
        common = {
            "PYTHONPATH": f"{folder}:{Path.cwd()}",
            shifted_clock.VARIABLE: str(clock),
            "SSL_CERT_FILE": str(trusted),
        }
        node = await asyncio.to_thread(stack.enter_context, campaign_node())
        client = stack.enter_context(client_of(node.url))
        await asyncio.to_thread(_fill, client, node, folder, second.path)
        models = sidecar(
            folder,
            {**common, **_pair(folder, "sidecar"), "BRIDGE_SIDECAR__MORE_ENCODERS": json.dumps([str(second.path)])},
        )
        models.url = models.url.replace("http:", "https:")
        settings = {
            "BRIDGE_PROXY__BUDGET_MS": "20000",
            "BRIDGE_PROXY__PROFILE_TTL_S": str(PROFILE_TTL_S),
            "BRIDGE_PROXY__DRAIN_S": "0",
        }
        served = proxy("proxy", folder, node.url, models.url, {**common, **_pair(folder, "proxy"), **settings})
        served.url = served.url.replace("http:", "https:")
        for server in (models, served):
            stack.push_async_callback(server.end, signal.SIGKILL)
            await server.start()
        # A connection for each search, so that each sees the certificate of its moment.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=ssl.create_default_context(cafile=trusted))
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        yield Ground(node, client, folder, http, served, models, clock, findings, random.Random(findings.seed))


def _pair(folder: Path, name: str) -> dict[str, str]:
    section = f"BRIDGE_{name.upper()}__TLS"
    return {
        f"{section}_CERTIFICATE_FILE": str(folder / f"{name}-certificate.pem"),
        f"{section}_KEY_FILE": str(folder / f"{name}-key.pem"),
    }


def _fill(client: OpenSearch, node: EmbeddedNode, folder: Path, second: Path) -> None:
    """Two indices, each enriched by the first encoder, the first one by the second too; an alias names the first."""
    chance = random.Random(1)
    commands = Commands({"BRIDGE_CLUSTER__URL": node.url, "BRIDGE_INGEST__GENERATOR": ""}, folder)
    options = ("--threads", "1", "--quiet", "--no-expansion")
    for index in INDICES:
        lines: list[dict[str, Any]] = []
        for number in range(N_DOCUMENTS):
            texts = {
                name: " ".join(chance.choices(WORDS, k=count)) for name, count in zip(TEXT_FIELDS, (3, 9), strict=True)
            }
            lines += [{"index": {"_id": f"{index[-1]}{number}"}}, texts]
        settings = {"index.number_of_replicas": 0, "index.knn": True}
        client.indices.create(
            index=index,
            body={"settings": settings, "mappings": {"properties": {name: {"type": "text"} for name in TEXT_FIELDS}}},
        )
        client.bulk(index=index, body=lines, refresh=True)
        fields = [word for name in TEXT_FIELDS for word in ("--text-field", name)]
        ended = commands.run(["backfill", index, "--in-place", *fields, "--encoder", str(folder / "encoder"), *options])
        assert ended.code == 0, ended.said
    ended = commands.run(["generation", "fill", INDICES[0], "--encoder", str(second), *options])
    assert ended.code == 0, ended.said
    client.indices.put_alias(index=INDICES[0], name=ALIAS)
    client.indices.refresh(index=",".join(INDICES))
