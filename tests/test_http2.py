"""The lean transport over sockets, by a caller who does what gRPC's own client never does."""

import asyncio
import gzip

import pytest
from h2.settings import SettingCodes
from http2_caller import Server, caller, framed, run
from hyperframe.frame import Frame, GoAwayFrame, PingFrame

from service.http2 import calls, connection

WINDOW, TABLE = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.HEADER_TABLE_SIZE


def test_a_large_answer_goes_out_in_drops() -> None:
    data = bytes(range(256)) * 1200

    async def scenario(server: Server) -> None:
        async with caller(server, given={WINDOW: 0, TABLE: 0}) as one:
            small, stream = one.ask("/t/echo", b"tiny"), one.ask("/t/echo", data)
            await one.until(lambda: stream in one.ends)
            assert one.answers[stream] == b"" and server.connections[0]._shared.held[0] > len(data)
            one.h2.increment_flow_control_window(1, small)  # a byte at a time
            for _ in range(8):
                one.send()
                await one.more()
                one.h2.increment_flow_control_window(1, small)
            one.send()
            assert await one.status(small) == "0" and one.answers[small] == framed(b"tiny")
            one.h2.update_settings({WINDOW: 1000})  # opens all streams
            one.send()
            await one.until(lambda: len(one.answers[stream]) == 1000)
            one.h2.update_settings({WINDOW: 10})  # 990 less than nothing
            one.h2.increment_flow_control_window(1500, stream)
            one.send()
            await one.until(lambda: len(one.answers[stream]) == 1510)
            while len(one.answers[stream]) < len(data) + 5:
                have = len(one.answers[stream])
                one.h2.increment_flow_control_window(40_000, stream)
                one.h2.increment_flow_control_window(40_000)
                one.send()
                await one.until(lambda have=have: len(one.answers[stream]) > have)  # type: ignore
            assert await one.status(stream) == "0" and one.answers[stream] == framed(data)

    run(scenario)


def test_a_caller_who_takes_no_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_HELD", 4)

    async def scenario(server: Server) -> None:
        async with caller(server, given={WINDOW: 0}) as one:
            asked = [one.ask("/t/echo", bytes(8000)) for _ in range(12)]
            statuses = asyncio.create_task(one.until(lambda: len(one.ends) == 12))
            await statuses
            ended = [one.ends[stream].get("grpc-status") for stream in asked]
            assert ended.count("8") >= 7 and None in ended
            assert server.connections[0]._shared.held[0] <= 4 * 10_000
            server.connections[0].abort()

    run(scenario, max_message_bytes=10_000)


def test_a_request_byte_by_byte_with_padding_and_trailers() -> None:
    async def scenario(server: Server) -> None:
        async with caller(server) as one:
            stream = one.call("/t/echo")
            for byte in framed(b"slowly"):
                one.h2.send_data(stream, bytes([byte]), pad_length=100)
            one.h2.send_headers(stream, [("x-last", "1")], end_stream=True)
            for at in range(0, len(data := one.h2.data_to_send()), 7):
                one.writer.write(data[at : at + 7])
                await asyncio.sleep(0)
            assert await one.status(stream) == "0" and one.answers[stream] == framed(b"slowly")

    run(scenario)


def test_streams_go_on_however_much_they_carry() -> None:
    """Padding and compressed messages give as much room back as they took."""
    packed = gzip.compress(bytes(60_000))
    message = b"\1" + len(packed).to_bytes(4, "big") + packed

    async def scenario(server: Server) -> None:
        async with caller(server) as one:
            stream = one.call("/t/each", ("grpc-encoding", "gzip"))
            room = one.h2.local_flow_control_window(stream)
            for count in range(1, 30):
                one.h2.send_data(stream, message, pad_length=255)
                one.send()
                await one.until(lambda n=count: len(one.answers[stream]) == n * 60_005)  # type: ignore
                for where in (stream, None):
                    one.h2.increment_flow_control_window(60_005, where)
                assert server.calls.streams[stream].room == room
                assert server.connections[0]._shared.held == [0]
            one.h2.end_stream(stream)
            one.send()
            assert await one.status(stream) == "0"
            assert one.h2.local_flow_control_window(stream) == room

    run(scenario, max_message_bytes=70_000)


def test_a_reset_in_the_middle_of_anything() -> None:
    async def scenario(server: Server) -> None:
        async with caller(server) as one:
            half, slow, open_ = one.call("/t/echo"), one.ask("/t/slow", b"x"), one.call("/t/each")
            one.h2.send_data(half, framed(bytes(100))[:50])
            one.h2.send_data(open_, framed(b"one") + framed(b"two")[:3])
            one.send()
            await one.until(lambda: one.answers[open_] == framed(b"one"))
            assert len(server.calls.streams) == 3
            for stream in (half, slow, open_):
                one.h2.reset_stream(stream, 8)
            one.send()
            await server.until(lambda: server.served.cancelled == 2)
            assert await one.status(one.ask("/t/echo", b"well")) == "0"

    run(scenario)


@pytest.mark.parametrize("first", ["/t/echo", "/t/slow", "/t/each"])
def test_nothing_may_follow_the_end_of_a_request(first: str) -> None:
    """Else one call could have two handlers. h2 refuses to send it."""

    async def scenario(server: Server) -> None:
        for kind in (0, 1):  # DATA, HEADERS
            async with caller(server, given={WINDOW: 0}) as one:
                stream = one.ask(first, b"x")
                payload = framed(b"y") if kind == 0 else b"\x83"
                head = len(payload).to_bytes(3, "big") + bytes([kind, 4 * kind])
                one.writer.write(head + stream.to_bytes(4, "big") + payload)
                await one.until(lambda: one.goaways)
                assert one.goaways[0].error_code == 5  # STREAM_CLOSED
                assert server.served.begun <= 1 + kind
            await server.until(lambda: not server.connections)

    run(scenario)


def test_the_server_keeps_deadlines_itself() -> None:
    """Those of handlers, of requests that do not become whole and of answers nobody takes."""

    async def scenario(server: Server) -> None:
        async with caller(server, given={WINDOW: 0}) as one:
            streams = [one.call(f"/t/{name}", ("grpc-timeout", "20m")) for name in ("slow", "echo")]
            streams.append(one.call("/t/echo", ("grpc-timeout", "200m")))
            one.h2.send_data(streams[0], framed(b"x"), end_stream=True)
            one.h2.send_data(streams[1], framed(b"half")[:6])
            one.h2.send_data(streams[2], framed(b"not taken"), end_stream=True)
            one.send()
            assert [await one.status(stream) for stream in streams] == ["4"] * 3

    run(scenario)


def test_a_connection_is_asked_to_go_and_its_calls_are_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frame by frame, since h2 closes itself at the first GOAWAY."""
    monkeypatch.setattr(connection, "LAST_S", 100.0)  # for the answer to the ping

    async def scenario(server: Server) -> None:
        async with caller(server) as one:
            stream = one.ask("/t/slow", b"x")
            await server.until(lambda: server.served.begun == 1)
            # Is not the answer to a ping that was never sent.
            one.writer.write(PingFrame(0, b"retiring", flags=["ACK"]).serialize())
            assert await one.status(one.ask("/t/echo", b"")) == "0" and not one.goaways
            stopping = asyncio.create_task(server.transport.stop(5.0))

            async def told() -> Frame:
                frame, length = Frame.parse_frame_header(
                    memoryview(await one.reader.readexactly(9))
                )
                frame.parse_body(memoryview(await one.reader.readexactly(length)))
                return frame

            first, ping = await told(), await told()
            assert isinstance(first, GoAwayFrame) and first.last_stream_id == 2**31 - 1
            assert isinstance(ping, PingFrame)
            late = one.ask("/t/echo", b"late")  # was on its way
            one.writer.write(PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize())
            found = [await told() for _ in range(4)]
            assert [frame.stream_id for frame in found] == [late] * 3 + [0]
            last = found[3]
            assert isinstance(last, GoAwayFrame) and last.last_stream_id == late
            assert not stopping.done()
            server.served.free.set()
            rest = await one.reader.read()
            assert framed(b"x") in rest and b"grpc-status\x010" in rest
            assert rest[5:9] == stream.to_bytes(4, "big")
            await stopping

    run(scenario)
