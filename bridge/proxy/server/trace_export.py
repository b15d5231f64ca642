"""Send spans as OTLP over HTTP to where the standard OTEL_* variables say (extra: otel).

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ lists them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry.trace import Tracer

from bridge import __version__

log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the operator wants traces: an endpoint is named, and nothing forbids them."""
    forbidden = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    )
    return not forbidden and any(environment.get(name) for name in _ENDPOINTS)


@contextmanager
def exporting(environment: Mapping[str, str]) -> Iterator[Tracer | None]:
    """A tracer whose spans are all sent before the block ends; None if no traces are wanted or the extra is missing."""
    if not wanted(environment):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning(
            "no traces",
            reason=str(error),
            remedy="pip install 'opensearch-neural-bridge[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        )
        yield None
        return
    named = OTELResourceDetector().detect()
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "neural-bridge-proxy"}).merge(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("opensearch-neural-bridge", __version__)
    finally:
        provider.shutdown()
