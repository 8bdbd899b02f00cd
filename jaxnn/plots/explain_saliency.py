"""The figures of pixels that answers hang on: of one picture, and of several networks' answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.explain.saliency import Saliency
from jaxnn.plots import network, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE = 1.0  # inches a picture in the table of networks
STEPS = 21  # of colour, the middle one white


@style.look()
def one(found: Saliency, label: int) -> "Figure":
    """The first picture, the slopes over its outline, and its scores."""
    fig = style.figure(9, 3.4)
    answer = found.answers[0]
    fig.suptitle(f"A {label}, read as {answer}: what this answer hangs on")
    picture, over, scores = fig.subplots(1, 3, width_ratios=[1, 1, 1.3])
    picture.imshow(found.images[0], cmap=style.DIGITS, vmin=0, vmax=255)
    picture.set_title("the picture")
    slopes = found.slopes[0]
    reach = _reach(slopes)
    drawn = _over(over, found.images[0], slopes)
    bar = fig.colorbar(drawn, ax=over, orientation="horizontal", fraction=0.05, pad=0.02)
    bar.set_ticks([-reach, 0, reach], labels=[f"{-reach:.2g}", "0", f"{reach:.2g}"], fontsize=8)
    bar.set_label(f"d(score of the {answer}) / d(pixel)", fontsize=8)
    over.set_title("where more ink makes it surer, or less")
    for ax in (picture, over):
        ax.set_axis_off()
    network.draw_scores(scores, found.scores[0], label)
    scores.set_title("its scores")
    return fig


@style.look()
def several(found: Sequence[tuple[str, Saliency]], labels: Sequence[int]) -> "Figure":
    """A row for each network, a column for each picture.

    Args:
      found: what a network is called, and what its answers to the N pictures hang on.
      labels: what the N pictures show.
    """
    count = len(labels)
    fig = style.figure(max(6, 1.2 + TILE * 0.75 * count), 0.9 + TILE * len(found))
    fig.suptitle("Where more ink makes the answer surer (blue), and where less sure (red)")
    rows: Any = fig.subplots(len(found), count, squeeze=False)
    for axes, (name, one) in zip(rows, found, strict=True):
        for at, ax in enumerate(axes):
            _over(ax, one.images[at], one.slopes[at])
            answer = one.answers[at]
            colour = style.INK if answer == labels[at] else style.DOWN
            ax.set_title(f"{answer} ({one.scores[at, answer]:.2f})", color=colour, fontsize=8)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color=style.FAINT, linewidth=0.5)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
    fig.supxlabel(
        "above each: the answer, and its score; each picture has its own scale", fontsize=8
    )
    return fig


def _over(ax: Any, image: np.ndarray, slopes: np.ndarray) -> Any:
    """Slopes as colours, white at 0, and over them the outline of the ink."""
    reach = _reach(slopes)
    # In few steps of colour: files of such small noisy pictures are half as large.
    colours = style.require_matplotlib().colormaps[style.DIVERGING].resampled(STEPS)
    drawn = ax.imshow(slopes, cmap=colours, vmin=-reach, vmax=reach, interpolation="nearest")
    if image.max() > 127 > image.min():
        ax.contour(image, levels=[127.5], colors=style.INK, linewidths=0.9)
    return drawn


def _reach(slopes: np.ndarray) -> float:
    return float(np.abs(slopes).max()) or 1.0
