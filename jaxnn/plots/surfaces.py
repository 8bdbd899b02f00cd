"""Gradient descent on a surface of two variables, in six panels."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnn.expressions import Function
from jaxnn.plots import style
from jaxnn.surfaces import Path, heights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 121  # points along each side of the drawn square


class View(NamedTuple):
    """A square of the plane, and the surface over it."""

    x: np.ndarray  # [GRID]
    y: np.ndarray  # [GRID]
    f: np.ma.MaskedArray  # [GRID, GRID], rows along y; masked where f is not finite


def view_of(function: Function, points: np.ndarray) -> View:
    """A square that holds the points [N, 2], with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(0.7 * np.max(high - low), 0.5)
    x, y = (np.linspace(m - half, m + half, GRID) for m in (low + high) / 2)
    return View(x, y, np.ma.masked_invalid(heights(function, x, y)))


@style.look()
def descent(
    expression: str,
    function: Function,
    learning_rate: float,
    paths: Sequence[Path],
    rivals: Mapping[str, Path],
    too_large: tuple[float, Path],
) -> "Figure":
    """Contours and a 3-D picture with the paths, too large a step, and the optimizers compared.

    Args:
      expression: the surface as text.
      function: the same as a function.
      learning_rate: of all paths but `too_large`.
      paths: plain descent from each start.
      rivals: optimizer name -> its path from the first start.
      too_large: a learning rate and its path from the first start.
    """
    fig = style.figure(9, 12)
    fig.suptitle("\n".join(textwrap.wrap(f"Gradient descent on f(x, y) = {expression}", 80)))
    axes = fig.add_gridspec(3, 2, height_ratios=(1, 1, 0.85))
    view = view_of(
        function,
        np.concatenate([p.points[:2] if p.outcome == "diverged" else p.points for p in paths]),
    )

    ax = fig.add_subplot(axes[0, 0])
    _contours(ax, view, f"Plain descent, learning rate {learning_rate:g}{_ends(paths)}")
    for path, color in zip(paths, style.LINES, strict=False):
        _draw(ax, path, color, f"from ({path.points[0, 0]:g}, {path.points[0, 1]:g})")
        _arrows(ax, path, view, labelled=path is paths[0])
    ax.legend(fontsize=8, frameon=True)

    _three_dimensional(fig.add_subplot(axes[0, 1], projection="3d"), view, paths)

    rate, far_path = too_large
    ax = fig.add_subplot(axes[1, 0])
    wide = view_of(function, _until_outside(far_path.points, view))
    diverged = far_path.outcome == "diverged"
    _contours(
        ax, wide, f"{'Too large a step' if diverged else 'Larger steps'}: learning rate {rate:g}"
    )
    _draw(ax, far_path, style.DOWN, f"{far_path.outcome} after {len(far_path.lengths)} steps")
    ax.legend(fontsize=8, frameon=True)

    ax = fig.add_subplot(axes[1, 1])
    _contours(ax, view, f"Three ways down, learning rate {learning_rate:g}")
    for (optimizer, path), color in zip(rivals.items(), style.LINES, strict=False):
        _draw(ax, path, color, optimizer)
    ax.legend(fontsize=8, frameon=True)

    _steps_and_slopes(fig.add_subplot(axes[2, 0]), paths, learning_rate)
    _values(fig.add_subplot(axes[2, 1]), rivals, too_large)
    return fig


def _ends(paths: Sequence[Path]) -> str:
    """What to say of several starts that end in different places."""
    if len(paths) < 2 or {path.outcome for path in paths} != {"converged"}:
        return ""
    ends = {tuple(np.round(path.points[-1], 3).tolist()) for path in paths}
    return f":\n{len(paths)} starts, {len(ends)} different ends" if len(ends) > 1 else ""


def _until_outside(points: np.ndarray, view: View) -> np.ndarray:
    """The points up to the first that lies outside of a square three times as wide as the view."""
    middle, width = np.array([view.x.mean(), view.y.mean()]), np.ptp(view.x)
    outside = np.abs(points - middle).max(axis=1) > 1.5 * width
    return points[: max(int(np.argmax(outside)), 2)] if outside.any() else points


def _contours(ax: Any, view: View, title: str) -> None:
    values = view.f.compressed()
    if values.size and np.ptp(values) > 0:
        # Closer together near the bottom, so that a bowl has rings of equal distance.
        low, high = values.min(), np.quantile(values, 0.98)
        levels = low + (high - low) * np.linspace(0, 1, 16) ** 2
        where = (view.x, view.y, view.f)
        shades = ax.contourf(*where, levels, cmap="Greys", alpha=0.5, extend="max")
        ax.contour(*where, levels, colors=style.FAINT, linewidths=0.5, linestyles="solid")
        bar = ax.figure.colorbar(shades, ax=ax, shrink=0.8, label="f(x, y)", spacing="proportional")
        bar.locator = _few_ticks()
        bar.ax.tick_params(labelsize=7)
    ax.set(title=title, xlabel="x", ylabel="y", aspect="equal")
    ax.set(xlim=view.x[[0, -1]], ylim=view.y[[0, -1]])


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def _draw(ax: Any, path: Path, color: str, label: str) -> None:
    """A path: a dot a step, or every few; large at its start, a star where it converged."""
    x, y = path.points.T
    every = max(1, len(x) // 150)
    ax.plot(x, y, "o-", color=color, label=label, markersize=3, markevery=every, linewidth=1.2)
    ax.plot(x[0], y[0], "o", color=color, markersize=7, markeredgecolor="white")
    if path.outcome == "converged":
        ax.plot(x[-1], y[-1], "*", color=color, markersize=13, markeredgecolor="white", zorder=5)


def _arrows(ax: Any, path: Path, view: View, labelled: bool) -> None:
    """At the start: the gradient, which climbs, and its negative, which descends."""
    start, gradient = path.points[0], path.gradients[0]
    slope = path.slopes[0]
    if slope == 0:
        return
    uphill = gradient / slope * 0.14 * np.ptp(view.x)
    for arrow, color, label in (
        (uphill, style.HIGHLIGHT, f"gradient ({_short(gradient[0])}, {_short(gradient[1])}): up"),
        (-uphill, style.ACCENT, "its negative: down"),
    ):
        look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8}
        ax.annotate("", start + arrow, start, arrowprops=look, zorder=6)
        if labelled:
            ax.plot([], [], color=color, linewidth=1.8, label=label)


def _short(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 1e4 else f"{number:.1e}"


def _three_dimensional(ax: Any, view: View, paths: Sequence[Path]) -> None:
    x, y = np.meshgrid(view.x, view.y)
    ax.plot_surface(
        x, y, view.f.filled(np.nan), cmap=style.SEQUENTIAL, alpha=0.6, linewidth=0, rasterized=True
    )
    for path, color in zip(paths, style.LINES, strict=False):
        outside = (
            np.abs(path.points - [view.x.mean(), view.y.mean()]).max(axis=1) > np.ptp(view.x) / 2
        )
        points = np.column_stack([path.points, path.values])[~outside]
        ax.plot(*points.T, "o-", color=color, markersize=3, zorder=10)
    ax.locator_params(nbins=5)
    ax.set(title="The same in three dimensions", xlabel="x", ylabel="y", zlabel="f(x, y)")


def _steps_and_slopes(ax: Any, paths: Sequence[Path], learning_rate: float) -> None:
    steepest = 0.0
    for path, color in zip(paths, style.LINES, strict=False):
        slopes = path.slopes[: len(path.lengths)]
        if path.outcome == "diverged":
            slopes = slopes[:6]
        ax.plot(slopes, path.lengths[: len(slopes)], "o", color=color, markersize=4, zorder=3)
        steepest = max(steepest, slopes.max(initial=0))
    line = np.array([0, steepest])
    ax.plot(line, learning_rate * line, color=style.FAINT, label=f"slope times {learning_rate:g}")
    ax.set(
        title="Plain descent: the steeper, the longer the step",
        xlabel="slope, the length of the gradient",
        ylabel="length of the step",
    )
    ax.legend(fontsize=8, frameon=True)


def _values(ax: Any, rivals: Mapping[str, Path], too_large: tuple[float, Path]) -> None:
    curves = {name: path.values for name, path in rivals.items()}
    low = min(values.min() for values in curves.values())
    high = next(iter(curves.values()))[0]
    margin = 0.1 * max(high - low, 1e-3 * abs(high), 1e-9)
    for (name, values), color in zip(curves.items(), style.LINES, strict=False):
        ax.plot(values, color=color, label=name)
    ax.plot(too_large[1].values, ":", color=style.INK, label=f"sgd, rate {too_large[0]:g}")
    # Up to where the last of them has come to rest.
    busy = [np.flatnonzero(np.abs(v - v[-1]) > margin / 20).max(initial=4) for v in curves.values()]
    ax.set(title="The way down", xlabel="step", ylabel="f(x, y)")
    ax.set(xlim=(-0.02 * max(busy), 1.05 * max(busy)), ylim=(low - margin, high + 2 * margin))
    ax.legend(fontsize=8, frameon=True)
