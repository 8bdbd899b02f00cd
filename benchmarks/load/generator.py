"""The load generator: compiled where it is needed, run, and what it says read."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import ROOT

SOURCE = Path(__file__).parent / "load.cc"
BUILT = ROOT / "build" / "load"  # in a folder that git ignores
LATE = 60.0  # seconds that a run may take longer than asked: its requests have 30 to end in


class Unavailable(Exception):  # noqa: N818 - a sentence on what to install, no fault
    """The generator cannot be built here."""


class Load(NamedTuple):
    """What callers saw; times in microseconds, of the answers with status OK after the warm-up."""

    requests: int
    errors: dict[str, int]  # by the name of the status; NOT_SENT where too many were unanswered
    seconds: float
    rate: float  # requests a second
    p50: float
    p90: float
    p99: float
    max: float
    reply_bytes: int  # of the last reply
    answered: int  # everything, the warm-up too


class Plan(NamedTuple):
    """What the callers do."""

    target: str
    method: str
    requests: tuple[Path, ...]  # one serialized request a file; several take turns
    callers: int
    channels: int
    seconds: float
    warmup: float
    rate: float = 0.0  # requests a second; 0: each caller sends again when it is answered
    headers: tuple[str, ...] = ()  # NAME=VALUE

    def words(self) -> list[str]:
        """The same as the generator's command line."""
        named = {
            "target": self.target,
            "method": self.method,
            "callers": self.callers,
            "channels": self.channels,
            "seconds": self.seconds,
            "warmup": self.warmup,
            "rate": self.rate,
        }
        words = [word for name, value in named.items() for word in (f"--{name}", str(value))]
        words += [word for path in self.requests for word in ("--request", str(path))]
        return words + [word for header in self.headers for word in ("--header", header)]


def channels(callers: int, processes: int = 1) -> int:
    """Connections: one for eight callers; eight a process where the kernel deals them out."""
    return max(1, callers // 8) if processes == 1 else max(1, min(callers, 8 * processes))


def program() -> Path:
    """The compiled generator, made anew where its source is younger.

    Raises:
      Unavailable: there is no compiler or no gRPC for C++, or it does not compile.
    """
    if BUILT.is_file() and BUILT.stat().st_mtime > SOURCE.stat().st_mtime:
        return BUILT
    for tool in ("g++", "pkg-config"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not here: install Debian's packages g++ and pkg-config")
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++"],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise Unavailable("gRPC for C++ is not here: install Debian's package libgrpc++-dev")
    BUILT.parent.mkdir(exist_ok=True)
    fresh = BUILT.with_suffix(".new")
    compiled = subprocess.run(
        ["g++", "-std=c++17", "-O2", str(SOURCE), "-o", str(fresh), *found.stdout.split()],  # noqa: S607
        capture_output=True,
        text=True,
    )
    if compiled.returncode:
        raise Unavailable(f"{SOURCE.name} does not compile: {compiled.stderr.strip()[-500:]}")
    fresh.replace(BUILT)
    return BUILT


def run(plan: Plan) -> Load:
    """Puts the load on a server that listens.

    Raises:
      Unavailable: see `program`.
      RuntimeError: the generator failed, or did not end.
    """
    command: Sequence[str] = [str(program()), *plan.words()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=plan.warmup + plan.seconds + LATE
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the load on {plan.target} did not end in time") from error
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"the load ended with {done.returncode}")
    return parsed(done.stdout)


def parsed(line: str) -> Load:
    """The line that the generator prints."""
    return Load(**json.loads(line))
