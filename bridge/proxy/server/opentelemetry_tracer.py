"""Spans by OpenTelemetry (extra: otel), sent as OTLP over HTTP to where the standard OTEL_* variables say.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ lists them. Exceptions' texts are no
part of a span: they may quote a request.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from bridge import __version__
from bridge.proxy.server.tracing import Attributes, Span


class OpenTelemetryTracer:
    """A `bridge.proxy.tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("opensearch-neural-bridge", __version__)

    @contextmanager
    def request(self, name: str, carried: Mapping[str, str]) -> Iterator[Span]:
        with self._recorded(name, SpanKind.SERVER, {}, extract(carried)) as span:
            yield span

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[Span]:
        with self._recorded(name, SpanKind.CLIENT, attributes, None) as span:
            yield span

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        inject(carrier)
        return carrier

    @contextmanager
    def _recorded(self, name: str, kind: SpanKind, attributes: Attributes, context: Context | None) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind,
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception:
                span.set_status(StatusCode.ERROR)
                raise


@contextmanager
def exporting() -> Iterator[OpenTelemetryTracer]:
    """A tracer whose spans are sent on while the block runs, and all of them before it ends."""
    named = OTELResourceDetector().detect()
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "neural-bridge-proxy"}).merge(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield OpenTelemetryTracer(provider)
    finally:
        provider.shutdown()
