"""Metrics: what is counted, added up over workers, and read over HTTP.

The truth is NumPy's histogram and prometheus-client's own parser of the text.
"""

import contextlib
import http.client
import json
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from jaxnn.errors import RunError
from service import metrics_page, telemetry
from service.metrics_page import MetricsPage, added, ended, merged
from service.rpc import Call
from service.telemetry import METRICS, SECONDS, Telemetry, names_table
from tests.wires import Wire


def call(**known: object) -> Call:
    made = Call("v1", "Classify", Wire())
    made.arrived = 0.0
    for name, value in {"model": "digits", "version": "3", **known}.items():
        setattr(made, name, value)
    return made


def read(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, the labels by name."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(counted: Telemetry) -> dict[tuple[str, ...], float]:
    return read(merged([counted.snapshot()]))


def test_calls_are_counted_by_everything_that_is_known_of_them() -> None:
    counted = Telemetry(lambda: 0.003)
    for code, rows in (("OK", 32), ("OK", 1), ("INVALID_ARGUMENT", 0)):
        counted.finished(call(rows=rows, batch_rows=rows), code)
    counted.finished(call(model="", version="", rows=5), "RESOURCE_EXHAUSTED")
    counted.finished(call(method="ClassifyStream", rows=7, batch_rows=7), "OK")
    found = of(counted)
    # The labels in the order of their names: api, code, method, model, version.
    assert found["jaxnn_requests_total", "v1", "OK", "Classify", "digits", "3"] == 2
    assert found["jaxnn_requests_total", "v1", "INVALID_ARGUMENT", "Classify", "digits", "3"] == 1
    assert found["jaxnn_requests_total", "v1", "RESOURCE_EXHAUSTED", "Classify", "", ""] == 1
    assert found["jaxnn_images_total", "v1", "digits", "3"] == 33 + 7
    assert ("jaxnn_images_total", "v1", "", "") not in found  # refused, not answered
    assert found["jaxnn_request_seconds_count", "v1", "Classify", "digits"] == 3
    assert found["jaxnn_request_seconds_sum", "v1", "Classify", "digits"] == pytest.approx(0.009)
    assert found["jaxnn_request_seconds_bucket", "v1", "0.002", "Classify", "digits"] == 0
    assert found["jaxnn_request_seconds_bucket", "v1", "0.005", "Classify", "digits"] == 3


def test_only_computed_calls_count_in_the_stages() -> None:
    counted = Telemetry()
    counted.finished(call(queue=3.0), "DEADLINE_EXCEEDED")
    times = {"queue": 1.0, "assembly": 2.0, "compute": 3.0, "encode": 4.0, "prepare": 5.0}
    counted.finished(call(batch_rows=1, **times), "OK")
    found = of(counted)
    for stage, seconds in times.items():
        assert found[f"jaxnn_{stage}_seconds_sum", "v1", "Classify", "digits"] == seconds
        assert found[f"jaxnn_{stage}_seconds_count", "v1", "Classify", "digits"] == 1


def test_what_was_computed_at_once_waited_no_time() -> None:
    counted = Telemetry()
    counted.finished(call(batch_rows=1, compute=1.0), "OK")
    counted.finished(call(batch_rows=1, compute=1.0, assembly=1.0), "OK")
    counted.finished(call(batch_rows=1, compute=1.0, queue=1.0), "OK")
    counted.finished(call(), "OK")
    found = of(counted)
    for stage in ("queue", "assembly"):
        labels = "Classify", "digits"
        name = f"jaxnn_{stage}_seconds"
        assert found[f"{name}_bucket", "v1", "5e-05", *labels] == 2
        assert found[f"{name}_count", "v1", *labels] == 3
        assert found[f"{name}_sum", "v1", *labels] == 1


def test_a_histogram_is_over_versions_and_codes() -> None:
    counted = Telemetry(lambda: 1.5)
    for version, code in (("3", "OK"), ("4", "OK"), ("4", "INTERNAL")):
        counted.finished(call(version=version, batch_rows=1, compute=1.0), code)
    found = of(counted)
    assert found["jaxnn_request_seconds_sum", "v1", "Classify", "digits"] == 4.5
    assert found["jaxnn_compute_seconds_count", "v1", "Classify", "digits"] == 3
    assert found["jaxnn_requests_total", "v1", "OK", "Classify", "digits", "4"] == 1


@settings(max_examples=20)
@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(SECONDS)), max_size=30))
def test_a_histogram_is_numpys(seconds: list[float]) -> None:
    counted = Telemetry(lambda: 0.0)
    for value in seconds:
        counted.finished(call(arrived=-value), "OK")
    found = of(counted)
    for end in SECONDS:  # cumulative, the upper end included
        key = ("jaxnn_request_seconds_bucket", "v1", repr(end), "Classify", "digits")
        assert found.get(key, 0) == np.count_nonzero(np.array(seconds) <= end)
    key = ("jaxnn_request_seconds_bucket", "v1", "+Inf", "Classify", "digits")
    assert found.get(key, 0) == len(seconds)


def test_batches_say_how_large_they_were_and_why_they_started() -> None:
    counted = Telemetry()
    counted.batch("digits", "3", 32, "idle", 0.25, 1.0)
    counted.batch("digits", "3", 33, "idle", 0.25, 1.0)
    for _ in range(2):
        counted.batch("digits", "3", 64, "full", 0.25, 1.0)
    found = of(counted)
    assert found["jaxnn_batches_total", "digits", "idle", "3"] == 2
    assert found["jaxnn_batches_total", "digits", "full", "3"] == 2
    assert found["jaxnn_batch_rows_bucket", "32.0", "digits", "3"] == 1
    assert found["jaxnn_batch_rows_bucket", "64.0", "digits", "3"] == 4
    assert found["jaxnn_batch_rows_sum", "digits", "3"] == 193
    assert found["jaxnn_batch_stage_seconds_total", "digits", "assembly", "3"] == 1.0
    assert found["jaxnn_batch_stage_seconds_total", "digits", "compute", "3"] == 4.0


def test_counters_without_labels_are_there_before_anything_happens() -> None:
    found = of(Telemetry())
    for name in ("expired", "cancelled", "compiles"):
        assert found[f"jaxnn_{name}_total",] == 0


def test_a_counter_is_of_the_table() -> None:
    counted = Telemetry()
    counted.count("refused", "queue")
    counted.count("refused", "queue", amount=2)
    counted.count("refused", "rate")
    found = of(counted)
    assert (found["jaxnn_refused_total", "queue"], found["jaxnn_refused_total", "rate"]) == (3, 1)
    with pytest.raises(KeyError):
        counted.count("guesses")
    with pytest.raises(TypeError, match="refused takes the labels"):
        counted.count("refused")
    with pytest.raises(TypeError, match="queue_rows takes the labels"):
        counted.count("queue_rows")
    with pytest.raises(TypeError, match="refused is a counter"):
        counted.gauge("refused", lambda: 1)


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    counted, waiting = Telemetry(), [3]
    counted.gauge("queue_rows", lambda: waiting[0])
    assert of(counted)["jaxnn_queue_rows",] == 3
    waiting[0] = 5
    assert of(counted)["jaxnn_queue_rows",] == 5


def test_the_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_SERIES", 20)
    counted = Telemetry()
    for version in range(100):
        counted.finished(call(version=str(version), model=str(version), prepare=1.0), "OK")
        counted.batch("digits", str(version), 1, "idle", 0.0, 0.0)
        counted.count("model_loads", str(version), "ok")
    snapshot = counted.snapshot()
    assert len(snapshot["counters"]) < 150
    of_metric = Counter(name for name, _, _ in snapshot["histograms"])
    assert max(of_metric.values()) == 21, "the others share one"
    found = of(counted)
    total = sum(value for key, value in found.items() if key[0] == "jaxnn_requests_total")
    assert total == 100
    assert sum(value for key, value in found.items() if key[0] == "jaxnn_batches_total") == 100
    assert found["jaxnn_requests_total", "v1", "OK", "Classify", telemetry.OTHERS, ""] > 70


def worker(calls: int, waiting: int, ready: int) -> metrics_page.Snapshot:
    counted = Telemetry(lambda: 1.5)
    for _ in range(calls):
        counted.finished(call(rows=2, batch_rows=2), "OK")
    counted.gauge("queue_rows", lambda: waiting)
    counted.gauge("models_ready", lambda: ready)
    # As it comes from another process.
    return json.loads(json.dumps(counted.snapshot()))


def test_workers_are_added_up() -> None:
    found = read(merged([worker(2, 10, 3), worker(5, 1, 2)]))
    assert found["jaxnn_requests_total", "v1", "OK", "Classify", "digits", "3"] == 7
    assert found["jaxnn_images_total", "v1", "digits", "3"] == 14
    assert found["jaxnn_request_seconds_sum", "v1", "Classify", "digits"] == 10.5
    assert found["jaxnn_request_seconds_bucket", "v1", "2.0", "Classify", "digits"] == 7
    assert found["jaxnn_queue_rows",] == 11
    assert found["jaxnn_models_ready",] == 2  # what every worker has


def test_adding_up_in_steps_is_the_same() -> None:
    a, b, c = worker(1, 2, 3), worker(4, 5, 6), worker(7, 8, 9)
    assert merged([added([a, b]), c]) == merged([a, b, c])
    assert merged([a]) == merged([added([a])])


def test_a_worker_that_ended_leaves_its_counts_and_no_gauge() -> None:
    found = read(merged([ended(worker(2, 10, 0)), worker(5, 1, 2)]))
    assert found["jaxnn_requests_total", "v1", "OK", "Classify", "digits", "3"] == 7
    assert (found["jaxnn_queue_rows",], found["jaxnn_models_ready",]) == (1, 2)


def test_labels_with_odd_characters_come_back() -> None:
    counted = Telemetry()
    odd = 'a"b\\c\nd'
    counted.count("model_loads", odd, "ok")
    assert of(counted)["jaxnn_model_loads_total", odd, "ok"] == 1


def test_every_metric_is_in_the_table_of_the_page() -> None:
    table = names_table()
    for metric in METRICS:
        name = f"jaxnn_{metric.name}" + "_total" * (metric.kind == "counter")
        line = next(line for line in table.splitlines() if f"| `{name}` |" in line)
        assert metric.sentence in line
        assert all(label in line for label in metric.labels)
        assert metric.sentence.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.fixture
def page() -> Iterator[Callable[[str], str]]:
    """Reads a path of a page that counts its readers."""
    counted = Telemetry()

    def source() -> metrics_page.Snapshot:
        counted.count("compiles")
        return counted.snapshot()

    served = MetricsPage(source, "127.0.0.1", 0)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str) -> str:
        with opener.open(f"http://127.0.0.1:{served.port}{path}", timeout=10) as reply:
            return reply.read().decode()

    get.port = served.port  # type: ignore[attr-defined]
    yield get
    served.stop()


def test_prometheus_reads_the_page(page: Callable[[str], str]) -> None:
    assert read(page("/metrics"))["jaxnn_compiles_total",] == 1
    assert read(page("/metrics"))["jaxnn_compiles_total",] == 2
    only = read(page("/metrics?name[]=jaxnn_compiles_total"))
    assert {key[0] for key in only} == {"jaxnn_compiles_total"}


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/favicon.ico", "/metricsx"])
def test_there_is_nothing_else_to_read(page: Callable[[str], str], path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        page(path)
    assert refused.value.code == 404
    refused.value.close()


def test_silent_readers_do_not_keep_others_out_for_long(
    page: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metrics_page._Handler.timeout == metrics_page.PATIENCE_S
    monkeypatch.setattr(metrics_page._Handler, "timeout", 0.2)
    port = page.port  # type: ignore[attr-defined]
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        for connection in silent:
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""  # hung up on
        assert "jaxnn_compiles_total" in page("/metrics")
    finally:
        for connection in silent:
            connection.close()


def test_garbage_is_answered_and_harms_nobody(page: Callable[[str], str]) -> None:
    port = page.port  # type: ignore[attr-defined]
    for garbage in (
        b"\x16\x03\x01\x00",
        b"GET " + b"x" * 70_000,
        b"POST /metrics HTTP/1.1\r\n\r\n",
    ):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as sender,
            contextlib.suppress(ConnectionError),
        ):
            sender.sendall(garbage + b"\r\n\r\n")
            sender.recv(1000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    reply = connection.getresponse()
    assert (reply.status, reply.headers["Content-Encoding"]) == (200, "gzip")
    connection.close()


def test_a_page_that_stopped_gives_its_port_back() -> None:
    page = MetricsPage(Telemetry().snapshot, "127.0.0.1", 0)
    with pytest.raises(RunError, match=r"cannot listen on 127.0.0.1:\d+ for metrics"):
        MetricsPage(Telemetry().snapshot, "127.0.0.1", page.port)
    page.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", page.port), timeout=5)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1"])
def test_a_host_that_is_none_is_one_sentence(host: str) -> None:
    with pytest.raises(RunError, match="cannot listen on") as caught:
        MetricsPage(Telemetry().snapshot, host, 0)
    assert "\n" not in str(caught.value)


def test_a_call_costs_few_steps() -> None:
    """Lines of Python, which do not depend on the machine as a time would."""
    counted, made, lines = Telemetry(), call(batch_rows=1), 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    counted.finished(made, "OK")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        counted.finished(made, "OK")
    finally:
        sys.settrace(before)
    assert 5 < lines < 20
