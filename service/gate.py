"""The way in: bounds the calls that are open at once, and closes before the server stops.

At a stop gRPC finishes the calls that it has handed over and cancels those that it still holds,
and under load it holds most. So the server first goes on answering for a while, then refuses
with a status that callers may try again on, and stops when no more calls come.
"""

import asyncio
import time

from service.errors import Overloaded, Stopping

QUIET_S = 0.05  # without an arrival: gRPC holds no more calls
PATIENCE_S = 1.0  # for that quiet: callers who ask again without a pause do not hold up the stop
RETRY_AFTER_S = 0.1


class Gate:
    """Lets calls in until there are too many, or it is closed."""

    def __init__(self, max_calls: int) -> None:
        """Stand open."""
        self.open_calls = 0
        self.closed = False
        self._max_calls = max_calls
        self._last_arrival = 0.0  # by time.monotonic()
        self._idle_streams: set[asyncio.Task[object]] = set()

    def enter(self) -> None:
        """Let a call in; each is to `leave`.

        Raises:
          Stopping: the gate is closed.
          Overloaded: too many calls are open.
        """
        self.check()
        if self.open_calls >= self._max_calls:
            raise Overloaded(
                f"{self.open_calls} calls are open, as many as this server allows: send the "
                "request again a little later",
                RETRY_AFTER_S,
            )
        self.open_calls += 1

    def check(self) -> None:
        """Let the next message of an open stream in.

        Raises:
          Stopping: the gate is closed.
        """
        self._last_arrival = time.monotonic()
        if self.closed:
            raise Stopping("the server is stopping: send the request again, to another if there is")

    def leave(self) -> None:
        """A call has ended."""
        self.open_calls -= 1

    async def close(self, quiet: float = QUIET_S) -> None:
        """Refuse from here on; returns when nobody has come for `quiet` seconds."""
        self.closed = True
        for stream in self._idle_streams:  # it waits for its caller, who may never send again
            stream.cancel()
        closed = self._last_arrival = time.monotonic()
        while (now := time.monotonic()) < min(self._last_arrival + quiet, closed + PATIENCE_S):
            await asyncio.sleep(min(self._last_arrival + quiet, closed + PATIENCE_S) - now)

    async def emptied(self) -> None:
        """Returns when no call is open."""
        while self.open_calls:
            await asyncio.sleep(0.01)

    def idle(self, stream: "asyncio.Task[object]", waits: bool) -> None:
        """A stream waits for its caller's next message, or waits no longer."""
        (self._idle_streams.add if waits else self._idle_streams.discard)(stream)
