"""How far a network's confidence can be trusted: the reliability diagram."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxnn.calibration import Reliability
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.look()
def reliability(columns: Mapping[float, Reliability]) -> "Figure":
    """Accuracy against confidence above, how many images lie in each bin of confidence below.

    Args:
      columns: temperature -> the bins at it, all of the same images; one or more.
    """
    some = next(iter(columns.values()))
    images = int(some.counts.sum())
    right = np.nansum(some.counts * some.accuracy) / images
    fig = style.figure(0.8 + 4.1 * len(columns), 6.1)
    fig.suptitle(f"{images:,} digits, {right:.2%} read correctly")
    axes = fig.subplots(
        2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    for (above, below), (temperature, bins) in zip(axes.T, columns.items(), strict=True):
        title = f"temperature {temperature:.4g}: expected calibration error {bins.ece:.4f}"
        above.set_title(title)
        _draw_accuracy(above, bins)
        _draw_counts(below, bins)
    axes[0, 0].set_ylabel("read correctly, %")
    axes[1, 0].set_ylabel("images, log scale")
    drawn = axes[0, 0].get_legend_handles_labels()
    fig.legend(*drawn, loc="outside lower center", ncols=2 * len(columns))
    return fig


def _draw_accuracy(ax: "Axes", bins: Reliability) -> None:
    """A dot a bin, its distance from the diagonal, and how far chance alone would take it."""
    full = bins.counts > 0
    edges, width = 100 * bins.edges[:-1][full], 100 * np.diff(bins.edges)[full]
    confidence, accuracy = 100 * bins.confidence[full], 100 * bins.accuracy[full]
    chance = 2 * np.sqrt(confidence * (100 - confidence) / bins.counts[full])  # binomial
    ax.bar(
        edges, 2 * chance, width, confidence - chance, align="edge", color=style.FAINT, alpha=0.3,
        edgecolor="white", label="within chance, two standard errors",
    )  # fmt: skip
    ax.plot([0, 100], [0, 100], ":", color=style.INK, linewidth=1, label="as often as it is sure")
    ax.vlines(confidence, accuracy, confidence, color=style.DOWN, linewidth=2, label="the gap")
    ax.plot(
        confidence, accuracy, "o", color=style.UP, clip_on=False, zorder=3, label="read correctly"
    )
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.grid(color="#EEEEEE")
    ax.set_axisbelow(True)


def _draw_counts(ax: "Axes", bins: Reliability) -> None:
    ax.bar(
        100 * bins.edges[:-1], bins.counts, 100 * np.diff(bins.edges), align="edge",
        color=style.FAINT, edgecolor="white",
    )  # fmt: skip
    ax.set(xlabel="confidence in the answer, %", yscale="log", ylim=(0.5, 2 * bins.counts.sum()))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
