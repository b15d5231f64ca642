"""The cluster's answer to the application's own request, asked for so that it can be read here."""

from collections.abc import Sequence
from dataclasses import replace

import aiohttp
from aiohttp import hdrs

from bridge.proxy.transport.passthrough import Inbound
from bridge.proxy.upgrade.planning import Plan
from bridge.search.filter_path import without_parameter
from bridge.search.request import LeaveAlone

MAX_BYTES = 64 * 1024 * 1024
"""A larger answer is passed on as it comes instead of being held in memory."""


def readable(asked: Inbound, plans: Sequence[Plan | LeaveAlone]) -> Inbound:
    """The application's request, so that the whole answer can be read: not compressed, which would only be undone
    again, and without `filter_path`, which is applied to the answer that is composed."""
    given = asked.headers.copy()
    given[hdrs.ACCEPT_ENCODING] = "identity"
    target = without_parameter(asked.target) if is_filtered(plans) else asked.target
    return replace(asked, headers=given, target=target)


def is_filtered(plans: Sequence[Plan | LeaveAlone]) -> bool:
    """Whether `filter_path` is taken out of the request: then its answer is not yet what the application wants."""
    return any(isinstance(plan, Plan) and plan.request.filter_path is not None for plan in plans)


async def held(answer: aiohttp.ClientResponse) -> bytes | None:
    """The whole body of a success; None where there is none, or where it is too large, of which Elasticsearch
    says nothing beforehand."""
    if answer.status != 200 or (answer.content_length or 0) > MAX_BYTES:
        return None
    async with answer:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > MAX_BYTES:
                return None
        return bytes(body)
