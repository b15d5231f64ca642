"""Spans belong to the running request, and other services join its trace; without a tracer it goes on as it came."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bridge import tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CARRIED = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "tracestate": "vendor=1"}


def test_without_a_tracer_the_clients_trace_goes_on_as_it_came() -> None:
    headers = {"traceparent": "no such thing"}
    with tracing.request(None, "GET", CARRIED), tracing.span("embed"):
        tracing.join(headers)

        assert tracing.outgoing() == CARRIED
        assert tracing.trace_id() == TRACE_ID
    assert headers == {"traceparent": "no such thing"}
    assert (tracing.outgoing(), tracing.trace_id()) == ({}, None)


def test_with_a_tracer_other_services_join_the_running_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    headers: dict[str, str] = {}
    with tracing.request(provider.get_tracer("tests"), "GET", CARRIED), tracing.span("embed", {"n": 1}):
        tracing.join(headers)

    embed, request = exporter.get_finished_spans()
    assert embed.context is not None
    assert request.context is not None
    assert headers["traceparent"] == f"00-{TRACE_ID}-{embed.context.span_id:016x}-01"
    assert embed.parent == request.context
    assert embed.attributes == {"n": 1}
