"""Ways to take digits apart that touch each other.

Whether a shape is one digit or several, its outline alone does not tell: here are only the ways
that are worth a look, and a network has to choose.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from jaxnn.data.numbers import FAINT, SURE, Box, Shape

MOST_PARTS = 4  # that are looked for in one shape
LEGIBLE = 8  # pixels: nobody reads digits that are lower
# The rest are parts of the shape's height, or as is said.
TOUCHING = 1.0  # what is no wider, its slant taken away, is one digit
NARROW = 0.45  # as wide is each of several digits that touch, at least
CROSSED = 0.2  # as much ink may a cut cross: two thin strokes, or a thick one
SLACK = 0.35  # of a digit's width: as far to either side of its due place may a cut be


def cuts(shape: Shape) -> Iterator[tuple[Shape, ...]]:
    """A shape's parts if it is two digits, if it is three, and so on, as far as that can be.

    A cut runs from top to bottom where the least ink is in its way. Nothing comes where the shape
    is no wider than high, its slant taken away, or tiny, or where too much ink is in the way.
    """
    height, width = shape.ink.shape
    wide = _width(shape.ink)
    worth = height >= LEGIBLE and wide > TOUCHING * height
    most = int(wide / (NARROW * height)) if worth else 1
    row, column = np.arange(height), np.arange(width)
    for count in range(2, 1 + min(most, MOST_PARTS)):
        due = width * np.arange(1, count) / count
        slack = SLACK * width / count
        seams = [_seam(shape.ink, round(at - slack), round(at + slack)) for at in due]
        if max(shape.ink[row, seam].sum() for seam in seams) > CROSSED * height:
            continue
        edges = [np.zeros(height), *seams, np.full(height, width)]  # each [height]
        parts = [
            np.where((column >= left[:, None]) & (column < right[:, None]), shape.ink, 0)
            for left, right in pairwise(edges)
        ]
        if all((part > SURE).any() for part in parts):
            yield tuple(_fitted(part, shape.box) for part in parts)


def _width(ink: np.ndarray) -> float:
    """The width that a shape has once its slant is taken away."""
    rows, columns = np.nonzero(ink > FAINT)
    high = rows - rows.mean()
    slant = high @ columns / max(high @ high, 1)
    return float(np.ptp(columns - slant * high)) + 1


def _seam(ink: np.ndarray, left: int, right: int) -> np.ndarray:
    """Columns int [height] of the way down, between two columns, that crosses the least ink.

    From row to row it goes straight or one column aside. By dynamic programming: Avidan, Shamir,
    Seam Carving for Content-Aware Image Resizing, 2007, sec. 3.
    """
    cost = np.pad(ink[:, left:right].astype(float), ((0, 0), (1, 1)), constant_values=np.inf)
    middle = np.abs(np.arange(left - 1, right + 1) - (left + right - 1) / 2)
    cost = cost + 1e-3 * middle / (right - left)  # of ways alike the most central one
    for above, row in pairwise(cost):
        row[1:-1] += np.minimum(np.minimum(above[:-2], above[2:]), above[1:-1])
    way = [int(np.argmin(cost[-1]))]
    for row in cost[-2::-1]:
        way.append(way[-1] - 1 + int(np.argmin(row[way[-1] - 1 : way[-1] + 2])))
    return left - 1 + np.array(way[::-1])


def _fitted(ink: np.ndarray, box: Box) -> Shape:
    """What is in an array [height, width] over a box, the box fitted to it."""
    rows, columns = np.flatnonzero((ink > FAINT).any(1)), np.flatnonzero((ink > FAINT).any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return Shape(
        ink[top:bottom, left:right],
        Box(int(box.left + left), int(box.top + top), int(right - left), int(bottom - top)),
    )
