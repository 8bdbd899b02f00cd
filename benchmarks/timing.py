"""Timing several contestants fairly: in turn, many times, on the same data."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Times(NamedTuple):
    """Seconds of one contestant's repeats."""

    median: float
    low: float  # first quartile
    high: float  # third quartile


def interleaved(contestants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
    """Runs every contestant once to warm up, then all of them in turn, `repeats` times.

    Taking turns spreads whatever else the machine does over all of them.
    """
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    found = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        found[name] = Times(median, low, high)
    return found


def table(times: Mapping[str, Times], ours: str) -> str:
    """A line for each contestant: median, quartiles, and how much of its time ours takes."""
    lines = [f"{'':34} median ms   quartiles   ours takes"]
    for name, one in times.items():
        ratio = "" if name == ours else f"{times[ours].median / one.median:.2f} of it"
        lines.append(
            f"{name:34} {1e3 * one.median:9.1f}   {1e3 * one.low:.0f} to {1e3 * one.high:.0f}"
            f"   {ratio:>12}"
        )
    return "\n".join(lines)


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Writes a result as JSON where a path is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
