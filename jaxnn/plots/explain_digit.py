"""The figure of `jaxnn explain digit`: one example, and what it wants of every layer."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.explain.digit import DigitExplanation, LayerNudges
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

HEAD, ROW = 2.5, 2.55  # inches
TILES = 16  # first-layer neurons whose weights are drawn as pictures
COLUMNS = 6  # of these pictures
SIDE = 28  # pixels
NAMED = 16  # neurons of a layer that get a number each


@style.look()
def digit(found: DigitExplanation) -> "Figure":
    """The picture and its cost at the top, then a row a layer, from the last to the first."""
    count = len(found.layers)
    fig = style.figure(10, HEAD + ROW * count)
    parts: Any = fig.subfigures(count + 1, 1, height_ratios=[HEAD, *[ROW] * count])
    _draw_head(parts[0], found)
    for part, index in zip(parts[1:], range(count - 1, -1, -1), strict=True):
        before = found.layers[index - 1].activations if index else found.image.reshape(-1) / 255
        target = found.target if index == count - 1 else None
        _draw_layer(part, index + 1, found.layers[index], before, target)
    return fig


def _draw_head(part: "SubFigure", found: DigitExplanation) -> None:
    picture, terms, wishes = part.subplots(1, 3, width_ratios=[1, 1.6, 1.25])
    part.suptitle(
        f"A {found.label}, read as {found.answer}, at a cost of {found.cost:.4g}: what it wants"
    )
    picture.imshow(found.image, cmap=style.DIGITS, vmin=0, vmax=255)
    picture.set(xticks=[], yticks=[], title="the picture")
    picture.spines[:].set_visible(False)
    terms.bar(np.arange(len(found.terms)), found.terms, color=style.HIGHLIGHT)
    terms.set(title="its cost: the sum of these (a - y)²", xlabel="output", ylabel="(a - y)²")
    terms.set_xticks(np.arange(len(found.terms)))
    terms.yaxis.set_major_formatter(_short)
    _heat(wishes, found.pixel_wishes, "-dC/dx")
    wishes.set(xticks=[], yticks=[], title="where it wants more ink, or less")
    wishes.set_aspect("equal")
    wishes.spines[:].set_visible(False)


def _draw_layer(
    part: "SubFigure",
    number: int,
    layer: LayerNudges,
    before: np.ndarray,
    target: np.ndarray | None,
) -> None:
    a, wish, bias, weights = part.subplots(1, 4, width_ratios=[1, 1, 1, 2.6])
    output = target is not None
    part.suptitle(f"Layer {number}{': the outputs' if output else ''}", fontsize=10)
    mosaic = len(before) == SIDE * SIDE  # a first layer: a neuron's weights are a picture
    count = len(layer.activations)
    a.barh(np.arange(count), layer.activations, color=style.FAINT)
    a.set(xlabel="activation a", ylabel="digit" if output else "neuron")
    if target is not None:
        a.plot(target, np.arange(count), "|", color=style.INK, markersize=9, label="target y")
        a.legend(loc="lower right", fontsize=7, handlelength=1, borderpad=0)
    _nudges(wish, layer.wishes, "wish, -dC/da")
    _nudges(bias, layer.biases, "nudge to bias, -dC/db")
    for ax in (a, wish, bias):
        # Room above the bars where the weights' panel shows the activations before.
        ax.set_ylim(count - 0.4, -0.6 if mosaic else -0.6 - 0.14 * count)
        ax.set_yticks(np.arange(count) if count <= NAMED else [])
        ax.tick_params(axis="y", labelsize=7 if count > 10 else 8, length=0)
    if mosaic:
        _tiles(weights, layer)
    else:
        _matrix(weights, layer, before)


def _nudges(ax: "Axes", values: np.ndarray, label: str) -> None:
    """Bars to the right for up, to the left for down."""
    ax.barh(
        np.arange(len(values)), values, color=[style.UP if v > 0 else style.DOWN for v in values]
    )
    ax.axvline(0, color=style.INK, linewidth=0.8)
    reach = 1.1 * float(np.max(np.abs(values))) or 1.0
    ax.set(xlim=(-reach, reach), xlabel=label)
    ax.locator_params(axis="x", nbins=3)
    ax.xaxis.set_major_formatter(_short)


def _short(value: float, position: float) -> str:
    """A tick's number, without the common factor that matplotlib would put apart from it."""
    return f"{value:.3g}"


def _heat(ax: "Axes", values: np.ndarray, label: str, **options: Any) -> None:
    """Numbers around zero as colours, with their scale; NaN stays white."""
    reach = float(np.nanmax(np.abs(values))) or 1.0
    image = ax.imshow(
        values, cmap=style.DIVERGING, vmin=-reach, vmax=reach, aspect="auto",
        interpolation="nearest", **options,
    )  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, label=label, ticks=[-reach, 0, reach])
    bar.ax.set_yticklabels([f"{-reach:.2g}", "0", f"{reach:.2g}"], fontsize=8)


def _matrix(ax: "Axes", layer: LayerNudges, before: np.ndarray) -> None:
    """All weight nudges [n, m], and above them, in grey, the activations [m] they multiply."""
    n, m = layer.weights.shape
    _heat(ax, layer.weights, "-dC/dw")
    ax.imshow(
        before[None], cmap=style.DIGITS, vmin=min(0, before.min()), vmax=max(1, before.max()),
        aspect="auto", extent=(-0.5, m - 0.5, -0.6, -0.6 - 0.09 * n),
    )  # fmt: skip
    ax.set(ylim=(n - 0.4, -0.6 - 0.14 * n), xlim=(-0.5, m - 0.5), yticks=[])
    ax.set_xticks(np.arange(m) if m <= NAMED else [])
    ax.tick_params(axis="x", labelsize=7)
    ax.set(xlabel="neuron of the layer before", title="nudges to weights; in grey, a before")


def _tiles(ax: "Axes", layer: LayerNudges) -> None:
    """The weight nudges of up to TILES neurons, each as a picture, all on one scale."""
    strongest = np.argsort(-np.abs(layer.biases), kind="stable")[:TILES]
    shown = np.sort(strongest)
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    pitch = SIDE + 8  # a margin with the neuron's number between pictures
    canvas = np.full((rows * pitch, columns * pitch - 8), np.nan, np.float32)
    for at, neuron in enumerate(shown):
        top, left = at // columns * pitch + 8, at % columns * pitch
        canvas[top : top + SIDE, left : left + SIDE] = layer.weights[neuron].reshape(SIDE, SIDE)
        ax.text(left + SIDE / 2, top - 1.5, str(neuron), ha="center", va="bottom", fontsize=7)
    _heat(ax, canvas, "-dC/dw")
    ax.set_aspect("equal")
    ax.set_axis_off()
    of = "each neuron" if len(shown) == len(layer.biases) else f"the {len(shown)} most nudged"
    ax.set_title(f"nudges to the 784 weights of {of}")
