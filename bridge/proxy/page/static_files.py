"""The page's own files, and the headers that let a browser run nothing else.

The files are read once and kept: they are part of the program, and few. There is no build step; what is in
`static/` is what the browser gets.
"""

import hashlib
import mimetypes
from importlib import resources

from aiohttp import hdrs, web

SECURITY_HEADERS = {
    # Scripts, styles and requests from this address only: whatever a document's text holds, it cannot run,
    # load anything, or send anything away. Pictures may also stand in the document itself.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_PREFIX = "/_bridge/page/"


def add_routes(router: web.UrlDispatcher) -> None:
    """Serves the page at `/_bridge/` and its parts beneath."""
    files = {
        file.name: (file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        for file in resources.files(__package__).joinpath("static").iterdir()
    }

    async def to_page(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/_bridge/")

    async def page(request: web.Request) -> web.StreamResponse:
        return _answer(request, *files["index.html"])

    async def part(request: web.Request) -> web.StreamResponse:
        if (found := files.get(request.match_info["name"])) is None:
            raise web.HTTPNotFound(text=f"the page has no part {request.match_info['name']}")
        return _answer(request, *found)

    router.add_get("/", to_page)
    router.add_get("/_bridge", to_page)
    router.add_get("/_bridge/", page)
    router.add_get(_PREFIX + "{name}", part)


def _answer(request: web.Request, content: bytes, media_type: str) -> web.Response:
    tag = hashlib.sha256(content).hexdigest()[:16]
    # The browser asks again each time, so that after an update no old part meets a new one.
    headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.ETAG: f'"{tag}"', **SECURITY_HEADERS}
    if any(known.value == tag for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, content_type=media_type, charset="utf-8", headers=headers)
