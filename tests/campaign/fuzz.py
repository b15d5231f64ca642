"""Generated requests, sent to a node directly, through the proxy unchanged, and through the proxy to be upgraded."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.campaign.comparison import passed_faults, shown_ids, upgraded_faults
from tests.campaign.doors import answer_faults, shown_faults, shown_in
from tests.campaign.findings import Findings
from tests.campaign.made import Made, made
from tests.campaign.stand import TWINS, Stand
from tests.campaign.wire import Answer, Connection, Request

WORKERS = 3
SAVED_EVERY = 200
CONTROL = b"x-bridge"
SHOWN_BYTES = 4000
"""Of a request or an answer in a finding."""


_REPEATS = 3
"""How often a read has to be answered alike."""


@dataclass
class Fuzzer:
    """Sends requests of one seed until so many are sent, or so many seconds are over."""

    stand: Stand
    findings: Findings
    n_requests: int
    until: float = float("inf")
    heavy: float = 0.02
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Sends them; what is found goes into the findings."""
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._work(session) for _ in range(WORKERS)))
        self.findings.save()

    async def _work(self, session: aiohttp.ClientSession) -> None:
        connections = [Connection(url) for url in (self.stand.node_url, self.stand.proxy_url, self.stand.proxy_url)]
        while self.findings.next < self.n_requests and time.monotonic() < self.until:
            number = self.findings.next
            self.findings.next += 1
            if number % SAVED_EVERY == 0:
                self.findings.save()
                self.findings.progress(f"request {number} of {self.n_requests}")
            await self._one(session, number, made(self.findings.seed, number, heavy=self.heavy), *connections)
        for connection in connections:
            await connection.close()

    async def _one(
        self,
        session: aiohttp.ClientSession,
        number: int,
        asked: Made,
        straight: Connection,
        off: Connection,
        upgrading: Connection,
    ) -> None:
        figures = self.findings.figures
        figures["requests"] += 1
        if asked.conditions is not None:
            await self._at_door(session, number, asked.request, asked.conditions, upgrading)
            return
        raw_direct = asked.request.bytes_for(TWINS[0])
        raw_off = asked.request.bytes_for(TWINS[1], ((CONTROL, b"off"),))
        if asked.writes:
            figures["writes"] += 1
            async with self._writing:
                direct, passed = await asyncio.gather(straight.ask(raw_direct), off.ask(raw_off))
        else:
            direct, passed = await asyncio.gather(straight.ask(raw_direct), off.ask(raw_off))
        faults = passed_faults(asked.request, direct, passed)
        if faults and not asked.writes and not await self._steady(asked.request, straight, direct):
            figures["unsteady"] += 1
            return
        figures[f"answers {direct.status}"] += 1
        for fault in faults:
            self._note(f"off: {_kind(fault, asked)}", number, raw_off, direct, passed)
        if not asked.upgrades:
            return
        stage = ((CONTROL, asked.stage.encode()),) if asked.stage else ()
        raw = asked.request.bytes_for(TWINS[0], stage)
        upgraded = await upgrading.ask(raw)
        mark = upgraded.header("x-bridge")
        figures["upgraded" if mark and not mark.startswith("pass") else "passed"] += 1
        faults = upgraded_faults(asked, direct, upgraded)
        if faults and not await self._steady(asked.request, straight, direct):
            figures["unsteady"] += 1
            return
        faults += await self._strangers(session, asked, upgraded)
        for fault in faults:
            self._note(f"upgraded: {_kind(fault, asked)}", number, raw, direct, upgraded)

    async def _at_door(
        self,
        session: aiohttp.ClientSession,
        number: int,
        request: Request,
        conditions: list[Any],
        connection: Connection,
    ) -> None:
        """Sends a request for an endpoint of the proxy's own, and asks the node for what the answer shows."""
        figures = self.findings.figures
        raw = request.bytes_for(TWINS[0])
        answer = await connection.ask(raw)
        figures["at doors"] += 1
        figures[f"answers {answer.status} at doors"] += 1
        faults = answer_faults(answer)
        shown = [] if faults else shown_in(request, answer)
        figures["shown at doors"] += len(shown)
        sources: dict[tuple[str, str], bytes] = {}
        for index in {each.index for each in shown}:
            ids = list({each.doc_id for each in shown if each.index == index})
            query = {"bool": {"filter": [{"ids": {"values": ids}}, *conditions]}}
            body = {"query": query, "size": len(ids), "_source": {"excludes": ["_neural"]}}
            async with session.post(f"{self.stand.node_url}/{index}/_search", json=body) as found:
                hits = (await found.json()).get("hits", {}).get("hits", [])
            sources |= {(index, hit["_id"]): json.dumps(hit["_source"]).encode() for hit in hits}
        for fault in dict.fromkeys([*faults, *shown_faults(shown, sources)]):
            path = request.target.decode("latin-1").replace("/vector_stores/", " ").split(" ")[0]
            self._note(f"door: {fault} [{request.method} {path}]", number, raw, answer, answer)

    async def _steady(self, request: Request, straight: Connection, before: Answer) -> bool:
        """Whether the node answers the same again, and again: which of equal hits comes first may change seldom."""
        for _ in range(_REPEATS):
            if passed_faults(request, await straight.ask(request.bytes_for(TWINS[0])), before):
                return False
        return True

    async def _strangers(self, session: aiohttp.ClientSession, asked: Made, upgraded: Answer) -> list[str]:
        """Hits that the node does not give for their ids, or not under the search's conditions."""
        if upgraded.status != 200 or "pass;" in upgraded.header("x-bridge"):
            return []
        pages = shown_ids(upgraded)
        known = asked.searches if len(asked.searches) == len(pages) else ((),) * len(pages)
        faults = []
        for page, search in zip(pages, known, strict=True):
            conditions = search[2] if search else []
            for index in {index for index, _ in page}:
                ids = [doc_id for each, doc_id in page if each == index]
                query = {"bool": {"filter": [{"ids": {"values": ids}}, *conditions]}}
                body: dict[str, Any] = {"query": query, "size": len(ids), "_source": False}
                async with session.post(f"{self.stand.node_url}/{index}/_search", json=body) as answer:
                    found = (await answer.json()).get("hits", {}).get("hits", [])
                self.findings.figures["hits"] += len(ids)
                if {hit["_id"] for hit in found} != set(ids):
                    faults.append("a hit that the conditions shut out")
        return faults

    def _note(self, kind: str, number: int, raw: bytes, direct: Answer, proxied: Answer) -> None:
        self.findings.note(
            kind,
            number=number,
            request=raw[:SHOWN_BYTES].decode("latin-1"),
            direct=_shown(direct),
            proxied=_shown(proxied),
        )


def _kind(fault: str, asked: Made) -> str:
    """The fault with what tells kinds of requests apart."""
    path = asked.request.target.partition(b"?")[0].decode("latin-1")
    return f"{fault} [{asked.request.method} {re.sub(r'^.*/', '', path.rstrip('/'))[:20]}]"


def _shown(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "fault": answer.fault,
        "headers": answer.headers,
        "body": answer.content[:SHOWN_BYTES].decode("latin-1"),
    }
