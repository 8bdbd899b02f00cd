"""A network as pictures: what its first layer looks for, and how it answers to one digit."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 28  # pixels of a digit
MOST = 100  # neurons drawn at most
ABOVE, BESIDE = 7, 3  # pixels between the pictures of neurons
COLUMN = 20  # neurons above each other in a layer of activations


@style.look()
def weights(first_layer: np.ndarray) -> "Figure":
    """Each neuron's weights as a picture; one colour scale for all, white at zero.

    Args:
      first_layer: [n, 784] weights; of more than MOST neurons the first are drawn.
    """
    shown = first_layer[:MOST]
    columns = 8 if len(shown) <= 32 else 10
    rows = math.ceil(len(shown) / columns)
    fig = style.figure(9, 0.5 + 8.9 * rows / columns)
    some = f"first {MOST} of {len(first_layer):,}" if len(first_layer) > MOST else len(first_layer)
    fig.suptitle(f"What the {some} neurons of the first layer look for")
    draw_weights(fig.subplots(), shown, columns)
    return fig


def draw_weights(ax: Any, neurons: np.ndarray, columns: int) -> None:
    """Neurons [n, 784] as a grid of pictures with its colour bar.

    The scale ends where only one weight in 200 is stronger, so that the few strongest do not
    pale all others; these have the end's colour.
    """
    limit = float(np.quantile(np.abs(neurons), 0.995)) or 1.0
    rows = math.ceil(len(neurons) / columns)
    wall = np.full((rows, columns, SIDE + ABOVE, SIDE + BESIDE), np.nan)
    for index, row in enumerate(neurons):
        at = divmod(index, columns)
        wall[*at, ABOVE:, :SIDE] = row.reshape(SIDE, SIDE)
        x, y = at[1] * (SIDE + BESIDE) + SIDE / 2, (at[0] + 1) * (SIDE + ABOVE) - SIDE - 1.5
        ax.text(x, y, f"neuron {index}", ha="center", fontsize=8)
    pictures = wall.swapaxes(1, 2).reshape(rows * (SIDE + ABOVE), -1)  # one image: quick to draw
    scale = {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit}
    drawn = ax.imshow(pictures, interpolation="nearest", **scale)
    ax.set_axis_off()
    bar = ax.figure.colorbar(drawn, ax=ax, extend="both", fraction=0.05, label="weight of a pixel")
    bar.ax.tick_params(labelsize=8)


@style.look()
def activations(layers: Sequence[np.ndarray], label: int, title: str) -> "Figure":
    """A digit and the activations of every layer, on one colour scale.

    Args:
      layers: the input [784] in [0, 1], the hidden layers, of which the first MOST neurons are
        drawn, and the ten scores in [0, 1].
      label: what the digit is.
      title: what stands above.
    """
    hidden = [layer[:MOST] for layer in layers[1:-1]]
    widths = [2.6, *(0.7 * math.ceil(len(layer) / COLUMN) for layer in hidden), 2.2]
    fig = style.figure(min(max(9, 1.5 * sum(widths)), 30), 4.6)
    fig.suptitle(title)
    axes = fig.subplots(1, len(widths), width_ratios=widths)
    axes[0].imshow(layers[0].reshape(SIDE, SIDE), cmap=style.DIGITS, vmin=0, vmax=1)
    axes[0].set_title(f"layer 0:\n{len(layers[0])} pixels")
    axes[0].set_axis_off()
    scale = scale_of(hidden)
    for number, (ax, layer) in enumerate(zip(axes[1:-1], hidden, strict=True), 1):
        rows = min(len(layer), COLUMN)
        columns = math.ceil(len(layer) / rows)
        cells = np.full(rows * columns, np.nan)
        cells[: len(layer)] = layer
        drawn = ax.imshow(cells.reshape(columns, rows).T, aspect="auto", **scale)
        some = f"{MOST} of " if len(layer) < len(layers[number]) else ""
        ax.set(title=f"layer {number}:\n{some}{len(layers[number]):,} neurons", xticks=[])
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set_yticks(range(rows))
        for index, value in enumerate(layer if columns == 1 else ()):
            color = style.readable_on(drawn.to_rgba(value))
            ax.text(0, index, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    if hidden:
        bar = fig.colorbar(drawn, ax=axes[-2], label="activation", fraction=0.25, aspect=30)
        bar.ax.tick_params(labelsize=8)
    draw_scores(axes[-1], layers[-1], label)
    axes[-1].set_title(f"layer {len(layers) - 1}:\nthe ten scores")
    return fig


def scale_of(layers: Sequence[np.ndarray]) -> dict[str, Any]:
    """Colours for activations: 0 to 1 in sequence, or around zero where some are negative."""
    low = min((float(layer.min()) for layer in layers), default=0.0)
    high = max((float(np.abs(layer).max()) for layer in layers), default=1.0)
    if low < 0:
        return {"cmap": style.DIVERGING, "vmin": -high, "vmax": high}
    return {"cmap": style.SEQUENTIAL, "vmin": 0.0, "vmax": max(high, 1.0)}


def draw_scores(ax: Any, scores: np.ndarray, label: int | None, small: bool = False) -> None:
    """Ten scores [10] as bars: the true digit in blue, a wrong answer in vermilion."""
    answer = int(np.argmax(scores))
    colors = [style.FAINT] * len(scores)
    colors[answer] = style.DOWN
    if label is not None:
        colors[label] = style.UP
    digits = np.arange(len(scores))
    if small:
        ax.bar(digits, scores, color=colors)
        ax.set(ylim=(0, 1), yticks=[0, 1], xticks=digits)
        ax.tick_params(labelsize=6, length=2, pad=1)
        return
    ax.barh(digits, scores, color=colors)
    for digit, score in enumerate(scores):
        ax.text(score + 0.02, digit, f"{score:.2f}", va="center", fontsize=7)
    ax.set(xlim=(0, 1.2), yticks=digits, xticks=[0, 0.5, 1], xlabel="score of each digit")
    ax.invert_yaxis()
