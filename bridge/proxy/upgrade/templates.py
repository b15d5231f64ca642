"""Search templates: the cluster says, to the caller and to nobody else, which search a template comes to."""

import asyncio

import aiohttp
import msgspec
from multidict import CIMultiDict

from bridge.proxy.transport.headers import of_a_leg
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.search.request import LeaveAlone


class _Rendered(msgspec.Struct):
    template_output: msgspec.Raw


class Templates:
    """Renders templates through `upstream`; a search waits `timeout_s` for its own."""

    def __init__(self, upstream: Upstream, *, timeout_s: float) -> None:
        self._upstream = upstream
        self._timeout_s = timeout_s

    async def search_body(self, body: bytes, caller: CIMultiDict[str]) -> bytes | LeaveAlone:
        """The body of the search that a request to `_search/template` asks for."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._upstream.send("POST", "/_render/template", of_a_leg(caller), body)
                async with answer:
                    content = await answer.read()
            if answer.status != 200:
                return LeaveAlone("template_unreadable")
            return bytes(msgspec.json.decode(content, type=_Rendered).template_output)
        except (Refused, TimeoutError, aiohttp.ClientError, msgspec.DecodeError):
            return LeaveAlone("template_unreadable")
