"""Header blocks of gRPC over HTTP/2: a request's read and checked, an answer's written.

HPACK is read by the library `hpack`. What is written uses no table, so that it can be made once.
See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md for what gRPC sends.
"""

import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

import grpc
from hpack import Decoder, HPACKError

from service.http2.frames import COMPRESSION_ERROR, ConnectionFault
from service.status import Status

ENCODINGS = ("identity", "gzip", "deflate")  # of messages
SLACK = 4  # times the limit that is decoded at all, to be refused by a status
_REMEMBERED = 64  # blocks of one connection,
_SHORT = 2048  # of a size up to this
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_NAME = re.compile(r":?[!#$%&'*+.^_`|~0-9a-z-]+")
_BROKEN = re.compile(r"[\0\r\n]")  # no part of a value
_PSEUDO = (":method", ":scheme", ":path", ":authority")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NUMBERS = {code.name: code.value[0] for code in grpc.StatusCode}

Metadata = tuple[tuple[str, str | bytes], ...]


class Request(NamedTuple):
    """What a header block asks for."""

    path: str  # as in "/jaxnn.v1.DigitClassifier/Classify"
    metadata: Metadata
    timeout: float | None  # seconds
    encoding: str  # of the messages: one of ENCODINGS, or unknown
    size: int  # of all headers, by RFC 9113, section 6.5.2
    problem: int = 0  # an HTTP status for what is no call of gRPC


class HeaderReader:
    """Reads the header blocks of one connection, in order.

    Calls of one client mostly have the same bytes for headers; what they say is remembered until
    the table changes that they refer to.
    """

    def __init__(self, limit: int) -> None:
        """Begin with an empty table; `limit` is the largest size that a call may have."""
        self._decoder = Decoder(SLACK * limit)
        self._known: dict[bytes, Request] = {}

    def read(self, block: bytes) -> Request:
        """A whole header block.

        Raises:
          ConnectionFault: it cannot be read, so that no later one could be either.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._table()
        try:
            fields = self._decoder.decode(block, raw=True)
            request = _request(fields)
        except (HPACKError, UnicodeDecodeError, IndexError, ValueError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"headers: {error}") from error
        after = self._table()
        if after[0] is not before[0] or after[1:] != before[1:]:
            self._known.clear()
        elif len(self._known) < _REMEMBERED and max(request.size, len(block)) <= _SHORT:
            self._known[block] = request
        return request

    def _table(self) -> tuple[object, int, int]:
        """What changes with the table; its newest entry is a new object each time."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return entries[0] if entries else None, len(entries), table.maxsize


def _request(fields: Iterable[tuple[bytes, bytes]]) -> Request:
    pseudo: dict[str, str] = {}
    regular = False  # one of the others was there
    kind, timeout, encoding, size, problem = "", None, ENCODINGS[0], 0, 0
    metadata: list[tuple[str, str | bytes]] = []
    for raw_name, raw_value in fields:
        size += len(raw_name) + len(raw_value) + 32
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if not _NAME.fullmatch(name) or _BROKEN.search(value):
            problem = 400
            continue
        if name[0] == ":":
            if regular or name in pseudo or name not in _PSEUDO:
                problem = 400
            pseudo[name] = value
            continue
        regular = True
        if name == "content-type":
            kind = value
        elif name == "grpc-timeout":
            match = _TIMEOUT.fullmatch(value)
            if match:
                timeout = int(match[1]) * _UNITS[match[2]]
            else:
                problem = 400
        elif name == "grpc-encoding":
            encoding = value
        elif name.endswith("-bin"):
            try:  # several values of one name may be joined by commas
                metadata += [(name, _from_base64(part)) for part in raw_value.split(b",")]
            except binascii.Error:
                problem = 400
        elif name not in ("te", "grpc-accept-encoding"):
            metadata.append((name, value))
    if pseudo.get(":method") != "POST":
        problem = 405
    elif not re.match(r"application/grpc($|[+;])", kind):
        problem = 415
    return Request(pseudo.get(":path", ""), tuple(metadata), timeout, encoding, size, problem)


def _from_base64(text: bytes) -> bytes:
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))  # senders may leave these out


def written(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block: every field as it is, without a table and without Huffman's code."""
    parts = []
    for name, value in fields:
        parts.append(b"\0")  # a literal that is not to be remembered
        for text in (name.encode("latin-1"), value.encode("latin-1")):
            parts += [_length(len(text)), text]
    return b"".join(parts)


def _length(length: int) -> bytes:
    """A number with a prefix of 7 bits, by RFC 7541, section 5.1."""
    if length < 127:
        return bytes([length])
    found, length = b"\x7f", length - 127
    while length > 127:
        found += bytes([length & 127 | 128])
        length >>= 7
    return found + bytes([length])


def trailers(status: Status) -> bytes:
    """The header block that ends a call which failed."""
    # Bytes of UTF-8 that are not plain ASCII are written as %XX.
    sentence = "".join(
        chr(byte) if 32 <= byte < 127 and byte != 37 else f"%{byte:02X}"
        for byte in status.sentence.encode(errors="replace")
    )
    fields = [("grpc-status", str(_NUMBERS[status.code])), ("grpc-message", sentence)]
    return written([*fields, *status.trailing])


_OK = b"\x88"  # :status 200, number 8 of the static table
LEADING = _OK + written(
    [("content-type", "application/grpc"), ("grpc-accept-encoding", ",".join(ENCODINGS))]
)
WELL = written([("grpc-status", "0")])


def refusal(status: int) -> bytes:
    """The header block for what is no call of gRPC."""
    return written([(":status", str(status))])
