"""What a sweep gave: every network of every setting."""

import statistics
from typing import TYPE_CHECKING, Any

from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 16  # settings, the best ones


@style.look()
def sweep(result: dict[str, Any]) -> "Figure":
    """What each network was chosen by, setting by setting, the best first.

    Args:
      result: what `sweep.json` holds.
    """
    settings = result["settings"][:SHOWN]
    by_accuracy = result["chosen_by"] == "validation accuracy"
    chosen_by = "validation accuracy" if by_accuracy else "training cost"
    factor = 100 if by_accuracy else -1  # percent; or the cost itself
    fig = style.figure(7.5, 1.6 + 0.42 * len(settings))
    count = len(result["networks"])
    fig.suptitle(f"{count} networks; settings in order of their {chosen_by}")
    ax = fig.subplots()
    for row, setting in enumerate(settings):
        scores = [result["networks"][k]["score"] for k in setting["networks"]]
        found = [factor * score for score in scores if score is not None]
        ax.plot(found, [row] * len(found), "o", color=style.UP, alpha=0.5, markersize=5)
        if found:
            ax.plot(statistics.fmean(found), row, "|", color=style.DOWN, markersize=16, mew=2)
        else:
            ax.text(
                0.5,
                row,
                "all diverged",
                ha="center",
                va="center",
                transform=ax.get_yaxis_transform(),
            )
        if result["best"] in setting["networks"]:
            ax.plot(
                factor * result["networks"][result["best"]]["score"], row, "o", markersize=11,
                markerfacecolor="none", markeredgecolor=style.HIGHLIGHT, mew=2,
            )  # fmt: skip
    ax.set_yticks(range(len(settings)), [_name(one, settings) for one in settings])
    ax.set_ylim(len(settings) - 0.5, -0.5)
    word = "validation images read correctly, %" if by_accuracy else "training cost"
    ax.set_xlabel(f"{word}; bar: mean; ring: the network that was chosen")
    ax.grid(color="#EEEEEE", axis="x")
    ax.set_axisbelow(True)
    return fig


def _name(setting: dict[str, Any], settings: list[dict[str, Any]]) -> str:
    """What tells a setting from the others."""
    words = {
        "learning_rate": lambda value: f"rate {value:g}",
        "momentum": lambda value: "" if value is None else f"momentum {value:g}",
        "sizes": lambda value: "-".join(map(str, value)),
    }
    told = [name for name in words if len({str(one[name]) for one in settings}) > 1]
    return ", ".join(words[name](setting[name]) for name in told or ["learning_rate"])
