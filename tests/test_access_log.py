"""The access log: which calls get a line, what is in it, and what never is."""

import io
import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.errors import ConfigError
from service import access_log
from service.access_log import FAILURES_PER_SECOND, SERVER_FAULTS, TEXT, AccessLog, printable
from service.rpc import Call
from tests.wires import Wire

LIMIT_S = 10.0  # for anything that should take a fraction of it


def call(**known: object) -> Call:
    made = Call("v1", "Classify", Wire(("authorization", "Bearer hush"), ("x-other", "hush")))
    for name, value in {"request_id": "r-1", "caller": "alice", **known}.items():
        setattr(made, name, value)
    return made


def lines_of(
    share: float, calls: list[tuple[Call, str]], sentence: str = ""
) -> list[dict[str, Any]]:
    stream = io.StringIO()
    log = AccessLog(share, stream, seed=1)
    for made, code in calls:
        log.finished(made, code, "" if code == "OK" else sentence)
    log.close(LIMIT_S)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_what_is_known_of_the_call() -> None:
    made = call(model="digits", version="3", rows=32, batch_rows=64, queue=0.001, compute=0.0025)
    made.arrived = time.monotonic() - 0.25
    before = datetime.now(UTC)
    (line,) = lines_of(1.0, [(made, "OK")])
    assert 250 <= line.pop("ms") < 250 + LIMIT_S * 1e3
    # Written to the millisecond, rounded down.
    assert -0.001 <= (datetime.fromisoformat(line.pop("time")) - before).total_seconds() < LIMIT_S
    assert line == {
        "request": "r-1",
        "api": "v1",
        "method": "Classify",
        "model": "digits",
        "version": "3",
        "caller": "alice",
        "peer": "ipv4:127.0.0.1:1",
        "code": "OK",
        "images": 32,
        "queue_ms": 1.0,
        "compute_ms": 2.5,
        "batch": 64,
    }


def test_a_failure_says_what_its_caller_was_told() -> None:
    (line,) = lines_of(1.0, [(call(), "INVALID_ARGUMENT")], "pixels has 783 bytes")
    assert (line["code"], line["sentence"]) == ("INVALID_ARGUMENT", "pixels has 783 bytes")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_answered_calls_are_sampled_by_the_share(share: float) -> None:
    count = len(lines_of(share, [(call(), "OK")] * 2000))
    # Four standard deviations of a binomial; the seed is fixed.
    assert abs(count - 2000 * share) <= 4 * (2000 * share * (1 - share)) ** 0.5


def test_a_share_of_0_is_none_even_of_the_least_random_number() -> None:
    stream = io.StringIO()
    log = AccessLog(0.0, stream)
    log._random = lambda: 0.0
    log.finished(call(), "OK")
    log.close(LIMIT_S)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1e-9, 3)])
def test_callers_mistakes_are_always_logged_unless_the_share_is_0(
    share: float, expected: int
) -> None:
    codes = ["INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"]
    assert len(lines_of(share, [(call(), code) for code in codes])) == expected


def test_the_servers_own_faults_are_always_logged() -> None:
    many = [(call(), code) for code in sorted(SERVER_FAULTS)] * FAILURES_PER_SECOND
    assert len(lines_of(0.0, many)) == len(many)


def test_a_storm_of_bad_requests_is_no_storm_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr(access_log.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    log = AccessLog(1e-9, stream)
    for _ in range(FAILURES_PER_SECOND + 150):
        log.finished(call(), "INVALID_ARGUMENT")
    now[0] = 6.0
    for _ in range(2):
        log.finished(call(), "INVALID_ARGUMENT")
    log.close(LIMIT_S)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == FAILURES_PER_SECOND + 2
    assert [line["omitted"] for line in lines if "omitted" in line] == [150]
    assert "omitted" in lines[-2]


def test_nothing_that_a_caller_sends_breaks_a_line_or_fills_it() -> None:
    hostile = 'x"\n\x1b[31m{"code":"OK"}\x00\x7f\u2028\udcff' + "é" * 10_000
    stream = io.StringIO()
    log = AccessLog(1.0, stream)
    log.finished(call(request_id=hostile, model=hostile), "NOT_FOUND", hostile)
    log.close(LIMIT_S)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.isascii()
    assert text.rstrip("\n").isprintable()
    assert len(text) < 3 * TEXT * 6 + 500  # a letter takes up to six characters in JSON
    assert json.loads(text)["request"].startswith('x"??[31m{"code":"OK"}????é')


def test_metadata_is_never_logged() -> None:
    stream = io.StringIO()
    log = AccessLog(1.0, stream)
    for code in ("OK", "UNAUTHENTICATED", "INTERNAL"):
        log.finished(call(), code)
    log.close(LIMIT_S)
    assert stream.getvalue().count("\n") == 3
    assert "hush" not in stream.getvalue()


@settings(max_examples=50)
@given(st.text(max_size=2 * TEXT))
def test_printable_is_short_printable_and_harmless_to_what_is(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == min(len(text), TEXT)
    assert all(a == b or b == "?" for a, b in zip(text, shown, strict=False))


def test_a_reader_that_does_not_read_holds_up_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "WAITING_LINES", 50)
    released, inside = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            inside.set()
            assert released.wait(LIMIT_S)
            return super().write(text)

    stream = Stuck()
    log = AccessLog(1.0, stream)
    log.finished(call(), "OK")
    assert inside.wait(LIMIT_S)
    for _ in range(80):
        log.finished(call(), "OK")  # would hang here
    released.set()
    while log._lines:
        time.sleep(0.01)
    log.finished(call(), "OK")
    log.close(LIMIT_S)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 1 + 50 + 1
    assert lines[-1]["omitted"] == 30


def test_a_reader_that_has_gone_ends_no_call() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    log = AccessLog(1.0, stream)
    log.finished(call(), "OK")
    log._writer.join(LIMIT_S)
    assert not log._writer.is_alive()
    log.finished(call(), "OK")
    log.close()
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_lines_come_without_waiting_for_the_end() -> None:
    stream = io.StringIO()
    log = AccessLog(1.0, stream)
    log.finished(call(), "OK")
    end = time.monotonic() + LIMIT_S
    while not stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    assert stream.getvalue().endswith("}\n")
    log.close(LIMIT_S)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        AccessLog(share)
