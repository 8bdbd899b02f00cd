"""HTTP/2 frames as bytes: the numbers of RFC 9113, and the few frames that a server writes."""

import struct
from collections.abc import Iterable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION = 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20  # flags

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3  # settings
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
FIRST_WINDOW = 65_535  # bytes that may be sent before anything else is agreed
LEAST_FRAME = 16_384  # bytes of payload that every peer takes
MOST = 2**31 - 1  # a stream's number, and a window

_HEAD = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")


class ConnectionFault(Exception):  # noqa: N818 - not always the peer's error
    """The connection cannot go on."""

    def __init__(self, code: int, sentence: str) -> None:
        """Say why, by a number of RFC 9113, section 7, and in words."""
        super().__init__(sentence)
        self.code = code


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a frame's payload."""
    return _HEAD.pack(length >> 8, length & 255, kind, flags, stream)


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(*pair) for pair in pairs)
    return head(len(payload), SETTINGS, 0, 0) + payload


def settings_in(payload: bytes) -> list[tuple[int, int]]:
    """What a SETTINGS frame says.

    Raises:
      ConnectionFault: no whole number of settings.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return head(4, WINDOW_UPDATE, 0, stream) + _NUMBER.pack(more)


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return head(4, RST_STREAM, 0, stream) + _NUMBER.pack(code)


def ping(payload: bytes, ack: bool) -> bytes:
    """A PING frame."""
    return head(8, PING, ACK if ack else 0, 0) + payload


def goaway(last: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame: streams above `last` have not been looked at."""
    told = text.encode()[:200]
    return head(8 + len(told), GOAWAY, 0, 0) + _NUMBER.pack(last) + _NUMBER.pack(code) + told


def number(payload: bytes) -> int:
    """The number of 31 bits that a payload of four bytes holds.

    Raises:
      ConnectionFault: not four bytes.
    """
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"a payload of {len(payload)} bytes, expected 4")
    return int(_NUMBER.unpack(payload)[0]) & MOST


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of DATA or HEADERS without its padding and priority.

    Raises:
      ConnectionFault: there is more padding than payload.
    """
    start = end = 0
    if flags & PADDED:
        start, end = 1, payload[0] if payload else 1
    if flags & WITH_PRIORITY:
        start += 5
    if start + end > len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[start : len(payload) - end]
