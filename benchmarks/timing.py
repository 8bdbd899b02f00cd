"""Timing several contestants fairly: in processes of their own, in turn, many times."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Prepare = Callable[[], Callable[[], Any]]  # does the costly part once, returns what is timed
THREAD_VARIABLES = ("NPROC", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Contestant(NamedTuple):
    """What to time, and how many threads its libraries may use."""

    prepare: Prepare  # pickled: a function of a module, or a partial of one
    threads: int
    library: str = ""  # contestants of the same library and threads share a process
    repeats: int | None = None  # where not those of the whole run


class Times(NamedTuple):
    """Seconds of one contestant's repeats."""

    median: float
    low: float  # first quartile
    high: float  # third quartile


class Outcome(NamedTuple):
    """What a contestant's first run returned, and how long the later ones took."""

    result: Any
    times: Times


def quartiles(seconds: list[float]) -> Times:
    """Median and quartiles of two or more repeats; both ends lie within what was seen."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Times(median, low, high)


def interleaved(
    contestants: Mapping[Any, Contestant], repeats: int, budget: float = float("inf")
) -> dict[Any, Outcome]:
    """Runs every contestant once to warm up, then all of them in turn, `repeats` times.

    One that has used up `budget` seconds ends after fewer repeats, but not below two.

    Taking turns spreads whatever else the machine does over all of them. Processes of their own
    keep the threads of one library, which spin for a while after their work, off the others.
    """
    with _processes(contestants) as lines:
        results = {name: _ask(line, name)[1] for name, line in lines.items()}
        seconds: dict[Any, list[float]] = {name: [] for name in lines}
        for turn in range(max(one.repeats or repeats for one in contestants.values())):
            for name, line in lines.items():
                wanted = contestants[name].repeats or repeats
                if turn < wanted and (turn < 2 or sum(seconds[name]) < budget):
                    seconds[name].append(_ask(line, name)[0])
    return {name: Outcome(results[name], quartiles(seconds[name])) for name in contestants}


@contextmanager
def _processes(contestants: Mapping[Any, Contestant]) -> Iterator[dict[Any, Connection]]:
    """Starts the processes, gives each its contestants, and ends them afterwards."""
    context = multiprocessing.get_context("spawn")
    members: dict[tuple[Any, int], dict[Any, Prepare]] = {}
    for name, one in contestants.items():
        key = (one.library or name, one.threads)
        members.setdefault(key, {})[name] = one.prepare
    lines: dict[Any, Connection] = {}
    processes = []
    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    try:
        for (_, threads), prepares in members.items():
            here, there = context.Pipe()
            for variable in THREAD_VARIABLES:
                os.environ[variable] = str(threads)  # read when the child's libraries load
            process = context.Process(target=_contest, args=(prepares, there), daemon=True)
            process.start()
            there.close()  # so that a child that dies is noticed
            processes.append(process)
            lines |= dict.fromkeys(prepares, here)
        yield {name: lines[name] for name in contestants}
    finally:
        for variable, value in before.items():
            os.environ.pop(variable, None)
            if value is not None:
                os.environ[variable] = value
        for process in processes:
            process.terminate()
            process.join()


def _contest(prepares: Mapping[Any, Prepare], line: Connection) -> None:
    runs: dict[Any, Callable[[], Any]] = {}
    while True:
        name = line.recv()
        first = name not in runs
        if first:
            runs[name] = prepares[name]()
        started = time.perf_counter()
        result = runs[name]()
        line.send((time.perf_counter() - started, result if first else None))


def _ask(line: Connection, name: Any) -> tuple[float, Any]:
    line.send(name)
    seconds, result = line.recv()
    return seconds, result
