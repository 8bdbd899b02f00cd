"""Training images read from the disk as they are needed, beside the same images in memory.

    python -m benchmarks.stream [--quick] [--publish]

One epoch by `train.fit` from a folder of unpacked IDX files: the embedded digits repeated up to
60,000, and four times as many. The two orders of the images differ, so that only the epochs'
costs can be compared: they have to be close.

A file just written, or read a moment ago, is found in the system's memory. One contestant asks
the system to forget the images before each epoch and so reads from the disk itself, as a set
larger than the memory would.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import memory, timing
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome
from jaxnn import data
from jaxnn.config import TrainConfig
from jaxnn.data import idx

MEMORY, STREAM, FORGOTTEN = "in memory", "streamed", "streamed, files forgotten"
EXAMPLES = 60_000
TIMES = 4  # as many images in the larger set
TESTED = 100  # test images, which `train.fit` measures after each epoch: too few to count
REPEATS = {True: 7, False: 25}  # quick or not
REPEATS_LARGER = {True: 3, False: 9}
CLOSE = 0.1  # relative: the cost of another order of the images


def write(folder: Path, examples: int) -> None:
    """So many of the embedded digits, repeated, as unpacked IDX files."""
    digits = data.load("embedded")
    which = np.arange(examples) % len(digits.train_images)
    for name, array in {
        "train-images-idx3": digits.train_images[which],
        "train-labels-idx1": digits.train_labels[which],
        "t10k-images-idx3": digits.test_images[:TESTED],
        "t10k-labels-idx1": digits.test_labels[:TESTED],
    }.items():
        (folder / f"{name}-ubyte").write_bytes(idx.encode(array))


def trained(
    folder: Path, streamed: bool, forget: bool = False, config: TrainConfig | None = None
) -> Callable[[], float]:
    """The first epoch of a folder's images, again and again; gives its mean cost."""
    from jaxnn import feed, train
    from jaxnn.data.stream import open_stream

    config = config or TrainConfig(epochs=1)
    if streamed:
        source = feed.from_disk(config, open_stream(folder), open_stream(folder, "t10k"))
    else:
        source = feed.from_memory(config, data.load(folder))
    state = train.initial_state(config, source.examples)
    costs: list[float] = []

    def run() -> float:
        if forget:
            forget_files(folder)
        train.fit(config, source, state=state, on_epoch=lambda _, report: costs.append(report.cost))
        return costs[-1]

    return run


def forget_files(folder: Path) -> None:
    """Asks the system to drop the training images' pages, so that they are read from the disk.

    Linux alone does so, and only for pages that are on the disk already.
    """
    with (folder / "train-images-idx3-ubyte").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contestants(
    small: Path, larger: Path, quick: bool, forget: bool = True
) -> dict[tuple[int, str], Contestant]:
    """By how many times the images, and by name; each in a process of its own, for its memory."""
    found = {}
    for times, folder in ((1, small), (TIMES, larger)):
        repeats = (REPEATS if times == 1 else REPEATS_LARGER)[quick]
        for name in (MEMORY, STREAM, FORGOTTEN)[: 3 if times == 1 and forget else 2]:
            prepare = partial(trained, folder, name != MEMORY, name == FORGOTTEN)
            watched = partial(memory.with_peak, prepare)
            # One thread, as `jaxnn train` runs this network.
            found[times, name] = Contestant(watched, 1, repeats=repeats)
    return found


def check(outcomes: dict[tuple[int, str], Outcome]) -> None:
    """Raises AssertionError where an epoch from the disk does not cost what one in memory does."""
    for (times, name), outcome in outcomes.items():
        cost, expected = outcome.result[0], outcomes[times, MEMORY].result[0]
        np.testing.assert_allclose(cost, expected, rtol=CLOSE, err_msg=f"{times} x, {name}")


def run(quick: bool, examples: int = EXAMPLES) -> dict[str, Any]:
    """Writes both sets to a temporary folder and times all in turn."""
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name) / "small", Path(name) / "larger"
        for folder, count in zip(folders, (examples, TIMES * examples), strict=True):
            folder.mkdir()
            write(folder, count)
        entered = contestants(*folders, quick, forget=hasattr(os, "posix_fadvise"))
        outcomes = timing.interleaved(entered, REPEATS[quick])
    check(outcomes)
    return {
        "repeats": [REPEATS[quick], REPEATS_LARGER[quick]],
        "examples": examples,
        "epochs": [
            {
                "times": times,
                "name": name,
                **outcome.times._asdict(),
                "speed": outcomes[times, MEMORY].times.median / outcome.times.median,
                "peak": outcome.result[1],  # bytes, of the first epoch
            }
            for (times, name), outcome in outcomes.items()
        ],
    }


def table(result: dict[str, Any]) -> str:
    """Speed beside the images in memory, and the memory that an epoch takes."""
    rows = []
    for one in result["epochs"]:
        images = one["times"] * result["examples"]
        rows.append(
            [
                f"{images:,} images, {one['name']}",
                f"{1e3 * one['median']:.1f}",
                f"{1e3 * one['low']:.1f} to {1e3 * one['high']:.1f}",
                f"{one['speed']:.2f}",
                f"{one['peak'] / 1e6:,.0f}",
            ]
        )
    head = ["an epoch", "median ms", "quartiles", "speed of in memory", "peak MB"]
    return f"{markdown(head, rows)}\n\n{grown(result)}"


def grown(result: dict[str, Any]) -> str:
    """One sentence: how much more memory the larger set takes."""
    peaks = {(one["times"], one["name"]): one["peak"] for one in result["epochs"]}
    more = {name: (peaks[TIMES, name] - peaks[1, name]) / 1e6 for name in (MEMORY, STREAM)}
    images = (TIMES - 1) * result["examples"] * 784 / 1e6
    return (
        f"{TIMES} times the images are {images:,.0f} MB more: the peak grows by "
        f"{more[STREAM]:+,.0f} MB streamed, by {more[MEMORY]:+,.0f} MB in memory."
    )


if __name__ == "__main__":
    from benchmarks import report, stream

    report.main("stream", stream)
