"""Where the ink of a picture is: paper, light, shadow, colour and rulings taken away.

Dark ink is what lacks of the paper's light, in parts of it, so that ink in a shadow counts as much
as ink in the sun; light ink on a dark ground is what there is more of.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from jaxnn.data import paper, strokes
from jaxnn.data.paper import DARK, LIGHT
from jaxnn.data.rulings import without_rulings
from jaxnn.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

WORKING_SIDE = 512  # pixels: larger pictures are reduced to it
DRAFT_SIDE = 256  # on which it is decided what is ink
PAPER_SIDE = 192  # on which the paper is found
WINDOWS = (paper.WIDEST, 0.2, 0.08)  # of the longer side, tried in turn
PLAIN = 0.12  # where the picture's edge varies less, its paper may be the same everywhere
NARROWEST = 8  # pixels of a window after the first

FAINTEST = 0.06  # of the light, between ink and paper: less is a blank picture
NOISE = 5.0  # standard deviations of the paper's noise that ink stands out by
DEEPEST = 0.95  # quantile of the ink, half as deep as which is the edge of a stroke
SMALL = 64  # pixels: the strokes of smaller pictures are hardly more than edges

WIDE = 0.25  # strokes wider than this part of the digit ...
CONTACT = 0.04  # or along this part of the picture's edge are suspected to be something else
BETTER = 1.3  # times as good another window has to be where what was found is suspect
SURE = 0.8  # a vote on the sign that needs no comparison with the other
VOTE = 1.0  # how much it counts in one
ENOUGH = 3.5  # strokes wide a window has to be ...
WORSE = 0.5  # and how much less good what is found by it may be


class Ink(NamedTuple):
    """How much ink is where."""

    map: np.ndarray  # float32 [H, W]: 0 paper, 1 ink, 0.5 the edge of a stroke
    scale: float  # pixels of the map to one of the picture


class _Way(NamedTuple):
    """A way to see the ink of a picture."""

    sign: int  # LIGHT or DARK
    window: float  # of the longer side; 0 for paper that is the same everywhere
    found: tuple[np.ndarray, float]  # the map and its depth
    quality: float  # for comparison with other ways
    good: bool  # whether it looks like the strokes of a digit beyond doubt
    stroke: float  # mean width of a stroke, of the longer side


def ink_of(picture: "Picture", side: int = WORKING_SIDE) -> Ink:
    """The ink of a picture in mode L or RGB.

    What is ink is decided on a small grey copy. Tried are paper that is the same everywhere, where
    the picture's edge is, then what closing makes of it in windows of several sizes, for dark and
    for light ink: the first whose ink looks like the strokes of a digit, else the best.

    Args:
      picture: upright.
      side: what a larger picture is reduced to, in pixels of its longer side.

    Raises:
      DataError: nothing stands out from the paper: the picture is blank.
    """
    from PIL import Image

    scale = min(1.0, side / max(picture.size))
    if scale < 1:
        size = [max(1, round(length * scale)) for length in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX, reducing_gap=2.0)
    levels = np.asarray(picture, np.float32) / 255
    levels = levels.reshape(*levels.shape[:2], -1)  # [H, W, 1 or 3]
    grey = levels[..., 0] if levels.shape[2] == 1 else levels.mean(2)
    draft = paper.reduced(grey, DRAFT_SIDE)[..., None]
    best = _chosen(draft)
    final = None
    if best:
        same = draft.shape == levels.shape
        final = best.found if same else _found(levels, best.sign, best.window)
    if final is None:
        raise DataError(strokes.BLANK)
    return Ink(final[0], scale)


def _chosen(levels: np.ndarray) -> "_Way | None":
    """The way to see ink in a small picture [H, W, 1]; None where there is none."""
    grey = levels[..., 0]
    edge = paper.edge(grey)
    if np.ptp(edge) < PLAIN:
        way = _seen(levels, LIGHT if grey.mean() > np.median(edge) else DARK, 0)
        if way and way.good:
            return way
    vote = paper.polarity(grey)
    ways = []
    for sign in (LIGHT, DARK) if vote > 0 else (DARK, LIGHT):
        way = _of_sign(levels, sign)
        if way and way.good and sign * vote > SURE:
            return way
        ways += [way] if way else []
    return max(
        ways,
        key=lambda way: way.quality * (1 + VOTE * max(0, way.sign * vote)),
        default=None,
    )


def _of_sign(levels: np.ndarray, sign: int) -> "_Way | None":
    """The best window for ink of one sign."""
    best = _seen(levels, sign, WINDOWS[0])
    if best is None:
        return None
    for window in WINDOWS[:0:-1]:
        if window * max(levels.shape) < NARROWEST:
            continue
        if best.good and window < ENOUGH * best.stroke:
            continue
        way = _seen(levels, sign, window)
        if way is None:
            continue
        if best.good:
            return way if way.quality > WORSE * best.quality else best
        if way.quality > BETTER * best.quality:
            best = way
    return best


def _found(levels: np.ndarray, sign: int, window: float) -> tuple[np.ndarray, float] | None:
    """The ink float32 [H, W] in [0, 1] and its depth in [0, 1]; None where there is none."""
    depth = _depth(levels, sign, window)
    if max(depth.shape) >= SMALL:
        depth = ndimage.gaussian_filter(depth, 0.8)
    depth -= paper.quantile(depth[::2, ::2], 0.25)
    # A quarter of the steps between neighbours in even noise are below 0.45 of its deviation.
    noise = paper.quantile(np.abs(depth[:, 1:] - depth[:, :-1]), 0.25) / 0.45
    least = max(FAINTEST, min(NOISE * noise, 0.3 * depth.max()))
    mask = depth > least
    if not mask.any():
        return None
    kept = without_rulings(mask)
    if kept is not mask:
        rulings = ndimage.binary_dilation(mask & ~kept, strokes.EVERYWHERE)
        depth[rulings & ~kept] = 0
    edge = max(_otsu(depth[kept]), paper.quantile(depth[kept], DEEPEST) / 2, least)
    ink = depth > edge
    if not ink.any():
        return None
    full = paper.quantile(depth[ink], 0.5)
    if max(depth.shape) < SMALL:  # in small pictures all shades tell
        return (depth / full).clip(0, 1), full
    return (0.5 + 0.5 * (depth - edge) / max(full - edge, 1e-3)).clip(0, 1), full


def _depth(levels: np.ndarray, sign: int, window: float) -> np.ndarray:
    """How far each pixel is from its paper toward ink: float32 [H, W], 0 to 1.

    Of colours, the part along the strongest ink's own colour counts.
    """
    channels = []
    for channel in np.moveaxis(levels, 2, 0):
        small = channel if window == 0 else paper.reduced(channel, PAPER_SIDE)
        light = paper.without_ink(small, sign, window)
        if window > 0:
            light = paper.enlarged(light, channel.shape)
        dark = sign == DARK
        channels.append(1 - channel / np.maximum(light, 0.05) if dark else channel - light)
    if len(channels) == 1:
        return channels[0]
    depths = np.stack(channels, axis=-1)
    strength = np.linalg.norm(depths, axis=-1)
    colour = depths[strength >= paper.quantile(strength, 0.98)].mean(0)
    return depths @ (colour / max(np.abs(colour).sum(), 1e-9))


def _seen(levels: np.ndarray, sign: int, window: float) -> "_Way | None":
    """What is found in one way, and how much it looks like one digit."""
    found = _found(levels, sign, window)
    if found is None:
        return None
    ink, full = found
    mask = strokes.pieces(ink)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    length, side = max(np.ptp(rows), np.ptp(columns)) + 1, max(mask.shape)
    wide = strokes.stroke_width(mask.astype(np.float32)) / length
    contact = paper.edge(mask).mean()
    thin = max(0.01, 1 - wide / (1.4 * WIDE)) ** 2
    free = max(0.03, 1 - 2 * contact)
    quality = float(full * (length / side) ** 0.5 * thin * free)
    good = bool(wide < WIDE and contact < CONTACT)
    return _Way(sign, window, found, quality, good, wide * length / side)


def _otsu(values: np.ndarray) -> float:
    """The threshold between two classes of values that lies best, by Otsu's criterion.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979, eq. 18.
    """
    if np.ptp(values) < 1e-4:  # all alike, up to rounding
        return 0.0
    counts, edges = np.histogram(values, 64)
    below = np.cumsum(counts)[:-1].astype(float)
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = len(values) - below
    # Below is never 0: the lowest bin holds the lowest value; neither is above.
    between = (sums[:-1] * len(values) - sums[-1] * below) ** 2 / (below * above)
    return float(edges[1 + int(np.argmax(between))])
