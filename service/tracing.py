"""Spans for OpenTelemetry: one a call, with a child for each stage of its work.

Nothing of OpenTelemetry is imported before `to_collector` is called: it is an extra. A call that
is not sampled costs a look at its metadata and a random number.
"""

import random
import threading
import time
from typing import TYPE_CHECKING

import grpc

from jaxnn import __version__
from jaxnn.errors import ConfigError
from service.rpc import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# The codes that are failures of the server, not of its caller, by OpenTelemetry's conventions.
FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
STAGES = ("prepare", "queue", "assembly", "compute", "encode")  # in order; fields of Call
END_S = 5.0  # for the last spans, when the server stops


def to_collector(endpoint: str, share: float) -> "Tracing":
    """Spans that go to an OpenTelemetry collector by OTLP over gRPC.

    Args:
      endpoint: such as http://127.0.0.1:4317; https:// for TLS.
      share: of the calls whose caller has not decided, 0 to 1.

    Raises:
      ConfigError: the extra is not installed, or a setting is out of its range.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"the trace endpoint is {endpoint!r}, expected http://HOST:PORT")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "tracing needs OpenTelemetry, which is not installed: pip install 'jaxnn[tracing]'"
        ) from error
    return Tracing(OTLPSpanExporter(endpoint=endpoint), share)


class Tracing:
    """Makes the spans of calls that have ended; a thread of OpenTelemetry's sends them."""

    def __init__(self, exporter: "SpanExporter", share: float) -> None:
        """Begin; see `to_collector`."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        from opentelemetry.trace.propagation import tracecontext

        if not 0 <= share <= 1:
            raise ConfigError(f"the share of calls to trace is {share}, expected 0 to 1")
        self._share = share
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        about = {"service.name": "jaxnn", "service.version": __version__}
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(about), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("jaxnn.service")

    def finished(self, call: Call, code: str) -> None:
        """Makes the spans of a call that has just ended, if it is to be traced.

        A caller that sends the W3C's `traceparent` decides itself. The stages lie end to end from
        the call's arrival: their lengths are measured, their beginnings are not.

        Args:
          call: what is known of it.
          code: the status's name, such as "OK".
        """
        from opentelemetry import trace

        parent = None
        header = call.metadata("traceparent")
        if header is not None:
            carrier = {"traceparent": header, "tracestate": call.metadata("tracestate") or ""}
            parent = self._propagator.extract(carrier)
            above = trace.get_current_span(parent).get_span_context()
            if not above.is_valid:
                parent = None
            elif not above.trace_flags.sampled:
                return
        if parent is None and random.random() >= self._share:  # noqa: S311 - a sample, no secret
            return
        end = time.time_ns()
        begin = end - _ns(time.monotonic() - call.arrived)
        span = self._tracer.start_span(
            f"{call.api}/{call.method}",
            parent,
            kind=trace.SpanKind.SERVER,
            start_time=begin,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": call.api,
                "rpc.method": call.method,
                "rpc.grpc.status_code": grpc.StatusCode[code].value[0],
                "jaxnn.model": call.model,
                "jaxnn.version": call.version,
                "jaxnn.images": call.rows,
                "jaxnn.batch_images": call.batch_rows,
                "jaxnn.released": call.released,
                "jaxnn.request": call.request_id,
                "jaxnn.caller": call.caller,
            },
        )
        if code in FAULTS:
            span.set_status(trace.StatusCode.ERROR, code)
        inside = trace.set_span_in_context(span)
        for stage in STAGES:
            if spent := _ns(getattr(call, stage)):
                child = self._tracer.start_span(stage, inside, start_time=begin)
                begin += spent
                child.end(begin)
        span.end(end)

    def close(self) -> None:
        """Sends what waits, for END_S at most."""
        # In a thread: OpenTelemetry takes longer than it is told where no collector answers.
        last = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(END_S)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
