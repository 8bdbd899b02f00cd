"""The figure of `jaxnn explain batch`: nudges that disagree, and how many examples suffice."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.explain.batch import Agreement, Disagreement, Proof
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.look()
def batch(
    shown: Disagreement, proof: Proof, agreements: Sequence[Agreement], network: str
) -> "Figure":
    """Single examples beside their means at the top; angle and time by batch size below.

    Args:
      shown: the nudges of single examples.
      proof: how close the mean of all nudges is to the nudge of the mean cost.
      agreements: one a batch size, the whole set last.
      network: what the network is, for the title.
    """
    fig = style.figure(10, 7.8)
    parts: Any = fig.subfigures(2, 1, height_ratios=[4.5, 3.3])
    top, below = parts
    top.suptitle(
        f"What single digits want of {network}, and what they want together\n"
        f"The mean of all {proof.examples:,} nudges is the negative gradient of the mean cost: "
        f"{proof.difference:.0e} apart at most",
        fontsize=10,
    )
    biases, weights = top.subplots(1, 2)
    half = len(shown.names) // 2
    columns = [shown.nudges, shown.average[:, None], shown.everyone[:, None]]
    table = np.concatenate(columns, axis=1)  # [p, k + 2]
    heads = [f"a {label}" for label in shown.labels]
    heads += [f"mean of\nthese {len(heads)}", f"mean of\nall {proof.examples:,}"]
    _table(biases, table[:half], shown.names[:half], heads)
    biases.set_title("nudges to the outputs' biases, -dC/db")
    _table(weights, table[half:], shown.names[half:], heads)
    weights.set_title(f"to their weights from neuron {shown.neuron} before them, -dC/dw")
    angles, times = below.subplots(1, 2)
    _draw_angles(angles, agreements)
    _draw_times(times, agreements)
    return fig


def _table(ax: "Axes", values: np.ndarray, names: Sequence[str], heads: Sequence[str]) -> None:
    """Numbers [rows, columns] in cells coloured by them."""
    reach = float(np.max(np.abs(values))) or 1.0
    image = ax.imshow(values, cmap=style.DIVERGING, vmin=-reach, vmax=reach, aspect="auto")
    ax.figure.colorbar(image, ax=ax, fraction=0.05)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        color = "white" if abs(value) > 0.6 * reach else style.INK
        ax.text(column, row, f"{value:+.3f}", ha="center", va="center", color=color, fontsize=8)
    ax.axvline(len(heads) - 2.5, color=style.INK, linewidth=1)
    ax.set_xticks(np.arange(len(heads)), heads)
    ax.set_yticks(np.arange(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _draw_angles(ax: "Axes", agreements: Sequence[Agreement]) -> None:
    sizes = [one.size for one in agreements]
    for one in agreements:
        ax.plot(
            np.full(len(one.angles), one.size),
            one.angles,
            "o",
            color=style.FAINT,
            alpha=0.5,
            markersize=4,
        )
    medians = [float(np.median(one.angles)) for one in agreements]
    ax.plot(sizes, medians, "o-", color=style.UP)
    for size, median in zip(sizes, medians, strict=True):
        ax.annotate(
            f"{median:.0f}°", (size, median), (6, 5), textcoords="offset points", color=style.UP
        )
    top = max(95.0, *(float(one.angles.max()) + 5 for one in agreements))
    ax.axhline(90, color=style.FAINT, linestyle=":", linewidth=1)
    ax.set(xscale="log", ylim=(-3, top), yticks=range(0, int(top) + 1, 30))
    ax.set(xlabel="examples in the batch", ylabel="degrees")
    ax.set_title("angle to the true gradient: single draws, median")
    _size_ticks(ax, sizes)


def _draw_times(ax: "Axes", agreements: Sequence[Agreement]) -> None:
    sizes = [one.size for one in agreements]
    times = [1000 * one.seconds for one in agreements]
    ax.plot(sizes, times, "o-", color=style.ACCENT)
    for one, time in zip(agreements, times, strict=True):
        many = agreements[-1].seconds / one.seconds
        ax.annotate(
            rf"$\times$ {many:,.0f}", (one.size, time), (4, -13),
            textcoords="offset points", color=style.ACCENT,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="examples in the batch", ylabel="milliseconds")
    ax.set_title("time of one gradient, and how many fit into one of all")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_ylim(min(times) / 2.5, max(times) * 1.6)
    _size_ticks(ax, sizes)


def _size_ticks(ax: "Axes", sizes: Sequence[int]) -> None:
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ax.set_xlim(0.7, sizes[-1] * 2)
