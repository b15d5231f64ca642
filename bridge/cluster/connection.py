"""Clients for the operator's cluster: one attempt, masked secrets, errors in our words.

The transport never retries: the cluster may have carried out a POST that broke off, and only the caller knows whether
to send it again. What goes wrong on the way becomes one of our errors here; what the cluster itself answers (404, 400,
409 …) stays opensearch-py's exception.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
import urllib3
from opensearchpy import (
    AuthenticationException,
    AuthorizationException,
    ConnectionTimeout,
    JSONSerializer,
    NotFoundError,
    OpenSearch,
    RequestError,
    Urllib3HttpConnection,
)
from opensearchpy.exceptions import ConnectionError as TransportFailed
from opensearchpy.exceptions import TransportError

from bridge.certificates import Authorities
from bridge.cluster.dialects import Capabilities, read_capabilities
from bridge.errors import (
    AccessDenied,
    AnswerNotUnderstood,
    ClusterBlocked,
    ClusterUnreachable,
    IndexUnsuitable,
    SettingsError,
)
from bridge.settings import ClusterSettings, http_address, masked
from bridge.text import as_utf_8, decode

_ANY_STATUS = range(100, 600)
_AWAY = (502, 503, 504)
_POOL_CONNECTIONS = 8

_TLS_REMEDIES: list[tuple[str, str]] = [
    ("certificate has expired", "its certificate has expired: renew it on the cluster"),
    ("self-signed certificate", "its certificate is signed by an unknown authority: name it in cluster.ca_file"),
    ("unable to get local issuer", "its certificate is signed by an unknown authority: name it in cluster.ca_file"),
    ("hostname mismatch", "its certificate is for another host name: use that name in cluster.url"),
    ("ip address mismatch", "its certificate is not for this address: use its host name in cluster.url"),
    ("wrong_version_number", "it does not speak TLS on this port: use http:// in cluster.url"),
    ("record layer failure", "it does not speak TLS on this port: use http:// in cluster.url"),
]
"""OpenSSL's message in lower case, and the operator's remedy."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, unread: `body` is UTF-8, `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


GONE = (
    "nothing was created in its place: bring it back, from a snapshot or as it was made at first, then run the same "
    "command again"
)
"""What ends the message about an index that was deleted while a command needed it."""


class IndexMissing(IndexUnsuitable, NotFoundError):
    """opensearch-py's error for a request about an index that is not there, in our words."""

    def __str__(self) -> str:
        return f"{reason_of(self)}: it was deleted meanwhile, or never made; {GONE}"


def connect(settings: ClusterSettings) -> OpenSearch:
    """A client for the cluster; nothing is sent yet.

    Its calls raise ours for what happens on the way (`ClusterUnreachable`, `AccessDenied`,
    `AnswerNotUnderstood`) and opensearch-py's for what the cluster answers; `IndexMissing` is both.

    Raises:
        SettingsError: the address has no scheme or host, or holds credentials; the CA file is missing.
    """
    try:
        parts = http_address(settings.url)
    except ValueError as error:
        raise SettingsError(f"cluster.url is {masked(settings.url)!r}: {error}") from error
    if parts.username or parts.password:
        raise SettingsError(
            "cluster.url holds credentials, which logs would show: use cluster.username and cluster.password"
        )
    # opensearch-py logs whole bodies at DEBUG and every failed attempt with its traceback: documents
    # do not belong in logs, and failures are reported here.
    for name in ("opensearch", "opensearchpy.trace"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    secured: dict[str, Any] = {}
    if parts.scheme == "https":
        authorities = Authorities(settings)
        secured |= {"ssl_context": authorities.context, "authorities": authorities}
        if not settings.verify_tls:
            # urllib3 would warn before every single request, and `Authorities` has warned.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if settings.username is not None:
        password = settings.password.get_secret_value() if settings.password else ""
        secured["http_auth"] = (settings.username, password)
    return _MaskedClient(
        hosts=[settings.url],
        connection_class=_OneAttempt,
        serializer=_StrictJson(),
        max_retries=0,
        timeout=settings.timeout_s,
        pool_maxsize=_POOL_CONNECTIONS,
        **secured,
    )


def exchange(
    client: OpenSearch,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: bytes | None = None,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Answer:
    """Sends one request and returns the answer unread, with any status.

    For exact bytes, or a header such as `Retry-After`: opensearch-py's own calls parse the body and drop the headers.
    `client` comes from `connect`.

    Raises:
        ClusterUnreachable: no answer came.
    """
    status, answered, text = client.transport.get_connection().perform_request(
        method,
        path,
        params,
        body,
        timeout=timeout_s,
        ignore=_ANY_STATUS,
        headers={"content-type": content_type, **(headers or {})},
    )
    lower = {name.lower(): value for name, value in answered.items()}
    return Answer(status, lower, text.encode("utf-8", "surrogatepass"))


def capabilities(client: OpenSearch) -> Capabilities:
    """What the cluster is, by its own word.

    Raises:
        AnswerNotUnderstood: the server is neither OpenSearch nor Elasticsearch.
    """
    info = client.info()
    found = read_capabilities(info, plugins=[])
    if found.distribution == "elasticsearch":
        return found
    try:
        plugins = client.cat.plugins(format="json")
    except AccessDenied:
        plugins = None
    return read_capabilities(info, plugins)


class _MaskedClient(OpenSearch):
    """Its repr holds addresses and no credentials."""

    def __repr__(self) -> str:
        hosts = ", ".join(f"{host['host']}:{host.get('port', 9200)}" for host in self.transport.hosts)
        return f"<OpenSearch {hosts}>"


class _StrictJson(JSONSerializer):
    """Answers that are no JSON become our error, without the answer's text in the message."""

    def loads(self, s: str) -> Any:
        try:
            return decode(s.encode("utf-8", "surrogatepass"), Any)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise AnswerNotUnderstood(
                f"the cluster's answer is not JSON ({error}; {len(s)} characters): it was cut off, or a "
                f"gateway answered in its place"
            ) from error


class _OneAttempt(Urllib3HttpConnection):
    """One attempt per request; failures on the way become our errors. Whoever is no longer among the authorities is not
    trusted any more: neither on a new connection nor on one that is open."""

    def __init__(self, *args: Any, authorities: Authorities | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given = args, kwargs
        self._authorities = authorities
        self.pool = _ReadablePool(self.pool)

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        if self._authorities is not None and (context := self._authorities.renewed()) is not None:
            args, kwargs = self._given
            # Requests under way hold the pool before, which closes its connections when they are done.
            self.pool = _ReadablePool(Urllib3HttpConnection(*args, **{**kwargs, "ssl_context": context}).pool)
        try:
            answer = super().perform_request(method, url, params, body, timeout, ignore, headers)
        except TransportFailed as error:
            _raise_unreachable(self.host, error)
        except AuthenticationException as error:
            raise AccessDenied(
                f"{self.host} refused the credentials (401): check cluster.username and cluster.password"
            ) from error
        except AuthorizationException as error:
            if _error_type(error) == "cluster_block_exception":
                raise ClusterBlocked(
                    f"{self.host} blocks {method} {url}: {reason_of(error)}: lift the block first"
                ) from error
            raise AccessDenied(
                f"{self.host} lets this user in, but not {method} {url} (403): grant the permission, or use "
                f"another cluster.username"
            ) from error
        except NotFoundError as error:
            if _error_type(error) == "index_not_found_exception":
                raise IndexMissing(*error.args) from error
            raise
        except RequestError as error:
            if _error_type(error) == "index_closed_exception":
                raise ClusterBlocked(
                    f"{self.host} refused {method} {url}: the index is closed: open it first"
                ) from error
            raise
        except TransportError as error:
            if error.status_code not in _AWAY:
                raise
            raise ClusterBlocked(
                f"{self.host} cannot carry out {method} {url} now ({error.status_code}: {reason_of(error)}): see to "
                f"its health (GET /_cluster/health), then try again"
            ) from error
        _, answer_headers, text = answer
        content_type = answer_headers.get("content-type", "")
        if text and not ignore and content_type.startswith("text/html"):
            raise AnswerNotUnderstood(
                f"{self.host} answered {method} {url} with a web page ({content_type}), not as OpenSearch does: "
                f"a login page or a gateway is in between"
            )
        return answer


@dataclass(frozen=True, slots=True)
class _Readable:
    """An answer of urllib3's as opensearch-py reads it."""

    status: int
    headers: Any
    data: bytes


@dataclass(frozen=True, slots=True)
class _ReadablePool:
    """A pool with answers that can be decoded: a document holds its bytes as they came, UTF-8 or not."""

    pool: Any

    def urlopen(self, *args: Any, **kwargs: Any) -> _Readable:
        """The answer to a request."""
        answer = self.pool.urlopen(*args, **kwargs)
        data: bytes = answer.data
        try:
            data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            data = as_utf_8(data)
        return _Readable(answer.status, answer.headers, data)

    def close(self) -> None:
        """Closes its connections."""
        self.pool.close()


def _raise_unreachable(host: str, error: TransportFailed) -> NoReturn:
    cause = str(error.info).lower()
    for sign, remedy in _TLS_REMEDIES:
        if sign in cause:
            raise ClusterUnreachable(f"{host}: {remedy}") from error
    if isinstance(error, ConnectionTimeout):
        raise ClusterUnreachable(
            f"{host} did not answer in time: raise cluster.timeout_s or see to its load"
        ) from error
    if "remote end closed connection without response" in cause and host.startswith("http://"):
        raise ClusterUnreachable(
            f"{host} closed the connection without an answer: if it speaks TLS, use https:// in cluster.url"
        ) from error
    raise ClusterUnreachable(
        f"{host}: no connection ({_short(error.info)}): is it running, is the port right?"
    ) from error


def _error_type(error: TransportError) -> object:
    match error.info:
        case {"error": {"type": kind}}:
            return kind
    return None


def reason_of(error: TransportError) -> str:
    """The reason that the cluster gave, innermost first."""
    match error.info:
        case {"error": {"root_cause": [{"reason": str(reason)}, *_]}} | {"error": {"reason": str(reason)}}:
            return reason
    return str(error.error)


def _short(cause: object) -> str:
    """urllib3 wraps causes in several layers of repr; the last part is what happened."""
    return str(cause).rsplit(": ", 1)[-1].strip("'\")>")
