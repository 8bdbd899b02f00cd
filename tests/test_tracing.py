"""Traces: what a span says, who decides whether there is one, and the way to a collector."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jaxnn.errors import ConfigError
from service import tracing
from service.rpc import Call
from service.tracing import Tracing, to_collector
from tests.wires import Wire

os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - as gRPC spells it
ROOT = Path(__file__).parent.parent
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def call(traceparent: str | None = None, **known: object) -> Call:
    metadata = [] if traceparent is None else [("traceparent", traceparent)]
    made = Call("v1", "Classify", Wire(*metadata))
    for name, value in known.items():
        setattr(made, name, value)
    return made


def spans_of(share: float, *calls: tuple[Call, str]) -> Sequence[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traced = Tracing(exporter, share)
    for made, code in calls:
        traced.finished(made, code)
    traced.close()
    return exporter.get_finished_spans()


def test_a_span_says_what_is_known_of_the_call() -> None:
    made = call(model="digits", version="3", rows=32, batch_rows=64, released="full")
    made.request_id, made.caller = "r-1", "alice"
    made.arrived = time.monotonic() - 0.25
    before = time.time_ns()
    (span,) = spans_of(1.0, (made, "OK"))
    assert (span.name, span.kind, span.parent) == ("v1/Classify", SpanKind.SERVER, None)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "v1",
        "rpc.method": "Classify",
        "rpc.grpc.status_code": 0,
        "jaxnn.model": "digits",
        "jaxnn.version": "3",
        "jaxnn.images": 32,
        "jaxnn.batch_images": 64,
        "jaxnn.released": "full",
        "jaxnn.request": "r-1",
        "jaxnn.caller": "alice",
    }
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 <= span.end_time - before < 10e9
    assert 0.25e9 <= span.end_time - span.start_time < 10e9
    assert span.resource.attributes["service.name"] == "jaxnn"


def test_the_stages_lie_end_to_end_under_it() -> None:
    made = call(prepare=0.01, queue=0.02, compute=0.03)
    *stages, whole = spans_of(1.0, (made, "OK"))
    assert [span.name for span in stages] == ["prepare", "queue", "compute"]
    at = whole.start_time
    for span, spent in zip(stages, (10_000_000, 20_000_000, 30_000_000), strict=True):
        assert span.parent == whole.context
        assert (span.start_time, span.end_time) == (at, (at or 0) + spent)
        at = span.end_time


@pytest.mark.parametrize("code", ["INTERNAL", "UNAVAILABLE", "INVALID_ARGUMENT", "CANCELLED"])
def test_only_the_servers_own_failures_are_errors(code: str) -> None:
    (span,) = spans_of(1.0, (call(), code))
    is_fault = code in ("INTERNAL", "UNAVAILABLE")
    assert span.status.status_code is (StatusCode.ERROR if is_fault else StatusCode.UNSET)
    assert (span.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode[code].value[0]


@pytest.mark.parametrize(("flags", "count"), [("01", 1), ("00", 0)])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_caller_with_a_trace_decides_itself(flags: str, count: int, share: float) -> None:
    spans = spans_of(share, (call(f"00-{TRACE}-{SPAN}-{flags}"), "OK"))
    assert len(spans) == count
    for span in spans:
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == SPAN


@pytest.mark.parametrize("header", ["", "x", f"00-{'0' * 32}-{SPAN}-01", "ff-" * 5000, "\x00"])
def test_a_header_that_is_none_decides_nothing(header: str) -> None:
    assert spans_of(0.0, (call(header), "OK")) == ()
    (span,) = spans_of(1.0, (call(header), "OK"))
    assert span.parent is None


def test_other_calls_are_sampled_by_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.1, 0.29, 0.3, 0.9])
    monkeypatch.setattr(tracing.random, "random", lambda: next(drawn))
    assert len(spans_of(0.3, *[(call(), "OK")] * 4)) == 2


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A stand-in for a collector, with gRPC's own server; what it gets, it keeps."""
    received: list[bytes] = []

    def export(data: bytes, context: grpc.ServicerContext) -> bytes:
        received.append(data)
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", received
    server.stop(None).wait(10)


def test_spans_reach_a_collector(collector: tuple[str, list[bytes]]) -> None:
    endpoint, received = collector
    traced = to_collector(endpoint, 1.0)
    traced.finished(call(queue=0.5, rows=7), "OK")
    traced.close()
    (data,) = received
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(data)
    spans = request.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["queue", "v1/Classify"]
    images = {pair.key: pair.value.int_value for pair in spans[1].attributes}["jaxnn.images"]
    assert images == 7


def test_a_collector_that_is_not_there_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "END_S", 0.2)
    traced = to_collector("http://127.0.0.1:1", 1.0)  # nobody listens on port 1
    traced.finished(call(), "OK")
    begun = time.monotonic()
    traced.close()
    assert time.monotonic() - begun < 3  # alone, OpenTelemetry takes 7 s


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxnn\[tracing\]'"):
        to_collector("http://127.0.0.1:4317", 1.0)


def test_settings_out_of_range_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"is '127.0.0.1:4317', expected http://HOST:PORT"):
        to_collector("127.0.0.1:4317", 1.0)
    with pytest.raises(ConfigError, match=r"is 1.5, expected 0 to 1"):
        Tracing(InMemorySpanExporter(), 1.5)


def test_off_it_imports_nothing() -> None:
    program = "import sys, service.tracing; assert not any('opentel' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
