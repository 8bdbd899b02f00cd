"""What a sweep gave: every network of every setting."""

import statistics
from typing import TYPE_CHECKING, Any

from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 16  # settings, the best ones


@style.look()
def sweep(result: dict[str, Any]) -> "Figure":
    """Test accuracy of each network, setting by setting, in the order of what they were chosen by.

    Args:
      result: what `sweep.json` holds.
    """
    settings = result["settings"][:SHOWN]
    fig = style.figure(7.5, 1.6 + 0.42 * len(settings))
    count = len(result["networks"])
    fig.suptitle(f"{count} networks; settings in order of their {result['chosen_by']}")
    ax = fig.subplots()
    for row, setting in enumerate(settings):
        found = [100 * result["networks"][k]["test_accuracy"] for k in setting["networks"]]
        ax.plot(found, [row] * len(found), "o", color=style.UP, alpha=0.5, markersize=5)
        ax.plot(statistics.fmean(found), row, "|", color=style.DOWN, markersize=16, mew=2)
    best = result["networks"][result["best"]]
    (row,) = [row for row, one in enumerate(settings) if result["best"] in one["networks"]] or [
        None
    ]
    if row is not None:
        ax.plot(
            100 * best["test_accuracy"], row, "o", markersize=11, markerfacecolor="none",
            markeredgecolor=style.HIGHLIGHT, mew=2,
        )  # fmt: skip
    ax.set_yticks(range(len(settings)), [_name(one, settings) for one in settings])
    ax.set_ylim(len(settings) - 0.5, -0.5)
    ax.set_xlabel("test images read correctly, %; bar: mean; ring: the network that was chosen")
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
