"""The way in, which closes before the server stops.

At a stop gRPC finishes the calls that it has handed over and cancels those that it still holds,
and under load it holds most. So the server first goes on answering for a while, then refuses
with a status that callers may try again on, and stops when no more calls come.
"""

import asyncio
import time

from service.errors import Stopping

QUIET_S = 0.05  # without an arrival: gRPC holds no more calls
PATIENCE_S = 1.0  # for that quiet: callers who ask again without a pause do not hold up the stop


class Gate:
    """Lets requests in until it is closed."""

    def __init__(self) -> None:
        """Stand open."""
        self._closed = False
        self._last_arrival = 0.0  # by time.monotonic()

    def enter(self) -> None:
        """Let a request in.

        Raises:
          Stopping: the gate is closed.
        """
        self._last_arrival = time.monotonic()
        if self._closed:
            raise Stopping("the server is stopping: send the request again, to another if there is")

    async def close(self) -> None:
        """Refuse from here on; returns when nobody has come for a moment."""
        self._closed = True
        closed = self._last_arrival = time.monotonic()
        while (now := time.monotonic()) < min(self._last_arrival + QUIET_S, closed + PATIENCE_S):
            await asyncio.sleep(min(self._last_arrival + QUIET_S, closed + PATIENCE_S) - now)
