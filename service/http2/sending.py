"""The way out of a connection: frames gathered for the socket, as far as the caller has room."""

import asyncio
from collections.abc import Mapping
from typing import Any

from service.http2 import frames
from service.http2.frames import ConnectionFault, head
from service.http2.headers import LEADING
from service.http2.stream import Stream

JOINED = 2**14  # bytes that are cheaper in one piece than apart
GATHERED = 2**18  # bytes after which the socket is asked whether it takes more
_TABLE = 4096  # bytes of HPACK's table, unless the caller says less
_NO_TABLE = b"\x20"  # RFC 7541, section 6.3: ours has no bytes from here on


class Sending:
    """What a connection has to say, and how much of it may be said."""

    def __init__(self, transport: Any) -> None:
        """Begin with the windows that every caller has."""
        self.transport: asyncio.Transport = transport
        self.paused = False  # the socket takes no more
        self.answered = False  # a call, since this was last set back
        self._out: list[bytes | memoryview] = []
        self._size = 0  # bytes in it
        self._blocked: dict[int, Stream] = {}  # that have more to send than there is room for
        self._window = frames.FIRST_WINDOW  # of the caller, for all streams
        self.first_window = frames.FIRST_WINDOW  # of the caller, for each new stream
        self._frame = frames.LEAST_FRAME  # bytes that the caller takes at once
        self._resize = b""  # before the next header block

    def say(self, frame: bytes) -> None:
        """Adds a frame of the connection's own."""
        self._out.append(frame)
        self._size += len(frame)

    def say_block(self, stream: int, block: bytes, flags: int = 0) -> None:
        """Adds a header block."""
        block, self._resize = self._resize + block, b""
        self.say(head(len(block), frames.HEADERS, flags | frames.END_HEADERS, stream) + block)

    def flush(self) -> None:
        """Hands all that was gathered to the socket."""
        if self._out:
            if self._size <= JOINED:
                self.transport.write(b"".join(self._out))
            else:
                self.transport.writelines(self._out)
            self._out, self._size = [], 0

    def push(self, stream: Stream) -> bool:
        """Sends what a stream has, as far as there is room; the rest when there is.

        Returns whether the call is through.
        """
        number = stream.number
        if stream.pending and not stream.led:
            self.say_block(number, LEADING)
            stream.led = True
        while stream.pending:
            if self._size > GATHERED:
                self.flush()
            message = stream.pending[0]
            room = min(len(message), self._window, stream.window, self._frame)
            if room <= 0 or self.paused:
                self._blocked[number] = stream
                stream.blocked()
                return False
            self._window -= room
            stream.window -= room
            self.answered = True
            whole = room == len(message)
            self._out += (
                head(room, frames.DATA, 0, number),
                message if whole else memoryview(message)[:room],
            )
            self._size += frames.HEAD_BYTES + room
            if whole:
                stream.pending.popleft()
            else:
                stream.pending[0] = memoryview(message)[room:]
        if stream.ending is None:
            stream.drained()
            return False
        block = stream.ending if stream.led else LEADING + stream.ending
        self.say_block(number, block, frames.END_STREAM)
        if not stream.ended:  # the caller need not send the rest
            self.say(frames.reset(number, frames.NO_ERROR))
        self.answered = True
        return True

    def forget(self, stream: Stream) -> None:
        """The stream has no more to say, or may not."""
        self._blocked.pop(stream.number, None)

    def more(self, stream: Stream | None, room: int) -> None:
        """The caller has more room, for one stream or, None, for all together.

        Raises:
          ConnectionFault: more than there can be.
        """
        if stream is not None:
            stream.window += room
            if stream.window > frames.MOST:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "too large a window")
            if stream.number in self._blocked and not self.paused:
                self._push_again(stream)
            return
        self._window += room
        if self._window > frames.MOST:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "too large a window")
        self.go_on()

    def go_on(self) -> None:
        """Pushes the streams that waited for room, as long as there is any for all together."""
        for stream in [one for one in self._blocked.values() if one.window > 0]:
            if self.paused or self._window <= 0:
                return
            self._push_again(stream)

    def _push_again(self, stream: Stream) -> None:
        self._blocked.pop(stream.number, None)  # it comes last, if it has to wait once more
        stream.go_on()

    def agree(self, settings: list[tuple[int, int]], streams: Mapping[int, Stream]) -> None:
        """Takes over what the caller has set.

        Raises:
          ConnectionFault: a value that cannot be.
        """
        for key, value in dict(settings).items():
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MOST:
                    raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "too large a window")
                for stream in streams.values():
                    stream.window += value - self.first_window
                    if stream.window > frames.MOST:
                        raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "too large a window")
                self.first_window = value
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.LEAST_FRAME <= value < 2**24:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._frame = value
            elif key == frames.HEADER_TABLE_SIZE and value < _TABLE:
                self._resize = _NO_TABLE
            elif key == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFault(frames.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        self.say(head(0, frames.SETTINGS, frames.ACK, 0))
        self.go_on()
