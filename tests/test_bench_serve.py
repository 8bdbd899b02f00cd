"""`jaxnn bench-serve`: what is sent to either API, and honest figures. No speed is asserted."""

import asyncio
import itertools
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fakes import Fake, answer
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import cli, data
from jaxnn.errors import ConfigError
from service.calling import load
from service.calling.load import Load, Tally
from service.calling.questions import Line, Questions, Wanted, of_v1, of_v2
from service.errors import NoSuchModel, ServiceError

DIGITS = data.load("embedded").test_images


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def measured(ask: Callable[[float], Awaitable[None]], **changed: Any) -> Tally:
    wanted = Load(**{"concurrency": 1, "duration": 0.2, "warmup": 0.0, **changed})
    return load.precisely(load.measure([ask], wanted))


# The loops


@pytest.mark.parametrize(("rate", "above"), [(200.0, 15), (None, 1)])
def test_a_stall_is_felt_by_all_who_were_due_in_it(rate: float | None, above: int) -> None:
    """One stall of 0.2 s: of 200 requests/s, 20 were due more than 0.1 s before its end."""
    first = itertools.count()

    async def ask(timeout: float) -> None:
        await asyncio.sleep(0.2 if next(first) == 0 else 0.001)

    tally = measured(ask, rate=rate, duration=0.3)
    late = sum(latency > 0.1 for latency in tally.latencies)
    assert above <= late <= 40 if rate else late == above
    assert max(tally.latencies) >= 0.19


def test_what_was_never_sent_counts_with_the_time_it_waited() -> None:
    async def ask(timeout: float) -> None:
        await asyncio.sleep(0.3)

    tally = measured(ask, rate=100.0)
    assert tally.unsent == 19  # of 20 that were due
    assert tally.answered == 0  # not in time
    assert len(tally.latencies) == 20
    assert all(0.1 < latency < 0.4 for latency in tally.latencies)


def test_no_more_callers_than_asked_for_and_all_ways_taken() -> None:
    busy = most = 0
    taken = [0, 0, 0]

    def way(index: int) -> Callable[[float], Awaitable[None]]:
        async def ask(timeout: float) -> None:
            nonlocal busy, most
            assert timeout == 7.0
            busy, most = busy + 1, max(most, busy + 1)
            taken[index] += 1
            await asyncio.sleep(0.005)
            busy -= 1

        return ask

    wanted = Load(concurrency=5, duration=0.2, warmup=0, timeout=7.0)
    tally = load.precisely(load.measure([way(0), way(1), way(2)], wanted))
    assert most == 5
    assert max(taken) - min(taken) <= 3
    assert 0 <= sum(taken) - tally.answered <= 5  # those under way at the end


def test_errors_are_counted_by_code_and_only_waiting_has_a_latency() -> None:
    codes = itertools.cycle(["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", ""])

    async def ask(timeout: float) -> None:
        await asyncio.sleep(0.001)
        if code := next(codes):
            raise Refused(grpc.StatusCode[code])

    tally = measured(ask)
    refused, expired = tally.errors["RESOURCE_EXHAUSTED"], tally.errors["DEADLINE_EXCEEDED"]
    assert refused > 1 and set(tally.errors) == {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert len(tally.latencies) in (expired + tally.answered, expired + tally.answered + 1)


def test_the_warm_up_does_not_count() -> None:
    asked = 0

    async def ask(timeout: float) -> None:
        nonlocal asked
        asked += 1

    tally = measured(ask, rate=200.0, warmup=0.2, duration=0.1)
    assert asked == 60
    assert 19 <= len(tally.latencies) <= 21 and 15 <= tally.answered <= 25


@settings(max_examples=30)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50))
def test_quantiles_are_latencies_and_the_histogram_holds_all(latencies: list[float]) -> None:
    found = load.quantiles(latencies)
    for name, share in load.QUANTILES.items():
        assert found[name] == sorted(latencies)[math.ceil(share * len(latencies)) - 1]
    bars = load.histogram(latencies)
    assert sum(bar.size for bar in bars) == len(latencies)
    assert all(one.high == other.low for one, other in itertools.pairwise(bars))


def test_nothing_measured_is_nothing_said() -> None:
    assert load.quantiles([]) == {}
    assert load.histogram([]) == []


# The questions


def asked(
    fake: Fake, prepare: Callable[[Line, Wanted], Awaitable[Questions]], **wanted: Any
) -> Questions:
    async def ask() -> Questions:
        async with grpc.aio.insecure_channel(fake.target) as channel:
            line = Line(fake.target, channel, (("authorization", "Bearer t"),), 10.0)
            return await prepare(line, Wanted(**wanted))

    found = asyncio.run(ask())
    assert all(each.metadata["authorization"] == "Bearer t" for each in fake.asked)
    return found


def test_v1_sends_real_digits_to_the_model_that_was_named() -> None:
    with Fake() as fake:
        found = asked(fake, of_v1, rows=3, model="m", version="7", skip_rejection=True)
    assert found.path == "/jaxnn.v1.DigitClassifier/Classify"
    about, request = (each.request for each in fake.asked)
    assert (about.name, about.version) == ("m", "7")
    assert found.requests[0] == request.SerializeToString()
    assert len(set(found.requests)) == len(found.requests) == 8
    assert (request.model_name, request.model_version, request.skip_rejection) == ("m", "7", True)
    np.testing.assert_array_equal(
        np.frombuffer(request.pixels, np.uint8).reshape(3, 28, 28), DIGITS[:3]
    )


@pytest.mark.parametrize(
    ("datatype", "shape", "wanted", "sent_shape"),
    [
        ("UINT8", [-1, 28, 28], {"rows": 2}, [2, 28, 28]),
        ("FP32", [-1, 784], {"rows": 2}, [2, 784]),
        ("FP32", [784], {}, [784]),
        ("FP32", [-1, 784], {"rows": 2, "datatype": "UINT8"}, [2, 784]),
        ("FP32", [-1, -1], {"rows": 2, "shape": (28, 28, 1)}, [2, 28, 28, 1]),
        ("FP32", [-1, 10], {"rows": 2}, [2, 10]),
    ],
)
def test_v2_sends_what_the_metadata_say(
    datatype: str, shape: list[int], wanted: dict[str, Any], sent_shape: list[int]
) -> None:
    with Fake() as fake:
        fake.inputs = [("pictures", "BYTES", [-1]), ("x", datatype, shape)]
        found = asked(fake, of_v2, model="m", **wanted)
    assert found.path == "/inference.GRPCInferenceService/ModelInfer"
    about, request = (each.request for each in fake.asked)
    assert (about.name, request.model_name) == ("m", "m")
    (tensor,) = request.inputs
    datatype = wanted.get("datatype", datatype)
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", datatype, sent_shape)
    (raw,) = request.raw_input_contents
    sent = np.frombuffer(raw, np.uint8 if datatype == "UINT8" else "<f4")
    assert sent.size == math.prod(sent_shape)
    truth = DIGITS.reshape(-1)[: sent.size]
    if datatype == "UINT8":
        np.testing.assert_array_equal(sent, truth)
    else:
        np.testing.assert_array_equal(sent, (truth / 255).astype(np.float32))


def test_v2_asks_for_no_metadata_where_all_is_said() -> None:
    with Fake() as fake:
        asked(fake, of_v2, input="x", datatype="FP32", shape=(784,))
    assert [each.method for each in fake.asked] == ["ModelInfer"]


def test_a_server_that_cannot_be_asked_is_named() -> None:
    with Fake(images=2) as fake:
        with pytest.raises(ConfigError, match="rows is 3, over the limit of 2 images"):
            asked(fake, of_v1, rows=3)
        fake.classify = lambda request: answer(request, labels=[1, 2, 3])
        with pytest.raises(ServiceError, match="answered 3 rows for 2"):
            asked(fake, of_v1, rows=2)
        fake.refusals = [(grpc.StatusCode.NOT_FOUND, None)]
        with pytest.raises(NoSuchModel, match="refused"):
            asked(fake, of_v1)
        fake.inputs = [("text", "BYTES", [-1])]
        sentence = r"has the inputs text \(BYTES\): expected one of UINT8 or FP32"
        with pytest.raises(ConfigError, match=sentence):
            asked(fake, of_v2)
        fake.inputs = [("x", "FP32", [784])]
        with pytest.raises(ConfigError, match="holds no batch: ask for 1 row"):
            asked(fake, of_v2, rows=2)
        with pytest.raises(ConfigError, match=r"expected y of UINT8 or FP32"):
            asked(fake, of_v2, input="y")
        fake.inputs = [("x", "FP32", [-1, -1, 3])]
        with pytest.raises(ConfigError, match="give the shape of one image"):
            asked(fake, of_v2)
        with pytest.raises(ConfigError, match=r"a request would have \d+ bytes"):
            asked(fake, of_v2, shape=(10**6, 10**6))


# The command

SHORT = ["--duration", "0.1", "--warmup", "0.02"]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["--rows", "2", "--concurrency", "3", "--connections", "2"], "Classify"),
        (["--rate", "200", "--rows", "2"], "Classify"),
        (["--api", "v2", "--rows", "2", "--datatype", "FP32"], "ModelInfer"),
    ],
)
def test_the_command_measures(
    words: list[str], path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAXNN_TOKEN", "s3cret")
    with Fake() as fake:
        code = cli.main(["bench-serve", fake.target, *SHORT, *words, "--json", "-"])
        assert code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images_per_s"] == 2 * result["requests_per_s"] > 0
    assert list(result["latency_ms"]) == ["p50", "p90", "p99", "p99.9", "max"]
    assert result["errors"] == {}
    assert {asked.metadata["authorization"] for asked in fake.asked} == {"Bearer s3cret"}
    sent = [asked for asked in fake.asked if asked.method == path]
    counted = sum(size for *_, size in result["histogram_ms"])
    assert 0 < counted <= len(sent) + result["unsent"]
    assert len({asked.peer for asked in sent}) == result["connections"]


def test_people_get_figures_bars_and_what_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = itertools.count()

    def moody(request: Any) -> Any:
        if next(turn) % 2:
            raise ValueError("not now")
        return answer(request)

    target = tmp_path / "result.json"
    with Fake() as fake:
        fake.classify = moody
        words = ["bench-serve", fake.target, *SHORT, "--concurrency", "1", "--json", str(target)]
        assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{fake.target}, API v1: 1 image a request, 1 caller, 1 connection, closed loop, 0.1 s"
    )
    result = json.loads(target.read_text())
    figures = result["requests_per_s"], result["images_per_s"]
    assert lines[1] == "{:,.1f} requests/s   {:,.1f} images/s".format(*figures)
    assert any("p99.9" in line for line in lines)
    assert sum("█" in line for line in lines) >= 1
    failed = result["errors"]["INVALID_ARGUMENT"]
    assert any(line == f"{failed:,} requests failed with INVALID_ARGUMENT" for line in lines)


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    turn = itertools.count()

    def once(request: Any) -> Any:
        if next(turn):
            raise ValueError("no more")
        return answer(request)

    with Fake() as fake:
        fake.classify = once
        assert cli.main(["bench-serve", fake.target, *SHORT]) == 1
        assert "answered no request in time" in capsys.readouterr().err
        for words, said in (
            (["--rows", "0"], "rows is 0, expected"),
            (["--rows", "5000"], "over the limit of 4096 images"),
            (["--concurrency", "0"], "concurrency is 0, expected"),
            (["--rate", "0"], "rate is 0.0, expected"),
            (["--rate", "1e9"], "rate is 1e+09, expected at most"),
            (["--duration", "inf"], "duration is inf, expected"),
            (["--warmup", "-1"], "warmup is -1.0, expected"),
            (["--shape", "28", "0", "--api", "v2"], "shape is (28, 0), expected"),
            (["--input", "x"], "are of v2: add --api v2"),
            (["--api", "v2", "--skip-rejection"], "--skip-rejection is of v1"),
            (["--tls-ca", "absent.pem"], "absent.pem cannot be read"),
        ):
            assert cli.main(["bench-serve", fake.target, *SHORT, *words]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert said in line
    assert cli.main(["bench-serve", fake.target, *SHORT]) == 1
    assert f"no server answers at {fake.target}" in capsys.readouterr().err
    assert cli.main(["bench-serve", "nowhere"]) == 2
