"""Time and memory of an epoch against the data, the width of the network and networks at once.

    python -m benchmarks growth [--full] [--print]

Each point in a process of its own, with as many threads as `jaxnn train` or `jaxnn sweep` gives
it; the peak is that of a process that has trained one epoch, Python and JAX and the compiling of
the program included. The slopes are exponents, fitted by least squares to the logarithms: 1 where
twice as much takes twice as long. A step's largest product decides how many threads there are, so
that not all points of a curve have the same number.
"""

import importlib.util
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import memory, timing
from benchmarks.ensemble import many, threads
from benchmarks.epoch import Setting, ours
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPEATS = {True: 5, False: 9}  # full or not: the largest points end after two, by the budget
BUDGET = {True: 3.0, False: 30.0}  # seconds a contestant may use up, beyond two repeats
WIDE_RATE = 0.1  # keeps the widest networks' numbers finite; the speed does not depend on it
AXES = {
    "data": "images",
    "width": "neurons in each hidden layer",
    "networks": "networks at once",
}


class Scale(NamedTuple):
    """How far to go."""

    examples: int = 60_000
    data: tuple[int, ...] = (1, 4, 16)  # times the examples
    widths: tuple[int, ...] = (16, 64, 256, 1024)
    networks: tuple[int, ...] = (1, 4, 16, 64, 256)


def contestants(scale: Scale) -> dict[str, dict[int, Contestant]]:
    """The points of each axis, by what grows along it."""
    classic = Setting(examples=scale.examples)
    data = [Setting(examples=times * scale.examples) for times in scale.data]
    wide = [
        classic._replace(sizes=(784, width, width, 10), learning_rate=WIDE_RATE)
        for width in scale.widths
    ]
    return {
        "data": {at.examples: _point(partial(ours, at), threads(at, 1)) for at in data},
        "width": {at.sizes[1]: _point(partial(ours, at), threads(at, 1)) for at in wide},
        "networks": {
            count: _point(partial(many, classic, count), threads(classic, count))
            for count in scale.networks
        },
    }


def _point(prepare: timing.Prepare, threads: int) -> Contestant:
    return Contestant(partial(memory.with_peak, prepare), threads)


def run(quick: bool, scale: Scale = Scale()) -> dict[str, Any]:  # noqa: B008 - a tuple
    """Times the points of one axis in turn, then those of the next."""
    if not importlib.util.find_spec("matplotlib"):
        return {"left_out": "its figure needs matplotlib: pip install 'jaxnn[plots]'"}
    axes = {}
    for name, entered in contestants(scale).items():
        outcomes = timing.interleaved(entered, REPEATS[quick], BUDGET[quick])
        check(outcomes)
        axes[name] = [
            {
                "at": at,
                "threads": entered[at].threads,
                **outcome.times._asdict(),
                "peak": outcome.result[1],  # bytes
            }
            for at, outcome in outcomes.items()
        ]
    return {"repeats": REPEATS[quick], "axes": axes}


def check(outcomes: dict[int, Outcome]) -> None:
    """Raises AssertionError where a network's parameters are no longer numbers."""
    for at, outcome in outcomes.items():
        assert all(np.all(np.isfinite(leaf)) for leaf in outcome.result[0]), f"{at}: not finite"


def slope(points: list[dict[str, Any]], what: str) -> float:
    """The exponent p of what = c at^p, by least squares of the logarithms; of two points or more.

    Args:
      points: as in a result's axis.
      what: "median" or "peak".
    """
    x, y = np.log([one["at"] for one in points]), np.log([one[what] for one in points])
    return float(np.polyfit(x, y, 1)[0])


def table(result: dict[str, Any]) -> str:
    """The figure, the slopes over all points and of the last step, and then the points."""
    slopes: list[list[str]] = []
    rows: list[list[str]] = []
    for name, points in result["axes"].items():
        span = f"{AXES[name]}, {points[0]['at']:,} to {points[-1]['at']:,}"
        cells = [
            f"{slope(some, what):.2f}"
            for what in ("median", "peak")
            for some in (points, points[-2:])
        ]
        slopes.append([span, *cells])
        rows += [
            [
                f"{AXES[name]}: {one['at']:,}",
                str(one["threads"]),
                f"{1e3 * one['median']:,.0f}",
                f"{1e3 * one['low']:,.0f} to {1e3 * one['high']:,.0f}",
                f"{one['peak'] / 1e6:,.0f}",
            ]
            for one in points
        ]
    heads = ["slopes", "time", "its last step", "peak memory", "its last step"]
    head = ["an epoch", "threads", "median ms", "quartiles", "peak MB"]
    picture = "![Time and memory of an epoch, growing](figures/growth.png)"
    return f"{picture}\n\n{markdown(heads, slopes)}\n\n{markdown(head, rows)}"


@style.look()
def figure(result: dict[str, Any]) -> "Figure":
    """Time above, memory below; a column for what grows; both scales logarithmic."""
    fig = style.figure(10, 5.6)
    fig.suptitle(
        "An epoch: points as measured (hollow: on two threads), "
        "lines with the slope of all points together"
    )
    grid = fig.subplots(2, len(AXES), sharex="col", sharey="row", squeeze=False)
    rows = (("median", 1.0, "seconds an epoch", style.UP), ("peak", 1e6, "MB", style.DOWN))
    for axs, (what, unit, label, color) in zip(grid, rows, strict=True):
        for ax, points in zip(axs, result["axes"].values(), strict=True):
            _draw(ax, points, what, unit, color)
        axs[0].set_ylabel(label)
        values = [one[what] / unit for points in result["axes"].values() for one in points]
        axs[0].set_ylim(min(values) / 2, 2 * max(values))
    for ax, name in zip(grid[1], result["axes"], strict=True):
        ax.set_xlabel(AXES[name])
    return fig


def _draw(ax: "Axes", points: list[dict[str, Any]], what: str, unit: float, color: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    x = np.array([one["at"] for one in points], float)
    y = np.array([one[what] for one in points]) / unit
    exponent = slope(points, what)
    middle = np.exp(np.mean(np.log(y))) / np.exp(exponent * np.mean(np.log(x)))
    ax.plot(x, middle * x**exponent, "-", color=style.FAINT, linewidth=1)
    for at, value, one in zip(x, y, points, strict=True):
        ax.plot(at, value, "o", color=color, mfc=color if one["threads"] == 1 else "white")
    name = {"median": "time", "peak": "peak memory"}[what]
    ax.set(xscale="log", yscale="log", title=f"{name}: slope {exponent:.2f}")
    ax.set_xticks(x, [f"{value:,.0f}" for value in x])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.grid(color="#EEEEEE")
    ax.set_axisbelow(True)
