"""The operators' listener: the page, `/_bridge/health`, `/_bridge/ready`, `/_bridge/metrics`, `/_bridge/config`."""

import asyncio
import ipaddress
from typing import get_args

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from bridge import __version__
from bridge.profile import IndexProfile, ModelReference, Stage
from bridge.proxy.page import static_files, viewer_searches
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.server.routing import ConnectionServer, Proxy
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.settings import ProxySettings, Settings

_READY_TIMEOUT_S = 3.0
_OPEN_TO_ALL_NAMES = ("/_bridge/health", "/_bridge/ready", "/_bridge/metrics")
"""What probes and Prometheus ask for by whatever name; it holds nothing of documents."""


def admin_app(
    upstream: Upstream,
    sidecar: Sidecar,
    settings: Settings,
    metrics: Metrics,
    proxy: Proxy,
    server: ConnectionServer,
) -> web.Application:
    """The application behind the admin listener. Documents are shown only by `proxy`, in the page viewer's name."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": __version__})

    async def ready(_: web.Request) -> web.Response:
        """Ready means that searches are answered, and will be: that needs the cluster, not the sidecar. If proxies left
        their load balancer with the sidecar, a worse ranking would become an outage."""
        cluster, models = await asyncio.gather(_answers(upstream), sidecar.ready())
        is_ready = cluster and not server.draining
        state = {"ready": is_ready, "degraded": models is False, "cluster": cluster, "sidecar": models}
        return web.json_response(state, status=200 if is_ready else 503)

    async def exposition(_: web.Request) -> web.Response:
        metrics.upstream_connections.set(upstream.connections)
        return web.Response(
            body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def config(_: web.Request) -> web.Response:
        """The settings in force; secrets are masked by their type."""
        shown = settings.model_dump_json(include={"cluster", "proxy", "reranker", "embedder"})
        return web.Response(text=shown, content_type="application/json")

    async def about(_: web.Request) -> web.Response:
        """What the page needs to know about this proxy."""
        defaults = IndexProfile(text_fields=[], encoder=ModelReference("", ""), dimension=0).to_meta()
        facts = {"version": __version__, "mode": settings.proxy.mode, "stages": get_args(Stage)}
        return web.json_response(facts | {"profile_defaults": defaults, "companion_prefix": settings.companion.prefix})

    app = web.Application(middlewares=[_own_names_only(settings.proxy)])
    app.router.add_get("/_bridge/health", health)
    app.router.add_get("/_bridge/ready", ready)
    app.router.add_get("/_bridge/metrics", exposition)
    app.router.add_get("/_bridge/config", config)
    if settings.proxy.page:
        app.router.add_get("/_bridge/about", about)
        static_files.add_routes(app.router)
        viewer_searches.add_routes(app, proxy.in_full())
    return app


def _own_names_only(settings: ProxySettings) -> Middleware:
    """Refuses requests to a name that is not the listener's: a site whose name points to this address would otherwise
    read in its visitor's browser what the visitor may see here (DNS rebinding)."""
    names = {"localhost", settings.admin_host.lower(), *(name.lower() for name in settings.admin_names)}

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = _name_in(request.headers.get(hdrs.HOST, ""))
        if request.path in _OPEN_TO_ALL_NAMES or name in names or _is_address(name):
            return await handler(request)
        raise web.HTTPForbidden(
            text=f"{name!r} is no name of this listener: use its address, or list the name in proxy.admin_names"
        )

    return checked


def _name_in(host: str) -> str:
    """The name or address in a `Host` header, without port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    """Whether it is an IP address: no other site can have it as its origin."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answers(upstream: Upstream) -> bool:
    """Whether the cluster answers at all; 401 is an answer."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            answer = await upstream.send("GET", "/", CIMultiDict(), None)
            answer.release()
    except (Refused, TimeoutError):
        return False
    return answer.status < 500
