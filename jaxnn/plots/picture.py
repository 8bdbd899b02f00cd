"""The figure of `jaxnn classify --plot`: a picture, what the network saw of it, what it says."""

from typing import TYPE_CHECKING

import numpy as np

from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

LONGEST = 800  # pixels of a larger picture's longer side, as it is drawn


@style.look()
def explained(
    picture: "Picture",
    digit: np.ndarray,
    scores: np.ndarray,
    verdict: str,
    reason: str,
    doubtful: bool,
) -> "Figure":
    """The picture and the digit side by side, then a bar for each score, the answer in colour.

    Args:
      picture: mode L or RGB; larger ones are reduced for drawing.
      digit: uint8 [28, 28], as the network saw it.
      scores: [C] in [0, 1].
      verdict: the title, in the answer's colour.
      reason: what stands below the scores; may be empty.
      doubtful: that colour is then the other one.
    """
    fig = style.figure(9, 3.4)
    left, middle, right = fig.subplots(1, 3, width_ratios=[1, 1, 1.3])
    colour = style.DOWN if doubtful else style.UP
    fig.suptitle(verdict, color=colour)
    small = picture.copy()
    small.thumbnail((LONGEST, LONGEST))
    left.imshow(np.asarray(small), cmap="gray", vmin=0, vmax=255)
    left.set_title(f"the picture, {picture.width} x {picture.height}")
    middle.imshow(digit, cmap="gray", vmin=0, vmax=255)
    middle.set_title(f"what the network saw, {digit.shape[1]} x {digit.shape[0]}")
    for ax in (left, middle):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=style.FAINT)
    places = np.arange(len(scores))
    colours = [style.FAINT] * len(scores)
    colours[scores.argmax()] = colour
    bars = right.barh(places, scores, color=colours)
    right.bar_label(bars, [f"{score:.2f}" for score in scores], padding=3, fontsize=8)
    right.set(xlim=(0, 1.12), ylim=(len(scores) - 0.4, -0.6), ylabel="digit", xlabel=reason)
    right.set_yticks(places)
    right.set_title("its scores, 0 to 1")
    return fig
