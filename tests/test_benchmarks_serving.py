"""The benchmark of the service: its messages, its tables, the echo, and the load generator."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks import echo_server, serving
from benchmarks.load import asked, contestants, generator, messages, turns
from benchmarks.load.asked import Asked
from benchmarks.load.contestants import Contestant, Missing
from benchmarks.load.generator import Load, Plan, Unavailable
from benchmarks.load.turns import Row, Turn
from jaxnn import data
from service.pb import digits_pb2

IMAGES = np.arange(3 * 784, dtype=np.uint32).astype(np.uint8).reshape(3, 784)
LINE: dict[str, Any] = {
    "requests": 2,
    "errors": {"INTERNAL": 1},
    "seconds": 0.5,
    "rate": 4.0,
    "p50": 1.0,
    "p90": 2.0,
    "p99": 3.0,
    "max": 4.0,
    "reply_bytes": 5,
    "answered": 9,
}


def dynamic(fields: dict[str, list[tuple[str, int, Any, bool]]]) -> dict[str, Any]:
    """Message classes in a pool of their own, by protobuf itself: name, number, type, repeated."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for message, members in fields.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated in members:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".t.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))
        for name in fields
    }


TEXT, BYTES, INT64, FLOAT = (
    descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
)
V2 = dynamic(
    {
        "Contents": [("int64_contents", 3, INT64, True), ("fp32_contents", 6, FLOAT, True)],
        "Tensor": [
            ("name", 1, TEXT, False),
            ("datatype", 2, TEXT, False),
            ("shape", 3, INT64, True),
            ("contents", 5, "Contents", False),
        ],
        "Request": [
            ("model_name", 1, TEXT, False),
            ("inputs", 5, "Tensor", True),
            ("raw", 7, BYTES, True),
        ],
        "Reply": [
            ("model_name", 1, TEXT, False),
            ("outputs", 5, "Tensor", True),
            ("raw", 6, BYTES, True),
        ],
    }
)


def test_requests_of_v1_are_what_protobuf_reads() -> None:
    data = messages.request(messages.V1, IMAGES)
    assert digits_pb2.ClassifyRequest.FromString(data).pixels == IMAGES.tobytes()


@pytest.mark.parametrize("api", [messages.V2, messages.V2_BYTES])
def test_requests_of_v2_are_what_protobuf_reads(api: str) -> None:
    request = V2["Request"].FromString(messages.request(api, IMAGES))
    (tensor,), (raw,) = request.inputs, request.raw
    assert (request.model_name, tensor.name) == ("digits", "images")
    if api == messages.V2:
        assert (tensor.datatype, list(tensor.shape)) == ("UINT8", [3, 784])
        assert raw == IMAGES.tobytes()
    else:
        assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [3])
        assert raw == b"".join(b"\x10\x03\0\0" + image.tobytes() for image in IMAGES)  # 784


def test_labels_are_found_in_the_replies_of_both_apis() -> None:
    v1 = digits_pb2.ClassifyResponse(labels=[7, 0, 300], scores=[0.5] * 30, classes=10)
    assert messages.labels(messages.V1, v1.SerializeToString()) == [7, 0, 300]
    tensors = [
        V2["Tensor"](name="scores", datatype="FP32", shape=[3, 10]),
        V2["Tensor"](name="labels", datatype="INT64", shape=[3]),
    ]
    raw = [np.zeros(30, "<f4").tobytes(), np.array([7, 0, 300], "<i8").tobytes()]
    reply = V2["Reply"](model_name="digits", outputs=tensors, raw=raw)
    assert messages.labels(messages.V2, reply.SerializeToString()) == [7, 0, 300]
    tensors[0].contents.fp32_contents.extend([0.5] * 30)
    tensors[1].contents.int64_contents.extend([7, 0, 300])
    typed = V2["Reply"](model_name="digits", outputs=tensors)
    assert messages.labels(messages.V2, typed.SerializeToString()) == [7, 0, 300]
    with pytest.raises(ValueError, match="no output named labels"):
        messages.labels(messages.V2, V2["Reply"](outputs=tensors[:1]).SerializeToString())


def test_the_labels_to_expect_are_those_of_the_shipped_network(tmp_path: Path) -> None:
    network = asked.store(tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz", allow_pickle=False) as stored:
        assert {name: stored[name].shape for name in stored} == {
            name: array.shape for name, array in network.items()
        }
    digits = data.load("embedded")
    found = np.array(asked.labels(network, digits.test_images.reshape(-1, 784)))
    assert (found == digits.test_labels).mean() > 0.9  # a network that is read wrong has 0.1
    questions = asked.written(messages.V1, (1, 5), network, tmp_path)
    assert [len(one.requests) for one in questions.values()] == [asked.DIFFERENT, 1]
    assert len({path.read_bytes() for path in questions[1].requests}) == asked.DIFFERENT
    assert questions[5].labels == found[:5].tolist()


def test_a_server_with_other_labels_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = digits_pb2.ClassifyResponse(labels=[1, 2]).SerializeToString()
    monkeypatch.setattr(asked, "reply", lambda *_: reply)
    asked.check("one", "", messages.V1, {2: Asked((Path(),), [1, 2])})
    with pytest.raises(AssertionError, match="one gives other labels to 2 images"):
        asked.check("one", "", messages.V1, {2: Asked((Path(),), [1, 3])})


def test_the_generators_line_and_its_flags() -> None:
    assert generator.parsed(json.dumps(LINE)) == Load(**LINE)
    plan = Plan("h:1", "/s/m", (Path("a"), Path("b")), 3, 2, 1.0, 0.5, rate=9.0, headers=("x=y=z",))
    words = " ".join(plan.words())
    assert "--target h:1 --method /s/m --callers 3 --channels 2 --seconds 1.0" in words
    assert words.endswith("--rate 9.0 --request a --request b --header x=y=z")
    assert [generator.channels(n) for n in (1, 8, 32, 128)] == [1, 1, 4, 16]
    assert [generator.channels(n, 2) for n in (1, 8, 128)] == [1, 8, 16]


def test_what_is_missing_for_the_generator_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "BUILT", tmp_path / "build" / "load")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"packages g\+\+ and pkg-config"):
        generator.program()
    for tool in ("g++", "pkg-config"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(Unavailable, match=r"install Debian's package libgrpc\+\+-dev"):
        generator.program()
    assert "libgrpc++-dev" in serving.run(quick=True)["left_out"]
    (tmp_path / "pkg-config").write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable, match=r"load.cc does not compile"):
        generator.program()


def test_a_peer_that_cannot_be_installed_is_missing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAXNN_BENCH_MLSERVER", raising=False)
    monkeypatch.setattr(contestants, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(contestants.venv, "create", lambda folder, with_pip: folder.mkdir())
    failed = subprocess.CompletedProcess([], 1, "", "first\nno such package\n")
    monkeypatch.setattr(contestants.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Missing, match="MLServer cannot be installed here: no such package"):
        contestants.python_of("MLServer")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("JAXNN_BENCH_MLSERVER", "elsewhere")
    assert contestants.python_of("MLServer") == "elsewhere"


def test_a_server_that_ends_is_quoted(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "print('listening on'); raise SystemExit('no port')")
    with (
        pytest.raises(RuntimeError, match=r"(?s)one ended with 1: .*no port"),
        contestants.started(Contestant("one", command), tmp_path / "log"),
    ):
        pass


def test_the_processor_time_of_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"
    before = contestants.cpu_seconds(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert contestants.cpu_seconds(child.pid) >= 0.25  # the clock's ticks are 10 ms
        assert contestants.cpu_seconds(os.getpid()) - before >= 0.25
        child.communicate(b"\n")


def test_the_echo_sends_the_reply_of_a_requests_length(tmp_path: Path) -> None:
    request, reply = tmp_path / "request", tmp_path / "reply"
    request.write_bytes(b"12345")
    reply.write_bytes(b"a reply")
    answer = echo_server.echo([(request, reply)], keep_memory=False)
    assert [answer(b"abcde"), answer(b"abc")] == [b"a reply", b"abc"]
    entered = contestants.echo("echo", messages.V1, [(request, reply)], 2, "--keep-memory")
    with contestants.started(entered, tmp_path / "log") as server:
        assert asked.reply(server.target, messages.V1, request) == b"a reply"


class Strict(grpc.GenericRpcHandler):
    """Answers three bytes to callers with a token, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if ("authorization", "Bearer t") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        self.seen.add(request)
        return b"abc"


@pytest.fixture
def strict() -> Iterator[tuple[Strict, str]]:
    handler, server = Strict(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_the_generator_counts_answers_errors_and_times(
    strict: tuple[Strict, str], tmp_path: Path
) -> None:
    try:
        generator.program()
    except Unavailable as error:
        pytest.skip(str(error))
    handler, target = strict
    paths = (tmp_path / "a", tmp_path / "b")
    for path in paths:
        path.write_text(path.name)
    plan = Plan(target, "/s/m", paths, callers=2, channels=2, seconds=0.2, warmup=0.05)
    known = plan._replace(headers=("authorization=Bearer t",))
    load = generator.run(known)
    assert load.requests > 0
    assert load.answered >= load.requests
    assert (load.errors, load.reply_bytes, handler.seen) == ({}, 3, {b"a", b"b"})
    assert load.rate == pytest.approx(load.requests / 0.2, rel=1e-3)
    assert 0 < load.p50 <= load.p90 <= load.p99 <= load.max
    # Half-open windows of 0.2 s at 100 a second hold 20 due times, one more or less by rounding.
    paced = generator.run(known._replace(rate=100.0, callers=1000))
    assert paced.requests == pytest.approx(20, abs=1)
    refused = generator.run(plan)
    assert refused.requests == 0
    assert list(refused.errors) == ["UNAUTHENTICATED"]
    with pytest.raises(RuntimeError, match="callers and channels are 1 or more"):
        generator.run(plan._replace(callers=0))


def load_of(**changes: Any) -> Load:
    return Load(**{**LINE, "errors": {}, **changes})


def test_a_turn_is_a_closed_loop_and_then_half_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def run(plan: Plan) -> Load:
        plans.append(plan)
        return load_of(rate=800.0)

    monkeypatch.setattr(generator, "run", run)
    monkeypatch.setattr(contestants, "cpu_seconds", lambda pid: 0.009 * len(plans))
    server = contestants.Running("h:1", 1)
    given = Asked((Path("a"),), [1])
    turn = turns.take(Row(1, 32), server, messages.V1, given, 1, 0.5)
    assert [(one.callers, one.channels, one.rate) for one in plans] == [(32, 4, 0), (1000, 4, 400)]
    assert turn.cpu_us == pytest.approx(1000)  # 9 ms for 9 answers
    monkeypatch.setattr(generator, "run", lambda plan: load_of(requests=0, errors={"INTERNAL": 3}))
    with pytest.raises(RuntimeError, match=r"no request was answered .*\{'INTERNAL': 3}"):
        turns.take(Row(1, 32), server, messages.V1, given, 1, 0.5)


def test_a_summary_has_medians_and_all_errors() -> None:
    taken = [
        Turn(
            load_of(rate=rate, p50=rate / 10, errors={"INTERNAL": 1}),
            load_of(p99=rate, errors={"INTERNAL": 2, "NOT_SENT": 1}),
            cpu_us=rate / 2,
        )
        for rate in (100.0, 400.0, 200.0)
    ]
    found = turns.summary(taken)
    assert found["rate"] == {"median": 200, "low": 150, "high": 300}
    assert (found["p50"], found["half_p99"], found["cpu_us"]) == (20, 200, 100)
    assert found["errors"] == {"INTERNAL": 9, "NOT_SENT": 3}


def test_the_table_compares_with_the_better_echo() -> None:
    def one(rate: float, **changes: Any) -> dict[str, Any]:
        times = {"p50": 10.0, "p99": 30.0, "cpu_us": 5.0, "half_p50": 4.0, "half_p99": 10.0}
        rates = {"median": rate, "low": rate - 1, "high": rate + 1}
        return {"rate": rates, **times, "errors": {}, **changes}

    found = {
        serving.ECHO: one(1000),
        serving.ECHO_KEPT: one(2000, half_p99=8.0),
        serving.OURS: one(1200, errors={"UNAVAILABLE": 7}),
        serving.LEAN: one(1500, p50=20.0),
        serving.REJECTING: one(400),
        "MLServer": one(50),
    }
    result = {
        "api": "v1",
        "processes": 2,
        "rounds": 3,
        "seconds": 1.5,
        "server_args": "--a b",
        "versions": {"grpcio": "1.2"},
        "absent": {"ONNX Runtime": "no network"},
        "rows": [{**Row(4000, 8, 0.6)._asdict(), "contestants": found}],
    }
    lines = serving.table(result).splitlines()
    assert lines[0] == (
        "jaxnn.v1, 2 processes with `--a b`; 3 rounds of 1.5 s; medians (quartiles). grpcio 1.2."
    )
    assert (
        "| 4,000 / 8 | 2,000 (1,999 to 2,001) | 1,200 (1,199 to 1,201) | 1,500 (1,499 to 1,501) "
        "| 0.60 | 0.75 | 0.20 | 0.60 | 50 |"
    ) in lines
    assert "| 4,000 / 8 | 10 | 30 | 5 | 20 | 30 | 5 | 4 | 10 | 2.5 | 2.0 |" in lines
    assert "ONNX Runtime is absent: no network." in lines
    assert "4,000 / 8, jaxnn: 7 UNAVAILABLE." in lines
