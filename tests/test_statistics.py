"""What ModelStatistics tells of a version, against calls and batches that are known."""

import time

import pytest

from service.pb import open_inference_grpc_pb2 as pb
from service.registry import Entry
from service.rpc import Call
from service.statistics import all_statistics, statistics
from service.telemetry import Telemetry
from tests.wires import Wire

TIMES = {"prepare": 0.25, "queue": 0.5, "assembly": 0.125, "compute": 2.0, "encode": 1.0}
SECOND = 10**9


def call(rows: int, seconds: float, **known: object) -> Call:
    """A computed call of version 3 of "digits" that ends at 0, by the clock of `counting`."""
    made = Call("v2", "ModelInfer", Wire())
    made.arrived, made.rows, made.batch_rows = -seconds, rows, rows
    for name, value in {"model": "digits", "version": "3", **known}.items():
        setattr(made, name, value)
    return made


def counting() -> Telemetry:
    return Telemetry(lambda: 0.0)


def pairs(told: pb.ModelStatistics) -> dict[str, tuple[int, int]]:
    return {field.name: (one.count, one.ns) for field, one in told.inference_stats.ListFields()}


def test_requests_add_up() -> None:
    counted = counting()
    counted.finished(call(3, 4.0, **TIMES), "OK")
    counted.finished(call(5, 1.0, **TIMES), "OK")
    counted.finished(call(7, 8.0, **TIMES), "CANCELLED")
    counted.finished(call(0, 0.5, batch_rows=0), "RESOURCE_EXHAUSTED")
    told = statistics(counted, "digits", "3")
    assert (told.name, told.version) == ("digits", "3")
    assert told.inference_count == 8, "a failed request's images are not answered"
    assert pairs(told) == {
        "success": (2, 5 * SECOND),
        "fail": (2, 85 * SECOND // 10),
        "queue": (2, SECOND),
        "compute_input": (2, 75 * SECOND // 100),
        "compute_infer": (2, 4 * SECOND),
        "compute_output": (2, 2 * SECOND),
    }
    assert told.execution_count == 0 and told.last_inference == 0, "requests are not batches"


def test_a_request_that_did_not_wait_counts_in_every_stage() -> None:
    counted = counting()
    counted.finished(call(1, 4.0, compute=2.0, encode=1.0), "OK")
    counted.finished(call(1, 4.0, **TIMES), "OK")
    found = pairs(statistics(counted, "digits", "3"))
    assert {count for count, _ in found.values() if count} == {2}
    assert found["queue"] == (2, SECOND // 2)
    assert found["compute_input"] == (2, 375 * SECOND // 1000)


def test_both_apis_and_all_methods_count_and_other_versions_do_not() -> None:
    counted = counting()
    for known in (
        {},
        {"api": "v1", "method": "Classify"},
        {"api": "v1", "method": "ClassifyStream"},
        {"version": "4"},
        {"model": "other"},
    ):
        counted.finished(call(2, 1.0, **known), "OK")
        counted.finished(call(2, 1.0, **known), "INTERNAL")
    told = statistics(counted, "digits", "3")
    assert told.inference_count == 6
    assert pairs(told)["success"] == pairs(told)["fail"] == (3, 3 * SECOND)


def test_batches_are_counted_by_their_size_whatever_started_them() -> None:
    counted = counting()
    before = int(time.time() * 1000)
    for images, why, assembly, compute in [
        (4, "idle", 0.5, 1.0),
        (1, "idle", 0.0, 0.25),
        (4, "full", 0.25, 2.0),
    ]:
        counted.batch("digits", "3", images, why, assembly, compute)
    last = int(time.time() * 1000)
    counted.batch("digits", "4", 4, "idle", 1.0, 1.0)
    told = statistics(counted, "digits", "3")
    assert before <= told.last_inference <= last
    assert told.execution_count == 3
    assert [
        (of.batch_size, *((d.count, d.ns) for d in (of.compute_input, of.compute_infer)))
        for of in told.batch_stats
    ] == [
        (1, (1, 0), (1, SECOND // 4)),
        (4, (2, 3 * SECOND // 4), (2, 3 * SECOND)),
    ]
    assert told.inference_count == 0, "batches are not requests"


def test_the_last_batch_is_the_latest_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, moments = counting(), iter([7.0, 9.0, 8.0])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    for images, why in ((1, "idle"), (2, "full"), (2, "idle")):
        counted.batch("digits", "3", images, why, 0.0, 0.0)
    assert statistics(counted, "digits", "3").last_inference == 9000


def test_what_is_ready_and_was_never_asked_is_told_with_zeros() -> None:
    counted = counting()
    counted.finished(call(1, 1.0), "OK")
    entries = [
        Entry("digits", "3", "READY", "", True, None),
        Entry("digits", "4", "READY", "", False, None),
        Entry("digits", "5", "UNAVAILABLE", "its file is cut", False, None),
    ]
    first, second = all_statistics(entries, counted).model_stats
    assert (first.version, first.inference_count) == ("3", 1)
    assert (second.version, second.inference_count, second.execution_count) == ("4", 0, 0)
    assert not pairs(second)["success"][0] and not second.batch_stats
    assert len(counted.calls) == 1 and not counted.batches, "asking must not count"
