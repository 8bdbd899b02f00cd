"""From a cold start to a trained network: `jaxnn train` beside a PyTorch script.

    JAXNN_MNIST=FOLDER python -m benchmarks.cold_start [--quick] [--publish]

A fresh process each time, 12 epochs on the whole of MNIST, whose folder JAXNN_MNIST names; a run
that does not reach 0.94 on the test images does not count. Ours measures the test images after
each epoch and saves the network and its state; the script (benchmarks/torch_script.py) looks at
the test images once and saves nothing. Ours runs with an empty compilation cache, with one that
an earlier run has filled, and PyTorch with 1 and with 2 threads, of which the better one counts.
Files have been read once before: all runs find them in the system's memory.
"""

import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report, timing

EPOCHS = 12
ACCURACY = 0.94
REPEATS = {True: 3, False: 9}
EMPTY, WARM = "jaxnn, empty cache", "jaxnn, warm cache"
LIMIT = 300  # seconds for one run


def run(quick: bool) -> dict[str, Any]:
    """Times all in turn, then dissects our two in further runs, since watching costs a little."""
    mnist = os.environ.get("JAXNN_MNIST")
    if not mnist:
        return {"left_out": "name the folder of the whole of MNIST by JAXNN_MNIST"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [EMPTY, WARM]
        if importlib.util.find_spec("torch"):
            names += ["PyTorch, 1 thread", "PyTorch, 2 threads"]
        start(EMPTY, folder, mnist)  # reads all files once
        fill(folder, mnist)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(REPEATS[quick]):
            for name in names:
                seconds[name].append(start(name, folder, mnist))
            if quick and turn == 0:  # the slower of PyTorch's two needs no further runs
                names = [one for one in names if one != slower(seconds)]
        parts = {name: dissect(name, folder, mnist, 1 if quick else 3) for name in (EMPTY, WARM)}
    return {
        "repeats": REPEATS[quick],
        "seconds": {
            name: timing.quartiles(found)._asdict()
            for name, found in seconds.items()
            if len(found) > 1
        },
        "once": {name: found[0] for name, found in seconds.items() if len(found) == 1},
        "parts": parts,
    }


def slower(seconds: dict[str, list[float]]) -> str | None:
    """The PyTorch contestant with the larger median, of two."""
    found = {n: statistics.median(some) for n, some in seconds.items() if n.startswith("PyTorch")}
    return max(found, key=lambda name: found[name]) if len(found) == 2 else None


def fill(folder: Path, mnist: str) -> None:
    """One run that leaves its programs in the cache that the warm runs find."""
    subprocess.run(
        train_command(folder, mnist),
        env=environment(folder / "warm"),
        capture_output=True,
        check=True,
    )


def train_command(folder: Path, mnist: str) -> list[str]:
    """What is timed, into a run's folder that is made anew."""
    flags = ["--epochs", str(EPOCHS), "--data", mnist, "--out", str(folder / "run"), "--overwrite"]
    return [sys.executable, "-m", "jaxnn", "train", *flags]


def environment(cache: Path) -> dict[str, str]:
    """The variables of this process, without those that decide on threads and caches."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX", "TF_CPP", *timing.THREAD_VARIABLES))
    }
    return {**kept, "JAXNN_CACHE": str(cache)}


def start(name: str, folder: Path, mnist: str) -> float:
    """Wall seconds of one fresh process.

    Raises:
      RuntimeError: it failed, or its accuracy is below what is asked.
    """
    if name.startswith("PyTorch"):
        threads = re.findall(r"\d+", name)[0]
        script = str(Path(__file__).with_name("torch_script.py"))
        command = [sys.executable, script, mnist, str(EPOCHS), threads]
        variables = {**environment(folder), "OMP_NUM_THREADS": threads}
    else:
        shutil.rmtree(folder / "empty", ignore_errors=True)
        command = train_command(folder, mnist)
        variables = environment(folder / ("empty" if name == EMPTY else "warm"))
    started = time.perf_counter()
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
    if accuracy(done.stdout) < ACCURACY:
        raise RuntimeError(f"{name} ended below {ACCURACY}: {done.stdout}")
    return seconds


def accuracy(output: str) -> float:
    """The test accuracy that a run printed, 0 to 1, whether as 94.7% or as 0.947."""
    found = re.search(r"test accuracy (\d+(?:\.\d+)?)(%?)", output)
    if not found:
        raise RuntimeError(f"no test accuracy in {output!r}")
    return float(found[1]) / (100 if found[2] else 1)


def dissect(name: str, folder: Path, mnist: str, repeats: int) -> dict[str, float]:
    """Seconds of each part of a run, medians."""
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        shutil.rmtree(folder / "empty", ignore_errors=True)
        flags = train_command(folder, mnist)[4:]
        began = str(time.time())
        subprocess.run(
            [sys.executable, "-m", "benchmarks.dissect", began, str(folder / "parts.json"), *flags],
            env=environment(folder / ("empty" if name == EMPTY else "warm")),
            capture_output=True,
            check=True,
            timeout=LIMIT,
            cwd=report.ROOT,
        )
        found.append(json.loads((folder / "parts.json").read_text()))
    parts = {part for one in found for part in one}
    return {part: statistics.median(one.get(part, 0.0) for one in found) for part in sorted(parts)}


def table(result: dict[str, Any]) -> str:
    """Total times with ratios to PyTorch's better run, and the parts of ours."""
    times = result["seconds"]
    peers = {name: one["median"] for name, one in times.items() if name.startswith("PyTorch")}
    peer = min(peers.values(), default=None)
    rows = []
    for name, one in times.items():
        ratio = f"{one['median'] / peer:.2f}" if peer and name not in peers else ""
        rows.append([name, f"{one['median']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}", ratio])
    rows += [[name, f"{value:.2f}", "once", ""] for name, value in result["once"].items()]
    parts = result["parts"]
    order = sorted(parts[EMPTY], key=lambda part: -parts[EMPTY][part])
    order += sorted(set(parts[WARM]) - set(order))
    split = [
        [part, *(f"{parts[name].get(part, 0.0):.2f}" for name in (EMPTY, WARM))] for part in order
    ]
    head = [f"process start to {EPOCHS} epochs", "median s", "quartiles", "of PyTorch's better"]
    heads = ["where ours goes", "s, empty cache", "s, warm cache"]
    return f"{report.markdown(head, rows)}\n\n{report.markdown(heads, split)}"


if __name__ == "__main__":
    from benchmarks import cold_start

    report.main("cold-start", cold_start)
