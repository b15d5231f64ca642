"""The one cluster that the proxy ever contacts: the configured one, by any of its nodes.

A target is the path and query of a request line, exactly as the client sent it; it reaches the cluster
byte for byte, or is refused. Cookies, `.netrc`, proxies of the environment, redirects and repetitions
are all off: a pooled client with them would mix up callers or write twice.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from multidict import CIMultiDict
from yarl import URL

from bridge.certificates import cluster_context, renew
from bridge.errors import SettingsError
from bridge.proxy.transport.headers import own_identity
from bridge.proxy.transport.refusals import Refused
from bridge.settings import ClusterSettings, http_address, masked

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 3.0
# Load balancers commonly drop idle connections after 60 s or less; ours go first, so that a request
# that may not be repeated rarely meets a connection that is just being closed.
KEEPALIVE_S = 15.0
MAX_HEADER_BYTES = 64 * 1024
SAFE_HEADERS_BYTES = 7_680
"""All headers of a request together, as every supported node takes them, with what the proxy may add."""
_ADDED_HEADERS_BYTES = 512
"""What the proxy adds to a request's headers, or to those of a search of its own, at most."""
_HEADER_SIZE_TARGET = "/_cluster/settings?include_defaults=true&filter_path=**.http.max_header_size"
_HEADER_SIZE = re.compile(rb'"max_header_size"\s*:\s*"(\d+)(b|kb|mb)"')
_HEADER_SIZE_BYTES = 64 * 1024
"""Of the answer, far more than there is."""
_UNIT_BYTES = {b"b": 1, b"kb": 1024, b"mb": 1024 * 1024}
_OK = 200
_PERHAPS_UNREAD = (400, 413, 431)
"""Statuses of requests that a node may not have read to their end."""


class Nodes:
    """Origins (scheme, host, port) in the order of the settings."""

    def __init__(self, urls: Sequence[str]) -> None:
        """
        Raises:
            SettingsError: an address is no plain origin.
        """
        self.origins = tuple(dict.fromkeys(_origin(url) for url in urls))
        self._away: set[URL] = set()
        self._turn = 0

    @property
    def away(self) -> list[URL]:
        """Those that could not be connected to when they were tried last."""
        return [origin for origin in self.origins if origin in self._away]

    def in_turn(self) -> list[URL]:
        """Each node once, in the order in which to try them: another one first each time, those away last."""
        turn, self._turn = self._turn, (self._turn + 1) % len(self.origins)
        rotated = self.origins[turn:] + self.origins[:turn]
        if not self._away:
            return list(rotated)
        return sorted(rotated, key=self._away.__contains__)

    def lost(self, origin: URL) -> None:
        """No connection could be had."""
        self._away.add(origin)

    def found(self, origin: URL) -> None:
        """It answers."""
        self._away.discard(origin)


class Upstream:
    """Connections to the cluster. Use as an async context manager."""

    def __init__(
        self, settings: ClusterSettings, further_nodes: Sequence[str] = (), *, read_timeout_s: float | None = None
    ) -> None:
        """`further_nodes` are addresses of the same cluster as `settings.url`; `read_timeout_s` is the longest silence
        before or inside an answer.

        Raises:
            SettingsError: an address or the file of authorities cannot be used.
        """
        self.nodes = Nodes([settings.url, *further_nodes])
        encrypted = any(origin.scheme == "https" for origin in self.nodes.origins)
        self._tls = cluster_context(settings) if encrypted else None
        self._settings = settings
        self._read_timeout_s = read_timeout_s
        self._max_headers_bytes: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self._watching: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            response_class=_Answer,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # No limit on the whole: a force-merge or a large bulk takes as long as it takes.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._read_timeout_s),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        # aiohttp repeats PUT and DELETE once when a pooled connection was closed; with versions or
        # `op_type=create` the second answer differs from the first. It offers no public switch.
        self._session._retry_connection = False
        if len(self.nodes.origins) > 1:
            self._watching.append(asyncio.create_task(self._probe()))
        if self._tls is not None and self._settings.ca_file is not None:
            self._watching.append(asyncio.create_task(renew([self._settings.ca_file], self._read_authorities)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._watching:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    def _read_authorities(self) -> None:
        # Another context makes new connections: pooled ones were verified by the authorities before.
        self._tls = cluster_context(self._settings)

    @property
    def connections(self) -> int:
        """Open connections to the cluster, busy and idle."""
        connector = self._session.connector if self._session is not None else None
        if connector is None:
            return 0
        return len(connector._acquired) + sum(len(idle) for idle in connector._conns.values())

    async def max_headers_bytes(self) -> int:
        """Bytes that all headers of a client's request may have together: what a node takes, less what the proxy adds.

        A node is asked once, in the name of the configured identity; if it does not say, every node's limit counts.
        """
        if self._max_headers_bytes is None:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    answer = await self.send("GET", _HEADER_SIZE_TARGET, own_identity(self._settings), None)
                    async with answer:
                        part = await answer.content.read(_HEADER_SIZE_BYTES)
                        size = _HEADER_SIZE.search(part) if answer.status == _OK else None
            except (Refused, TimeoutError, aiohttp.ClientError):
                return SAFE_HEADERS_BYTES
            limit = int(size[1]) * _UNIT_BYTES[size[2]] - _ADDED_HEADERS_BYTES if size else SAFE_HEADERS_BYTES
            self._max_headers_bytes = limit
        return self._max_headers_bytes

    async def send(
        self,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
        *,
        repeatable: bool = False,
    ) -> aiohttp.ClientResponse:
        """Sends one request and returns when the answer's headers are there; the caller releases it.

        Where no connection to a node can be had, nothing was sent, and another node is tried whatever the
        request is. A connection that breaks later may have done its work: only a `repeatable` request is
        sent once more then, to another node if there is one.

        Raises:
            Refused: 400 the target cannot be forwarded; 503 no connection; 502 the connection broke before
                an answer; 504 no connection in time.
        """
        nodes = self.nodes.in_turn()
        for position, origin in enumerate(nodes, start=1):
            try:
                return await self._once(origin, method, target, headers, body)
            except _NotConnected:
                self.nodes.lost(origin)
                if position == len(nodes):
                    raise
            except _BrokenOff:
                if not repeatable:
                    raise
                other = nodes[position % len(nodes)]
                return await self._once(other, method, target, headers, body)
        raise AssertionError("there is at least one node")

    async def _once(
        self,
        origin: URL,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("Upstream is used outside its context")
        url = _url(origin, target)
        try:
            return await self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, ssl=self._tls or False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NotConnected(
                503,
                "cluster_unreachable_exception",
                f"neural-bridge cannot connect to the cluster at {origin}: {error or 'no answer in time'}",
            ) from error
        except aiohttp.ServerTimeoutError as error:
            raise Refused(
                504, "cluster_timeout_exception", f"the cluster at {origin} did not answer in time"
            ) from error
        except aiohttp.ClientError as error:
            raise _BrokenOff(
                502,
                "cluster_connection_exception",
                f"the connection to the cluster at {origin} broke before it answered: {error}",
            ) from error

    async def _probe(self) -> None:
        """Finds nodes that have come back, until cancelled; what they answer does not matter."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            for origin in self.nodes.away:
                with contextlib.suppress(Refused, TimeoutError):
                    async with asyncio.timeout(PROBE_TIMEOUT_S):
                        answer = await self._once(origin, "GET", "/", CIMultiDict(), None)
                    answer.release()
                    self.nodes.found(origin)
                    log.info("node is back", node=str(origin))


class _Answer(aiohttp.ClientResponse):
    """An answer whose connection serves again only if the node read the whole request.

    A node that refuses a request for its size answers, and reads nothing more from this connection: whoever used it
    next would wait in vain. aiohttp itself closes connections whose request was not sent whole.
    """

    _has_status = False

    async def start(self, connection: aiohttp.connector.Connection) -> Self:
        await super().start(connection)
        self._has_status = True
        if self.content.is_eof():
            self._response_eof()
        return self

    def _response_eof(self) -> None:
        if not self._has_status:
            return  # the body came with the headers; `start` calls again when it knows the status
        if self.status in _PERHAPS_UNREAD and self._connection is not None and self._connection.protocol is not None:
            self._connection.protocol.force_close()
        super()._response_eof()


class _NotConnected(Refused):
    """Nothing was sent."""


class _BrokenOff(Refused):
    """Nobody knows whether the cluster did what the request asks."""


def _url(origin: URL, target: str) -> URL:
    """The URL whose request line carries `target` unchanged.

    Raises:
        Refused: 400; the target is no path, or would change on its way.
    """
    if not target.startswith("/"):
        raise Refused(
            400, "illegal_argument_exception", f"request target {target!r}: expected a path that begins with /"
        )
    if any("\ud800" <= char <= "\udfff" for char in target):
        raise Refused(400, "illegal_argument_exception", "the request target is no UTF-8: percent-encode it")
    path, _, query = target.partition("?")
    url = URL.build(
        scheme=origin.scheme,
        authority=origin.raw_authority,
        path=path,
        query_string=query,
        encoded=True,
    )
    # A lone "?" at the end means nothing and is the only thing that may get lost.
    if "#" in target or url.raw_path_qs != target.removesuffix("?") or url.origin() != origin:
        raise Refused(
            400,
            "illegal_argument_exception",
            f"request target {target!r} cannot be forwarded unchanged: percent-encode its special characters",
        )
    return url


def _origin(url: str) -> URL:
    try:
        http_address(url)
    except ValueError as error:
        raise SettingsError(f"cluster.url is {masked(url)!r}: {error}") from error
    parsed = URL(url)
    if parsed.raw_path_qs != "/" or parsed.user:
        raise SettingsError(
            "cluster.url may hold neither a path nor credentials: "
            "give scheme, host and port, and cluster.username and cluster.password beside it"
        )
    return parsed.origin()
