"""What the page asks of the cluster: searches and mappings, in the viewer's name, through the proxy itself.

They go the very way of an application's, so the page shows what applications get, or would get. There is no
identity but the one that the viewer typed; the page sends it with each request and keeps it in memory only.
Nothing else of the cluster can be reached through the operators' listener.
"""

import re
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from yarl import URL

from bridge.proxy.transport.headers import CONTROL

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request as the proxy's listener for applications does."""

PREFIX = "/_bridge/cluster"

_NAME = r"[^/?_][^/?]*"
_READING = {
    hdrs.METH_GET: re.compile(rf"(/{_NAME})?/_mapping"),
    hdrs.METH_POST: re.compile(rf"/{_NAME}/_search"),
}
_SENT_ON = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.HOST, CONTROL)
_KEPT_BACK = (
    # A browser that saw it would ask for a password by itself, and send it along for ever after.
    hdrs.WWW_AUTHENTICATE,
    hdrs.SET_COOKIE,
)


def add_routes(app: web.Application, answer: Answer) -> None:
    """Lets the page search through `answer`."""

    async def viewer_search(request: web.Request) -> web.StreamResponse:
        target = request.raw_path.removeprefix(PREFIX)
        allowed = _READING.get(request.method)
        if allowed is None or not allowed.fullmatch(target.partition("?")[0]):
            raise web.HTTPForbidden(text=f"the page only searches and reads mappings, not {request.method} {target}")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text=f"only the page itself may search here, not {origin}")
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        return await answer(request.clone(rel_url=URL(target, encoded=True), headers=headers))

    async def keep_back(_: web.Request, response: web.StreamResponse) -> None:
        for name in _KEPT_BACK:
            response.headers.popall(name, None)

    app.router.add_route("*", PREFIX + "/{target:.*}", viewer_search)
    app.on_response_prepare.append(keep_back)
