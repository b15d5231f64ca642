"""A search as an application sends it, and what is read from its answer."""

import json
from typing import Any

from yarl import URL

from tests.bridge.proxy.conftest import Stack
from tests.bridge.proxy.scripted_index import QUERY


async def search(
    stack: Stack, body: Any = QUERY, *, target: str = "/docs/_search", **headers: str
) -> tuple[int, str, Any]:
    """Status, `X-Bridge`, and the answer."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(stack.proxy.url + target, encoded=True)
    async with stack.client.post(url, data=json.dumps(body), headers=given) as answer:
        return answer.status, answer.headers.get("X-Bridge", ""), await answer.json()


def ids(answer: Any) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def scores(answer: Any) -> list[float]:
    return [hit["_score"] for hit in answer["hits"]["hits"]]
