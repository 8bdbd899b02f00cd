"""Timing several contestants fairly: each in a process of its own, in turn, many times."""

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

Prepare = Callable[[], Callable[[], Any]]  # does the costly part once, returns what is timed


class Contestant(NamedTuple):
    """What to time, and how many threads its libraries may use."""

    prepare: Prepare  # pickled: a function of a module, or a partial of one
    threads: int


class Times(NamedTuple):
    """Seconds of one contestant's repeats."""

    median: float
    low: float  # first quartile
    high: float  # third quartile


class Outcome(NamedTuple):
    """What a contestant's first run returned, and how long the later ones took."""

    result: Any
    times: Times


def interleaved(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, Outcome]:
    """Runs every contestant once to warm up, then all of them in turn, `repeats` times.

    Taking turns spreads whatever else the machine does over all of them. Processes of their own
    keep the threads of one library, which spin for a while after their work, off the others.
    """
    context = multiprocessing.get_context("spawn")
    lines, processes = {}, []
    for name, contestant in contestants.items():
        here, there = context.Pipe()
        for variable in ("NPROC", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(contestant.threads)  # read when the child's libraries load
        process = context.Process(target=_contest, args=(contestant.prepare, there), daemon=True)
        process.start()
        processes.append(process)
        lines[name] = here
    results = {name: _ask(line)[1] for name, line in lines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(repeats):
        for name, line in lines.items():
            seconds[name].append(_ask(line)[0])
    for process in processes:
        process.terminate()
        process.join()
    found = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        found[name] = Outcome(results[name], Times(median, low, high))
    return found


def _contest(prepare: Prepare, line: Connection) -> None:
    run = prepare()
    first = True
    while line.recv() == "run":
        started = time.perf_counter()
        result = run()
        line.send((time.perf_counter() - started, result if first else None))
        first = False


def _ask(line: Connection) -> tuple[float, Any]:
    line.send("run")
    seconds, result = line.recv()
    return seconds, result


def table(outcomes: Mapping[str, Outcome], ours: str) -> str:
    """A line for each contestant: median, quartiles, and how much of its time ours takes."""
    our_median = outcomes[ours].times.median
    lines = [f"{'':28}  median ms    quartiles  ours takes"]
    for name, (_, times) in outcomes.items():
        ratio = "" if name == ours else f"{our_median / times.median:.2f} of it"
        spread = f"{1e3 * times.low:.0f} to {1e3 * times.high:.0f}"
        lines.append(f"{name:28}  {1e3 * times.median:9.1f}  {spread:>11}  {ratio:>10}".rstrip())
    return "\n".join(lines)


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Writes a result as JSON where a path is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
