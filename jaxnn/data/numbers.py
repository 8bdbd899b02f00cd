"""Where the digits of written numbers lie in a picture's ink, in reading order.

Only shapes are looked at here: what a shape says, and whether it is a digit at all, a network has
to tell. All thresholds are parts of the digits' height, so that the picture's size plays no part.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import csgraph

from jaxnn.errors import DataError

MOST = 1000  # shapes in one picture
FAINT, SURE = 0.25, 0.5  # ink hangs together down to the one, and reaches the other somewhere
# The rest are parts of the digits' height.
DUST = 0.1  # what is smaller on both sides is not looked at
SMALL = 0.42  # what is lower is a mark between digits, not a digit
LARGEST = 1.35  # pieces that would be higher or wider together are not one digit
APART = 0.25  # as far one above the other lie pieces of one digit
BESIDE = 0.12  # as far beside the top of a digit lies its bar
OFF_LINE = 0.5  # as far from the line's middle may the middle of a digit be
NEAR = 5.0  # as far apart are digits that show a line's slope, at most
SPACE = 0.55  # a gap as wide parts two numbers if it is twice the line's narrow ones ...
WIDE = 1.2  # ... and one as wide always does


class Box(NamedTuple):
    """A rectangle, in pixels of the ink map."""

    left: int
    top: int
    width: int
    height: int


class Shape(NamedTuple):
    """Ink that hangs together, or pieces that belong together: a digit, if it is one."""

    ink: np.ndarray  # float [height, width] of the box, in 0 to 1; 0 where other shapes are
    box: Box


def find(ink: np.ndarray) -> list[list[list[Shape]]]:
    """The shapes that may be digits: lines from top to bottom, of numbers, of shapes.

    Ink that hangs together is a shape. Pieces above each other or inside each other become one
    shape where they are together no higher than a digit: a 5 whose bar is apart, a broken stroke.
    Neighbours side by side stay apart, however close. Digits that touch are one shape, which
    `touching.cuts` may take apart.

    A line follows its digits from left to right, so it may rise or fall. A wide gap parts two
    numbers, and so does a mark that is no digit, such as a comma, a point or a dash: "12.5" comes
    out as 12 and 5, never as 125. Marks themselves and dust are left out.

    Args:
      ink: float [H, W], 0 paper to 1 ink.

    Returns:
      Nothing empty in it; [] where there is no ink.

    Raises:
      DataError: more than `MOST` shapes.
    """
    labels, count = ndimage.label(ink > FAINT, np.ones((3, 3)))
    every = np.arange(1, count + 1)
    names = every[np.asarray(ndimage.maximum(ink, labels, every)) > SURE] if count else every
    if len(names) == 0:
        return []
    found = ndimage.find_objects(labels)
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in (found[name - 1] for name in names)]
    boxes = np.array(edges)  # [N, 4]: left, top, right, bottom
    heights = _heights(boxes)
    size = _median(heights, heights**2.0)  # squared: dust is many, but weighs little
    large = np.max(boxes[:, 2:] - boxes[:, :2], axis=1) >= DUST * size
    names, boxes = names[large], boxes[large]
    if len(names) > MOST:
        raise DataError(
            f"the picture has {len(names):,} separate shapes of ink, expected at most {MOST:,}: "
            "give a picture of numbers and little else"
        )
    groups = _groups(boxes, size)
    boxes = np.array([[*boxes[g, :2].min(0), *boxes[g, 2:].max(0)] for g in groups])
    small = _heights(boxes) < SMALL * size
    return [
        [
            [_cut_out(ink, labels, names[groups[at]], boxes[at]) for at in number]
            for number in _numbers(boxes, line, boxes[small])
        ]
        for line in _lines(boxes, np.flatnonzero(~small))
    ]


def _heights(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 3] - boxes[:, 1]


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value that half of the weight lies below."""
    rising = np.argsort(values)
    below = np.cumsum(weights[rising])
    return float(values[rising[np.searchsorted(below, below[-1] / 2)]])


def _groups(boxes: np.ndarray, size: float) -> list[np.ndarray]:
    """Which pieces [N, 4] are one shape: indices, a row a shape."""
    left, top, right, bottom = boxes.T
    wide, high = right - left, bottom - top
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)  # shared; < 0: a gap
    along = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    narrower, lower = np.minimum.outer(wide, wide), np.minimum.outer(high, high)
    larger = np.maximum(
        np.maximum.outer(bottom, bottom) - np.minimum.outer(top, top),
        np.maximum.outer(right, right) - np.minimum.outer(left, left),
    )  # side of the two together
    above = (across >= 0.5 * narrower) & (along <= 0.3 * lower) & (along >= -APART * size)
    inside = (across >= 0.75 * narrower) & (along > 0.3 * lower)
    # A short piece beside the top of a higher one, such as a 5's bar.
    middle = (top + bottom) / 2
    high_up = middle[:, None] < (top + 0.4 * high)[None, :]  # [piece, digit]
    bar = (
        high_up & (high[:, None] < SMALL * high[None, :]) & (across >= -BESIDE * size) & (along > 0)
    )
    one = (above | inside | bar) & (larger <= LARGEST * size)
    count, names = csgraph.connected_components(one, directed=False)
    return [np.flatnonzero(names == name) for name in range(count)]


def _lines(boxes: np.ndarray, digits: np.ndarray) -> list[list[int]]:
    """Indices of digits, line by line, each from left to right."""
    heights = _heights(boxes)
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2  # [N] centres
    y = y - _slope(boxes[digits]) * x
    lines: list[list[int]] = []
    level: list[float] = []  # of each line's last digits
    for at in digits[np.argsort(x[digits], kind="stable")]:
        off = [
            abs(y[at] - where) / max(heights[at], heights[line[-1]])
            for where, line in zip(level, lines, strict=True)
        ]
        nearest = int(np.argmin(off)) if off else 0
        if off and off[nearest] < OFF_LINE:
            lines[nearest].append(int(at))
            level[nearest] += 0.4 * (y[at] - level[nearest])
        else:
            lines.append([int(at)])
            level.append(y[at])
    order = np.argsort([np.mean(y[line]) for line in lines], kind="stable")
    return [lines[at] for at in order]


def _slope(boxes: np.ndarray) -> float:
    """How far lines fall to the right, in pixels a pixel.

    The median over digits that stand near each other on a line; a pair counts by its distance.
    """
    left, top, right, bottom = boxes.T
    x, y, high = (left + right) / 2, (top + bottom) / 2, bottom - top
    along = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    ahead = np.subtract.outer(x, x)
    near = (ahead > 0) & (ahead < NEAR * np.median(high))
    pairs = near & (along > 0.5 * np.minimum.outer(high, high))
    if not pairs.any():
        return 0.0
    return _median(np.subtract.outer(y, y)[pairs] / ahead[pairs], ahead[pairs])


def _numbers(boxes: np.ndarray, line: list[int], marks: np.ndarray) -> list[list[int]]:
    """A line's digits, parted into numbers."""
    height = np.median(_heights(boxes[line]))
    line = [at for at in line if boxes[at, 3] - boxes[at, 1] >= SMALL * height]
    pairs = list(pairwise(line))
    gaps = [boxes[b, 0] - boxes[a, 2] for a, b in pairs]
    narrow = np.quantile(gaps, 0.25) if gaps else 0.0
    space = np.clip(2 * narrow, SPACE * height, WIDE * height)
    marks = marks[marks[:, 2] - marks[:, 0] <= height]  # a longer one underlines
    x, y = (marks[:, :2] + marks[:, 2:]).T / 2
    dash = marks[:, 2] - marks[:, 0] > 2 * _heights(marks)
    numbers = [line[:1]]
    for (a, b), gap in zip(pairs, gaps, strict=True):
        top, bottom = boxes[[a, b], 1].min(), boxes[[a, b], 3].max()
        # A comma or point lies low, a dash anywhere between; anything else is dirt.
        low = np.where(dash, top, bottom - 0.3 * height)
        apart = (x > boxes[a, 2]) & (x < boxes[b, 0]) & (y > low) & (y < bottom + 0.3 * height)
        if gap > space or apart.any():
            numbers.append([])
        numbers[-1].append(b)
    return numbers


def _cut_out(ink: np.ndarray, labels: np.ndarray, names: np.ndarray, box: np.ndarray) -> Shape:
    """One shape of a picture: the ink of those labels."""
    left, top, right, bottom = (int(edge) for edge in box)
    where = slice(top, bottom), slice(left, right)
    own = np.where(np.isin(labels[where], names), ink[where], 0)
    return Shape(own, Box(left, top, right - left, bottom - top))
