"""A request's trace goes on to the cluster and to model servers; its spans say what took the time."""

import asyncio
import json
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Reply

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
WORDS = QUERY["query"]["match"]["title"]


class Recorded:
    """A tracer whose spans stay here."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("tests")

    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()


async def ask(stack: Stack, **headers: str) -> None:
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", data=json.dumps(QUERY), headers=given) as answer:
        assert answer.status == 200
        await answer.read()


def parents(stack: Stack) -> dict[str, str]:
    """By path, the span that what came to the cluster says it belongs to."""
    return {
        request.path.rsplit("/", 1)[-1]: (request.header("traceparent") or "").split("-")[2]
        for request in stack.cluster.received
        if not request.path.endswith("_mapping")
    }


async def test_a_search_is_a_tree_of_spans_in_the_callers_trace(make_stack: MakeStack) -> None:
    recorded = Recorded()
    stack = await make_stack(ScriptedIndex(), tracer=recorded.tracer)

    await ask(stack, traceparent=TRACEPARENT)

    spans = {span.name: span for span in recorded.spans()}
    assert spans.keys() >= {"POST", "understand", "embed", "msearch", "rerank"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {TRACE_ID}
    request = spans["POST"]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    for name in ("understand", "embed", "msearch", "rerank"):
        assert spans[name].parent == request.context, name
    assert (
        dict(request.attributes or {}).items() >= {"http.response.status_code": 200, "bridge.route": "search"}.items()
    )
    assert (spans["msearch"].attributes or {})["db.collection.name"] == "docs"
    assert request.context is not None
    assert spans["msearch"].context is not None
    assert parents(stack)["_msearch"] == f"{spans['msearch'].context.span_id:016x}"
    told = [span.to_json() for span in recorded.spans()]
    assert not any(WORDS in each for each in told)


async def test_the_applications_own_request_belongs_to_the_requests_span(make_stack: MakeStack) -> None:
    recorded = Recorded()
    stack = await make_stack(ScriptedIndex(), tracer=recorded.tracer)

    await ask(stack, x_bridge="off", traceparent=TRACEPARENT)

    [request] = [span for span in recorded.spans() if span.name == "POST"]
    assert request.context is not None
    assert parents(stack) == {"_search": f"{request.context.span_id:016x}"}


async def test_the_sidecar_is_told_of_the_trace(make_stack: MakeStack) -> None:
    recorded = Recorded()
    for tracer, is_the_callers in ((recorded.tracer, False), (None, True)):
        stack = await make_stack(ScriptedIndex(), tracer=tracer)
        await ask(stack, traceparent=TRACEPARENT, tracestate="vendor=1")

        carried = [headers["traceparent"] for headers in stack.sidecar.headers]
        assert carried
        assert all(each.split("-")[1] == TRACE_ID for each in carried)
        assert [each == TRACEPARENT for each in carried] == [is_the_callers] * len(carried)


async def test_without_a_tracer_headers_reach_the_cluster_as_they_came(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    await ask(stack, traceparent="no such thing", tracestate="vendor=1")

    searches = [request for request in stack.cluster.received if request.path.endswith("search")]
    assert {request.header("traceparent") for request in searches} == {"no such thing"}
    assert {request.header("tracestate") for request in searches} == {"vendor=1"}


async def test_retrieval_is_traced_on_the_operators_listener_too(make_stack: MakeStack) -> None:
    recorded = Recorded()
    stack = await make_stack(ScriptedIndex(), tracer=recorded.tracer)

    asked = {"index": "docs", "queries": ["red shoe", "bread"]}
    async with stack.client.post(
        f"{stack.proxy.admin_url}/_bridge/retrieve", json=asked, headers={"traceparent": TRACEPARENT}
    ) as answer:
        assert answer.status == 200

    names = [span.name for span in recorded.spans() if span.context and f"{span.context.trace_id:032x}" == TRACE_ID]
    assert (names.count("POST"), names.count("rerank")) == (1, 2)


async def test_a_header_that_is_no_trace_context_does_no_harm(make_stack: MakeStack) -> None:
    body = json.dumps(QUERY).encode()
    for tracer in (None, Recorded().tracer):
        stack = await make_stack(ScriptedIndex(), tracer=tracer)

        answer = await stack.raw(
            b"POST /docs/_search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"traceparent: \xff\xfe\r\ntracestate: \xc3\xa9\r\nX-Opaque-Id: \xff\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"X-Bridge: hybrid+rerank; took_ms" in answer


async def test_a_failed_stage_is_an_error_in_the_trace_without_its_text(make_stack: MakeStack) -> None:
    recorded = Recorded()
    index = ScriptedIndex(faults={"_msearch": Reply(break_after=0)})
    stack = await make_stack(index, tracer=recorded.tracer)

    await ask(stack)

    [legs] = [span for span in recorded.spans() if span.name == "msearch"]
    assert legs.status.status_code == StatusCode.ERROR
    assert (legs.status.description, legs.events) == (None, ())


async def test_traces_of_requests_at_one_time_stay_apart(make_stack: MakeStack) -> None:
    recorded = Recorded()
    stack = await make_stack(ScriptedIndex(), tracer=recorded.tracer)
    traces = [f"{i:032x}" for i in range(1, 9)]

    await asyncio.gather(*(ask(stack, traceparent=f"00-{trace}-b7ad6b7169203331-01") for trace in traces))

    for trace in traces:
        names = {span.name for span in recorded.spans() if span.context and f"{span.context.trace_id:032x}" == trace}
        assert names >= {"POST", "understand", "msearch", "rerank"}


async def test_log_lines_tell_the_trace_and_the_clients_own_word(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), log_searches=True)
    with capture_logs(processors=[merge_contextvars]) as lines:
        await ask(stack, traceparent=TRACEPARENT, x_opaque_id="job-7" * 100)
        await ask(stack)

    searched = [line for line in lines if line["event"] == "searched"]
    assert (searched[0]["trace_id"], searched[0]["opaque_id"]) == (TRACE_ID, ("job-7" * 100)[:128])
    assert searched[0]["mark"].startswith("hybrid+rerank;")
    assert (searched[0]["decision"], searched[0]["status"]) == ("upgrade", 200)
    assert not searched[1].keys() & {"trace_id", "opaque_id"}
    assert not any(WORDS in json.dumps(line) for line in lines)


async def test_searches_are_not_logged_unless_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    with capture_logs() as lines:
        await ask(stack)

    assert [line for line in lines if line["event"] == "searched"] == []
