"""The paper of a picture without its ink, and which of the two is the lighter.

The paper under dark ink is found by closing: the largest light in a window wider than any stroke,
and of these the smallest in the same window. That fills strokes, and leaves shadows, gradients and
the edges of a sheet where they are. For light ink on a dark ground it is the other way round.
"""

import numpy as np
from scipy import ndimage

LIGHT, DARK = 1, -1  # ink, beside its paper
WIDEST = 0.45  # window, of the longer side: wider than the strokes of a digit that fills it
COARSE_SIDE = 32  # pixels: on so small a copy light and dark ink are told apart


def polarity(grey: np.ndarray) -> float:
    """Above 0 for light ink on a dark ground, below for dark ink on a light one; -3 to 3.

    Ink is the smaller part of the picture, and it is what is far from the median of its
    neighbourhood: both are weighed, the second by the skewness of those distances.

    Args:
      grey: [H, W] in [0, 1].
    """
    small = reduced(grey, COARSE_SIDE)
    size = max(3, round(0.8 * max(small.shape))) | 1
    windows = np.lib.stride_tricks.sliding_window_view(_framed(small, size // 2), (size, size))
    medians = np.median(windows[::4, ::4].reshape(-1, size * size), axis=1).astype(np.float32)
    medians = medians.reshape(windows[::4, ::4].shape[:2])
    cubes = (small - enlarged(medians, small.shape)) ** 3
    skewness = cubes.sum() / max(np.abs(cubes).sum(), 1e-9)
    filled = []
    for sign in (LIGHT, DARK):
        depth = sign * (small - without_ink(small, sign, WIDEST))
        filled.append(np.mean(depth > quantile(depth, 0.99) / 2))
    return float(skewness - 2 * (filled[0] - filled[1]))


def without_ink(grey: np.ndarray, sign: int, window: float) -> np.ndarray:
    """The light of the paper under ink of one sign: [H, W], or [1, 1] of the same everywhere."""
    if window == 0:
        return np.median(edge(grey)).reshape(1, 1)
    size = max(3, round(window * max(grey.shape))) | 1
    margin = size // 2 + 1
    filters = (ndimage.maximum_filter, ndimage.minimum_filter)[:: -1 if sign == LIGHT else 1]
    framed = _framed(grey, margin, sign)
    for one in filters:
        framed = one(framed, size, mode="nearest")
    return np.ascontiguousarray(framed[margin:-margin, margin:-margin])


def edge(picture: np.ndarray) -> np.ndarray:
    """The outermost pixels of [H, W], in a row; the corners count twice."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def _framed(grey: np.ndarray, margin: int, sign: int = 0) -> np.ndarray:
    """[H, W] with a margin of what is usual along each edge, so that ink may touch the edges.

    Usual is the median, or with a sign the quartile away from the ink.
    """
    edges = grey[0], grey[-1], grey[:, 0], grey[:, -1]
    top, bottom, left, right = (
        ndimage.percentile_filter(edge, 50 - 25 * sign, len(edge) | 1, mode="reflect")
        for edge in edges
    )
    framed = np.pad(grey, 1, mode="edge")
    framed[0, 1:-1], framed[-1, 1:-1], framed[1:-1, 0], framed[1:-1, -1] = top, bottom, left, right
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        framed[row, column] = ((top, bottom)[row][column] + (left, right)[column][row]) / 2
    return np.pad(framed, margin - 1, mode="edge")


def quantile(values: np.ndarray, part: float) -> float:
    """The value that so large a part of the others is below; 0 of none. Quicker than NumPy's."""
    place = int(part * values.size)
    return float(np.partition(values, place, axis=None)[place]) if values.size else 0.0


def reduced(grey: np.ndarray, side: int) -> np.ndarray:
    """[H, W] at most so many pixels long; as it is where it is shorter."""
    from PIL import Image

    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(length * scale)) for length in grey.shape)
    picture = Image.fromarray(np.ascontiguousarray(grey))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def enlarged(grey: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[H, W] brought to another shape by linear interpolation."""
    from PIL import Image

    if grey.shape == shape:
        return grey
    picture = Image.fromarray(grey)
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
