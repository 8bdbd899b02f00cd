"""The calls on one connection: which there are, and what frames bring them."""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from service.config import ServiceConfig, address
from service.http2 import frames
from service.http2.frames import ConnectionFault
from service.http2.headers import ENCODINGS, LEADING, HeaderReader, Request, refusal, trailers
from service.http2.messages import PREFIX
from service.http2.reader import Frame
from service.http2.sending import Sending
from service.http2.stream import Stream
from service.rpc import Route, Wire
from service.status import Refused, Status

MOST_HELD = 64  # times the largest message: what may wait in the process for callers


class Shared(NamedTuple):
    """What all connections of a server have together."""

    routes: Mapping[str, Route]  # by path
    config: ServiceConfig
    held: list[int]  # one number: bytes that wait for callers to send more, or to read


class Calls:
    """The streams of a connection, and for them the way back (`stream.Sender`)."""

    def __init__(self, shared: Shared, sending: Sending, peername: Any) -> None:
        """None yet."""
        self.streams: dict[int, Stream] = {}
        self.last = 0  # the highest that was begun
        self.ending = False  # no new ones
        self.on_empty: Callable[[], None] = lambda: None  # is told when no call is left
        self.peer = _peer(peername)
        self._shared, self._config, self._sending = shared, shared.config, sending
        self._headers = HeaderReader(self._config.max_metadata_bytes)
        # Bytes of a new stream: a request is there as a whole before its handler begins. Callers
        # who have not read our settings yet may send HTTP/2's own first window.
        largest = self._config.max_message_bytes + PREFIX
        self.room = min(max(largest, frames.FIRST_WINDOW), frames.MOST)

    # What frames bring.

    def on_headers(self, frame: Frame) -> None:
        """A new call, or the end of one's request."""
        number, ended = frame.stream, bool(frame.flags & frames.END_STREAM)
        request = self._headers.read(bytes(frame.payload))  # always: blocks refer to earlier ones
        if number % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"a caller's stream is {number}")
        if number <= self.last:  # trailers, of which gRPC's callers have none
            if number in self.streams:
                if self.streams[number].ended or not ended:
                    raise ConnectionFault(frames.STREAM_CLOSED, "HEADERS within or after a request")
                self._receive(self.streams[number], memoryview(b""), ended)
            return
        if self.ending or len(self.streams) >= self._config.max_streams:
            if not self.ending:
                self.last = number
            self._sending.say(frames.reset(number, frames.REFUSED_STREAM))
            return
        self.last = number
        route = self._shared.routes.get(request.path)
        problem = self._problem(request, route)
        if problem and route and route.stream and isinstance(problem, Status):
            route = Route(partial(_refused, problem), stream=True)  # heard out, as all streams are
        elif problem or not route:
            told = LEADING + trailers(problem) if isinstance(problem, Status) else refusal(problem)
            self._sending.say_block(number, told, frames.END_STREAM)
            if not ended:
                self._sending.say(frames.reset(number, frames.NO_ERROR))
            return
        limit = self._config.max_message_bytes
        stream = Stream(self, number, route, request, self.room, limit)
        stream.window = self._sending.first_window
        self.streams[number] = stream
        if ended:
            self._receive(stream, memoryview(b""), ended)

    def on_data(self, frame: Frame) -> None:
        """A piece of a call's request."""
        stream = self._stream(frame)
        if stream is None:
            return
        stream.room -= frame.size
        if stream.ended:
            raise ConnectionFault(frames.STREAM_CLOSED, "DATA after the end of a request")
        if stream.room < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more DATA than there was room for")
        ended, padding = bool(frame.flags & frames.END_STREAM), frame.size - len(frame.payload)
        if padding and not ended:  # no handler will take it
            stream.room += padding
            self._sending.say(frames.window_update(stream.number, padding))
        self._receive(stream, memoryview(frame.payload), ended, frame.placed)

    def space(self, number: int, most: int) -> memoryview | None:
        """Where the next bytes of a stream's DATA may be read to; None for anywhere."""
        stream = self.streams.get(number)
        if stream is None or stream.ended or most > stream.room:
            return None
        return stream.space(most)

    def on_reset(self, frame: Frame) -> None:
        """A caller is gone."""
        frames.number(bytes(frame.payload))
        stream = self._stream(frame)
        if stream:
            self._forget(stream)

    def on_room(self, frame: Frame) -> None:
        """A caller has room for more of an answer."""
        more = frames.number(bytes(frame.payload))
        if not more:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
        stream = self._stream(frame) if frame.stream else None
        if stream or not frame.stream:
            self._sending.more(stream, more)

    def stop(self) -> None:
        """The connection is gone, and so are all callers."""
        for stream in list(self.streams.values()):
            self._forget(stream)

    # What streams ask for.

    def push(self, stream: Stream) -> None:
        """Sends what the stream has, as far as the caller has room for it."""
        if stream.number in self.streams:
            if self._sending.push(stream):
                self._forget(stream)
            elif stream.pending or stream.held:
                self._account(stream)

    def flush(self) -> None:
        """Hands all that was pushed to the socket."""
        self._sending.flush()

    def taken(self, stream: Stream, count: int) -> None:
        """A handler has taken a message off a stream of them: there is room for as much again."""
        if stream.number in self.streams:
            self._account(stream)
            if not stream.ended:
                stream.room += count
                self._sending.say(frames.window_update(stream.number, count))
                self._sending.flush()

    # What both come down to.

    def _receive(
        self, stream: Stream, piece: memoryview, ended: bool, placed: bool = False
    ) -> None:
        stream.receive(piece, ended, placed)
        if stream.number in self.streams:
            self._account(stream)

    def _stream(self, frame: Frame) -> Stream | None:
        """The stream of a frame; None where the call has ended here."""
        if frame.stream > self.last and not self.ending:
            what = f"frame {frame.kind} on stream {frame.stream}, which never began"
            raise ConnectionFault(frames.PROTOCOL_ERROR, what)
        return self.streams.get(frame.stream)

    def _account(self, stream: Stream) -> None:
        """Counts what a call holds; too much for the process ends it."""
        self._hold(stream, stream.holds())
        most = MOST_HELD * self._config.max_message_bytes
        if stream.held and self._shared.held[0] > most:
            told = f"over {most} bytes wait for callers to send more or to read: try again later"
            stream.cut(Status("RESOURCE_EXHAUSTED", told))

    def _hold(self, stream: Stream, held: int) -> None:
        self._shared.held[0] += held - stream.held
        stream.held = held

    def _forget(self, stream: Stream) -> None:
        """The call is over, whatever its handler does."""
        if self.streams.pop(stream.number, None):
            self._sending.forget(stream)
            self._hold(stream, 0)
            stream.stop()
            if not self.streams:
                self.on_empty()

    def _problem(self, request: Request, route: Route | None) -> Status | int:
        """Why a request may not go on, or the HTTP status of what is no call; 0 where it may."""
        limit = self._config.max_metadata_bytes
        if request.problem:
            return request.problem
        if request.size > limit:
            told = f"metadata of {request.size} bytes, over this server's limit of {limit}"
            return Status("RESOURCE_EXHAUSTED", told)
        if route is None:
            return Status("UNIMPLEMENTED", f"no method {request.path[:200]} here")
        if request.encoding not in ENCODINGS:
            told = f"messages in {request.encoding[:50]}, expected {', '.join(ENCODINGS)}"
            return Status("UNIMPLEMENTED", told)
        return 0


async def _refused(status: Status, messages: Any, wire: Wire) -> AsyncIterator[bytes]:
    """A stream that is not to be."""
    raise Refused(status)
    yield b""  # what makes it an iterator


def _peer(name: Any) -> str:
    """Where a caller is, in gRPC's words."""
    if isinstance(name, tuple) and len(name) >= 2:
        return f"ipv{6 if ':' in name[0] else 4}:{address(name[0], name[1])}"
    return "unknown"
