"""What the front makes of a sidecar's answers."""

import json
import math

import aiohttp
import pytest
from aiohttp import web

from tests.campaign.sidecar_front import LIES, SidecarFront
from tests.served import served


async def test_answers_are_spoilt_as_the_mode_says_and_else_left_alone() -> None:
    async def scores(_: web.Request) -> web.Response:
        return web.json_response([0.5, 0.25])

    app = web.Application()
    app.router.add_post("/score", scores)
    async with served(app) as url, aiohttp.ClientSession() as http:
        front = SidecarFront(url)
        async with front.running() as front_url:
            content = {}
            for mode in ("sound", "wrong_lengths", "nan", "html"):
                front.mode = mode
                async with http.post(f"{front_url}/score") as answer:
                    content[mode] = await answer.text()
            front.mode = "cut"
            with pytest.raises(aiohttp.ClientError):
                await http.post(f"{front_url}/score")

    assert (json.loads(content["sound"]), json.loads(content["wrong_lengths"])) == ([0.5, 0.25], [0.5])
    assert all(math.isnan(score) for score in json.loads(content["nan"]))
    assert content["html"].startswith("<html>")
    assert set(front.answered) == {*LIES, "sound"} - {"endless"}
