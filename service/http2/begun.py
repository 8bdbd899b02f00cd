"""Coroutines that run here and now up to their first wait; most handlers never wait."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


def begun(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Begins a coroutine at once; returns the task of what is left, None where nothing is."""
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_Begun(coroutine, waiting))


class _Begun(Coroutine[Any, Any, None]):
    """What is left of a coroutine that has run up to its first wait, for a task to go on with."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waiting: Any) -> None:
        self._coroutine, self._waiting = coroutine, waiting

    def send(self, value: Any) -> Any:
        if self._waiting is not None:  # the task's first step: it waits for the same
            waiting, self._waiting = self._waiting, None
            return waiting
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._waiting = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("for a task alone")
