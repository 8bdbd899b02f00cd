"""The frames of a connection out of the bytes that come: whole ones, but DATA piece by piece.

Header blocks in several frames come as one. Knows no stream, and keeps no more than one frame that
is no DATA, or one header block up to its limit.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

from service.http2 import frames
from service.http2.frames import ConnectionFault

MAX_FRAME = 2**20  # bytes of DATA in one frame
_OTHERS = 2**15  # bytes in one frame of any other kind
_CONTINUED = 64  # frames of one header block
CALM = 2000  # frames a second that ask for nothing

_OF_STREAMS = (frames.DATA, frames.HEADERS, frames.PRIORITY, frames.RST_STREAM)
_USEFUL = (frames.DATA, frames.HEADERS, frames.CONTINUATION, frames.WINDOW_UPDATE)
_OF_ALL = (frames.SETTINGS, frames.PING, frames.GOAWAY)

_FIRST = frames.SETTINGS, 0  # kind, and the flag ACK
_Bytes = bytes | memoryview


class Frame(NamedTuple):
    """A frame, or a piece of one of DATA; the flag END_STREAM comes with its last piece."""

    kind: int
    flags: int
    stream: int
    payload: _Bytes  # without padding; to be used before the next is asked for
    size: int  # bytes that count for flow control
    placed: bool = False  # the payload lies where its message is put together


class FrameReader:
    """Reads what one caller sends, from the first byte on."""

    def __init__(self, block_limit: int) -> None:
        """Begin; `block_limit` is the largest header block in bytes."""
        self._block_limit = block_limit
        self._partial = bytearray()
        self._greeted = self._settled = False  # the preface, and the SETTINGS after it, are here
        self._head: tuple[int, int, int] | None = None  # kind, flags and stream, once read
        self._left = 0  # bytes of the payload to come
        self._padding = 0  # bytes after that
        self._block = bytearray()  # a header block that goes on
        self._continued = 0  # frames of it
        self._opening = 0, 0  # flags and stream of its first frame
        self._second, self._idle = 0, 0  # frames of this second that ask for nothing

    def inside(self) -> tuple[int, int] | None:
        """The stream of the DATA that comes next, and how many bytes; None for anything else."""
        if self._head and self._left and self._head[0] == frames.DATA:
            _, flags, stream = self._head
            return None if flags & frames.PADDED else (stream, self._left)
        return None

    def frames(self, view: memoryview, placed: bool = False) -> Iterator[Frame]:
        """What the next bytes bring.

        Args:
          view: them.
          placed: they are no more than `inside` said, and lie where they belong.

        Raises:
          ConnectionFault: they are no HTTP/2, or go beyond a limit.
        """
        at, end = 0, len(view)
        while at < end:
            if not self._greeted:
                at = self._fill(view, at, len(frames.PREFACE))
                if not frames.PREFACE.startswith(self._partial):
                    raise ConnectionFault(frames.PROTOCOL_ERROR, "this is no HTTP/2")
                if len(self._partial) == len(frames.PREFACE):
                    self._greeted = True
                    self._partial.clear()
                continue
            if self._head is None:
                if not self._partial and end - at >= frames.HEAD_BYTES:
                    self._begin(view[at : at + frames.HEAD_BYTES])
                    at += frames.HEAD_BYTES
                else:
                    at = self._fill(view, at, frames.HEAD_BYTES)
                    if len(self._partial) < frames.HEAD_BYTES:
                        return
                    whole = bytes(self._partial)
                    self._partial.clear()
                    self._begin(whole)
                assert self._head is not None  # noqa: S101 - for the type checker
            kind, flags, stream = self._head
            if kind == frames.DATA:
                extra = 0
                if flags & frames.PADDED:
                    if at == end and self._left:
                        return
                    extra = self._pad(view[at] if self._left else None)
                    at += 1
                    flags &= ~frames.PADDED
                    self._head = kind, flags, stream
                count = min(self._left, end - at)
                self._left -= count
                piece = view[at : at + count]
                at += count
                skipped = min(self._padding, end - at) if not self._left else 0
                self._padding -= skipped
                at += skipped
                if self._left or self._padding:
                    yield Frame(kind, 0, stream, piece, count + extra, placed)
                else:
                    self._head = None
                    yield Frame(kind, flags, stream, piece, count + extra, placed)
                continue
            if not self._partial and end - at >= self._left:
                payload = bytes(view[at : at + self._left])
                at += self._left
            else:
                at = self._fill(view, at, self._left)
                if len(self._partial) < self._left:
                    return
                payload = bytes(self._partial)
                self._partial.clear()
            self._head, self._left = None, 0
            found = self._whole(kind, flags, stream, payload)
            if found:
                yield found

    def _fill(self, view: memoryview, at: int, size: int) -> int:
        """Keeps bytes until there are `size`; returns where the rest begins."""
        stop = min(at + size - len(self._partial), len(view))
        self._partial += view[at:stop]
        return stop

    def _begin(self, head: _Bytes) -> None:
        """Looks at the nine bytes before a payload."""
        length = head[0] << 16 | head[1] << 8 | head[2]
        kind, flags = head[3], head[4]
        stream = int.from_bytes(head[5:9], "big") & frames.MOST
        most = MAX_FRAME if kind == frames.DATA else max(_OTHERS, self._block_limit)
        if length > most:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if kind == frames.PUSH_PROMISE or not (self._settled or (kind, flags & 1) == _FIRST):
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"frame {kind} is not a caller's to send")
        self._settled = True
        if self._continued and (kind != frames.CONTINUATION or stream != self._opening[1]):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block was broken off")
        if kind not in _USEFUL or (kind == frames.DATA and not length and not flags & 1):
            self._calm()
        if (kind in _OF_STREAMS and not stream) or (kind in _OF_ALL and stream):
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"frame {kind} on stream {stream}")
        self._head, self._left, self._padding = (kind, flags, stream), length, 0

    def _calm(self) -> None:
        """Counts a frame that asks for nothing: floods of them have brought servers down."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._idle = second, 0
        self._idle += 1
        if self._idle > CALM:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _pad(self, length: int | None) -> int:
        """Takes the padding's length in; returns how many bytes are no data."""
        if length is None or length > self._left - 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "more padding than payload")
        self._left -= 1 + length
        self._padding = length
        return 1 + length

    def _whole(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        """A frame that is no DATA; None for a header block that goes on."""
        if kind == frames.HEADERS:
            payload = frames.unpadded(payload, flags)
            self._opening = flags, stream
        elif kind != frames.CONTINUATION:
            return Frame(kind, flags, stream, payload, 0)
        elif not self._continued:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block goes on that is not there")
        self._continued += 1
        if self._continued > _CONTINUED or len(self._block) + len(payload) > self._block_limit:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too large a header block")
        self._block += payload
        if not flags & frames.END_HEADERS:
            return None
        block = bytes(self._block)
        self._block.clear()
        self._continued = 0
        return Frame(frames.HEADERS, self._opening[0], stream, block, 0)
