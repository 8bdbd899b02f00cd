"""A load on a server, in a closed or an open loop, and what came of it. Knows no API.

In a closed loop each caller asks again when it has its answer: a server that stalls is then asked
less, and its stall hides in a single long latency. In an open loop requests have their times
beforehand, and a latency counts from the time that the request was due, sent late or not.
"""

import asyncio
import itertools
import math
import selectors
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np

from jaxnn.errors import ConfigError

BARS = 16
MOST = 1_000_000  # requests a second: far above what one client can send
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

Ask = Callable[[float], Awaitable[Any]]  # one request, with its timeout in seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """How much is asked, and for how long."""

    concurrency: int = 8
    """Callers: requests under way together, at most."""

    rate: float | None = None
    """Requests a second to send, whatever comes back (an open loop); None for a closed loop."""

    duration: float = 10.0
    """Seconds to measure."""

    warmup: float = 1.0
    """Seconds before that, which do not count."""

    timeout: float = 10.0
    """Seconds after which a request is given up."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
          ConfigError: a number is out of its range.
        """
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}, expected 1 or more")
        for name in ("rate", "duration", "timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected more than 0")
        if self.rate and self.rate > MOST:
            raise ConfigError(f"rate is {self.rate:g}, expected at most {MOST:,} requests a second")
        if not 0 <= self.warmup < math.inf:
            raise ConfigError(f"warmup is {self.warmup}, expected 0 or more")


@dataclass
class Tally:
    """What came of a load, warm-up left out."""

    latencies: list[float] = field(default_factory=list)  # s; of those without answer, the wait
    answered: int = 0  # between the begin and the end, whenever asked
    errors: Counter[str] = field(default_factory=Counter)  # by the status code's name
    unsent: int = 0  # due, but every caller was still busy when the time was over
    client_cpu: float = 0.0  # cores that this process kept busy, its own warm-up included


class Bar(NamedTuple):
    """One bar of a histogram."""

    low: float  # s
    high: float  # s
    size: int


async def measure(asks: Sequence[Ask], load: Load) -> Tally:
    """Put a load on a server.

    Args:
      asks: ways to ask; callers take them in turn, each a request that raises grpc.RpcError
        where it fails.
      load: how much.

    Returns:
      Latencies of the requests that were answered, and of those that were not answered in time
      or could not be sent, which have waited at least so long; not of those refused.
    """
    tally = Tally()
    begin = time.perf_counter() + load.warmup
    end = begin + load.duration
    due = _due(begin - load.warmup, end, load.rate)

    async def caller(asks: Iterator[Ask]) -> None:
        for start in due:
            now = time.perf_counter()
            if now >= end:
                if start >= begin:
                    tally.latencies.append(now - start)
                    tally.unsent += 1
                continue
            if start > now:
                await asyncio.sleep(start - now)
            code = await _code(next(asks), load.timeout)
            now = time.perf_counter()
            tally.answered += not code and begin <= now < end
            if start < begin:
                continue
            if code:
                tally.errors[code] += 1
            if code in ("", "DEADLINE_EXCEEDED"):
                tally.latencies.append(now - start)

    cpu, wall = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(load.concurrency):
            shift = index % len(asks)
            group.create_task(caller(itertools.cycle([*asks[shift:], *asks[:shift]])))
    tally.client_cpu = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return tally


def _due(begin: float, end: float, rate: float | None) -> Iterator[float]:
    """When each request is due, by time.perf_counter(); callers share it."""
    if rate is None:
        while (now := time.perf_counter()) < end:
            yield now
        return
    for index in itertools.count():
        if (start := begin + index / rate) >= end:
            return
        yield start


async def _code(ask: Ask, timeout: float) -> str:
    """Ask once: the name of the status code, empty where there was an answer."""
    try:
        await ask(timeout)
    except grpc.RpcError as error:
        return error.code().name
    return ""


def precisely(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, on a loop whose timers keep microseconds: epoll's round up to the next ms."""

    def loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


def quantiles(latencies: Sequence[float]) -> dict[str, float]:
    """The usual quantiles, in the latencies' unit: each is one of them, none interpolated."""
    if not latencies:
        return {}
    values = np.quantile(latencies, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def histogram(latencies: Sequence[float], bars: int = BARS) -> list[Bar]:
    """Bars of equal width on a logarithmic scale, from the shortest latency to the longest."""
    if not latencies:
        return []
    low, high = max(min(latencies), 1e-9), max(max(latencies), 1e-9)
    edges = np.geomspace(low, max(high, low * 1.01), bars + 1)
    counts, _ = np.histogram(np.clip(latencies, edges[0], edges[-1]), edges)
    return [
        Bar(*bar)
        for bar in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    ]
