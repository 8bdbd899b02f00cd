"""Stops: nothing that was accepted is lost, nobody who waits holds them up, and they end well.

JAXNN_SOAK=1 (`make soak`) stops a server under load 200 times instead of 8.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hostile import LIMIT_S, SOAK, Device
from serving import ROOT, pixels, serving, stub_model

from service.pb import digits_pb2_grpc
from service.pb import open_inference_grpc_pb2 as pb
from service.server import Running

V1, V2 = "/jaxnn.v1.DigitClassifier", "/inference.GRPCInferenceService"
STREAMS = f"{V1}/ClassifyStream", f"{V2}/ModelStreamInfer"
STREAMING = 4  # of 24 callers
ROUNDS = 200 if SOAK else 8
CODE = grpc.StatusCode
READY = health_pb2.HealthCheckResponse.SERVING

# Imports once, before there are threads, and then has a child for each stop. A child answers after
# two milliseconds, loads its model for as long as it is told, and at its end says what it counted.
NURSERY = """
import json, os, sys, time
sys.path.insert(0, "tests")
from serving import first_pixel, stub_model
from service import registry, server
from service.config import ServiceConfig

def slow(images):
    time.sleep(0.002)
    return first_pixel(images)

def serve(loading):
    def load(*_, **__):
        print("loading", flush=True)
        time.sleep(loading)
        return stub_model(slow)
    made, make = [], server.Telemetry
    server.Telemetry = lambda: made.append(make()) or made[0]
    registry.load_model = load
    server.serve(ServiceConfig(port=0, max_batch_size=64, inline_images=4))
    print(json.dumps(made[0].snapshot()["counters"]), flush=True)

print("here", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        serve(float(line))
        sys.exit(0)
    print(child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Where servers come from."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def born(self, loading: float = 0.0) -> int:
        """A new server's process, which has begun to load its model."""
        assert self._process.stdin
        print(loading, file=self._process.stdin, flush=True)
        said = {self.line(), self.line()}  # whichever is first
        said.remove("loading")
        return int(said.pop())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as process:
        made = Nursery(process)
        assert made.line() == "here"
        yield made
        assert process.stdin
        process.stdin.close()  # its end
        with suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT_S / 4)
        process.kill()


@contextmanager
def child(nursery: Nursery, loading: float = 0.0) -> Iterator[int]:
    """A server that does not outlive the test."""
    pid = nursery.born(loading)
    try:
        yield pid
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise


def test_a_stop_under_load_loses_nothing_that_was_accepted(nursery: Nursery) -> None:
    """What the server says that it answered is what its callers got: no more and no less."""
    chance = random.Random(5)  # noqa: S311 - chance, no secret
    for _ in range(ROUNDS):
        with child(nursery) as pid:
            target = nursery.line().removeprefix("listening on ")
            found = asyncio.run(_loaded(target, pid, chance.uniform(0.02, 0.25)))
            counters = json.loads(nursery.line())
            assert nursery.line() == "ended 0"
        told = Counter[str]()
        for name, labels, value in counters:
            if name == "requests":
                told[labels[4]] += value
        assert told["OK"] == found[CODE.OK] > 0
        assert set(found) == {CODE.OK, CODE.UNAVAILABLE}
        assert set(told) <= {"OK", "UNAVAILABLE"}
        assert told["UNAVAILABLE"] <= found[CODE.UNAVAILABLE] + STREAMING


async def _loaded(target: str, pid: int, after: float) -> Counter[grpc.StatusCode]:
    """How calls end that go on until they are refused; the server is told to stop in between."""
    found = Counter[grpc.StatusCode]()

    async def one(stub: digits_pb2_grpc.DigitClassifierStub, images: int) -> None:
        code = CODE.OK
        while code is CODE.OK:
            call = stub.Classify(pixels(*range(images)), timeout=LIMIT_S)
            code = await call.code()
            found[code] += 1

    async def many(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
        """A stream, whose last answer is followed by its refusal."""
        call = stub.ClassifyStream(timeout=LIMIT_S)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(pixels(1))
                if await call.read() is grpc.aio.EOF:
                    break
                found[CODE.OK] += 1
        # Not its code: gRPC's client says INTERNAL itself if it was about to write.

    options = [("grpc.use_local_subchannel_pool", 1)]
    async with asyncio.timeout(LIMIT_S / 2), asyncio.TaskGroup() as tasks:
        channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(4)]
        for at in range(24):
            stub = digits_pb2_grpc.DigitClassifierStub(channels[at % 4])
            tasks.create_task(many(stub) if at % 6 == 5 else one(stub, 1 + at))
        await asyncio.sleep(after)
        os.kill(pid, signal.SIGTERM)
    for channel in channels:
        await channel.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_first_model_loads_is_a_good_end_at_once(
    nursery: Nursery, number: signal.Signals
) -> None:
    with child(nursery, loading=60) as pid:
        began = time.monotonic()
        os.kill(pid, number)
        assert nursery.line() == "ended 0"
        assert time.monotonic() - began < 30  # half of what it would have loaded


def test_a_change_while_the_first_model_loads_ends_nothing(nursery: Nursery) -> None:
    with child(nursery, loading=0.3) as pid:
        os.kill(pid, signal.SIGHUP)
        assert nursery.line().startswith("listening on ")
        os.kill(pid, signal.SIGTERM)
        assert json.loads(nursery.line())
        assert nursery.line() == "ended 0"


@asynccontextmanager
async def stopped(server: Any) -> AsyncIterator[Running]:
    """A server; on leaving it has to end within a part of its grace."""
    running = await server.__aenter__()
    try:
        yield running
    finally:
        async with asyncio.timeout(LIMIT_S / 4):
            await server.__aexit__(None, None, None)


def test_those_who_only_wait_do_not_hold_up_a_stop() -> None:
    async def scenario() -> None:
        async with stopped(serving(stub_model(), shutdown_grace_s=LIMIT_S)) as server:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            silent = [channel.stream_stream(path)() for path in STREAMS]
            spoken = []
            request = pixels(7).SerializeToString(), pb.ModelInferRequest().SerializeToString()
            for path, data in zip(STREAMS, request, strict=True):
                spoken.append(channel.stream_stream(path)())
                await spoken[-1].write(data)
                assert await spoken[-1].read() is not grpc.aio.EOF
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == READY
            idle = await asyncio.open_connection("127.0.0.1", server.port)
        for call in (*silent, *spoken):
            assert await call.code() is CODE.UNAVAILABLE
            assert "stopping" in await call.details()
        assert (await watch.read()).status != READY
        assert await watch.read() is grpc.aio.EOF
        idle[1].close()
        await channel.close()

    asyncio.run(scenario())


def test_a_stream_at_work_gets_its_answer_and_then_ends() -> None:
    """Its caller says no more, so that only the server can end it."""
    device = Device()
    device.free.clear()

    async def scenario() -> None:
        wanted = {"inline_images": 0, "shutdown_grace_s": LIMIT_S}
        async with stopped(serving(stub_model(device), **wanted)) as server:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream()
            await call.write(pixels(7))
            await device.busy()
            asyncio.get_running_loop().call_later(0.3, device.free.set)
        assert list((await call.read()).labels) == [7]
        assert await call.code() is CODE.UNAVAILABLE
        await channel.close()

    asyncio.run(scenario())


def test_what_takes_longer_than_the_grace_is_cut_off() -> None:
    device = Device()
    device.free.clear()

    async def scenario() -> None:
        server = serving(stub_model(device), inline_images=0, shutdown_grace_s=0.2)
        running = await server.__aenter__()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
        call = digits_pb2_grpc.DigitClassifierStub(channel).Classify(pixels(7), timeout=LIMIT_S)
        await device.busy()
        # A thread cannot be cut off: the end of the server waits for what it computes.
        threading.Timer(1.0, device.free.set).start()
        ending = asyncio.create_task(server.__aexit__(None, None, None))
        await ending
        assert await call.code() is CODE.UNAVAILABLE
        await channel.close()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S / 4))


def test_readiness_is_gone_before_requests_are_refused() -> None:
    async def scenario() -> None:
        server = serving(stub_model(), shutdown_delay_s=0.5)
        running = await server.__aenter__()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
        health, stub = (
            health_pb2_grpc.HealthStub(channel),
            digits_pb2_grpc.DigitClassifierStub(channel),
        )
        ready = channel.unary_unary(f"{V2}/ServerReady")
        model = channel.unary_unary(f"{V2}/ModelReady")
        named = pb.ModelReadyRequest(name="stub").SerializeToString()
        assert pb.ServerReadyResponse.FromString(await ready(b"")).ready
        ending = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        for name in ("", "stub", "jaxnn.v1.DigitClassifier"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request)).status != READY
        assert not pb.ServerReadyResponse.FromString(await ready(b"")).ready
        assert not pb.ModelReadyResponse.FromString(await model(named)).ready
        live = channel.unary_unary(f"{V2}/ServerLive")
        assert pb.ServerLiveResponse.FromString(await live(b"")).live
        assert list((await stub.Classify(pixels(3))).labels) == [3]
        await ending
        assert await stub.Classify(pixels(3)).code() is CODE.UNAVAILABLE
        await channel.close()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S / 4))
