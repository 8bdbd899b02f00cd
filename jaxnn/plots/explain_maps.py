"""The figures of a convolutional network: its filters with what they answer to, and its maps."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.explain.maps import Features, Filters, Stage
from jaxnn.plots import network, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 64  # filters, or maps of a stage, drawn at most
BESIDE = 16  # maps next to each other
PALE = -30  # the level that is white: paper, 0, is a pale grey, so that patches have edges


@style.look()
def filters(found: Filters) -> "Figure":
    """A line for each filter: its kernel as a picture, and the patches that it answers to most."""
    count = min(len(found.kernels), MOST)
    columns = 2 if count > 8 else 1
    rows = math.ceil(count / columns)
    fig = style.figure(10, 1.1 + 0.36 * rows * (2 / columns))
    patches = found.patches.shape[1]
    fig.suptitle(
        f"What the filters of the first layer look for, and the {patches} patches of "
        f"{found.images:,} pictures that answer most"
    )
    # One colour scale for all; the few strongest numbers must not pale all others.
    reach = float(np.quantile(np.abs(found.kernels), 0.995)) or 1.0
    axes: Any = fig.subplots(
        rows, 2 * columns, width_ratios=columns * [1, patches], squeeze=False,
    )  # fmt: skip
    for at in range(count):
        row, column = at % rows, 2 * (at // rows)
        kernel, strongest = axes[row, column : column + 2]
        drawn = kernel.imshow(found.kernels[at], cmap=style.DIVERGING, vmin=-reach, vmax=reach)
        side = found.kernels.shape[1]
        kernel.text(-1.2, (side - 1) / 2, str(at), ha="right", va="center", fontsize=8)
        kernel.set_axis_off()
        _wall(strongest, found.patches[at], patches, vmin=PALE, vmax=255)
    for empty in axes.T.reshape(columns, 2, rows).swapaxes(1, 2).reshape(-1, 2)[count:].ravel():
        empty.set_axis_off()
    bar = fig.colorbar(drawn, ax=axes, fraction=0.02, aspect=40, extend="both")
    bar.set_label("a kernel's weight: blue asks for ink, red for paper")
    bar.ax.tick_params(labelsize=8)
    return fig


@style.look()
def features(found: Features, label: int, title: str) -> "Figure":
    """The picture and the scores, and below them the maps of every stage.

    Args:
      found: the picture on its way.
      label: what it shows.
      title: what stands above.
    """
    heights = [2.0, *(_height(stage) for stage in found.stages)]
    fig = style.figure(10, 0.5 + sum(heights))
    fig.suptitle(title)
    parts: Any = fig.subfigures(len(heights), 1, height_ratios=heights)
    picture, scores = parts[0].subplots(1, 2, width_ratios=[1, 2.2])
    picture.imshow(found.image, cmap=style.DIGITS, vmin=0, vmax=255)
    picture.set_axis_off()
    network.draw_scores(scores, found.scores, label)
    for part, stage in zip(parts[1:], found.stages, strict=True):
        _draw_stage(part.subplots(), stage)
    return fig


def _height(stage: Stage) -> float:
    """Inches."""
    if stage.maps.ndim == 1 or stage.maps.shape[0] == 1:
        return 0.8
    return 0.4 + 0.58 * math.ceil(min(stage.maps.shape[2], MOST) / BESIDE)


def _draw_stage(ax: "Axes", stage: Stage) -> None:
    """Maps side by side, on one scale; what has no places stands in a row."""
    maps = stage.maps
    *places, count = maps.shape
    reach = float(np.abs(maps).max()) or 1.0
    scale: dict[str, Any] = {"cmap": style.DIVERGING, "vmin": -reach, "vmax": reach}
    if math.prod(places) == 1:
        drawn = ax.imshow(maps.reshape(1, -1), aspect="auto", **scale)
        ax.set(yticks=[])
        what = f"{count} numbers"
    else:
        shown = maps[..., :MOST]
        drawn = _wall(ax, np.moveaxis(shown, -1, 0), BESIDE, **scale)
        some = f"{MOST} of " if count > MOST else ""
        what = f"{some}{count} maps of {places[0]} x {places[1]}"
    ax.set_title(f"{what}: {stage.name}", loc="left")
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.012, 0, 0.012, 1)))
    bar.ax.tick_params(labelsize=7)
    bar.ax.set_ylim(min(0, float(maps.min())), reach)
    bar.ax.locator_params(nbins=3 if math.prod(places) > 1 else 1)


def _wall(ax: "Axes", pictures: np.ndarray, columns: int, **scale: Any) -> Any:
    """Pictures [n, H, W] as one image with lines between them, numbers as they are."""
    count, high, wide = pictures.shape
    rows = math.ceil(count / columns)
    gap = max(1, round(high / 14))
    wall = np.full((rows, columns, high + gap, wide + gap), np.nan)
    for at, picture in enumerate(pictures):
        wall[*divmod(at, columns), :high, :wide] = picture
    image = wall.swapaxes(1, 2).reshape(rows * (high + gap), -1)[:-gap, :-gap]
    scale = {"cmap": style.DIGITS, **scale}
    drawn = ax.imshow(image, interpolation="nearest", **scale)
    ax.set_axis_off()
    return drawn
