"""What clients do, as generators of steps: one call with its retries, many calls in order.

A generator yields a step and is sent its result. It opens no connection and does not wait, so that
clients for threads and for asyncio (`service.client`) share all of it. Imports no JAX.
"""

import math
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import grpc

from jaxnn.errors import JaxnnError

ATTEMPTS = 6
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
PUSHBACK = "grpc-retry-pushback-ms"  # gRPC's own name for "come back in so many milliseconds"


class Handle(Protocol):
    """Something under way: a Future of threads or of asyncio."""

    def done(self) -> bool:
        """Whether it has ended."""

    def result(self) -> Any:
        """What came of it, once done; raises where it failed."""

    def exception(self) -> BaseException | None:
        """Why it failed, once done; None where it did not."""

    def cancel(self) -> bool:
        """End it early, where that is possible."""


class Call(NamedTuple):
    """Step: call a method; its result is the reply or the RpcError."""

    method: str
    request: Any
    timeout: float | None  # seconds; None is no limit, as gRPC has it


class Sleep(NamedTuple):
    """Step: wait."""

    seconds: float


class Start(NamedTuple):
    """Step: set other steps going; its result is a Handle on them."""

    steps: "Steps[Any]"


class Pull(NamedTuple):
    """Step: ask the source of a stream for its next item; its result is a Handle on a `Pulled`."""


class Pulled(NamedTuple):
    """An item of a source, or its end."""

    item: Any
    ended: bool = False


class Wait(NamedTuple):
    """Step: wait until one of the handles is done."""

    handles: list[Any]


class Emit(NamedTuple):
    """Step: hand a result of a stream to the caller."""

    value: Any


T = TypeVar("T")
Step: TypeAlias = Call | Sleep | Start | Pull | Wait | Emit
Steps: TypeAlias = Generator[Step, Any, T]


class Deadline:
    """The end of a method's time, which all its calls share."""

    def __init__(self, timeout: float) -> None:
        """Begin now; `timeout` in seconds, math.inf is no limit."""
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def end(self) -> None:
        """Give up: what is under way is not tried again."""
        self._end = -math.inf


def attempts(method: str, request: Any, deadline: Deadline) -> Steps[Any]:
    """One call, made again while it makes sense; returns its reply or its last RpcError.

    A call is made again where the server could not be reached, and where it said when to come back
    (never sooner than that); at most ATTEMPTS times, and not beyond the deadline.
    """
    for attempt in range(ATTEMPTS):
        left = deadline.left()
        reply = yield Call(method, request, None if left == math.inf else left)
        if not isinstance(reply, grpc.RpcError):
            return reply
        delay = _delay(reply, attempt)
        if delay is None or attempt == ATTEMPTS - 1 or delay >= deadline.left():
            return reply
        yield Sleep(delay)
        if not deadline.left():  # given up meanwhile
            return reply
    raise AssertionError("unreachable: the last attempt returns")


def _delay(error: grpc.RpcError, attempt: int) -> float | None:
    """Seconds to wait before a call is made again; None where it must not be.

    The hint is read as in gRPC's proposal A6: a number of milliseconds, anything else is a no. On
    top of it comes our own back-off, so that clients refused together do not come back together.
    """
    backoff = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempt)
    backoff *= random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret
    code = error.code()
    if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return None
    for key, value in error.trailing_metadata() or ():
        if key == PUSHBACK:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            known = text.isascii() and text.isdecimal() and len(text) < 10
            return int(text) / 1000 + backoff if known else None
    # Without a hint nothing says that there will be room: the message may be too large.
    return backoff if code is grpc.StatusCode.UNAVAILABLE else None


def in_order(
    jobs: Iterator[Steps[T]], in_flight: int, deadline: Deadline, done: Callable[[T], None]
) -> Steps[None]:
    """Jobs, several at a time; `done` gets what each returns, in their order.

    A job is taken from the iterator when there is room for it. The first failure ends it.
    """
    running: deque[Handle] = deque()
    try:
        for job in jobs:
            if in_flight == 1:
                done((yield from job))
                continue
            running.append((yield Start(job)))
            if len(running) == in_flight:
                done((yield from _first(running)))
        while running:
            done((yield from _first(running)))
    finally:
        deadline.end()
        _drop(running)


def streamed(job: Callable[[Any], Steps[T]], in_flight: int) -> Steps[None]:
    """For each item of a source a job, several at a time, their results emitted in order.

    The source is asked for an item only when fewer than `in_flight` wait for their results. Where
    the source fails, the results of what it gave before come first.

    Raises:
      JaxnnError: a job failed; the sentence names the item, from 0.
    """
    running: deque[Handle] = deque()
    pull: Handle | None = None
    index = 0  # of the first one running
    try:
        while True:
            if running and running[0].done():
                yield Emit((yield from _numbered(running, index)))
                index += 1
            elif pull and pull.done():
                if pull.exception() or pull.result().ended:
                    break
                running.append((yield Start(job(pull.result().item))))
                pull = None
            elif pull is None and len(running) < in_flight:
                pull = yield Pull()
            else:
                yield Wait([*list(running)[:1], *([pull] if pull else [])])
        while running:
            yield Emit((yield from _numbered(running, index)))
            index += 1
        pull.result()  # raises what the source raised
    finally:
        _drop(running)
        if pull:
            pull.cancel()


def _first(running: deque[Handle]) -> Steps[Any]:
    if not running[0].done():
        yield Wait([running[0]])
    return running.popleft().result()


def _numbered(running: deque[Handle], index: int) -> Steps[Any]:
    try:
        return (yield from _first(running))
    except JaxnnError as error:
        error.args = (f"message {index}: {error}", *error.args[1:])
        raise


def _drop(running: deque[Handle]) -> None:
    for handle in running:
        if not handle.cancel() and handle.done():
            handle.exception()  # asyncio complains of failures that nobody looks at
