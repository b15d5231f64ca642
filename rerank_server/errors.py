"""What a request can be refused for, and the one table of HTTP statuses.

RequestRefused                 the client's request was not served
├── InvalidRequest             a field is missing or wrong          names the field
│   ├── EmptyRequest           nothing to score or to embed
│   └── NotServed              asks for a model that is not here
├── TooLarge                   more than a limit allows             names the limit
├── Overloaded                 the queue is full                    says when to come again
└── DeadlineExceeded           the request's time was over before the answer
"""

import msgspec
from aiohttp import web

from bridge.errors import ModelError


class RequestRefused(Exception):
    """The root; `str(error)` goes to the client."""


class InvalidRequest(RequestRefused):
    """A field is missing or wrong."""

    def __init__(self, message: str, *, field: str) -> None:
        """`field` is the path of the field in the request, dots between its parts."""
        super().__init__(message)
        self.field = field


class EmptyRequest(InvalidRequest):
    """Nothing to score or to embed."""


class NotServed(InvalidRequest):
    """The request needs a model that this sidecar does not have."""


class TooLarge(RequestRefused):
    """The request exceeds a limit."""


class Overloaded(RequestRefused):
    """The queue has no room now."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        """`retry_after_s` estimates when there will be room."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestRefused):
    """The request's time was over; what it still waited for is not computed."""


STATUSES: dict[type[Exception], tuple[int, str]] = {
    EmptyRequest: (400, "empty"),
    NotServed: (404, "not_served"),
    InvalidRequest: (422, "validation"),
    TooLarge: (413, "too_large"),
    Overloaded: (429, "overloaded"),
    DeadlineExceeded: (504, "deadline"),
    ModelError: (500, "model"),
}
"""Error → HTTP status and the `error_type` of the JSON answer; the nearest class counts."""


def status_of(error: Exception) -> tuple[int, str]:
    """The entry of the nearest class in `STATUSES`."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


OPENAI_PATHS = frozenset({"/v1/embeddings", "/embeddings", "/infinity/embeddings"})
"""Refusals of these are read by OpenAI's clients, which know other statuses and another shape."""

_OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_answer(
    status: int, kind: str, message: str, *, path: str, field: str | None = None, close: bool = False
) -> web.Response:
    """A refusal as the clients of `path` read it; `close` ends the connection, for bodies that nobody will read."""
    body: dict[str, object] = {"error": message, "error_type": kind, **({"field": field} if field is not None else {})}
    if path in OPENAI_PATHS:
        status = 400 if status == 422 else status
        of_openai = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        body = {"error": {"message": message, "type": of_openai, "param": field or None, "code": kind}}
    response = web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
    if close:
        response.force_close()
    return response
