"""From ink to a digit as MNIST has it: its pieces, the width of its strokes, its place.

MNIST's digits were scaled, aspect kept, to 20 pixels on their longer side and put into 28 x 28
with their centre of mass at the centre (http://yann.lecun.com/exdb/mnist/). Their strokes are
about 2.5 pixels wide, nine of ten between 2.0 and 3.6; pens are thinner and thicker than that.
"""

import math

import numpy as np
from scipy import ndimage

from jaxnn.errors import DataError

BLANK = "the picture is blank: nothing in it stands out from its paper"
SIDE = 28  # of the result, in pixels
BOX = 20  # the digit's longer side within it
THINNEST, THICKEST = 2.4, 2.9  # strokes, in pixels of the result; others are brought there
SOLID = 5.0  # pixels: what is wider is no stroke, and is left as it is
FINE = 3  # pixels to one of the result, while the strokes are shaped
HAIRLINE = 1.5  # of those pixels: thinner strokes are thickened first
EVERYWHERE = np.ones((3, 3), bool)  # pixels touch at their corners, too
SPECK = 0.03  # of the largest piece's ink: less is dust
NEAR = 0.25  # of its longer side: so far away may lie what belongs to it
PART = 0.4  # of its ink: so much belongs to it farther away, too, beside it


def pieces(ink: np.ndarray) -> np.ndarray:
    """Which pixels are the digit's, bool [H, W], where a picture holds one digit.

    The largest piece of ink, unless it runs along the picture's edge and another does not, and
    with it what lies near or beside it and is no dust.

    Raises:
      DataError: there is no ink.
    """
    mask = ink > 0.5
    labels, count = ndimage.label(mask, EVERYWHERE)
    if count == 0:
        raise DataError(BLANK)
    if count == 1:
        return mask
    mass = np.bincount(labels.ravel(), ink.ravel())[1:]
    boxes = np.array([[s.start, s.stop, t.start, t.stop] for s, t in ndimage.find_objects(labels)])
    height, width = mask.shape
    edges = (boxes == [0, height, 0, width]).sum(1)  # of the picture that a piece reaches
    main = np.argmax(mass * np.array([1, 0.3, 0.05, 0.05, 0.05])[edges])
    top, bottom, left, right = boxes[main]
    below = np.maximum(boxes[:, 0] - bottom, top - boxes[:, 1])
    beside = np.maximum(boxes[:, 2] - right, left - boxes[:, 3])
    distance = np.hypot(below.clip(0), beside.clip(0))
    near = (distance < NEAR * max(bottom - top, right - left)) & (mass > SPECK * mass[main])
    part = (below < 0) & (mass > PART * mass[main])
    chosen = (near | part) & (edges <= edges[main])
    return np.append(False, chosen)[labels]


def stroke_width(ink: np.ndarray) -> float:
    """The mean width of the strokes in [H, W], in pixels: twice the area over the outline."""
    framed = np.zeros((ink.shape[0] + 2, ink.shape[1] + 2), np.float32)
    framed[1:-1, 1:-1] = ink
    here = framed[:-1, :-1]
    outline = np.sqrt((framed[1:, :-1] - here) ** 2 + (framed[:-1, 1:] - here) ** 2).sum()
    return float(2 * ink.sum() / max(outline, 1e-9))


def normalised(ink: np.ndarray) -> np.ndarray:
    """A digit as MNIST has it, uint8 [28, 28], from its own ink alone.

    Args:
      ink: [H, W] in [0, 1], 0.5 at the edges of strokes, and 0 where another's ink was.

    Raises:
      DataError: there is no ink.
    """
    mask = ink > 0.5
    if not mask.any():
        raise DataError(BLANK)
    crop = _cropped(np.pad(ink, 2), np.pad(mask, 2), 2)
    scale = FINE * BOX / (max(crop.shape) - 4)
    if stroke_width(crop) * scale < HAIRLINE:  # it would be lost between the pixels
        crop = ndimage.maximum_filter(crop, 2 * math.ceil(0.5 / scale) + 1)
    fine = _resized(crop, scale)
    fine = np.pad(fine, 2 * FINE)
    width = stroke_width(fine) / FINE
    if width < SOLID and not THINNEST <= width <= THICKEST:
        fine = _thickened(fine, (np.clip(width, THINNEST, THICKEST) - width) * FINE / 2)
    crop = _cropped(fine, fine > 0.25, 0)
    digit = _resized(crop, BOX / max(crop.shape))
    return _centred(digit / digit.max())


def _cropped(ink: np.ndarray, mask: np.ndarray, margin: int) -> np.ndarray:
    """The part of the ink that holds the whole mask, and a margin."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return ink[
        rows[0] - margin : rows[-1] + 1 + margin, columns[0] - margin : columns[-1] + 1 + margin
    ]


def _resized(ink: np.ndarray, scale: float) -> np.ndarray:
    """The ink at another scale, anti-aliased."""
    from PIL import Image

    height, width = (max(1, round(side * scale)) for side in ink.shape)
    picture = Image.fromarray(np.ascontiguousarray(ink, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


def _thickened(ink: np.ndarray, by: float) -> np.ndarray:
    """Strokes with their outline moved outward by so many pixels; inward where that is below 0."""
    inside = ink > 0.5
    depth = ndimage.distance_transform_edt(inside)
    by = max(by, -0.6 * depth.max())  # the thickest stroke stays
    height = depth - ndimage.distance_transform_edt(~inside)
    return (0.5 + (height + by) / 1.5).clip(0, 1).astype(np.float32)


def _centred(digit: np.ndarray) -> np.ndarray:
    """uint8 [28, 28] with the centre of mass as near to the centre as whole pixels allow."""
    top, left = (
        int(np.clip(round(SIDE / 2 - np.arange(n) @ digit.sum(axis) / digit.sum()), 0, SIDE - n))
        for n, axis in ((digit.shape[0], 1), (digit.shape[1], 0))
    )
    result = np.zeros((SIDE, SIDE), np.uint8)
    result[top : top + digit.shape[0], left : left + digit.shape[1]] = np.rint(255 * digit)
    return result
