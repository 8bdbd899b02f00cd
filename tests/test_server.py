"""How a server starts, says that it is there, drops what nobody waits for, and stops."""

import asyncio
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from serving import (
    LIMIT_S,
    first_pixel,
    pixels,
    serve_async,
    serve_sync,
    server_process,
    serving,
    stub_model,
)

from jaxnn.errors import CheckpointError, ConfigError, RunError
from service.config import ServiceConfig, address
from service.digits import SERVICE
from service.pb import digits_pb2_grpc
from service.repository import Found, ServedModel
from service.server import running_server, serve
from service.token_file import new_token

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_follows_the_server_and_lets_its_watchers_go() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S / 2):  # half the grace: no watcher may use it up
            server = serving(stub_model(), shutdown_delay_s=0.2, shutdown_grace_s=LIMIT_S)
            port = (await server.__aenter__()).port
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for name in ("", SERVICE, "inference.GRPCInferenceService", "stub"):
                    request = health_pb2.HealthCheckRequest(service=name)
                    assert (await stub.Check(request)).status == SERVING
                with pytest.raises(grpc.RpcError) as unknown:
                    await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
                assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
                assert (await watch.read()).status == SERVING
                ending = asyncio.create_task(server.__aexit__(None, None, None))
                assert (await watch.read()).status == NOT_SERVING
                assert await watch.read() is grpc.aio.EOF
                await ending

    asyncio.run(scenario())


def test_the_log_says_what_was_started_and_the_metrics_count_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(new_token("alice")[1])
    repository = tmp_path / "models"
    for path in ("good/1", "good/v2"):
        (repository / path).mkdir(parents=True)
        (repository / path / "model.safetensors").touch()

    def stub_of(found: Found) -> ServedModel:
        return stub_model(name=found.name, version=found.version)

    async def scenario() -> int:
        config = ServiceConfig(port=0, repository=repository, tokens=tokens, shutdown_delay_s=0.0)
        async with running_server(config, stub_of) as server:
            assert server.telemetry.snapshot()["gauges"]["workers"] == 1
            for _ in range(2):
                server.look_again()
                await asyncio.gather(*server._looking)
            return server.port

    port = asyncio.run(scenario())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"1 token read from {tokens}"),
        ("INFO", "model good version 1 is ready, without rejection of what is no digit"),
        (
            "ERROR",
            f"{repository}/good/v2 is no version: name the folder by a whole number from 1, such "
            "as 3",
        ),
        (
            "INFO",
            f"listening on 127.0.0.1:{port} without TLS, with tokens: up to 4096 images or "
            "16777216 bytes a request, 16384 images in the queue",
        ),
    ]


def test_reflection_lists_the_services() -> None:
    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert set(database.get_services()) == {
                "jaxnn.v1.DigitClassifier",
                "inference.GRPCInferenceService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            file = database.FindFileContainingSymbol("jaxnn.v1.DigitClassifier")
            assert [method.name for method in file.service[0].method] == [
                "Classify",
                "ClassifyStream",
                "GetModel",
                "ListModels",
            ]
            for symbol in (
                "inference.GRPCInferenceService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            ):
                assert database.FindFileContainingSymbol(symbol).service

    serve_sync(stub_model(), scenario)


def test_an_address_that_cannot_be_had_is_one_sentence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def scenario(target: str) -> None:
        taken = int(target.rsplit(":", 1)[1])
        for host, port, reason in (
            ("127.0.0.1", taken, "Address already in use"),
            ("203.0.113.1", 0, "Cannot assign requested address"),
            ("a..b", 0, "label"),
        ):
            with pytest.raises(RunError, match=rf"cannot listen on {host}:{port} \(.*{reason}"):
                async with serving(stub_model(), host=host, port=port):
                    pass

    serve_async(stub_model(), scenario)
    assert capfd.readouterr().err == ""


def test_a_server_leaves_the_signals_as_they_were(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(CheckpointError, match="does not exist"):
        serve(ServiceConfig(port=0, model=tmp_path / "none"))
    assert [signal.getsignal(number) for number in numbers] == before


# Answers after a second, and says on stdout when it has begun.
SERVE_SLOWLY = """
import sys, time
sys.path.insert(0, "tests")
from serving import first_pixel, stub_model
from service import registry, server
from service.config import ServiceConfig
def slow(images):
    print("computing", flush=True)
    time.sleep(float(sys.argv[1]))
    return first_pixel(images)
registry.load_model = lambda *_, **__: stub_model(slow)
server.serve(ServiceConfig(port=0, inline_images=0))
"""


@pytest.fixture
def begun() -> Iterator[Callable[[str, subprocess.Popen[str]], grpc.Future]]:
    """Sends a request and returns its future once the server computes it."""
    channels = []

    def begin(target: str, server: subprocess.Popen[str]) -> grpc.Future:
        channels.append(grpc.insecure_channel(target))
        stub = digits_pb2_grpc.DigitClassifierStub(channels[-1])
        future = stub.Classify.future(pixels(7), timeout=LIMIT_S)
        assert server.stdout and server.stdout.readline() == "computing\n"
        return future

    yield begin
    for channel in channels:
        channel.close()


def test_sigterm_lets_a_request_in_flight_finish_and_accepts_no_other(
    begun: Callable[[str, subprocess.Popen[str]], grpc.Future],
) -> None:
    with server_process(SERVE_SLOWLY, "1") as (server, target):
        future = begun(target, server)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.poll() is None and not future.done()
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refused:
            digits_pb2_grpc.DigitClassifierStub(channel).Classify(pixels(1), timeout=LIMIT_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert list(future.result().labels) == [7]
        assert server.wait(LIMIT_S) == 0


def test_a_second_signal_ends_at_once(
    begun: Callable[[str, subprocess.Popen[str]], grpc.Future],
) -> None:
    with server_process(SERVE_SLOWLY, "60") as (server, target):
        future = begun(target, server)
        server.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert server.poll() is None
        server.send_signal(signal.SIGINT)
        assert server.wait(LIMIT_S) == 128 + signal.SIGINT
        assert future.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 65536},
        {"port": -1},
        {"max_images_per_request": 0},
        {"max_message_bytes": 784},
        {"max_message_bytes": 2**31},
        {"shutdown_grace_s": -1.0},
        {"shutdown_grace_s": float("nan")},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=f"{name} is"):
        ServiceConfig(**settings)  # type: ignore[arg-type]


def test_addresses() -> None:
    assert address("127.0.0.1", 1) == "127.0.0.1:1"
    assert address("::1", 1) == "[::1]:1"


def test_a_stop_under_load_cancels_nobody() -> None:
    codes: list[grpc.StatusCode] = []

    async def ask(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
        while not codes or codes[-1] is grpc.StatusCode.OK:
            call = stub.Classify(pixels(*range(10)), timeout=LIMIT_S)
            codes.append(await call.code())

    async def scenario() -> None:
        async with asyncio.timeout(LIMIT_S):
            server = serving(stub_model(), shutdown_delay_s=0.2)
            port = (await server.__aenter__()).port
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = digits_pb2_grpc.DigitClassifierStub(channel)
                asking = [asyncio.create_task(ask(stub)) for _ in range(64)]
                await asyncio.sleep(0.3)
                await server.__aexit__(None, None, None)
                await asyncio.gather(*asking)

    asyncio.run(scenario())
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes.count(grpc.StatusCode.OK) > 64


def test_a_cancelled_call_that_waits_never_computes() -> None:
    computed: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def slow(images: np.ndarray) -> np.ndarray:
        entered.set()
        assert release.wait(LIMIT_S)
        computed.append(int(images[0, 0]))
        return first_pixel(images)

    async def scenario(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            first = stub.Classify(pixels(1))
            assert await asyncio.to_thread(entered.wait, LIMIT_S)
            late = stub.Classify(pixels(2), timeout=0.2)
            with pytest.raises(grpc.RpcError) as expired:
                await late
            assert expired.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # The server hears of the same deadline by its own clock.
            await asyncio.sleep(0.2)
            release.set()
            assert list((await first).labels) == [1]
            assert list((await stub.Classify(pixels(3))).labels) == [3]
        assert computed == [1, 3]

    serve_async(stub_model(slow), scenario, inline_images=0)
