"""The lean transport without a network: frames, however they come, and bytes that are none."""

import asyncio
import gzip
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config import ServiceConfig
from service.http2 import connection, frames
from service.http2.calls import Shared
from service.http2.frames import ConnectionFault, head
from service.http2.messages import Assembler, Message
from service.http2.reader import CALM, FrameReader
from service.rpc import Route

BEGIN = frames.PREFACE + frames.settings([])
CALL = [(":method", "POST"), (":path", "/t/Echo"), ("content-type", "application/grpc")]
BLOCK = hpack.Encoder().encode(CALL)
QUICK = settings(max_examples=60, deadline=None)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return head(len(payload), kind, flags, stream) + payload


def padded(data: bytes, padding: int) -> bytes:
    return bytes([padding]) + data + bytes(padding)


# Of everything that a reader has to keep over the end of what came: and what is in it.
WRITTEN = BEGIN + b"".join(
    [
        frame(frames.HEADERS, 0x4 | 0x8 | 0x20, 1, padded(bytes(5) + b"block", 3)),
        frame(frames.DATA, 0, 1, b"plain"),
        frame(frames.DATA, 0x8, 1, padded(b"padded", 200)),
        frame(frames.DATA, 0x8, 1, padded(b"", 0)),
        frame(frames.PRIORITY, 0, 7, bytes(5)),
        frame(frames.HEADERS, 0x1, 3, b"be"),
        frame(frames.CONTINUATION, 0, 3, b""),
        frame(frames.CONTINUATION, 0x4, 3, b"gun"),
        frame(77, 0xFF, 9, b"nobody knows it"),
        frame(frames.DATA, 0x1, 1),
        frame(frames.PING, 0, 0, b"12345678"),
    ]
)
READ = [
    (frames.SETTINGS, 0, b"", 0),
    (frames.HEADERS, 1, b"block", 0),
    (frames.DATA, 1, b"plainpadded", 5 + 207 + 1),
    (frames.PRIORITY, 7, bytes(5), 0),
    (frames.HEADERS, 3, b"begun", 0),
    (77, 9, b"nobody knows it", 0),
    (frames.DATA, 1, b"", 0),
    (frames.PING, 0, b"12345678", 0),
]


def pieces(data: bytes, cuts: list[int]) -> Iterator[memoryview]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        yield memoryview(data[start:stop])


def read(parts: Iterator[memoryview]) -> tuple[list[tuple[int, int, bytes, int]], list[int]]:
    """Frames, those of DATA that follow each other joined; and the streams that have ended."""
    reader, found, ended = FrameReader(2**16), list[tuple[int, int, bytes, int]](), list[int]()
    for part in parts:
        for one in reader.frames(part):
            new = (one.kind, one.stream, bytes(one.payload), one.size)
            if one.kind == frames.DATA and found[-1][:2] == new[:2]:
                before = found.pop()
                new = (*new[:2], before[2] + new[2], before[3] + new[3])
            found.append(new)
            if one.kind in (frames.DATA, frames.HEADERS) and one.flags & frames.END_STREAM:
                ended.append(one.stream)
    return found, ended


@QUICK
@given(st.lists(st.integers(0, 10**4), max_size=30))
def test_frames_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    assert read(pieces(WRITTEN, cuts)) == (READ, [3, 1])


def test_frames_come_byte_by_byte() -> None:
    assert read(pieces(WRITTEN, list(range(len(WRITTEN))))) == (READ, [3, 1])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", frames.PROTOCOL_ERROR),
        (frames.PREFACE + frame(frames.PING, 0, 0, bytes(8)), frames.PROTOCOL_ERROR),
        (frames.PREFACE + frame(frames.SETTINGS, 1, 0), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.PUSH_PROMISE, 4, 1, bytes(9)), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.DATA, 8, 1, b"\x05abc"), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.DATA, 8, 1), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.HEADERS, 8 | 4, 1, b"\x05abc"), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.CONTINUATION, 4, 1, b"x"), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.HEADERS, 0, 1) + frame(frames.DATA, 0, 1), frames.PROTOCOL_ERROR),
        (BEGIN + frame(frames.HEADERS, 0, 1) + frame(9, 4, 3), frames.PROTOCOL_ERROR),
        (BEGIN + b"\xff\xff\xff" + frame(frames.DATA, 0, 1)[3:], frames.FRAME_SIZE_ERROR),
        (BEGIN + frame(frames.HEADERS, 0, 1) + 99 * frame(9, 0, 1), frames.ENHANCE_YOUR_CALM),
        (BEGIN + 3 * CALM * frame(frames.PRIORITY, 0, 1, bytes(5)), frames.ENHANCE_YOUR_CALM),
    ],
)
def test_what_may_not_be_sent_ends_the_connection(data: bytes, code: int) -> None:
    with pytest.raises(ConnectionFault) as fault:
        list(FrameReader(2**16).frames(memoryview(data)))
    assert fault.value.code == code


class Socket:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.told = b""

    def write(self, data: bytes) -> None:
        self.told += data

    def writelines(self, parts: list[bytes]) -> None:
        self.told += b"".join(parts)

    def get_extra_info(self, _: str) -> Any:
        return "::1", 5, 0, 0

    def close(self) -> None: ...

    abort = pause_reading = resume_reading = close


async def echo(data: bytes, wire: Any) -> bytes:
    assert wire.peer() == "ipv6:[::1]:5"
    return bytes(data)


CALLING = BEGIN + b"".join(
    [
        frame(frames.HEADERS, 4, 1, BLOCK),
        frame(frames.DATA, 1, 1, b"\0\0\0\0\3abc"),
        frame(frames.HEADERS, 4, 3, hpack.Encoder().encode([*CALL, ("grpc-encoding", "gzip")])),
        frame(frames.DATA, 8, 3, padded(b"\1\0\0\0\x30" + gzip.compress(b"x"), 9)),
        frames.settings([(4, 100), (5, 2**14), (1, 0)]),
        frames.window_update(0, 7) + frames.window_update(3, 7) + frames.reset(3, 8),
        frame(frames.HEADERS, 5, 5, BLOCK),
        frame(frames.PING, 0, 0, bytes(8)),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**4), st.binary(max_size=4)), max_size=4),
    st.booleans(),
)
def test_no_bytes_raise_anything_in_the_server(
    changes: list[tuple[int, bytes]], begun: bool
) -> None:
    """Replaced, taken out or put in: the caller is told why, at worst, and nothing is held."""
    data = CALLING
    for at, new in changes:
        at = at % len(data) if not begun else len(BEGIN) + at % (len(data) - len(BEGIN))
        data = data[:at] + new + data[at + at % 3 :]

    async def run() -> None:
        shared = Shared({"/t/Echo": Route(echo)}, ServiceConfig(), [0])
        socket, opened = Socket(), set[connection.Connection]()
        one = connection.Connection(shared, opened)
        one.connection_made(socket)
        for part in pieces(data, [at for at, _ in changes]):
            one.get_buffer(-1)[: len(part)] = part
            one.buffer_updated(len(part))
        if not changes:
            assert b"\0\0\0\0\3abc" in socket.told and b"\x07grpc-sta" not in socket.told[:100]
        one.connection_lost(None)
        assert shared.held == [0] and not opened

    asyncio.run(run())


def test_bytes_of_a_large_message_may_be_read_to_where_they_belong() -> None:
    payload = bytes(range(256)) * 1024
    message = b"\0" + len(payload).to_bytes(4, "big") + payload
    sent = frame(frames.DATA, frames.END_STREAM, 1, message)
    reader, assembler = FrameReader(2**16), Assembler("identity", 2**24)
    found, at = list[Message](), 1000  # of the frame: the first piece comes by the common buffer
    for one in reader.frames(memoryview(BEGIN + sent[:at])):
        if one.kind == frames.DATA:
            found += assembler.add(memoryview(one.payload))
    while at < len(sent):
        stream, left = reader.inside() or (0, 0)
        assert (stream, left) == (1, len(sent) - at)
        space = assembler.space(left)
        assert space is not None
        count = min(len(space), 70_000)
        space[:count] = sent[at : at + count]
        for one in reader.frames(space[:count], placed=True):
            assert one.placed
            found += assembler.add(memoryview(one.payload), one.placed)
        at += count
    assert [bytes(one.data) for one in found] == [payload]
    assert reader.inside() is None
    assert assembler.space(10) is None
