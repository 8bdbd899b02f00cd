"""Metrics for Prometheus: snapshots of one or more processes, added up, as text over HTTP."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from jaxnn.errors import RunError
from service.config import address
from service.telemetry import BY_NAME, METRICS, Described

PATIENCE_S = 5.0  # for a reader that sends or takes nothing
MAX_READERS = 16  # at once

Snapshot = dict[str, Any]  # of `Telemetry.snapshot`
_MERGE: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "min": min, "max": max}


def added(snapshots: Sequence[Snapshot]) -> Snapshot:
    """One snapshot for several processes.

    Counters and histograms are added up; what becomes of a gauge, its line of METRICS says.
    """
    counters: dict[tuple[str, tuple[str, ...]], float] = {}
    histograms: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    gauges: dict[str, list[float]] = {}
    for snapshot in snapshots:
        for name, labels, value in snapshot["counters"]:
            key = name, tuple(labels)
            counters[key] = counters.get(key, 0) + value
        for name, labels, numbers in snapshot["histograms"]:
            key = name, tuple(labels)
            before = histograms.get(key, [0] * len(numbers))
            histograms[key] = [a + b for a, b in zip(before, numbers, strict=True)]
        for name, value in snapshot["gauges"].items():
            gauges.setdefault(name, []).append(value)
    return {
        "counters": [[name, list(labels), value] for (name, labels), value in counters.items()],
        "histograms": [[name, list(labels), n] for (name, labels), n in histograms.items()],
        "gauges": {name: _MERGE[BY_NAME[name].merge](values) for name, values in gauges.items()},
    }


def ended(snapshot: Snapshot) -> Snapshot:
    """What stays of a process that has ended: a counter never goes back, a gauge is gone."""
    return {**snapshot, "gauges": {}}


def merged(snapshots: Sequence[Snapshot]) -> str:
    """The text for Prometheus of several processes."""
    return generate_latest(_Registered(lambda: added(snapshots)).registry).decode()


class _Registered(Collector):
    """A snapshot as prometheus-client wants to have it."""

    def __init__(self, source: Callable[[], Snapshot]) -> None:
        self._source = source
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The names that a reader may pick from with ?name[]=."""
        return (_family(metric, []) for metric in METRICS)

    def collect(self) -> Iterator[Metric]:
        snapshot = self._source()
        series: dict[str, list[tuple[list[str], Any]]] = {metric.name: [] for metric in METRICS}
        for name, labels, value in (*snapshot["counters"], *snapshot["histograms"]):
            series[name].append((labels, value))
        for name, value in snapshot["gauges"].items():
            series[name].append(([], value))
        for metric in METRICS:
            if series[metric.name]:
                yield _family(metric, series[metric.name])


def _family(metric: Described, series: list[tuple[list[str], Any]]) -> Metric:
    name, labels = f"jaxnn_{metric.name}", metric.labels
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.sentence, labels=labels)
        ends = [*map(repr, metric.bounds), "+Inf"]
        for values, numbers in series:
            counts = [sum(numbers[: at + 1]) for at in range(len(ends))]
            histogram.add_metric(values, list(zip(ends, counts, strict=True)), numbers[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.sentence, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family


class MetricsPage:
    """http://HOST:PORT/metrics, answered by threads of its own until it is stopped."""

    def __init__(self, source: Callable[[], Snapshot], host: str, port: int) -> None:
        """Listen.

        Args:
          source: a snapshot, made anew for each reader, in a thread of the page.
          host: to listen on.
          port: 0 picks a free one.

        Raises:
          RunError: the address cannot be listened on.
        """
        page = make_wsgi_app(_Registered(source).registry)

        def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/metrics":
                return page(environ, start)
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"look at /metrics\n"]

        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            kind: type[_Server] = type("_OfFamily", (_Server,), {"address_family": family})
            self._server = make_server(host, port, application, kind, _Handler)
        except (OSError, UnicodeError, OverflowError) as error:
            raise RunError(
                f"cannot listen on {address(host, port)} for metrics "
                f"({getattr(error, 'strerror', None) or error}): choose another address, or "
                "port 0 for any free one"
            ) from error
        self.port: int = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        ).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingWSGIServer):
    """Lets in so many readers at once, and hangs up on the others."""

    block_on_close = False
    request_queue_size = 64

    def server_bind(self) -> None:
        self.readers = threading.BoundedSemaphore(MAX_READERS)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.readers.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.readers.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is not worth a line."""


class _Handler(WSGIRequestHandler):
    """Waits for nobody for long, and logs nothing."""

    timeout = PATIENCE_S

    def handle(self) -> None:
        with suppress(TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: Prometheus asks every few seconds."""
