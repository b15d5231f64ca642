"""Spans of the running request, and the headers by which other services join its trace.

Spans are OpenTelemetry's. Unless the request has a tracer, nothing is recorded and the client's trace continues as
it came. An exception's text is no part of a span: it may quote a request.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int]

_TRACE_CONTEXT = TraceContextTextMapPropagator()
"""W3C Trace Context: https://www.w3.org/TR/trace-context/"""
_NO_TRACER = NoOpTracer()
_tracer: ContextVar[Tracer] = ContextVar("tracer", default=_NO_TRACER)


@contextmanager
def request(tracer: Tracer | None, name: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """Run the block as a client's request, in the trace that its headers name or in a new one."""
    outer = _tracer.set(tracer or _NO_TRACER)
    attached = context.attach(_TRACE_CONTEXT.extract(headers))
    try:
        with _recorded(name, SpanKind.SERVER, {}) as recorded:
            yield recorded
    finally:
        context.detach(attached)
        _tracer.reset(outer)


@contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """Time the block as a part of the running request."""
    with _recorded(name, SpanKind.CLIENT, attributes or {}) as recorded:
        yield recorded


def outgoing() -> dict[str, str]:
    """Headers by which another service joins the running request's trace; empty if there is none."""
    carrier: dict[str, str] = {}
    _TRACE_CONTEXT.inject(carrier)
    return carrier


def join(headers: MutableMapping[str, str]) -> None:
    """Put the running span into forwarded headers; unless spans are recorded, they stay as the client sent them."""
    if _tracer.get() is not _NO_TRACER:
        headers.update(outgoing())


def trace_id() -> str | None:
    """The running request's trace, 32 hex digits; None if it has none."""
    running = get_current_span().get_span_context()
    return format_trace_id(running.trace_id) if running.is_valid else None


@contextmanager
def _recorded(name: str, kind: SpanKind, attributes: Attributes) -> Iterator[Span]:
    with _tracer.get().start_as_current_span(
        name, kind=kind, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
    ) as recorded:
        try:
            yield recorded
        except Exception:
            recorded.set_status(StatusCode.ERROR)
            raise
