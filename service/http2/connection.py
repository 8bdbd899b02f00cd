"""One connection: its greeting, its pings, its end. The calls on it are `service.http2.calls`.

Everything it reads is hostile. What a caller can make the server keep is bounded: messages that no
handler has yet by a budget for the whole process, headers by their limit, calls by max_streams; and
while its socket takes nothing, nothing is read from it.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from service.http2 import frames
from service.http2.calls import Calls, Shared
from service.http2.frames import ConnectionFault
from service.http2.headers import SLACK
from service.http2.reader import MAX_FRAME, Frame, FrameReader
from service.http2.sending import Sending

WINDOW = 2**24  # bytes that may come on a connection before they are accounted for
WORTH_PLACING = 2**15  # bytes of a message: fewer are copied from the common buffer
FIRST_S = 10.0  # for a new connection to say something sensible
STRIKES = 2  # pings too early that are forgiven, as gRPC has it
LAST_S = 1.0  # for the caller to hear that the connection ends

# What is read is copied from here into messages before anything else is read: one does for all.
_VIEW = memoryview(bytearray(2**20))
_RETIRING = b"retiring"  # of the ping that goes with the first word of an end


class Connection(asyncio.BufferedProtocol):
    """The server's end of one connection."""

    def __init__(self, shared: Shared, connections: "set[Connection]") -> None:
        """Wait to be connected; `connections` are those that are open."""
        self._shared, self._connections = shared, connections
        self._config = shared.config
        self._reader = FrameReader(SLACK * self._config.max_metadata_bytes)
        self._unaccounted = 0  # bytes of DATA since the last WINDOW_UPDATE
        self._agreed = False  # the caller's settings are here
        self._deaf = False  # what comes is not looked at any more
        self._retiring = False  # the caller was asked to go
        self._pinged, self._strikes = 0.0, 0
        self._timers: list[asyncio.TimerHandle] = []
        self._into = _VIEW  # where bytes are read to

    def connection_made(self, transport: Any) -> None:
        """Greet the caller."""
        self._later = asyncio.get_running_loop().call_later
        self._sending = Sending(transport)
        self._calls = Calls(self._shared, self._sending, transport.get_extra_info("peername"))
        self._handle: dict[int, Callable[[Frame], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._calls.on_headers,
            frames.RST_STREAM: self._calls.on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._calls.on_room,
        }
        self._connections.add(self)
        config = self._config
        ours = {
            frames.MAX_CONCURRENT_STREAMS: config.max_streams,
            frames.INITIAL_WINDOW_SIZE: self._calls.room,
            frames.MAX_FRAME_SIZE: MAX_FRAME,
            frames.MAX_HEADER_LIST_SIZE: config.max_metadata_bytes,
        }
        self._sending.say(frames.settings(ours.items()))
        self._sending.say(frames.window_update(0, WINDOW - frames.FIRST_WINDOW))
        self._sending.flush()
        self._timers.append(self._later(FIRST_S, self._too_late))
        if config.max_connection_age_s:
            age = config.max_connection_age_s * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
            self._timers.append(self._later(age, self._aged))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes next."""
        inside = self._reader.inside()
        space = self._calls.space(*inside) if inside else None
        self._into = space if space is not None and len(space) >= WORTH_PLACING else _VIEW
        return self._into

    def buffer_updated(self, nbytes: int) -> None:
        """Something has come."""
        if self._deaf:
            return
        try:
            for frame in self._reader.frames(self._into[:nbytes], self._into is not _VIEW):
                handle = self._handle.get(frame.kind)
                if handle:  # else it is of a kind that is to be ignored
                    handle(frame)
        except ConnectionFault as fault:
            self._deaf = True
            self._calls.stop()
            self._sending.say(frames.goaway(self._calls.last, fault.code, str(fault)))
            self._close()
        self._sending.flush()
        self._close_if_done()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._deaf = True
        self._connections.discard(self)
        for timer in self._timers:
            timer.cancel()
        self._calls.stop()

    def pause_writing(self) -> None:
        """The caller does not read: nothing more is read from it, either."""
        self._sending.paused = True
        self._sending.transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._sending.paused = False
        self._sending.transport.resume_reading()
        self._sending.go_on()
        self._sending.flush()

    # The end.

    def retire(self, reason: str = "") -> None:
        """Takes no new calls, once the caller knows; closes when those are over that are there.

        Calls may be on their way: until the caller has answered a ping they are taken.
        """
        if not (self._retiring or self._deaf):
            self._retiring = True
            self._sending.say(frames.goaway(frames.MOST, frames.NO_ERROR, reason))
            self._sending.say(frames.ping(_RETIRING, ack=False))
            self._sending.flush()
            self._timers.append(self._later(LAST_S, self._take_no_more))

    def abort(self) -> None:
        """Closes at once."""
        self._sending.transport.abort()

    def _take_no_more(self) -> None:
        if not (self._calls.ending or self._deaf):
            self._calls.ending = True
            self._calls.on_empty = self._close_if_done
            self._sending.say(frames.goaway(self._calls.last, frames.NO_ERROR))
            self._sending.flush()
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._calls.ending and not self._calls.streams and not self._deaf:
            self._deaf = True
            self._close()

    def _close(self) -> None:
        """Closes once what was said is sent; the socket of a caller who does not read is torn."""
        self._sending.flush()
        self._sending.transport.close()
        self._timers.append(self._later(LAST_S, self.abort))

    def _aged(self) -> None:
        self.retire("max_age")
        grace = min(self._config.max_connection_age_grace_s, 1e6)
        self._timers.append(self._later(LAST_S + grace, self.abort))

    def _too_late(self) -> None:
        if not self._agreed:
            self.abort()

    # What frames ask of the connection.

    def _on_data(self, frame: Frame) -> None:
        self._unaccounted += frame.size
        if self._unaccounted > WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more DATA than there was room for")
        if self._unaccounted > WINDOW // 2:
            self._sending.say(frames.window_update(0, self._unaccounted))
            self._unaccounted = 0
        self._calls.on_data(frame)

    def _on_settings(self, frame: Frame) -> None:
        if frame.flags & frames.ACK:
            if frame.payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "an ACK of SETTINGS holds settings")
        else:
            self._agreed = True
            self._sending.agree(frames.settings_in(bytes(frame.payload)), self._calls.streams)

    def _on_ping(self, frame: Frame) -> None:
        payload = bytes(frame.payload)
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a PING of {len(payload)} bytes")
        if frame.flags & frames.ACK:
            if payload == _RETIRING and self._retiring:
                self._take_no_more()
            return
        now = time.monotonic()
        if self._sending.answered:  # since the last one: such pings measure how fast the line is
            self._strikes = 0
        elif now - self._pinged < self._config.min_ping_interval_s:
            self._strikes += 1
            if self._strikes > STRIKES:  # gRPC's callers know these words
                raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too_many_pings")
        self._pinged, self._sending.answered = now, False
        self._sending.say(frames.ping(payload, ack=True))
