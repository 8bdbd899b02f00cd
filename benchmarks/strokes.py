"""The strokes of a digit, drawn again: with a pen of any width, at any size, smooth at the edges.

A field holds at each point how far inside the ink it lies, so that one number moves its outline.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

SCALE = 4  # points of a field per pixel of a digit
_SMOOTH = 1.0  # standard deviation, in points: takes the pixels' steps out of a line
_PART = 0.55  # of the brightest near by: less is the blur round a stroke
_INK = 40  # of 255: less is never ink
_ROOM = 1.5  # points that stay free on either side of a loop or a gap
_POCKET = 10  # points
_LOOP = 2.0  # half widths from the outline: two strokes that cross stay below
_CORE = 1.0  # squared half widths: the core of a sharp bend is smaller
_SPECK = 0.06  # of all ink: a smaller piece is none of the digit's


def drawn(digit: np.ndarray, height: float, pen: float | None, turn: float = 0) -> np.ndarray:
    """How much of each pixel the ink covers, cut to the ink.

    Args:
      digit: uint8 [28, 28], bright ink on black, as MNIST has it.
      height: the digit's longer side before it is turned, in pixels.
      pen: the width of the stroke as a fraction of the height, less where a loop or a gap would
        close; None keeps the digit's own strokes.
      turn: degrees, counterclockwise.

    Returns:
      float32 [H, W] in [0, 1].
    """
    field = _own(digit) if pen is None else _penned(digit, pen)
    rows, columns = np.nonzero(field > 0)
    middle = np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2
    extent = np.array([np.ptp(columns), np.ptp(rows)])  # points
    zoom = extent.max() / height  # points per pixel
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    turned = np.abs([[cos, sin], [sin, cos]]) @ extent
    wide, tall = (math.ceil(side / zoom) + 4 for side in turned)
    matrix = zoom * np.array([[cos, -sin], [sin, cos]])  # from pixels to points
    start = middle - matrix @ (wide, tall) / 2
    affine = (*matrix[0], start[0], *matrix[1], start[1])
    picture = Image.fromarray(field)
    level = np.asarray(
        picture.transform(
            (wide, tall), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=-SCALE
        )
    )
    ink = np.clip(level / zoom + 0.5, 0, 1)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _mask(digit: np.ndarray) -> np.ndarray:
    """The digit's ink at the resolution of a field: its outline smooth, without specks."""
    side = SCALE * len(digit)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    smooth = ndimage.gaussian_filter(np.asarray(large, np.float32), 1.5)
    # A loop that the pen has almost filled is a dent in the ink: less than all round it.
    brightest = ndimage.maximum_filter(smooth, 5 * SCALE)
    pieces, _ = ndimage.label(smooth > np.maximum(_PART * brightest, _INK))
    areas = np.bincount(pieces.ravel())
    areas[0] = 0  # paper
    return ((areas > 0) & (areas >= _SPECK * areas.sum()))[pieces]


def _own(digit: np.ndarray) -> np.ndarray:
    mask = _mask(digit)
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return ndimage.gaussian_filter(inside, _SMOOTH).astype(np.float32)


def _penned(digit: np.ndarray, pen: float) -> np.ndarray:
    """The field of a line of one width along the middle of the digit's strokes."""
    mask = _mask(digit)
    thin = skeleton(_reopened(mask))
    distance = ndimage.distance_transform_edt(~thin)
    rows, columns = np.nonzero(mask)
    wanted = max(pen * max(np.ptp(rows), np.ptp(columns)) / 2, 0.5)  # half of the width, points
    half = min(wanted, 1.0)
    holes = _pieces(distance < half + _ROOM)
    while half < wanted and _pieces(distance < 1.1 * half + _ROOM) == holes:
        half = min(1.1 * half, wanted)
    # The mean of |half + noise|: what smoothing makes of the distance at the line's edge.
    bend = half / (_SMOOTH * math.sqrt(2))
    edge = _SMOOTH * math.sqrt(2 / math.pi) * math.exp(-(bend**2)) + half * math.erf(bend)
    smooth = ndimage.gaussian_filter(distance, _SMOOTH)
    return ((edge - smooth) / math.erf(bend)).astype(np.float32)


def _reopened(mask: np.ndarray) -> np.ndarray:
    """Loops that the pen has filled are hollow again: a line round them, not one through them."""
    inside = ndimage.distance_transform_edt(mask)
    half = np.median(inside[skeleton(mask)])  # of a stroke's width
    cores, _ = ndimage.label(inside > _LOOP * half)
    areas = np.bincount(cores.ravel())
    areas[0] = 0  # whatever is no core
    return mask & ~(areas >= _CORE * half**2)[cores]


def _pieces(mask: np.ndarray) -> int:
    """Into how many pieces the ink cuts the paper, pockets of a few points left aside."""
    pieces = ndimage.label(np.pad(~mask, 1, constant_values=True))[0]
    return int(np.sum(np.bincount(pieces.ravel())[1:] >= _POCKET))


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The ink thinned to lines one point wide that hang together as it did.

    Source: Zhang and Suen, A fast parallel algorithm for thinning digital patterns (1984).
    """
    thin = np.pad(mask, 1).astype(np.uint8)
    removable = _removable()
    height, width = mask.shape
    for _ in range(max(mask.shape)):
        before = int(thin.sum())
        for table in removable:
            code = np.zeros(mask.shape, np.uint8)
            for bit, (row, column) in enumerate(_AROUND):
                around = thin[1 + row : 1 + row + height, 1 + column : 1 + column + width]
                code |= around << bit
            thin[1:-1, 1:-1] &= ~table[code] & 1
        if int(thin.sum()) == before:
            break
    return thin[1:-1, 1:-1].astype(bool)


_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # from north


@lru_cache
def _removable() -> np.ndarray:
    """uint8 [2, 256]: 1 where a point with these neighbours goes, in either half of a round."""
    near = (np.arange(256)[:, None] >> np.arange(8)) & 1  # [256, 8]
    count = near.sum(1)
    begun = ((near == 0) & (np.roll(near, -1, axis=1) == 1)).sum(1)
    north, east, south, west = near[:, 0], near[:, 2], near[:, 4], near[:, 6]
    edge = (count >= 2) & (count <= 6) & (begun == 1)
    first = edge & (north * east * south == 0) & (east * south * west == 0)
    second = edge & (north * east * west == 0) & (north * south * west == 0)
    return np.stack([first, second]).astype(np.uint8)
