"""Which headers cross the proxy: everything end-to-end as it came, nothing that belongs to one connection.

Rules of RFC 9110 §7.6.1 (hop-by-hop) and RFC 9112 §6.3 (message length); the client's own address is
appended to `X-Forwarded-For`. Headers by which a proxy tells the cluster who asks (`x-proxy-user`, `x-proxy-roles`,
`x-proxy-ext-…`) cross from proxies that the operator trusts, and from nobody else, in any spelling.
"""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Collection

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from bridge.proxy.transport.refusals import Refused
from bridge.settings import ClusterSettings, ProxySettings

CONTROL = "x-bridge"
"""The application's per-request control; ours, so the cluster never sees it."""
MARK = "X-Bridge"
"""In answers to searches: what was done, or why nothing was."""
IMPRESSION = "X-Bridge-Impression"
"""In interleaved answers: what a click on one of its documents names."""

ELASTICSEARCH_MEDIA_TYPE = re.compile(r"application/vnd\.elasticsearch\+([\w-]+)(?:\s*;\s*compatible-with\s*=\s*\d+)?")
"""Of Elasticsearch's clients from version 8 on."""

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # Answered by this server before the body is read: the cluster cannot be asked for it again.
        "expect",
    }
)

# A client may declare headers of its own hop-by-hop by naming them in Connection. These decide who
# asks, for what, and where the message ends: dropping one would change the request.
_NEVER_HOP_BY_HOP = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "securitytenant",
        "x-forwarded-for",
    }
)

_DESCRIBE_BODIES = frozenset(
    {
        "accept",
        "accept-encoding",
        "content-encoding",
        "content-length",
        "content-type",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "range",
    }
)


def forwarded(
    headers: CIMultiDictProxy[str], *, client_address: str | None, settings: ProxySettings
) -> CIMultiDict[str]:
    """The headers to send to the cluster for a client's request, in the client's order.

    Raises:
        Refused: 400; `Connection` names a header that must reach the cluster.
    """
    named = _named_in_connection(headers)
    if stolen := named & _NEVER_HOP_BY_HOP:
        raise Refused(
            400,
            "illegal_argument_exception",
            f"header Connection names {', '.join(sorted(stolen))}, which cannot be dropped: remove it there",
        )
    untrusted = () if _is_trusted(client_address, settings) else settings.proxy_identity_headers
    kept = CIMultiDict[str]()
    forwarded_for = []
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in _HOP_BY_HOP or lowered in named or lowered == CONTROL:
            continue
        if lowered.replace("_", "-").startswith(untrusted):
            continue
        if lowered == "x-forwarded-for":
            forwarded_for.append(value)
            continue
        kept.add(name, value)
    if client_address is not None:
        forwarded_for.append(client_address)
    if forwarded_for:
        kept["X-Forwarded-For"] = ", ".join(forwarded_for)
    return kept


def _is_trusted(address: str | None, settings: ProxySettings) -> bool:
    """Whether a proxy that the operator trusts sends from there."""
    if address is None or not settings.trusted_proxies:
        return False
    peer = ipaddress.ip_address(address.partition("%")[0])
    peer = getattr(peer, "ipv4_mapped", None) or peer
    return any(peer in network for network in settings.trusted_proxies)


def answered(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers to give the client for a cluster's answer, in the cluster's order."""
    named = _named_in_connection(headers)
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (lowered := name.lower()) not in _HOP_BY_HOP and lowered not in named
    )


def of_a_leg(request_headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers of a search of ours, from the forwarded ones: the caller's identity, our own body.

    Credentials, cookies, tenant, `X-Opaque-Id` and trace context stay, so that security and
    accounting see the caller; what described the caller's body and answer goes.
    """
    leg = CIMultiDict((name, value) for name, value in request_headers.items() if name.lower() not in _DESCRIBE_BODIES)
    leg["Accept"] = "application/json"
    leg["Content-Type"] = "application/json"
    return leg


def own_identity(cluster: ClusterSettings) -> CIMultiDict[str]:
    """Headers of a request in the configured identity's name; without credentials if none is configured."""
    headers = CIMultiDict({hdrs.ACCEPT: "application/json", hdrs.CONTENT_TYPE: "application/json"})
    if cluster.username is not None and cluster.password is not None:
        credentials = f"{cluster.username}:{cluster.password.get_secret_value()}"
        headers[hdrs.AUTHORIZATION] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return headers


def identity(request_headers: CIMultiDict[str], per_request: Collection[str]) -> bytes:
    """Who the caller is: a digest, which reveals no secrets, of all forwarded headers except those that describe a
    body and those that are `per_request` (`proxy.per_request_headers`). Credentials, cookies, tenant and addresses
    count, and so does every unknown header: document-level security may name any."""
    telling = [
        (lowered, value)
        for name, value in request_headers.items()
        if (lowered := name.lower()) not in _DESCRIBE_BODIES and lowered not in per_request
    ]
    return hashlib.sha256(repr(telling).encode("utf-8", "surrogateescape")).digest()


def is_served(request_headers: CIMultiDict[str], settings: ProxySettings) -> bool:
    """Whether this caller is among the `canary_percent` that the bridge serves; always the same for one caller.
    Whoever is among a smaller share is among every larger one too."""
    if settings.canary_percent >= 100:
        return True
    caller = identity(request_headers, settings.per_request_headers)
    return int.from_bytes(caller[:8], "big") / 2**64 * 100 < settings.canary_percent


_OTHER_FORMS = ("application/yaml", "application/smile", "application/cbor")


def plain_media_type(value: str) -> str:
    """A media type by its general name: "application/json" for Elasticsearch's "application/vnd.elasticsearch+json"."""
    return ELASTICSEARCH_MEDIA_TYPE.sub(r"application/\1", value)


def accepts_gzip(headers: MultiMapping[str]) -> bool:
    """Whether a client takes gzip (RFC 9110 §12.5.3): it names that, or any coding, with a weight above 0."""
    codings = _accepted(headers, "Accept-Encoding")
    return codings.get("gzip", codings.get("x-gzip", codings.get("*", False)))


def accepts_json(headers: MultiMapping[str]) -> bool:
    """Whether a client takes JSON (RFC 9110 §12.5.1) and names no other form in which the cluster answers."""
    ranges = {plain_media_type(name): is_taken for name, is_taken in _accepted(headers, "Accept").items()}
    if any(ranges.get(other) for other in _OTHER_FORMS):
        return False
    return ranges.get("application/json", ranges.get("application/*", ranges.get("*/*", not ranges)))


def _accepted(headers: MultiMapping[str], name: str) -> dict[str, bool]:
    """What the header names, in lower case, and whether its weight is above 0."""
    accepted = {}
    for each in ",".join(headers.getall(name, ())).lower().split(","):
        named, _, parameter = each.partition(";")
        if named := named.strip():
            key, _, weight = parameter.partition("=")
            accepted[named] = weight.strip(" .0") != "" or key.strip() != "q"
    return accepted


def _named_in_connection(headers: CIMultiDictProxy[str]) -> set[str]:
    if "Connection" not in headers:
        return set()
    return {name.strip().lower() for value in headers.getall("Connection") for name in value.split(",")}
