"""How good a network is, and how it got there: curves, confusion, worst digits, before, after."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnn.plots import style
from jaxnn.plots.network import draw_scores, draw_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6  # digits in a row of `worst`


class Snapshot(NamedTuple):
    """A network at one moment, for `side_by_side`."""

    name: str
    first_layer: np.ndarray  # [n, 784] weights
    accuracy: float  # 0 to 1
    cost: float
    scores: np.ndarray  # [k, 10] for the digits shown


@style.look()
def costs(history: Mapping[str, np.ndarray], title: str) -> "Figure":
    """Training and held-out cost, and held-out accuracy, over the epochs.

    Args:
      history: epoch, cost, held_out_cost and held_out_accuracy, each [epochs].
      title: what stands above.
    """
    epoch, accuracy = history["epoch"], history["held_out_accuracy"]
    mark = "o-" if len(epoch) <= 40 else "-"
    fig = style.figure(9, 3.8)
    fig.suptitle(title)
    left, right = fig.subplots(1, 2)
    left.plot(epoch, history["cost"], mark, color=style.UP, markersize=3, label="training")
    left.plot(
        epoch, history["held_out_cost"], mark, color=style.DOWN, markersize=3, label="held out"
    )
    left.set(title="Cost of an image, mean", xlabel="epoch", ylabel="cost")
    left.set_ylim(0, 1.05 * max(history["cost"].max(), history["held_out_cost"].max()))
    left.legend()
    right.plot(epoch, 100 * accuracy, mark, color=style.DOWN, markersize=3)
    best = int(np.argmax(accuracy))
    right.axhline(100 * accuracy[best], color=style.FAINT, linestyle=":", linewidth=1)
    right.set(
        title=f"Accuracy, held out: best {accuracy[best]:.2%}, epoch {epoch[best]:.0f}",
        xlabel="epoch",
        ylabel="read correctly, %",
    )
    for ax in (left, right):
        ax.grid(color="#EEEEEE")
        ax.locator_params(axis="x", integer=True)
    return fig


@style.look()
def confusion(counts: np.ndarray) -> "Figure":
    """The confusion matrix: mistakes shaded by how common they are among the images of a digit.

    Args:
      counts: int [n, n]; row is the digit, column what it was read as.
    """
    of_digit = counts.sum(axis=1, keepdims=True)
    share = 100 * counts / np.maximum(of_digit, 1)  # [n, n] %
    mistakes = np.where(np.eye(len(counts), dtype=bool), np.nan, share)
    top = float(np.nanmax(mistakes)) or 1.0
    fig = style.figure(7.5, 6.4)
    right, total = int(np.trace(counts)), int(counts.sum())
    fig.suptitle(f"{right:,} of {total:,} digits read correctly ({right / total:.2%})")
    ax = fig.subplots()
    drawn = ax.imshow(mistakes, cmap="Oranges", vmin=0, vmax=top)
    for row, column in np.ndindex(counts.shape):
        count = counts[row, column]
        if count == 0:
            continue
        text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": style.INK}
        if row == column:
            text |= {"color": style.UP, "fontweight": "bold"}
        else:
            text |= {"color": style.readable_on(drawn.to_rgba(mistakes[row, column]))}
        ax.text(column, row, f"{count}", **text)
    digits = range(len(counts))
    ax.set(xticks=digits, yticks=digits, xlabel="read as", ylabel="digit")
    ax.tick_params(length=0)
    fig.colorbar(drawn, ax=ax, label="mistakes, % of the images of the digit", shrink=0.8)
    return fig


@style.look()
def worst(
    images: np.ndarray, labels: np.ndarray, scores: np.ndarray, groups: Mapping[str, Sequence[int]]
) -> "Figure":
    """Digits with their ten scores, a row for each group.

    Args:
      images: uint8 [N, 28, 28].
      labels: [N].
      scores: [N, 10].
      groups: title of a row -> which images stand in it, SHOWN at most; two or more rows.
    """
    fig = style.figure(9, 2.8 * len(groups))
    parts: Any = fig.subfigures(len(groups), 1)
    for part, (title, chosen) in zip(parts, groups.items(), strict=True):
        part.suptitle(title, fontsize=11)
        if not chosen:
            part.text(0.5, 0.5, "none", ha="center")
            continue
        axes = part.subplots(2, SHOWN, height_ratios=(3, 1))
        for ax in axes[:, len(chosen) :].flat:
            ax.set_axis_off()
        for column, index in enumerate(chosen):
            answer, label = int(np.argmax(scores[index])), int(labels[index])
            picture, bars = axes[:, column]
            draw_digit(picture, images[index])
            picture.set_title(
                f"{label}, read as {answer}",
                fontsize=9,
                color=style.INK if answer == label else style.DOWN,
            )
            draw_scores(bars, scores[index], label, small=True)
    return fig


def most_wrong(scores: np.ndarray, labels: np.ndarray) -> list[int]:
    """Misread images, those first whose wrong answer stands highest above the true digit's."""
    lead = scores.max(axis=1) - scores[np.arange(len(labels)), labels]  # [N], 0 where right
    order = np.argsort(-lead, kind="stable")[:SHOWN]
    return [int(index) for index in order if lead[index] > 0]


def least_sure(scores: np.ndarray) -> list[int]:
    """Images whose two highest scores are closest, right or wrong."""
    second, best = np.sort(scores, axis=1)[:, -2:].T
    return np.argsort(best - second, kind="stable")[:SHOWN].tolist()


@style.look()
def side_by_side(
    snapshots: Sequence[Snapshot], images: np.ndarray, labels: np.ndarray, count: int, cost: str
) -> "Figure":
    """Networks beside each other: accuracy, cost, first-layer weights, and a few digits' scores.

    Args:
      snapshots: two or more, such as one before and one after training.
      images: uint8 [k, 28, 28] digits shown.
      labels: [k].
      count: how many digits accuracy and cost were measured on.
      cost: its name.
    """
    fig = style.figure(9, 8)
    fig.suptitle(f"Before and after training, measured on {count:,} digits ({cost} cost)")
    parts: Any = fig.subfigures(1, len(snapshots))
    for part, one in zip(parts, snapshots, strict=True):
        part.suptitle(f"{one.name}: accuracy {one.accuracy:.1%}, cost {one.cost:.2f}", fontsize=11)
        top, bottom = part.subfigures(2, 1, height_ratios=(1.15, 1))
        draw_weights(top.subplots(), one.first_layer[:16], 4)
        axes = bottom.subplots(len(images), 2, width_ratios=(1, 3), squeeze=False)
        for (picture, bars), image, label, scores in zip(
            axes, images, labels.tolist(), one.scores, strict=True
        ):
            draw_digit(picture, image)
            draw_scores(bars, scores, label, small=True)
    return fig


def draw_digit(ax: Any, image: np.ndarray) -> None:
    """A digit uint8 [28, 28], ink on paper."""
    ax.imshow(image, cmap=style.DIGITS, vmin=0, vmax=255)
    ax.set_axis_off()
