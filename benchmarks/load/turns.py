"""A server's turn at a row of the table: a closed loop, then requests at half its rate."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import timing
from benchmarks.load import asked, contestants, generator, messages
from benchmarks.load.asked import Asked
from benchmarks.load.contestants import Contestant, Running
from benchmarks.load.generator import Load, Plan

WARMUP = 0.4  # seconds
UNANSWERED = 1000  # at most, where requests come at a rate


class Row(NamedTuple):
    """Images in a request, and callers at once."""

    images: int
    callers: int
    wanted: float | None = None  # at least this part of the echo

    def __str__(self) -> str:
        return f"{self.images:,} / {self.callers:,}"


class Turn(NamedTuple):
    """What was seen in it."""

    closed: Load
    half: Load  # at half the rate of the closed loop
    cpu_us: float  # the server's processor time for a call of the closed loop


def rounds(
    entered: Sequence[Contestant],
    rows: Sequence[Row],
    questions: Mapping[str, dict[int, Asked]],
    folder: Path,
    *,
    number: int,
    seconds: float,
    processes: int = 1,
) -> dict[tuple[Row, str], list[Turn]]:
    """In each round all servers are started and checked, and take turns at each row.

    Args:
      entered: the servers.
      rows: what is measured.
      questions: by API, then by the images in a request.
      folder: where the servers' output goes.
      number: of rounds.
      seconds: of each measurement.
      processes: of each server.

    Returns:
      What was seen, by row and name, a turn for each round.
    """
    seen: dict[tuple[Row, str], list[Turn]] = {}
    for turn in range(number):
        with ExitStack() as stack:
            servers = {}
            for one in entered:
                log = folder / f"{one.name}.log"
                server = stack.enter_context(contestants.started(one, log))
                asked.check(one.name, server.target, one.api, questions[one.api])
                servers[one.name] = server
            first = turn % len(entered)  # not the same one in each round
            for row in rows:
                for one in (*entered[first:], *entered[:first]):
                    given = questions[one.api][row.images]
                    taken = take(row, servers[one.name], one.api, given, processes, seconds)
                    seen.setdefault((row, one.name), []).append(taken)
    return seen


def take(row: Row, server: Running, api: str, given: Asked, processes: int, seconds: float) -> Turn:
    """Measures both, `seconds` each.

    Raises:
      RuntimeError: no request was answered.
    """
    plan = Plan(
        target=server.target,
        method=messages.METHODS[api],
        requests=given.requests,
        callers=row.callers,
        channels=generator.channels(row.callers, processes),
        seconds=seconds,
        warmup=WARMUP,
    )
    before = contestants.cpu_seconds(server.pid)
    closed = generator.run(plan)
    used = contestants.cpu_seconds(server.pid) - before
    if not closed.requests:
        raise RuntimeError(f"{row}: no request was answered in {seconds} s: {closed.errors}")
    half = generator.run(plan._replace(callers=UNANSWERED, rate=closed.rate / 2))
    return Turn(closed, half, 1e6 * used / closed.answered)


def summary(turns: list[Turn]) -> dict[str, Any]:
    """Medians over two or more rounds, with quartiles of the rates; times in microseconds."""
    errors: dict[str, int] = {}
    for one in turns:
        for load in (one.closed, one.half):
            for code, number in load.errors.items():
                errors[code] = errors.get(code, 0) + number
    return {
        "rate": timing.quartiles([one.closed.rate for one in turns])._asdict(),
        "p50": statistics.median(one.closed.p50 for one in turns),
        "p99": statistics.median(one.closed.p99 for one in turns),
        "cpu_us": statistics.median(one.cpu_us for one in turns),
        "half_p50": statistics.median(one.half.p50 for one in turns),
        "half_p99": statistics.median(one.half.p99 for one in turns),
        "errors": errors,
    }
