"""The figure of `jaxnn explain chain`: number lines, and a nudge that travels along them."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxnn.explain.chain import Chain, Stop
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

ROW = 0.62  # inches a number line
GAP = 1.8  # between neurons, in circles' widths
RADIUS = 0.3
ARROW: dict[str, Any] = {"arrowstyle": "-|>", "color": style.INK, "shrinkA": 0, "shrinkB": 0}
BEFORE: dict[str, Any] = {"color": style.INK, "markersize": 5}
PREDICTED: dict[str, Any] = {
    "markerfacecolor": "none",
    "markeredgecolor": style.INK,
    "markersize": 9,
}


@style.look()
def chain(chain: Chain, travels: Sequence[Sequence[Stop]]) -> "Figure":
    """The chain itself, and below it a column of number lines for each of two nudged weights.

    Args:
      chain: what `explain.chain.explain` gave.
      travels: what `explain.chain.travel` gave for two weights, the shorter way first.
    """
    rows = len(travels[-1])
    fig = style.figure(10, 2.2 + ROW * rows)
    parts: Any = fig.subfigures(2, 1, height_ratios=[1.9, 0.3 + ROW * rows])
    top, below = parts
    _draw_chain(top.subplots(), chain)
    for part, stops in zip(below.subfigures(1, 2), travels, strict=True):
        _draw_travel(part, chain, stops, rows)
    return fig


def _draw_chain(ax: "Axes", chain: Chain) -> None:
    """Neurons as circles with their activations, joined by weights."""
    from matplotlib.patches import Circle

    ends = [("x", chain.a[0]), *((f"a{at}", a) for at, a in enumerate(chain.a[1:], 1))]
    ends.append(("C", chain.cost))
    ax.set(xlim=(-0.6, GAP * len(chain.a) + 0.6), ylim=(-0.8, 0.45), aspect="equal")
    ax.set_axis_off()
    for at, (name, value) in enumerate(ends):
        here, neuron = GAP * at, 0 < at < len(chain.a)
        grey = 1 - 0.55 * value if neuron else 1.0  # more active, darker
        ax.add_patch(Circle((here, 0), RADIUS, facecolor=(grey,) * 3, edgecolor=style.INK))
        ax.text(here, 0, f"{name}\n{value:.3g}", ha="center", va="center")
        if at:
            joint = f"w{at} = {chain.weights[at - 1]:g}" if neuron else f"y = {chain.y:g}"
            ax.text(here - GAP / 2, 0.06, joint, ha="center")
            ax.annotate("", (here - RADIUS, 0), (here - GAP + RADIUS, 0), arrowprops=ARROW)
        if neuron:
            below = f"b{at} = {chain.biases[at - 1]:g}\nz{at} = {chain.z[at - 1]:.3g}"
            ax.text(here, -0.37, below, ha="center", va="top")
    ax.text(GAP * len(chain.a), -0.37, f"(a{len(chain.z)} - y)²", ha="center", va="top")
    ax.set_title("One neuron a layer: z = w a + b with the a before, a = sigmoid(z)")


def _draw_travel(part: "SubFigure", chain: Chain, stops: Sequence[Stop], rows: int) -> None:
    """One number line a stop, the last ones at the foot, the nudge drawn on each."""
    from matplotlib.patches import ConnectionPatch

    name, nudge = stops[0].name, stops[0].after - stops[0].before
    slope = next(d.product for d in chain.derivatives if d.name == name)
    part.suptitle(f"{name} moves by {nudge:+g}: dC/d{name} = {slope:.4g}", fontsize=10)
    grid = part.add_gridspec(rows, 2, width_ratios=[1.15, 1])
    reach = 1.5 * max(
        max(abs(stop.after - stop.before), abs(stop.predicted - stop.before))
        for stop in stops
        if stop.name[0] in "wz"
    )
    if len(stops) < rows:
        _say_how_to_read(part.add_subplot(grid[: rows - len(stops), :]), stops)
    drawn: list[tuple[Axes, Stop]] = []
    for row, stop in enumerate(stops, rows - len(stops)):
        drawn.append((part.add_subplot(grid[row, 0]), stop))
        _number_line(drawn[-1][0], stop, reach)
        _say(part.add_subplot(grid[row, 1]), stop)
    for (above, last), (ax, stop) in itertools.pairwise(drawn):
        for start, end, line in ((last.before, stop.before, ":"), (last.after, stop.after, "-")):
            link = ConnectionPatch((start, 0), (end, 0), "data", "data", axesA=above, axesB=ax)
            link.set(color=style.FAINT, linestyle=line, linewidth=1, zorder=-1)
            part.add_artist(link)


def _say_how_to_read(ax: "Axes", stops: Sequence[Stop]) -> None:
    """The chain rule of the shorter way as a formula, and what the marks mean."""
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    names = r" $\times$ ".join(stop.factor for stop in stops[1:])
    values = r" $\times$ ".join(f"{stop.slope:.3f}" for stop in stops[1:])
    slope = math.prod(stop.slope for stop in stops)
    ax.text(
        0.02,
        0.95,
        f"dC/d{stops[0].name} = {names}\n          = {values} = {slope:.4g}\n\n"
        "Every step multiplies the nudge by one slope.\n"
        "Lines of w and z all show the same width; a lies from 0 to 1.",
        va="top",
        linespacing=1.5,
    )
    ax.plot([], [], "o", label="before", **BEFORE)
    ax.plot([], [], ">-", color=style.UP, linewidth=2.5, label="moved up (recomputed)")
    ax.plot([], [], "<-", color=style.DOWN, linewidth=2.5, label="moved down (recomputed)")
    ax.plot([], [], "o", label="where the slopes alone would put it", **PREDICTED)
    ax.legend(loc="lower left", fontsize=9)


def _number_line(ax: "Axes", stop: Stop, reach: float) -> None:
    """Where a number was (dot), is now (arrow's tip), and where the slopes predict it (ring)."""
    kind = stop.name[0]
    if kind == "a":
        ax.set_xlim(-0.02, 1.02)
    elif kind == "C":
        ax.set_xlim(0, 1.5 * max(stop.before, stop.after, stop.predicted, 1e-3))
    else:
        ax.set_xlim(stop.before - reach, stop.before + reach)
    ax.set(ylim=(-1, 1), yticks=[])
    ax.locator_params(axis="x", nbins=4)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_position(("data", 0))
    ax.spines["bottom"].set_color(style.FAINT)
    ax.patch.set_visible(False)  # the links between the lines run behind
    ax.tick_params(axis="x", labelsize=8, colors=style.FAINT, labelcolor=style.INK)
    for label in ax.get_xticklabels():
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    ax.set_ylabel(stop.name, rotation=0, ha="right", va="center", fontweight="bold", fontsize=10)
    color = style.UP if stop.after >= stop.before else style.DOWN
    arrow = ARROW | {"color": color, "linewidth": 2.5}
    ax.annotate("", (stop.after, 0), (stop.before, 0), arrowprops=arrow)
    ax.plot(stop.before, 0, "o", zorder=3, label="before", **BEFORE)
    ax.plot(stop.predicted, 0, "o", zorder=3, label="predicted", **PREDICTED)


def _say(ax: "Axes", stop: Stop) -> None:
    ax.set(xlim=(0, 1), ylim=(-1, 1))
    ax.set_axis_off()
    moved, predicted = stop.after - stop.before, stop.predicted - stop.before
    if stop.factor:
        ax.text(
            0, 0.75, rf"$\times$ {stop.factor} = {stop.slope:.3f}", va="center", fontweight="bold"
        )
        ax.text(0, 0.0, f"moves by {moved:+.3f}", va="center")
        ax.text(0, -0.7, f"(the slopes say {predicted:+.3f})", va="center", fontsize=8)
    else:
        ax.text(0, 0.0, f"{stop.before:g} becomes {stop.after:g}", va="center")
