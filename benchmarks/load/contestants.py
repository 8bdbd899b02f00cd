"""The servers that take turns: how each is started, and how much processor time it uses."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.load.messages import V1, V2_BYTES
from benchmarks.report import ROOT

ENVIRONMENTS = ROOT / "build" / "peers"  # in a folder that git ignores
READY = 120.0  # seconds for a server to say where it listens
END = 20.0  # seconds for a server to end in
LISTENING = "listening on "
# The best that malloc can do for large messages: their memory is kept, not given back each time.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


class Contestant(NamedTuple):
    """A server that prints `listening on HOST:PORT` when it can be called."""

    name: str
    command: tuple[str, ...]
    api: str = V1
    environment: Mapping[str, str] = {}  # beside this process's own


class Peer(NamedTuple):
    """Another server of the same network, in a Python environment of its own."""

    script: str  # a module
    api: str
    packages: tuple[str, ...]
    variable: str  # environment variable with the path of a Python that has them


class Running(NamedTuple):
    """A server that listens."""

    target: str  # HOST:PORT
    pid: int


PEERS = {
    "ONNX Runtime": Peer(
        "benchmarks.onnx_server",
        V1,
        (
            "onnxruntime",
            "onnx",
            "uvloop",
            "numpy",
            f"grpcio=={importlib.metadata.version('grpcio')}",
            f"protobuf=={importlib.metadata.version('protobuf')}",
        ),
        "JAXNN_BENCH_ONNX",
    ),
    "MLServer": Peer("benchmarks.mlserver_server", V2_BYTES, ("mlserver",), "JAXNN_BENCH_MLSERVER"),
}


class Missing(Exception):  # noqa: N818 - a sentence for the page, no fault
    """A peer cannot take part here."""


def python_of(name: str) -> str:
    """The Python of a peer: named by its environment variable, or installed on first use.

    Raises:
      Missing: its packages cannot be installed.
    """
    peer = PEERS[name]
    if named := os.environ.get(peer.variable):
        return named
    folder = ENVIRONMENTS / peer.script.rpartition(".")[2]
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *peer.packages],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(folder)  # or the next time would find it and take it for whole
            last = done.stderr.strip().splitlines()[-1:]
            raise Missing(f"{name} cannot be installed here: {''.join(last)}")
    return str(python)


def versions(entered: list[Contestant]) -> dict[str, str]:
    """Of grpcio and uvloop here, and of each peer's own library."""
    found = {}
    for package in ("grpcio", "uvloop"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    for one in entered:
        if one.name in PEERS:
            command = [one.command[0], "-c", code, PEERS[one.name].packages[0]]
            found[one.name] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return found


def peer(name: str, network: Path, processes: int) -> Contestant:
    """A peer that serves the network in an .npz file.

    Raises:
      Missing: it cannot take part here.
    """
    command = (python_of(name), "-m", PEERS[name].script, str(network))
    return Contestant(name, (*command, "--processes", str(processes)), PEERS[name].api, KEPT)


def echo(
    name: str, api: str, pairs: list[tuple[Path, Path]], processes: int, *flags: str
) -> Contestant:
    """The echo, given files with requests and the replies to send."""
    command = [sys.executable, "-m", "benchmarks.echo_server", "--processes", str(processes)]
    for request, reply in pairs:
        command += ["--pair", str(request), str(reply)]
    return Contestant(name, (*command, *flags), api)


def jaxnn(name: str, api: str, processes: int, extra: tuple[str, ...]) -> Contestant:
    """The service as `jaxnn serve` starts it."""
    command = (sys.executable, "-m", "jaxnn", "serve", "--port", "0")
    workers = () if processes == 1 else ("--workers", str(processes))
    return Contestant(name, (*command, *workers, *extra), api)


@contextmanager
def started(contestant: Contestant, log: Path) -> Iterator[Running]:
    """Runs a server while the block does; all its output goes into a file.

    Raises:
      RuntimeError: it ended, or said nothing in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            contestant.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **contestant.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that its children end with it
        )
    try:
        yield Running(_target(contestant.name, process, log), process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _target(name: str, process: subprocess.Popen, log: Path) -> str:
    until = time.monotonic() + READY
    while time.monotonic() < until:
        said = log.read_text(errors="replace")
        for line in said.splitlines(keepends=True):
            if line.startswith(LISTENING) and line.endswith("\n"):
                return line.removeprefix(LISTENING).strip()
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}: {said[-1000:]}")
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not say where it listens in {READY:.0f} s: {said[-1000:]}")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its descendants have used; 0 where there is no /proc."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))  # and of ended children
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(one, 0) for one in family) / os.sysconf("SC_CLK_TCK")
