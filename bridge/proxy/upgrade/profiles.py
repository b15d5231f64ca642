"""Index expression → the profile of its indices, read from the mapping and trusted for a while.

The profile says how to search an index and holds nothing of its documents, so one caller's reading
serves all; whether a caller may search the index is decided by the cluster, at each search. A failed
reading is never shared between callers: it may be for want of a permission.
"""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Callable

import aiohttp
import msgspec
from cachetools import TTLCache
from multidict import CIMultiDict

from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile, profile_of
from bridge.proxy.transport.headers import of_a_leg
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.search.request import LeaveAlone
from bridge.settings import ClusterSettings

_CACHED_INDICES = 10_000
_NAME = r"-?[a-z0-9.*](?:[a-z0-9._*-]|%2[Aa]){0,254}"
_NAMES = re.compile(rf"(?!\*+$){_NAME}(?:(?:,|%2[Cc]){_NAME})*")
"""Indices and aliases by name or pattern, also several: not all of them, no date arithmetic, no other cluster."""


class _Mapping(msgspec.Struct):
    class Body(msgspec.Struct):
        """What `mappings` holds, as far as it is read here."""

        meta: object = msgspec.field(name="_meta", default=None)

    mappings: Body


class Profiles:
    """Reads profiles through `upstream` and remembers them for `ttl_s`; a search waits `timeout_s` for its own."""

    def __init__(
        self,
        upstream: Upstream,
        cluster: ClusterSettings,
        *,
        ttl_s: float,
        timeout_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._own_identity = _basic(cluster)
        self._timeout_s = timeout_s
        self._known: TTLCache[str, IndexProfile | LeaveAlone] = TTLCache(_CACHED_INDICES, ttl_s, timer=clock)
        self._unreadable: TTLCache[tuple[str, bytes], LeaveAlone] = TTLCache(_CACHED_INDICES, ttl_s, timer=clock)

    async def of(self, expression: str, caller: CIMultiDict[str]) -> IndexProfile | LeaveAlone:
        """The profile of the indices that `expression` names, still percent-encoded; they have to agree.

        `caller` are the forwarded headers of the search. A caller that may not read mappings is read for
        with the configured identity, which serves for nothing else.
        """
        if not _NAMES.fullmatch(expression):
            return LeaveAlone("index_expression")
        if (known := self._known.get(expression)) is not None:
            return known
        refused = (expression, _credentials(caller))
        if (unreadable := self._unreadable.get(refused)) is not None:
            return unreadable
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._read(expression, of_a_leg(caller))
                if status in (401, 403) and self._own_identity is not None:
                    status, body = await self._read(expression, CIMultiDict({"Authorization": self._own_identity}))
        except (Refused, TimeoutError, aiohttp.ClientError):
            # Whether the cluster can be searched is for the search itself to find out.
            return LeaveAlone("mapping_unreadable")
        if status != 200:
            self._unreadable[refused] = unreadable = LeaveAlone("mapping_unreadable")
            return unreadable
        found = _agreed(body)
        self._known[expression] = found
        return found

    async def _read(self, expression: str, headers: CIMultiDict[str]) -> tuple[int, bytes]:
        answer = await self._upstream.send("GET", f"/{expression}/_mapping", headers, None)
        async with answer:
            return answer.status, await answer.read()


def _agreed(body: bytes) -> IndexProfile | LeaveAlone:
    """The one profile of all indices behind the name."""
    try:
        mappings = msgspec.json.decode(body, type=dict[str, _Mapping])
        profiles = [profile_of(mapping.mappings.meta, index=index) for index, mapping in mappings.items()]
    except (msgspec.DecodeError, IndexUnsuitable):
        return LeaveAlone("profile_unreadable")
    known = [msgspec.structs.replace(profile, gate=None, tuning=None) for profile in profiles if profile is not None]
    if not known:
        return LeaveAlone("no_profile")
    if len(known) < len(profiles) or any(profile != known[0] for profile in known):
        return LeaveAlone("profiles_differ")
    return known[0]


def _credentials(caller: CIMultiDict[str]) -> bytes:
    """What tells callers apart, without keeping their secrets."""
    given = repr([caller.getall(name, []) for name in ("Authorization", "Cookie")])
    return hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()


def _basic(cluster: ClusterSettings) -> str | None:
    if cluster.username is None or cluster.password is None:
        return None
    credentials = f"{cluster.username}:{cluster.password.get_secret_value()}"
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"
