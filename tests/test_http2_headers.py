"""The lean transport's messages and header blocks, against the libraries that write them."""

import gzip
import zlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_http2_frames import CALL, QUICK, pieces

from service.http2 import frames
from service.http2.frames import ConnectionFault
from service.http2.headers import HeaderReader
from service.http2.messages import FIRST, Assembler
from service.status import Refused

MESSAGES = [b"", b"abc", bytes(range(256)) * 20, b"", b"z" * 3000]


@QUICK
@given(
    st.sampled_from(["identity", "gzip", "deflate"]),
    st.lists(st.integers(0, 10**5), max_size=20),
)
def test_messages_are_the_same_however_they_are_cut(encoding: str, cuts: list[int]) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)
    written = b""
    for message in MESSAGES:
        packed = pack(message)
        written += bytes([encoding != "identity"]) + len(packed).to_bytes(4, "big") + packed
    assembler = Assembler(encoding, 5120)
    found = [one for part in pieces(written, cuts) for one in assembler.add(part)]
    assert [bytes(assembler.unpacked(one)) for one in found] == MESSAGES
    assert assembler.held == 0


def test_a_large_message_takes_room_as_it_comes() -> None:
    data = bytes(range(250)) * (FIRST // 100)
    assembler = Assembler("identity", len(data))
    whole = b"\0" + len(data).to_bytes(4, "big") + data
    found = []
    for at in range(0, len(whole), 700_001):
        found += assembler.add(memoryview(whole[at : at + 700_001]))
        if at == 0:
            assert assembler._message is not None and len(assembler._message) == FIRST
    assert [bytes(one.data) for one in found] == [data]


@pytest.mark.parametrize(
    ("encoding", "flag", "data", "code"),
    [
        ("identity", 0, bytes(101), "RESOURCE_EXHAUSTED"),
        ("identity", 2, b"", "INTERNAL"),
        ("identity", 1, b"", "INTERNAL"),
        ("gzip", 1, b"abc", "INTERNAL"),
        ("gzip", 1, gzip.compress(b"abc", mtime=0)[:20], "INTERNAL"),
        ("gzip", 1, gzip.compress(bytes(101), mtime=0), "RESOURCE_EXHAUSTED"),
        ("deflate", 1, zlib.compress(bytes(101)), "RESOURCE_EXHAUSTED"),
    ],
)
def test_messages_that_are_refused(encoding: str, flag: int, data: bytes, code: str) -> None:
    assembler = Assembler(encoding, limit=100)
    with pytest.raises(Refused) as refused:
        for one in assembler.add(memoryview(bytes([flag, 0, 0, 0, len(data)]) + data)):
            assembler.unpacked(one)
    assert refused.value.status.code == code


NAMES = st.sampled_from(["x-a", "x-b", "x-c", "authorization"])
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from(["", "1", "abc", "y" * 900])), max_size=4)


@QUICK
@given(st.lists(st.tuples(FIELDS, st.booleans()), min_size=1, max_size=12), st.integers(0, 4096))
def test_header_blocks_are_read_as_hpack_writes_them(
    blocks: list[tuple[list[tuple[str, str]], bool]], table: int
) -> None:
    """Also where the table changes between blocks of the same bytes, which are remembered."""
    call = [hpack.NeverIndexedHeaderTuple(*field) for field in CALL]  # else all bytes would change
    encoder, reader = hpack.Encoder(), HeaderReader(2**14)
    for number, (fields, huffman) in enumerate(blocks):
        if number == len(blocks) // 2:
            encoder.header_table_size = table
        for _ in range(3):
            request = reader.read(encoder.encode([*call, *fields], huffman))
            assert (request.path, request.problem) == ("/t/Echo", 0)
            assert request.metadata == tuple(fields)
            size = sum(len(name) + len(value) + 32 for name, value in [*CALL, *fields])
            assert request.size == size


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([*CALL, ("x-Upper", "1")], 400),
        ([*CALL, ("x", "a\r\nb")], 400),
        ([CALL[0], CALL[2], CALL[1]], 400),
        ([CALL[0], *CALL], 400),
        ([(":status", "200"), *CALL], 400),
        ([*CALL, ("grpc-timeout", "1x")], 400),
        ([*CALL, ("grpc-timeout", "123456789S")], 400),
        ([*CALL, ("x-bin", "a")], 400),
        ([(":method", "GET"), *CALL[1:]], 405),
        ([*CALL[:2], ("content-type", "application/grpcx")], 415),
        (CALL[:2], 415),
    ],
)
def test_requests_that_are_none(fields: list[tuple[str, str]], problem: int) -> None:
    assert HeaderReader(2**14).read(hpack.Encoder().encode(fields)).problem == problem


def test_binary_metadata_and_deadlines() -> None:
    fields = [*CALL, ("x-bin", "AP8,AA==,"), ("grpc-timeout", "1500m")]
    request = HeaderReader(2**14).read(hpack.Encoder().encode(fields))
    assert request.metadata == (("x-bin", b"\0\xff"), ("x-bin", b"\0"), ("x-bin", b""))
    assert request.timeout == 1.5


@given(st.binary(max_size=40))
def test_a_block_of_any_bytes_is_read_or_ends_the_connection(block: bytes) -> None:
    try:
        HeaderReader(2**14).read(block)
    except ConnectionFault as fault:
        assert fault.code == frames.COMPRESSION_ERROR
