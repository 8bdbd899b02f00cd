"""How every figure looks, and how it is written: the one place that loads matplotlib.

Figures are plain `matplotlib.figure.Figure` objects: no window, no global state of pyplot. The
same numbers give the same bytes, in PNG and in SVG.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from jaxnn.errors import ConfigError, JaxnnError
from jaxnn.files import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that people with any colour vision tell apart (Okabe and Ito, 2008).
UP = "#0072B2"  # blue: positive, grow, right
DOWN = "#D55E00"  # vermilion: negative, shrink, wrong
ACCENT = "#009E73"  # green: a third thing beside the two
HIGHLIGHT = "#E69F00"  # orange: the one to look at
INK = "#222222"  # text and outlines
FAINT = "#999999"  # grids, what is only context
LINES = (UP, DOWN, ACCENT, HIGHLIGHT, "#CC79A7")  # curves, in this order

DIVERGING = "RdBu"  # values around zero: red below, white at 0, blue above, as UP and DOWN
SEQUENTIAL = "viridis"  # values from low to high
DIGITS = "Greys"  # pictures of digits: ink on paper

DPI = 100
ENDINGS = (".png", ".svg")
_LOOK = {
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "svg.hashsalt": "jaxnn",  # names inside an SVG are otherwise drawn at random
}


def require_matplotlib() -> ModuleType:
    """The package matplotlib.

    Raises:
      JaxnnError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure  # a broken installation is noticed here, not while drawing
    except ImportError as error:
        raise JaxnnError("matplotlib is not installed: pip install 'jaxnn[plots]'") from error
    return matplotlib


@contextmanager
def look() -> Iterator[None]:
    """The house's settings of matplotlib, whatever the reader's own are; also a decorator.

    Decorate each function that draws with `@look()`: settings count where an axis is made.
    """
    matplotlib = require_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


@look()
def figure(width: float, height: float) -> "Figure":
    """An empty white figure; sizes in inches of DPI (100) pixels each, texts kept apart."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def readable_on(color: Iterable[float]) -> str:
    """Ink or white: the one that stands out from a colour (red, green, blue in 0 to 1, alpha)."""
    red, green, blue, _ = color
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"  # ITU-R BT.601


def check_path(path: Path) -> None:
    """Call it before long work that ends in `save`.

    Raises:
      ConfigError: the name ends neither in .png nor in .svg.
      JaxnnError: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path} names no figure: its name has to end in {' or '.join(ENDINGS)}")
    require_matplotlib()


@look()
def save(fig: "Figure", path: Path) -> None:
    """Writes a figure as PNG or SVG, by the ending of its name; no date or version goes in.

    Raises:
      ConfigError: another ending.
      RunError: the file could not be written.
    """
    check_path(path)
    kind = path.suffix.lower()[1:]
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, metadata={"Date" if kind == "svg" else "Software": None})
    write_aside(path, buffer.getvalue())
