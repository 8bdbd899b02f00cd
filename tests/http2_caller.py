"""A server of the lean transport alone, and a caller by h2, which checks every byte."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from service.config import ServiceConfig
from service.errors import InvalidRequest, Overloaded
from service.http2 import calls
from service.http2.connection import Connection
from service.http2.listener import LeanTransport
from service.listener import certificates
from service.rpc import Route

LIMIT_S = 10.0


class Served:
    """What the routes do, and what they were asked."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.free = asyncio.Event()
        self.wires: list[Any] = []

    async def echo(self, data: bytes, wire: Any) -> bytes:
        self.wires.append(wire)
        return bytes(data)

    async def slow(self, data: bytes, wire: Any) -> bytes:
        self.begun += 1
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return bytes(data)

    async def fail(self, data: bytes, wire: Any) -> bytes:
        await asyncio.sleep(0)
        raise {b"a": InvalidRequest("100 % wr\u00f6ng\n"), b"b": Overloaded("later", 1.5)}[
            bytes(data)
        ]

    async def each(self, messages: AsyncIterable[bytes], wire: Any) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            async for data in messages:
                yield bytes(data)
        finally:
            self.cancelled += 1  # or ended

    def routes(self) -> dict[str, Route]:
        found = {f"/t/{one.__name__}": Route(one) for one in (self.echo, self.slow, self.fail)}
        return found | {"/t/each": Route(self.each, stream=True)}


class Server:
    """The transport itself, open for inspection."""

    def __init__(self, transport: LeanTransport, served: Served) -> None:
        self.transport, self.served, self.port = transport, served, transport.port

    @property
    def connections(self) -> list[Connection]:
        return list(self.transport._connections)

    @property
    def calls(self) -> calls.Calls:
        (one,) = self.connections
        return one._calls

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)


def run(scenario: Callable[[Server], Awaitable[None]], more: Any = None, **settings: Any) -> None:
    """Afterwards no call is open and nothing is held."""

    async def whole() -> None:
        served = Served()
        config = ServiceConfig(port=0, **settings)
        transport = LeanTransport(config, certificates(config))
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with asyncio.timeout(LIMIT_S):
            await transport.start(served.routes() | (more or {}))
            server = Server(transport, served)
            try:
                await scenario(server)
                for one in server.connections:
                    await server.until(lambda one=one: not one._calls.streams)  # type: ignore[misc]
                    assert one._shared.held == [0]
            finally:
                await transport.stop(1.0)
            assert not server.connections
            await asyncio.sleep(0)
        assert complaints == []

    asyncio.run(whole())


class Caller:
    """A connection of h2's, which checks every byte that the server sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.reader, self.writer = reader, writer
        self.answers: dict[int, bytes] = {}  # by stream
        self.ends: dict[int, dict[str, str]] = {}  # its last headers
        self.goaways: list[events.ConnectionTerminated] = []
        self.closed, self.agreed = False, 0

    def send(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def call(self, path: str, *more: tuple[str, str], end: bool = False) -> int:
        stream = self.h2.get_next_available_stream_id()
        fixed = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        given = [*fixed.items(), ("te", "trailers"), ("content-type", "application/grpc"), *more]
        self.h2.send_headers(stream, given, end_stream=end)
        self.answers[stream] = b""
        return stream

    def ask(self, path: str, data: bytes, **how: Any) -> int:
        stream = self.call(path)
        self.h2.send_data(stream, framed(data), end_stream=True, **how)
        self.send()
        return stream

    async def more(self) -> None:
        """Takes in what comes next; opens no window."""
        data = await self.reader.read(2**16)
        self.closed = not data
        for event in self.h2.receive_data(data):
            if isinstance(event, events.DataReceived):
                self.answers[event.stream_id] += event.data
            elif isinstance(event, events.ResponseReceived | events.TrailersReceived):
                self.ends[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
            elif isinstance(event, events.SettingsAcknowledged):
                self.agreed += 1
            elif isinstance(event, events.ConnectionTerminated):
                self.goaways.append(event)
        self.send()

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            assert not self.closed, self.goaways
            await self.more()

    async def status(self, stream: int) -> str:
        await self.until(lambda: "grpc-status" in self.ends.get(stream, {}))
        return self.ends[stream]["grpc-status"]


def framed(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


@asynccontextmanager
async def caller(
    server: Server, given: dict[SettingCodes | int, int] | None = None
) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    one = Caller(reader, writer)
    one.h2.initiate_connection()
    one.h2.update_settings(given or {})
    one.send()
    try:
        await one.until(lambda: one.agreed == 2)
        yield one
    finally:
        writer.transport.abort()
