"""How unlike the digits of training a picture is, so that an answer to it can be withheld.

A network answers whatever it is shown, and of clothes, letters and scribbles it is often sure.
What gives them away is the picture: the digits of one class lie near a few flat pieces of the
space of all pictures, and a picture is as novel as it is far from those of the class that it was
read as. The less sure the network is, the more its distance counts.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxnn.errors import ConfigError, ShapeError

ACCEPTED = 0.95  # part of the known images that stay below the limit
SEEN = 20_000  # images that a fit looks at, at most
COMPONENTS = 60  # directions of all pictures
PIECES, DIRECTIONS = 3, 20  # flat pieces of a class, and the dimensions of each
SPREAD = 0.7  # pixels: pictures are smoothed, so that the edges of strokes count for less
_ROUNDS = 10  # of k-means
_FOLDS = 4
_FEW = 4  # images for each direction, at least
_ENOUGH = 20  # images for each direction, before a class is cut in pieces
_CHUNK = 1000  # images at once


class Familiar(NamedTuple):
    """What the pictures of training look like, and how far from that a picture may be."""

    mean: np.ndarray  # float16 [n_in] of the pictures, smoothed and with their brightest pixel 1
    components: np.ndarray  # float16 [K, n_in], orthonormal: the directions they vary in most
    centres: np.ndarray  # float16 [M, K] of the flat pieces, in terms of the components
    directions: np.ndarray  # float16 [M, Q, K], of each piece orthonormal, or zeros
    classes: np.ndarray  # uint8 [M]: the class that a piece belongs to
    limit: float  # the largest novelty that is accepted, above 0 and finite


def fit(
    images: ArrayLike, labels: ArrayLike, probabilities: ArrayLike, accepted: float = ACCEPTED
) -> Familiar:
    """Learns what known images look like, and the limit that accepts a given part of them.

    The images are described by their principal components. In terms of these, the images of a
    class are cut by k-means into as many as `PIECES` clusters, and each is taken to be flat: its
    centre, and its own principal components. The limit is cross-validated: a quarter of each
    class is measured by pieces that the other three made, each quarter in turn.

    Args:
      images: uint8 [N, n_in], or the same as pictures, N at least 2; of more than `SEEN`, that
        many spread evenly.
      labels: int [N] true classes, 0 to 255.
      probabilities: [N, C] what `calibration.probabilities` gives for a network's answers; of
        images that it was not trained on, if any can be had: of the others it is too sure.
      accepted: the part of such images whose novelty is to stay below the limit, 0 to 1.

    Raises:
      ShapeError: images, labels and probabilities that do not fit each other.
      ConfigError: accepted is not between 0 and 1.

    Source: Hinton, Dayan, Revow, Modeling the manifolds of images of handwritten digits, 1997,
    sec. II (local principal components, and the distance from them).
    """
    if not 0 < accepted < 1:
        raise ConfigError(f"accepted is {accepted}, expected a number between 0 and 1")
    rows, truth = _rows(images), np.asarray(labels)
    sure = _answers(probabilities, len(rows))
    if len(rows) < 2 or truth.shape != (len(rows),) or not np.issubdtype(truth.dtype, np.integer):
        raise ShapeError(
            f"{len(rows)} images have labels {truth.dtype} {truth.shape}, expected an integer for "
            "each, and 2 images at least"
        )
    if truth.min() < 0 or truth.max() > 255:
        raise ShapeError(f"labels lie from {truth.min()} to {truth.max()}, expected 0 to 255")
    chosen = slice(None, None, -(-len(rows) // SEEN))
    x, truth, sure = _smoothed(rows[chosen]), truth[chosen], sure[chosen]
    mean = x.mean(axis=0)
    components = _principal(x, mean, min(COMPONENTS, max(len(x) // _FEW, 1)))
    every = _learned(x, truth, mean, components)
    fold = np.empty(len(x), int)
    for each in np.unique(truth):  # a class's first quarter ...: neighbours may be of one hand
        own = np.flatnonzero(truth == each)
        fold[own] = np.arange(len(own)) * _FOLDS // len(own)
    found = np.full(len(x), np.inf, np.float32)
    for part in range(_FOLDS):
        here = fold == part
        if here.any() and not here.all():
            others = _learned(x[~here], truth[~here], mean, components)
            found[here] = _far(x[here], sure[here], others)
    limit = np.quantile(found, accepted, method="higher")
    finite = np.finfo(np.float32)  # images may all be alike, or the only ones of their class
    return every._replace(limit=float(np.clip(limit, finite.tiny, finite.max)))


def novelty(images: ArrayLike, probabilities: ArrayLike, familiar: Familiar) -> np.ndarray:
    """How far each picture is from the digits of the class that it was read as.

    The distance of the picture, smoothed and with its brightest pixel at 1, from the nearest flat
    piece of that class, over the square root of the network's confidence.

    Args:
      images: uint8 [N, n_in], or the same as pictures.
      probabilities: [N, C] as for `fit`; the largest of a row is the answer, and its value, above
        0, the confidence.
      familiar: what the digits look like.

    Returns:
      float32 [N], 0 or more, in units of the brightest pixel: the root of a sum of squares over
      all pixels. Infinity for a blank picture, and for an answer of which no image was ever seen.

    Raises:
      ShapeError: images and probabilities that do not fit each other or `familiar`.
    """
    rows = _rows(images)
    sure = _answers(probabilities, len(rows))
    if rows.shape[1] != len(familiar.mean):
        raise ShapeError(
            f"images have {rows.shape[1]} pixels, expected {len(familiar.mean)} as in training"
        )
    parts = [slice(first, first + _CHUNK) for first in range(0, len(rows), _CHUNK)]
    found = [_far(_smoothed(rows[part]), sure[part], familiar) for part in parts]
    return np.concatenate(found, dtype=np.float32) if found else np.zeros(0, np.float32)


def rejected(novelty: ArrayLike, familiar: Familiar) -> np.ndarray:
    """Whose novelty is above the limit, so that the answer should not be trusted: bool [N]."""
    return ~(np.asarray(novelty) <= familiar.limit)  # NaN is above, too


def check(familiar: Familiar, n_in: int) -> None:
    """Raises ShapeError where the arrays cannot be what `fit` makes of images of n_in pixels."""
    K, M = familiar.components.size // n_in, familiar.classes.size
    Q = familiar.directions.shape[1:2]
    shapes = ((n_in,), (K, n_in), (M, K), (M, *Q, K), (M,))
    for name, shape in zip(Familiar._fields, shapes, strict=False):
        found, dtype = getattr(familiar, name), "uint8" if name == "classes" else "float16"
        if found.shape != shape or found.dtype != dtype:
            raise ShapeError(f"{name} is {found.dtype} {found.shape}, expected {dtype} {shape}")
        most = {"centres": math.sqrt(n_in), "classes": 255}.get(name, 1)
        if not np.all(np.abs(found) <= 1.01 * most):  # no NaN either
            raise ShapeError(f"{name} holds numbers beyond {most:.0f}")
    some = 0 < K <= min(n_in, COMPONENTS) and (min(K, DIRECTIONS),) >= Q and M > 0
    few = some and np.bincount(familiar.classes).max() <= PIECES
    if not few or familiar.limit > np.finfo(np.float32).max:
        raise ShapeError(f"directions is float16 {(M, *Q, K)}: too many, or none, or no limit")


def _far(x: np.ndarray, sure: np.ndarray, familiar: Familiar) -> np.ndarray:
    """`novelty` of smoothed pictures [N, n_in]."""
    away = x - np.asarray(familiar.mean, np.float32)
    z = away @ np.asarray(familiar.components, np.float32).T  # [N, K]
    nearest, answers = _square(away) - _square(z), sure.argmax(axis=1)
    for answer in np.unique(answers):  # a tenth of the work of all pieces for all pictures
        read, own = answers == answer, familiar.classes == answer
        pieces = (np.asarray(part[own], np.float32) for part in familiar[2:4])
        nearest[read] += _beside(z[read], *pieces).min(axis=1, initial=np.inf)
    nearest[~x.any(axis=1)] = np.inf
    return np.sqrt(np.maximum(nearest, 0) / sure.max(axis=1))


def _learned(
    x: np.ndarray, labels: np.ndarray, mean: np.ndarray, components: np.ndarray
) -> Familiar:
    """The pieces of smoothed pictures [N, n_in]; without a limit."""
    z = (x - mean) @ components.T  # [N, K]
    pieces = [(each, *one) for each in np.unique(labels) for one in _pieces(z[labels == each])]
    classes, centres, directions = zip(*pieces, strict=True)
    half = np.float16  # its 11 bits are plenty, at half the size
    return Familiar(
        mean.astype(half),
        components.astype(half),
        np.array(centres, half),
        np.array(directions, half),
        np.array(classes, np.uint8),
        math.inf,
    )


def _pieces(z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centres [K] and directions [Q, K] of the flat pieces of the points [N, K] of one class.

    K-means begins with equal parts, cut across the longest direction: no chance is in it.
    """
    count = min(len(z) // (_ENOUGH * DIRECTIONS), PIECES)
    if count < 2:
        return [_piece(z)]
    along = z @ _principal(z, z.mean(axis=0), 1).sum(axis=0)
    own = along.argsort(kind="stable").argsort() * count // len(z)  # [N] the piece of a point
    for _ in range(_ROUNDS):
        centres = np.array([z[own == piece].mean(axis=0) for piece in np.unique(own)])
        own = (_square(centres) - 2 * z @ centres.T).argmin(axis=1)
    return [_piece(z[own == piece]) for piece in np.unique(own)]


def _piece(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre [K] of points [N, K], and the directions [Q, K] they vary in; zeros where few."""
    centre, most = z.mean(axis=0), min(DIRECTIONS, z.shape[1])
    directions = np.zeros((most, z.shape[1]), np.float32)
    found = _principal(z, centre, min(most, len(z) // _FEW))
    directions[: len(found)] = found
    return centre, directions


def _beside(z: np.ndarray, centres: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """[N, M]: squared distances of points [N, K] from flat pieces."""
    away = _square(z)[:, None] - 2 * z @ centres.T + _square(centres)
    along = z @ directions.reshape(-1, z.shape[1]).T  # [N, M * Q]
    shift = np.einsum("mqk,mk->mq", directions, centres)
    return away - _square(along.reshape(len(z), *shift.shape) - shift)


def _principal(x: np.ndarray, mean: np.ndarray, count: int) -> np.ndarray:
    """float32 [at most count, n]: the directions in which x [N, n] varies most about its mean."""
    if len(x) < x.shape[1]:  # the quicker way of the two
        found = np.linalg.svd(x - mean, full_matrices=False)[2][:count]
    else:
        vectors = np.linalg.eigh(x.T @ x - len(x) * np.outer(mean, mean))[1]  # the largest last
        found = vectors.T[::-1][:count]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1, keepdims=True), axis=1)
    return (found * np.sign(largest)).astype(np.float32)  # either sign would do: choose one


def _smoothed(rows: np.ndarray) -> np.ndarray:
    """float32 [N, n_in] of bytes [N, n_in], the brightest pixel 1; zeros of a blank picture."""
    x, side = rows.astype(np.float32), math.isqrt(rows.shape[1])
    if side * side == rows.shape[1]:  # else nobody knows which pixels are neighbours
        apart = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
        # Cut off, since numbers next to nothing would make the products slow.
        blur = np.where(apart <= 4 * SPREAD, np.exp(-0.5 * (apart / SPREAD) ** 2), 0)
        x = (blur.astype(np.float32) @ x.reshape(-1, side, side) @ blur.astype(np.float32)).reshape(
            x.shape
        )
    return x / np.maximum(x.max(axis=1, keepdims=True), 1)


def _square(x: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", x, x)


def _rows(images: ArrayLike) -> np.ndarray:
    """uint8 [N, n_in]."""
    pictures = np.asarray(images)
    if pictures.ndim < 2 or pictures.dtype != np.uint8 or 0 in pictures.shape[1:]:
        raise ShapeError(
            f"images are {pictures.dtype} {pictures.shape}, expected uint8 [N, n_in] or the same "
            "as pictures"
        )
    return pictures.reshape(len(pictures), math.prod(pictures.shape[1:]))


def _answers(probabilities: ArrayLike, count: int) -> np.ndarray:
    """[count, C]."""
    sure = np.asarray(probabilities)
    if sure.ndim != 2 or len(sure) != count or not np.all(sure.max(axis=1, initial=0) > 0):
        raise ShapeError(
            f"{count} images have probabilities {sure.shape}, expected a row for each, its largest "
            "above 0"
        )
    return sure
