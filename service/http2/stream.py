"""One call on a connection: from the pieces of its request to its handler, and the answer back."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Protocol

from service.errors import Expired
from service.http2.begun import begun
from service.http2.headers import WELL, Metadata, Request, trailers
from service.http2.messages import PREFIX, Assembler, Message
from service.rpc import Route
from service.status import Refused, Status, status_of

# gRPC's asyncio client says INTERNAL where a status comes while it still sends, whichever it is:
# so a stream's handler waits so long for the first message, and a failure for the last one.
PATIENCE_S = 0.05
_CANCELLED = Status("CANCELLED", "the call was broken off")
BESIDES = 100  # bytes that a message takes in memory beside its own
GATHERED = 2**16  # bytes of a stream's answers that may wait for the caller to read them


class Sender(Protocol):
    """The connection, as a stream sees it."""

    peer: str

    def push(self, stream: "Stream") -> None:
        """Sends what the stream has, as far as the caller has room for it."""

    def flush(self) -> None:
        """Hands what was pushed to the socket."""

    def taken(self, stream: "Stream", count: int) -> None:
        """Room for that many bytes is free again."""


class Stream:
    """One call; the `Wire` of its handler."""

    __slots__ = (
        *("number", "route", "ended", "pending", "led", "ending", "window", "room", "held"),
        *("_sender", "_request", "_deadline", "_assembler", "_messages", "_arrived", "_task"),
        *("_drained", "_timer", "_unread", "_loop"),
    )

    def __init__(
        self, sender: Sender, number: int, route: Route, request: Request, room: int, limit: int
    ) -> None:
        """Begin; `room` is what the caller may send, `limit` the largest message, in bytes."""
        self.number, self.route = number, route
        self.ended = False  # the caller sends no more
        self.pending = deque[bytes | memoryview]()  # of messages to send
        self.led = False  # the answer's headers are sent
        self.ending: bytes | None = None  # the trailers to send
        self.window = 0  # bytes that the caller has room for
        self.room = room  # bytes that it may send
        self.held = 0  # bytes of it that are counted against the process's budget
        self._sender, self._request = sender, request
        self._deadline = None if request.timeout is None else time.monotonic() + request.timeout
        self._assembler = Assembler(request.encoding, limit)
        self._messages = deque[Message]()
        self._unread = 0  # bytes that they take
        self._arrived: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if route.stream:
            self._timer = self._loop.call_later(PATIENCE_S, self._open)

    def invocation_metadata(self) -> Metadata:
        """What the caller sent before the request."""
        return self._request.metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def peer(self) -> str:
        """Where the caller is."""
        return self._sender.peer

    def space(self, most: int) -> memoryview | None:
        """Where the next bytes of the request may be read to."""
        return self._assembler.space(most)

    def receive(self, piece: memoryview, ended: bool, placed: bool = False) -> None:
        """Takes the next piece of the request; `ended` where it is the last."""
        self.ended = ended
        try:
            for message in self._assembler.add(piece, placed):
                self._messages.append(message)
                self._unread += len(message.data) + BESIDES
            if ended and self._assembler.held:
                self.end(Status("INTERNAL", "the request ended within a message"))
            elif self.route.stream:
                self._open()
                self._wake()
            elif ended or len(self._messages) > 1:
                self._answer_one()
            elif not self._timer:
                self._limit_time()
        except Refused as refused:
            self.end(refused.status)

    def _open(self) -> None:
        if self._task is None:
            # In a task from the start: the edge asks for the one that it runs in.
            self._task = self._loop.create_task(self._streamed())
            self._limit_time()

    def _answer_one(self) -> None:
        if len(self._messages) != 1:
            count = len(self._messages) or "no"
            raise Refused(Status("INTERNAL", f"the request has {count} message, expected one"))
        message = self._messages.popleft()
        self._unread = 0
        self._task = begun(self._unary(self._assembler.unpacked(message)))
        if self._task:
            self._limit_time()

    def end(self, status: Status | None) -> None:
        """Ends the call with a status, None for well, whatever its handler still does."""
        if self.ending is None:
            self.ending = WELL if status is None else trailers(status)
            if status is not None and not self.led:
                self.pending.clear()
            self._sender.push(self)

    def cut(self, status: Status) -> None:
        """Ends the call now, without what the caller has had no room for."""
        self.ending = None
        self.pending.clear()
        self.end(status)

    def stop(self) -> None:
        """The caller is gone, or has its status: the handler is to stop."""
        if self.ending is None:
            self.ending = b""
        if self._timer:
            self._timer.cancel()
        if self._task and self._task is not asyncio.current_task():
            self._task.cancel()

    def holds(self) -> int:
        """Bytes that no handler has yet, and those of the answer that the caller does not take."""
        return self._assembler.held + self._unread + sum(map(len, self.pending))

    def go_on(self) -> None:
        """There is room for more of the answer."""
        self._sender.push(self)

    def blocked(self) -> None:
        """The caller has no room for the answer; it may be too late when it has."""
        if not self._timer:
            self._limit_time()

    def drained(self) -> None:
        """All of the answer so far is on its way."""
        if self._drained and not self._drained.done():
            self._drained.set_result(None)

    def _limit_time(self) -> None:
        if self._timer:
            self._timer.cancel()
        left = self.time_remaining()
        if left is not None:
            self._timer = self._loop.call_later(left, self._expire)

    def _expire(self) -> None:
        self.cut(status_of(Expired("the request's time was over: give it more")))
        self._sender.flush()

    async def _unary(self, message: bytes) -> None:
        try:
            answer = await self.route.run(message, self)
        except Exception as error:
            self.end(status_of(error))
        except asyncio.CancelledError:  # not always by `stop`, after which this says nothing
            self.end(_CANCELLED)
        else:
            self._write(answer)
            self.end(None)
        if self._task:  # else whoever brought the request flushes
            self._sender.flush()

    async def _streamed(self) -> None:
        try:
            # Closed at once, also where it is left waiting for the caller to read.
            async with aclosing(self.route.run(self._arriving(), self)) as answers:
                async for answer in answers:
                    self._write(answer)
                    self._sender.push(self)
                    self._sender.flush()
                    while sum(map(len, self.pending)) > GATHERED:
                        self._drained = self._loop.create_future()
                        await self._drained
        except Exception as error:
            await self._heard_out()
            self.end(status_of(error))
        except asyncio.CancelledError:
            self.end(_CANCELLED)
        else:
            self.end(None)
        self._sender.flush()

    async def _heard_out(self) -> None:
        """Returns when the caller sends no more, or has been waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while await self._next():
                    pass

    async def _arriving(self) -> AsyncIterator[bytes]:
        while message := await self._next():
            yield self._assembler.unpacked(message)

    async def _next(self) -> Message | None:
        while not self._messages:
            if self.ended:
                return None
            self._arrived = self._loop.create_future()
            await self._arrived
        message = self._messages.popleft()
        self._unread -= len(message.data) + BESIDES
        self._sender.taken(self, len(message.data) + PREFIX)
        return message

    def _wake(self) -> None:
        if self._arrived and not self._arrived.done():
            self._arrived.set_result(None)

    def _write(self, message: bytes) -> None:
        self.pending.append(b"\0" + len(message).to_bytes(4, "big") + message)
