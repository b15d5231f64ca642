"""The trace that a request belongs to: continued to the cluster and to model servers, with spans where wanted.

Without a tracer nothing is recorded, and the client's `traceparent` travels on as it came. A tracer is made by
`bridge.proxy.opentelemetry_tracer`, from the packages of the extra `otel`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

_CARRIED = ("traceparent", "tracestate")
"""W3C Trace Context: https://www.w3.org/TR/trace-context/"""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Attributes = Mapping[str, str | int]


class Span(Protocol):
    """A stretch of work that is being timed."""

    def set_attribute(self, key: str, value: str | int) -> None:
        """Says something more of it."""


class Tracer(Protocol):
    """Records spans."""

    def request(self, name: str, carried: Mapping[str, str]) -> AbstractContextManager[Span]:
        """The span of a client's request, in the trace that its headers `carried` name, or in a new one."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """A span within the one of the running task."""

    def headers(self) -> Mapping[str, str]:
        """What makes another service's spans part of the running task's."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether an operator asks for traces: an endpoint is named, and nothing forbids them."""
    forbidden = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    )
    return not forbidden and any(environment.get(name) for name in _ENDPOINTS)


class _NoSpan:
    def set_attribute(self, key: str, value: str | int) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class _Trace:
    """The running request's: `carried` came with it."""

    tracer: Tracer | None
    carried: Mapping[str, str]


_trace: ContextVar[_Trace | None] = ContextVar("trace", default=None)
_NO_SPAN = nullcontext(_NoSpan())


@contextmanager
def request(tracer: Tracer | None, name: str, headers: CIMultiDictProxy[str]) -> Iterator[Span]:
    """Answers a client's request within the block, as part of the trace that its headers name."""
    carried = {header: headers[header] for header in _CARRIED if header in headers}
    reset = _trace.set(_Trace(tracer, carried))
    try:
        with tracer.request(name, carried) if tracer is not None else _NO_SPAN as span:
            yield span
    finally:
        _trace.reset(reset)


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Span]:
    """A part of the running request."""
    running = _trace.get()
    if running is None or running.tracer is None:
        return _NO_SPAN
    return running.tracer.span(name, attributes or {})


def outgoing() -> Mapping[str, str]:
    """The headers by which another service joins the running request's trace; empty where there is none."""
    running = _trace.get()
    if running is None:
        return {}
    return running.carried if running.tracer is None else running.tracer.headers()


def join(headers: CIMultiDict[str]) -> None:
    """Lets what is asked with `headers` join the trace; they stay as they are where nothing is recorded."""
    running = _trace.get()
    if running is not None and running.tracer is not None:
        headers.update(running.tracer.headers())


def trace_id() -> str | None:
    """The running request's, 32 hex digits; None where it has none."""
    parts = outgoing().get("traceparent", "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None
