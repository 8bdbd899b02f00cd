"""The figure of `jaxnn plot gates`: what a memory lets in, keeps and shows, step by step."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.data.features import BANDS, HOP
from jaxnn.data.wav import RATE
from jaxnn.explain.gates import Gates, Reading
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

# In the order of the cell's own lines.
PANELS = {
    "i": "input gate i:\nhow much news is let in",
    "f": "forget gate f:\nhow much memory is kept",
    "g": "cell gate g:\nthe news, for or against",
    "o": "output gate o:\nhow much memory is shown",
    "c": "memory c:\nwhat is kept and let in",
    "h": "output h:\nwhat is shown of it",
}
FROM_ZERO = {"cmap": style.SEQUENTIAL, "vmin": 0, "vmax": 1}  # what a gate is
NOTABLE = 0.2  # a class whose score was ever as high has a colour of its own


@style.look()
def picture(found: Gates, title: str) -> "Figure":
    """A picture that is read row by row: time goes down, and each row stands beside its gates."""
    fig = style.figure(10, 6.9)
    fig.suptitle(title)
    axes: Any = fig.subplots(2, 4, sharey=True, width_ratios=[1.45, 1, 1, 1])
    axes = {"source": axes[0, 0], "scores": axes[1, 0]} | dict(
        zip(PANELS, [*axes[0, 1:], *axes[1, 1:]], strict=True)
    )
    axes["source"].imshow(found.sequence, cmap=style.DIGITS, vmin=0, vmax=255, aspect="auto")
    axes["source"].set(title="the picture", xticks=[])
    _draw(fig, axes, found.readings[0], down=True)
    for name in ("source", "scores"):
        axes[name].set_ylabel("row, from the top")
    return fig


@style.look()
def sound(found: Gates, title: str) -> "Figure":
    """A spoken word: time goes to the right, below the log-mel picture; a column a direction."""
    fig = style.figure(10, 9.5)
    fig.suptitle(title)
    parts: Any = fig.subfigures(1, len(found.readings), squeeze=False)[0]
    ways = ("read forwards", "read backwards, from the right")
    for part, reading, way in zip(parts, found.readings, ways, strict=False):
        part.suptitle(way, fontsize=10)
        names = ["source", *PANELS, "scores"]
        rows = part.subplots(8, 1, sharex=True, height_ratios=[1.3, *[1] * 6, 1.2])
        axes = dict(zip(names, rows, strict=True))
        axes["source"].imshow(found.sequence.T, cmap=style.DIGITS, origin="lower", aspect="auto")
        axes["source"].set(title=f"the word, in {BANDS} bands", yticks=[], ylabel="low to high")
        _draw(part, axes, reading, down=False)
        axes["scores"].set_xlabel(f"frame, one every {1000 * HOP / RATE:g} ms")
    return fig


def _draw(
    part: "Figure | SubFigure", axes: dict[str, Any], reading: Reading, *, down: bool
) -> None:
    """Six panels of units by steps, and the scores."""
    order = _by_time(np.asarray(reading.steps.c))
    for name, title in PANELS.items():
        values = getattr(reading.steps, name)[:, order]
        scale: dict[str, Any] = FROM_ZERO
        if name in "gch":  # of either sign
            reach = max(1.0, float(np.quantile(np.abs(values), 0.995)))
            scale = {"cmap": style.DIVERGING, "vmin": -reach, "vmax": reach}
        ax = axes[name]
        drawn = ax.imshow(
            values if down else values.T, aspect="auto", interpolation="nearest", **scale
        )
        ax.set(title=title if down else title.replace("\n", " "))
        ax.set(**{"xticks" if down else "yticks": []})
        bar = part.colorbar(drawn, ax=ax, fraction=0.05, aspect=30 if down else 12)
        bar.ax.tick_params(labelsize=7)
        bar.ax.locator_params(nbins=4)
    _draw_scores(axes["scores"], reading.scores, down=down)


def _by_time(memory: np.ndarray) -> np.ndarray:
    """Units [H] in the order of when their memory [T, H] is strong: its centre in time."""
    strength = np.square(memory)
    when = np.arange(len(memory)) @ strength / np.maximum(strength.sum(axis=0), 1e-12)
    return np.argsort(when, kind="stable")


def _draw_scores(ax: Any, scores: np.ndarray, *, down: bool) -> None:
    """A line for each class; those that ever were likely in colour."""
    steps = np.arange(len(scores))
    notable = np.argsort(-scores.max(axis=0), kind="stable")[: len(style.LINES)]
    likely = [int(digit) for digit in notable if scores[:, digit].max() >= NOTABLE]
    colours = dict(zip(likely, style.LINES, strict=False))
    for digit, line in enumerate(scores.T):
        look: dict[str, Any] = {"color": style.FAINT, "linewidth": 0.6}
        if digit in colours:
            look = {"color": colours[digit], "linewidth": 1.6, "label": str(digit)}
        ax.plot(*((line, steps) if down else (steps, line)), **look)
    ax.set(title="its scores so far")
    ax.set(**{"xlim" if down else "ylim": (-0.03, 1.03)})
    if likely:
        outside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        legend = ax.legend(fontsize=8, handlelength=1, **({} if down else outside))
        legend.set_in_layout(False)  # it lies beside the panel, where others have their colours
