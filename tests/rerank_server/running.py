"""A sidecar that runs in the test's own event loop, on a free port, with toy models."""

import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientSession, ClientTimeout

from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.settings import SidecarSettings
from rerank_server.app import Sidecar
from rerank_server.models import Models
from rerank_server.server import listening
from tests.toys import WORDS, make_slow_cross_encoder, make_toy_cross_encoder, make_toy_encoder


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Client:
    """Asks a sidecar."""

    def __init__(self, session: ClientSession, sidecar: Sidecar, port: int) -> None:
        self._session = session
        self.sidecar = sidecar
        self.port = port

    async def post(self, path: str, body: object, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends `body` as JSON, or bytes as they are."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        given = {"Content-Type": "application/json", **(headers or {})}
        async with self._session.post(f"http://127.0.0.1:{self.port}{path}", headers=given, data=data) as response:
            return Answer(response.status, response.headers, await response.json())

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Body as JSON, or as text where it is none."""
        async with self._session.get(f"http://127.0.0.1:{self.port}{path}", headers=headers) as response:
            is_json = response.content_type == "application/json"
            return Answer(response.status, response.headers, await (response.json() if is_json else response.text()))

    async def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        text = (await self.get("/metrics")).body
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))


def toy_models(folder: Path, *, slow_products: int = 0) -> Models:
    """The toy models, the cross-encoder slowed down by so many matrix products per pair."""
    cross_encoder = (
        make_slow_cross_encoder(folder / "cross", products=slow_products)
        if slow_products
        else make_toy_cross_encoder(folder / "cross")
    )
    return Models(
        cross_encoder=CrossEncoder.load(cross_encoder, threads=1),
        encoder=Encoder.load(make_toy_encoder(folder / "encoder"), threads=1),
    )


def toy_cascade(folder: Path) -> Models:
    """Two cross-encoders that disagree: the small one, `half`, knows all words but `fish`, and the large one no
    other word than that."""
    models = toy_models(folder)
    small = make_toy_cross_encoder(folder / "half", [word for word in WORDS if word != "fish"], name="half")
    large = make_toy_cross_encoder(folder / "fish", ["fish"], name="fish")
    return replace(models, cross_encoder=CrossEncoder.load(large), cascade=CrossEncoder.load(small))


@contextlib.asynccontextmanager
async def running(models: Models, **settings: Any) -> AsyncIterator[Client]:
    """A sidecar with `settings` over the defaults, without a cache unless they ask for one, and a client of it."""
    given = SidecarSettings(**{"port": 0, "threads": 1, "cached_pairs": 0, **settings})
    async with (
        listening(given, models) as (sidecar, port),
        ClientSession(timeout=ClientTimeout(total=60)) as session,
    ):
        yield Client(session, sidecar, port)
