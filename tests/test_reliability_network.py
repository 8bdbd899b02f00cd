"""Callers that mean harm or know no better: what one connection may do to the server and to others.

Where gRPC's own client is too polite, HTTP/2 is spoken by hand (RFC 9113, and RFC 7541 for
headers). JAXNN_SOAK=1 (`make soak`) makes the same tests long.
"""

import asyncio
import hashlib
import logging
import resource
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hostile import LIMIT_S, SOAK, Device, gauge, resident
from serving import TRANSPORT, images_of, pixels, serving, stub_model

from service import listener, tls
from service.config import ServiceConfig
from service.pb import digits_pb2, digits_pb2_grpc
from service.pb import open_inference_grpc_pb2 as pb
from service.server import Running
from service.status import RETRY_HINT

V1, V2 = "/jaxnn.v1.DigitClassifier", "/inference.GRPCInferenceService"
UNARY = f"{V1}/Classify", f"{V2}/ModelInfer"
STREAMS = f"{V1}/ClassifyStream", f"{V2}/ModelStreamInfer"
INFERENCES = UNARY + STREAMS
MiB = 2**20
IDLE = 10_000 if SOAK else 200
CODE = grpc.StatusCode
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = (8).to_bytes(4, "big")  # why a stream is reset
WINDOW_BYTES = 65535  # that a stream and a connection begin with


def message(path: str, *labels: int) -> bytes:
    """A request that the stub answers with these labels."""
    if path.startswith(V1):
        return pixels(*labels).SerializeToString()
    request = pb.ModelInferRequest(model_name="stub")
    request.inputs.add(name="images", datatype="UINT8", shape=[len(labels), 784])
    request.raw_input_contents.append(images_of(labels).tobytes())
    return request.SerializeToString()


def read(path: str, answer: bytes) -> list[int]:
    """The labels of an answer."""
    if path.startswith(V1):
        return list(digits_pb2.ClassifyResponse.FromString(answer).labels)
    if path == STREAMS[1]:
        response = pb.ModelStreamInferResponse.FromString(answer).infer_response
    else:
        response = pb.ModelInferResponse.FromString(answer)
    at = [output.name for output in response.outputs].index("labels")
    return np.frombuffer(response.raw_output_contents[at], "<i8").tolist()


async def ask(
    channel: grpc.aio.Channel, path: str, data: bytes, timeout: float = 20.0, **how: Any
) -> bytes:
    """One request and its answer, whatever kind of method it is."""
    if path not in STREAMS:
        answer: bytes = await channel.unary_unary(path)(data, timeout=timeout, **how)
        return answer
    call = channel.stream_stream(path)(iter([data]), timeout=timeout, **how)
    answer = await call.read()
    if answer is not grpc.aio.EOF:
        return answer
    metadata = await call.initial_metadata(), await call.trailing_metadata()
    raise grpc.aio.AioRpcError(await call.code(), *metadata, await call.details())


async def code_of(channel: grpc.aio.Channel, path: str, data: bytes, **how: Any) -> grpc.StatusCode:
    """How a request ends."""
    try:
        await ask(channel, path, data, **how)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return CODE.OK


@asynccontextmanager
async def connected(server: Running, **options: int) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own."""
    given = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    given += [(f"grpc.{name}", value) for name, value in options.items()]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=given) as channel:
        yield channel


async def well(server: Running) -> None:
    """Others are answered."""
    async with connected(server) as channel:
        for path in INFERENCES:
            assert read(path, await ask(channel, path, message(path, 3, 4))) == [3, 4]


def run(scenario: Callable[[Running], Awaitable[None]], model: Any = None, **settings: Any) -> None:
    """A scenario against a server on the same loop: well afterwards, and no error logged."""
    complaints: list[str] = []
    heard = logging.Handler(logging.ERROR)
    heard.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(heard)

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(repr(context))
        )
        async with asyncio.timeout(LIMIT_S / 3):
            async with serving(model or stub_model(), **settings) as server:
                await scenario(server)
                await well(server)
                async with asyncio.timeout(LIMIT_S / 4):
                    while gauge(server.telemetry, "in_flight"):
                        await asyncio.sleep(0.02)

    try:
        asyncio.run(whole())
    finally:
        logging.getLogger().removeHandler(heard)
    assert complaints == []


class Raw:
    """A connection that is told every frame, and checks nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self.writer.write(head + payload)

    def open(self, stream: int, path: str, *more: tuple[str, str]) -> None:
        """The headers of a call; streams have odd numbers that grow."""
        self.send(HEADERS, END_HEADERS, stream, headers(path, *more))

    def data(self, stream: int, payload: bytes, flags: int = 0) -> None:
        for at in range(0, len(payload), 16384):
            last = at + 16384 >= len(payload)
            self.send(DATA, flags if last else 0, stream, payload[at : at + 16384])

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload."""
        head = await self.reader.readexactly(9)
        payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    async def until(self, kind: int, stream: int = 0) -> bytes:
        """The payload of the next frame of a kind; answers pings on the way."""
        while True:
            found, flags, where, payload = await self.frame()
            if (found, where) == (kind, stream):
                return payload
            if found == PING and not flags & ACK:
                self.send(PING, ACK, 0, payload)

    async def status(self, stream: int) -> int:
        """The gRPC status that a call ended with."""
        while True:
            _, marker, rest = (await self.until(HEADERS, stream)).partition(b"\x0bgrpc-status")
            if marker:
                return int(rest[1 : 1 + rest[0]])


def headers(path: str, *more: tuple[str, str]) -> bytes:
    """Headers of a call as HPACK has them: literals, in no table."""
    fixed = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    given = [*fixed.items(), ("te", "trailers"), ("content-type", "application/grpc"), *more]
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in given)


def _text(text: str) -> bytes:
    data, length = text.encode(), b""
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest = len(data) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return b"\x7f" + length + bytes([rest]) + data


@asynccontextmanager
async def raw(server: Running, settings: bytes = b"") -> AsyncIterator[Raw]:
    """A connection that has begun; `settings` as HTTP/2 has them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    connection = Raw(reader, writer)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    no_table = b"\x00\x01\x00\x00\x00\x00"  # SETTINGS_HEADER_TABLE_SIZE 0: names as they are
    connection.send(SETTINGS, 0, 0, no_table + settings)
    try:
        yield connection
    finally:
        writer.transport.abort()


def framed(data: bytes, compressed: bool = False) -> bytes:
    """A message as gRPC has it in a stream."""
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


class Peak:
    """The most memory that this process has had since, beyond what it had, in MiB."""

    def __init__(self) -> None:
        resident()  # tidies up
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._most()

    def grown(self) -> float:
        return self._most() - self._before

    @staticmethod
    def _most() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def bomb(encoding: str, megabytes: int) -> bytes:
    """Zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return b"".join(packer.compress(bytes(MiB)) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_has_grown(encoding: str) -> None:
    """Grpcio below 1.83 unpacks all of it, then refuses."""
    small = framed(bomb(encoding, 56), compressed=True)
    assert len(small) < WINDOW_BYTES

    async def scenario(server: Running) -> None:
        peak = Peak()
        for path in INFERENCES:
            async with raw(server) as connection:
                connection.open(1, path, ("grpc-encoding", encoding))
                connection.data(1, small, END_STREAM)
                assert await connection.status(1) == CODE.RESOURCE_EXHAUSTED.value[0]
        assert peak.grown() < 16, "of the 56 that it holds"

    run(scenario, max_message_bytes=MiB)


@pytest.mark.parametrize("compression", list(grpc.Compression), ids=str)
def test_a_message_over_the_limit_is_refused_and_one_at_it_is_not(
    compression: grpc.Compression,
) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for path in INFERENCES:
                codes = []
                for size in (limit, limit + 1):
                    data = message(path, 1)
                    field = b"\xfa\x07"  # number 127, text: a field that nobody knows
                    rest = size - len(data) - len(field) - 3
                    data += field + bytes([rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14])
                    data += bytes(rest)
                    assert len(data) == size
                    codes.append(await code_of(channel, path, data, compression=compression))
                assert codes == [CODE.OK, CODE.RESOURCE_EXHAUSTED], path

    limit = 200_000
    run(scenario, max_message_bytes=limit)


def test_readers_that_read_nothing_cost_what_they_were_sent() -> None:
    """Each fills its window with a question, and lets the server send no answer."""
    closed_window = b"\x00\x04\x00\x00\x00\x00"  # SETTINGS_INITIAL_WINDOW_SIZE 0
    question = digits_pb2.ClassifyRequest(pixels=bytes(784 * 70), id="x" * 1000)

    async def scenario(server: Running) -> None:
        peak = Peak()
        async with raw(server, closed_window) as connection:
            reading = asyncio.create_task(_drained(connection))
            for stream in range(1, 2 * streams, 2):
                connection.open(stream, STREAMS[0])
                # A window's worth: more only comes in as the server takes it out.
                connection.data(stream, framed(question.SerializeToString()))
                await asyncio.sleep(0.002)
            await well(server)
            assert peak.grown() < 40
            reading.cancel()

    streams = 1000 if SOAK else 200
    run(scenario, max_streams=streams)


async def _drained(connection: Raw) -> None:
    """Reads, and opens the connection's window for the other side as it fills; no stream's."""
    while True:
        kind, flags, _, payload = await connection.frame()
        if kind == PING and not flags & ACK:
            connection.send(PING, ACK, 0, payload)


def test_half_a_message_and_then_nothing() -> None:
    half = framed(bytes(MiB))[:5000]

    async def scenario(server: Running) -> None:
        peak = Peak()
        async with raw(server) as connection:
            for at in range(40):
                connection.open(2 * at + 1, INFERENCES[at % 4])
                connection.data(2 * at + 1, half[:1500])
            await connection.until(SETTINGS)
            await well(server)
            assert peak.grown() < 20
            # Its age ends it: such a call has no deadline, and is not begun, so nothing else does.
            await connection.until(GOAWAY)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                while True:
                    await connection.frame()

    run(scenario, max_connection_age_s=0.5, max_connection_age_grace_s=0.3)


CROWD = """
import resource, socket, sys
_, port, count = sys.argv
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for number in range(int(count)):
    held.append(socket.create_connection(("127.0.0.1", int(port))))
    held[-1].sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\x04" + bytes(5))
for one in held:
    assert one.recv(9)
print("held", flush=True)
sys.stdin.read()
"""


def test_idle_connections_cost_little_and_hold_up_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < IDLE + 500:
        pytest.skip(f"{IDLE} connections need as many open files; this machine allows {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def scenario(server: Running) -> None:
        await well(server)
        before = resident()
        command = [sys.executable, "-c", CROWD, str(server.port), str(IDLE)]
        crowd = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
        try:
            assert crowd.stdout and await crowd.stdout.readline() == b"held\n"
            await well(server)
            each = (resident() - before) / IDLE / 1024
            with capsys.disabled():
                print(f"\n{IDLE} idle connections: {each:.1f} KiB each")
            assert each < 100
        finally:
            crowd.kill()
            await crowd.wait()

    run(scenario)


def test_a_storm_of_cancels_leaves_nothing_behind() -> None:
    calls = 5000 if SOAK else 300

    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for begin in range(0, calls, 100):
                started: list[Any] = []
                for at in range(begin, begin + 100):
                    path = INFERENCES[at % 4]
                    if path in STREAMS:
                        call = channel.stream_stream(path)()
                        if at % 8 < 6:
                            await call.write(message(path, 1))
                    else:
                        call = channel.unary_unary(path)(message(path, *range(100)))
                    started.append(call)
                    if at % 3 == 0:
                        await asyncio.sleep(0)
                for call in started:
                    call.cancel()

    run(scenario, inline_images=10)


@pytest.mark.parametrize("name", ["x-a", "authorization"])
def test_headers_within_the_limit_pass_and_over_it_are_refused(name: str) -> None:
    async def scenario(server: Running) -> None:
        for size, wanted in ((63 * 1024, CODE.OK), (70 * 1024, CODE.RESOURCE_EXHAUSTED)):
            async with connected(server) as channel:
                for path in INFERENCES:
                    data, metadata = message(path, 1), [(name, "x" * size)]
                    assert await code_of(channel, path, data, metadata=metadata) is wanted
        async with connected(server) as channel:
            many = [(f"x-{number}", "y") for number in range(2000)]
            code = await code_of(channel, UNARY[0], message(UNARY[0], 1), metadata=many)
            assert code is CODE.RESOURCE_EXHAUSTED

    run(scenario, max_metadata_bytes=64 * 1024)


def test_headers_without_an_end_fill_no_memory() -> None:
    """The flood of CONTINUATION frames (CVE-2024-27316 and its kin)."""

    async def scenario(server: Running) -> None:
        peak = Peak()
        async with raw(server) as connection:
            connection.send(HEADERS, 0, 1, headers(UNARY[0]))
            try:
                for at in range(frames):
                    connection.send(CONTINUATION, 0, 1, b"\0" + _text("x") + _text("y" * 16000))
                    await connection.writer.drain()
                    if at % 50 == 0:
                        await asyncio.sleep(0.001)  # this loop is the server's, too
                connection.send(CONTINUATION, END_HEADERS, 1)
                assert await connection.status(1) == CODE.RESOURCE_EXHAUSTED.value[0]
            except ConnectionError:  # the lean transport has hung up, and gRPC has not
                assert TRANSPORT == "lean"
        assert peak.grown() < 64, "35 at most were seen, however many come"

    frames = 50_000 if SOAK else 8000  # of 16 kB
    run(scenario)


def test_resets_as_fast_as_they_come_are_stood() -> None:
    """Calls opened and reset (CVE-2023-44487): at once, or when the server has begun with them."""

    async def scenario(server: Running) -> None:
        async with raw(server) as connection:
            reading = asyncio.create_task(_drained(connection))
            begun: list[int] = []
            for stream in range(1, 20_000 if SOAK else 2000, 2):
                path = INFERENCES[stream % 8 // 2]
                connection.open(stream, path)
                connection.data(
                    stream, framed(message(path, 1)), 0 if path in STREAMS else END_STREAM
                )
                if path in STREAMS:  # waits for its next message
                    begun.append(stream)
                else:
                    connection.send(RESET, 0, stream, CANCEL)
                if connection.writer.is_closing():
                    break  # it has had enough
                if stream % 64 == 1:
                    await asyncio.sleep(0.002)
                    for one in begun:
                        connection.send(RESET, 0, one, CANCEL)
                    begun.clear()
            await well(server)
            reading.cancel()
            ended = server.telemetry.snapshot()["counters"]
            assert sum(value for name, _, value in ended if name == "requests") > 100

    run(scenario)


def test_what_is_no_http_2_is_hung_up_on() -> None:
    async def scenario(server: Running) -> None:
        for begin in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01" + bytes(500),
            b"\0" * 99,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(begin)
            async with asyncio.timeout(LIMIT_S / 4):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await reader.readexactly(10**6)
            writer.transport.abort()

    run(scenario)


@pytest.mark.parametrize("path", [f"{V1}/Nothing", f"{V2}/", "/nobody.Here/Classify", "/"])
def test_an_unknown_method_is_unimplemented(path: str) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            assert await code_of(channel, path, b"") is CODE.UNIMPLEMENTED

    run(scenario)


def test_a_large_request_has_a_large_answer() -> None:
    """As in gRPC's own tests of clients against servers; 1,000 of them side by side in a soak."""

    async def scenario(server: Running) -> None:
        request = digits_pb2.ClassifyRequest(pixels=images_of([7] * 30).tobytes())
        request.id = "x" * (271_828 - 30 * 784 - 8)
        assert request.ByteSize() == 271_828
        async with connected(server) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            answers = await asyncio.gather(
                *(stub.Classify(request, timeout=LIMIT_S) for _ in range(1000 if SOAK else 40))
            )
            for answer in answers:
                assert answer.id == request.id and list(answer.labels) == [7] * 30

    run(scenario)


def test_deadlines_of_a_millisecond() -> None:
    """By hand, so that the server keeps them alone: gRPC's client would cancel the call as well."""

    async def scenario(server: Running) -> None:
        found = Counter[int]()
        async with raw(server) as connection:
            for at in range(200):
                stream, path = 2 * at + 1, INFERENCES[at % 4]
                connection.open(stream, path, ("grpc-timeout", f"{at % 8 * 250}u"))
                connection.data(stream, framed(message(path, *range(50))), END_STREAM)
                found[await connection.status(stream)] += 1
        assert set(found) <= {0, CODE.DEADLINE_EXCEEDED.value[0]}
        assert found[CODE.DEADLINE_EXCEEDED.value[0]] > 20

    run(scenario)


def test_calls_over_the_limit_are_refused_exactly_and_told_when_to_come_back() -> None:
    device = Device()
    device.free.clear()

    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            calls = [
                channel.unary_unary(path)(message(path, at)) for at in range(10) for path in UNARY
            ]
            ending = {asyncio.create_task(call.code()): call for call in calls}
            while sum(task.done() for task in ending) < 12:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)  # in which no other may end
            refused = [call for task, call in ending.items() if task.done()]
            assert len(refused) == 12
            for call in refused:
                assert await call.code() is CODE.RESOURCE_EXHAUSTED
                hint = dict(await call.trailing_metadata())[RETRY_HINT]
                assert int(hint) > 0
            for path in STREAMS:
                assert await code_of(channel, path, message(path, 1)) is CODE.RESOURCE_EXHAUSTED
            device.free.set()
            kept = [await call for call in calls if call not in refused]
            assert len(kept) == 8

    run(scenario, stub_model(device), max_calls=8, inline_images=0)


def test_calls_over_those_of_a_connection_wait_or_are_cut_off() -> None:
    device = Device()
    device.free.clear()

    async def scenario(server: Running) -> None:
        async with connected(server) as channel, raw(server) as rude, connected(server) as other:
            calls = [channel.unary_unary(UNARY[0])(message(UNARY[0], 1)) for _ in range(4)]
            await device.busy()
            # gRPC's client holds the fifth back until another of its calls ends.
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await ask(channel, f"{V1}/GetModel", b"", timeout=0.3)
            assert late.value.code() is CODE.DEADLINE_EXCEEDED
            assert await code_of(other, f"{V1}/GetModel", b"") is CODE.OK
            for stream in range(1, 41, 2):
                rude.open(stream, UNARY[0])
            refused = 0
            while refused < 16:
                kind, _, _, payload = await rude.frame()
                assert kind != GOAWAY or not payload[4:8].strip(b"\0")
                # "Refused", or "enhance your calm", as gRPC has it.
                refused += kind == RESET and int.from_bytes(payload, "big") in (7, 11)
            device.free.set()
            assert len(await asyncio.gather(*calls)) == 4

    run(scenario, stub_model(device), max_streams=4, inline_images=0)


def test_pings_are_tolerated_as_often_as_is_said_and_no_oftener() -> None:
    async def scenario(server: Running) -> None:
        async with raw(server) as patient:
            for _ in range(5):
                patient.send(PING, 0, 0, bytes(8))
                await asyncio.sleep(0.15)
            patient.open(1, f"{V2}/ServerLive")
            patient.data(1, framed(b""), END_STREAM)
            assert await patient.status(1) == 0
        async with raw(server) as hasty:
            going = asyncio.create_task(hasty.until(GOAWAY))
            while not going.done():
                hasty.send(PING, 0, 0, bytes(8))
                await asyncio.sleep(0.01)
            assert b"too_many_pings" in await going

    run(scenario, min_ping_interval_s=0.1)


def test_the_settings_of_grpc_that_callers_rely_on() -> None:
    options = dict(listener.options(ServiceConfig()))
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.max_connection_age_ms"] == 300_000  # on by default
    assert options["grpc.so_reuseport"] == 0  # else two servers share a port by mistake


def test_connections_move_on_as_they_age_and_no_call_fails() -> None:
    """Two addresses, of which one comes up late: a caller that takes turns finds it."""

    async def scenario(server: Running) -> None:
        async with serving(stub_model(version="late"), port=0, max_connection_age_s=0.4) as late:
            target = f"ipv4:127.0.0.1:{server.port},127.0.0.1:{late.port}"
            options = [("grpc.lb_policy_name", "round_robin")]
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                stub = digits_pb2_grpc.DigitClassifierStub(channel)
                versions = Counter[str]()
                end = asyncio.get_running_loop().time() + 1.5
                while asyncio.get_running_loop().time() < end:
                    versions[(await stub.Classify(pixels(1), timeout=LIMIT_S)).model_version] += 1
                    await asyncio.sleep(0.002)
                assert set(versions) == {"0" * 12, "late"}
                assert min(versions.values()) > sum(versions.values()) / 4
        async with raw(server) as idle:
            assert b"max_age" in await idle.until(GOAWAY)

    run(scenario, max_connection_age_s=0.4)


# Who may come in --------------------------------------------------------------------------------


def files(folder: Path, issued: trustme.LeafCert) -> dict[str, Path]:
    """A certificate and its key, put into place as one who renews them does."""
    folder.mkdir(exist_ok=True)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    for name, blob in (("key.pem", issued.private_key_pem.bytes()), ("cert.pem", chain)):
        (folder / f".{name}").write_bytes(blob)
        (folder / f".{name}").replace(folder / name)
    return {"tls_certificate": folder / "cert.pem", "tls_key": folder / "key.pem"}


def authority(folder: Path, name: str) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(folder / name))
    return made, folder / name


@asynccontextmanager
async def secured(
    server: Running, trusted: trustme.CA, own: trustme.LeafCert | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own over TLS, with a certificate of its own where there is one."""
    pair: tuple[bytes, ...] = ()
    if own:
        pair = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{server.port}"
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield channel


async def codes(channel: grpc.aio.Channel, **how: Any) -> set[grpc.StatusCode]:
    """How requests of every kind end."""
    return {
        await code_of(channel, path, message(path, 1), timeout=10, **how) for path in INFERENCES
    }


def test_certificates_that_are_not_to_be_trusted(tmp_path: Path) -> None:
    ours, _ = authority(tmp_path, "ours.pem")
    theirs, _ = authority(tmp_path, "theirs.pem")
    ended = datetime(2021, 1, 1, tzinfo=UTC)

    async def scenario() -> None:
        good = ours.issue_cert("127.0.0.1")
        for name, issued, trusted, wanted in (
            ("good", good, ours, CODE.OK),
            ("of others", good, theirs, CODE.UNAVAILABLE),
            ("ended", ours.issue_cert("127.0.0.1", not_after=ended), ours, CODE.UNAVAILABLE),
            ("of another", ours.issue_cert("elsewhere.test"), ours, CODE.UNAVAILABLE),
        ):
            async with serving(stub_model(), **files(tmp_path / name, issued)) as server:
                async with secured(server, trusted) as channel:
                    assert await codes(channel) == {wanted}, name
                async with connected(server) as plain:
                    assert await code_of(plain, UNARY[0], b"", timeout=10) is CODE.UNAVAILABLE

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


async def all_over(server: Running) -> None:
    """Until no call is open: a caller may have its answer a little before the server is done."""

    async def waiting() -> None:
        while gauge(server.telemetry, "in_flight"):
            await asyncio.sleep(0.01)

    await asyncio.wait_for(waiting(), LIMIT_S)


def test_callers_must_show_a_certificate_where_they_are_asked_to(tmp_path: Path) -> None:
    ours, _ = authority(tmp_path, "ours.pem")
    clients, client_ca = authority(tmp_path, "clients.pem")
    strangers, _ = authority(tmp_path, "strangers.pem")
    ended = datetime(2021, 1, 1, tzinfo=UTC)

    async def scenario() -> None:
        pair = files(tmp_path / "server", ours.issue_cert("127.0.0.1"))
        async with serving(stub_model(), tls_client_ca=client_ca, **pair) as server:
            for own, wanted in (
                (clients.issue_cert("me"), CODE.OK),
                (None, CODE.UNAVAILABLE),
                (strangers.issue_cert("me"), CODE.UNAVAILABLE),
                (ours.issue_cert("me"), CODE.UNAVAILABLE),
                (clients.issue_cert("me", not_after=ended), CODE.UNAVAILABLE),
                (clients.issue_cert("me"), CODE.OK),
            ):
                async with secured(server, ours, own) as channel:
                    assert await codes(channel) == {wanted}
            await all_over(server)

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_a_renewed_certificate_is_used_for_new_connections_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = authority(tmp_path, "before.pem")
    after, _ = authority(tmp_path, "after.pem")
    monkeypatch.setattr(tls, "CHECK_EVERY_S", 0.0)

    async def scenario() -> None:
        pair = files(tmp_path, before.issue_cert("127.0.0.1"))
        async with serving(stub_model(), **pair) as server, secured(server, before) as old:
            assert await codes(old) == {CODE.OK}
            files(tmp_path, after.issue_cert("127.0.0.1"))
            async with secured(server, after) as new, secured(server, before) as late:
                assert await codes(new) == {CODE.OK}
                assert await codes(late) == {CODE.UNAVAILABLE}
                assert await codes(old) == {CODE.OK}
            (tmp_path / "key.pem").write_bytes(b"half a k")  # what is wrong is not taken over
            async with secured(server, after) as new:
                assert await codes(new) == {CODE.OK}

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Of alice, who may ask twice and no more for a while, of bob and of an administrator."""
    path = tmp_path / "tokens.toml"
    more = {
        "alice": "requests_per_second = 0.01\nburst = 200\n",
        "bob": "",
        "admin": "admin = true",
    }
    path.write_text(
        "".join(
            f'[tokens.{name}]\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{lines}\n'
            for name, lines in more.items()
        )
    )
    return path


def shown(token: str | None) -> dict[str, Any]:
    """The metadata of a call that shows a token."""
    return {"metadata": [] if token is None else [("authorization", f"Bearer {token}")]}


def guarded(scenario: Callable[[Running], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        async with asyncio.timeout(LIMIT_S / 3), serving(stub_model(), **settings) as server:
            await scenario(server)

    asyncio.run(whole())


def test_no_method_answers_without_a_good_token(tokens: Path) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for token in (None, "", "mallory", "Bearer bob", "x" * 5000):
                assert await codes(channel, **shown(token)) == {CODE.UNAUTHENTICATED}
                for path in (f"{V1}/GetModel", f"{V1}/ListModels", f"{V2}/ModelStatistics"):
                    assert await code_of(channel, path, b"", **shown(token)) is CODE.UNAUTHENTICATED
            assert await codes(channel, **shown("bob")) == {CODE.OK}

    guarded(scenario, tokens=tokens)


def test_a_stream_without_a_token_is_not_held_open(tokens: Path) -> None:
    """Else callers who may do nothing could take all the calls that the server allows."""

    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for path in STREAMS:
                silent = channel.stream_stream(path)(timeout=10)
                assert await silent.code() is CODE.UNAUTHENTICATED
        await all_over(server)

    guarded(scenario, tokens=tokens)


def test_only_administrators_change_what_is_served(tokens: Path) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for method, kind in (
                ("RepositoryModelLoad", pb.RepositoryModelLoadRequest),
                ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest),
            ):
                data = kind(model_name="stub").SerializeToString()
                for token, wanted in (
                    (None, CODE.UNAUTHENTICATED),
                    ("mallory", CODE.UNAUTHENTICATED),
                    ("bob", CODE.PERMISSION_DENIED),
                    ("admin", CODE.OK),
                ):
                    found = await code_of(channel, f"{V2}/{method}", data, **shown(token))
                    assert found is wanted, (method, token)

    guarded(scenario, tokens=tokens, model_control=True)


def test_a_token_over_its_rate_is_told_when_to_come_back(tokens: Path) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            for path in UNARY:
                data = message(path, 1)
                assert await code_of(channel, path, data, **shown("alice")) is CODE.OK
            for path in INFERENCES:
                how = shown("alice")
                how["metadata"].append(("triton_grpc_error", "true"))
                with pytest.raises(grpc.aio.AioRpcError) as over:
                    await ask(channel, path, message(path, 1), **how)
                assert over.value.code() is CODE.RESOURCE_EXHAUSTED
                hint = int(dict(over.value.trailing_metadata())[RETRY_HINT])
                assert 90_000 < hint <= 100_000  # ms: one in a hundred seconds
            assert await codes(channel, **shown("bob")) == {CODE.OK}  # others have their own

    guarded(scenario, tokens=tokens)


def test_health_and_reflection_ask_for_no_token(tokens: Path) -> None:
    async def scenario(server: Running) -> None:
        async with connected(server) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            status = (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            calling = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([asked]), timeout=10
            )
            assert len((await calling.read()).list_services_response.service) == 4

    guarded(scenario, tokens=tokens)
