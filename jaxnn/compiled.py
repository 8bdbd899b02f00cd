"""All that a model file says of pictures as one program of XLA: the twin of `answers.answer`.

`answers.judged` takes confidence and novelty from NumPy, in ten times as long as the network. Here
everything is one function of bytes, put so that XLA makes quick code of it for processors:

- The first layer's weighted inputs and the principal components of the smoothed picture are one
  product of the bytes with a matrix, since smoothing is linear: the components are smoothed
  instead. Only the norm and the brightest pixel need the smoothed picture itself.
- |x - m|^2 less the part along the components, and the rest of the distance from a flat piece, are
  multiplied out; the squares of the part along the components cancel.
- Rows go through in chunks that the processor's cache holds.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxnn import bytes_product, models
from jaxnn.checkpoint import ModelFile
from jaxnn.models import Spec
from jaxnn.novelty import SPREAD, Familiar

CHUNK = 128  # rows at once
REACH = int(4 * SPREAD)  # pixels: how far smoothing reaches, as in `novelty`
TAPS = np.exp(-0.5 * (np.arange(REACH + 1) / SPREAD) ** 2)  # from a pixel to those beside it


class Pieces(NamedTuple):
    """`novelty.Familiar` multiplied out: M flat pieces of Q directions, x = m + z @ components."""

    mean: Any  # float32 [1, K]: m in terms of the components
    mean_square: Any  # float32: |m|^2
    directions: Any  # float32 [K, Q * M], the first direction of every piece first
    shifts: Any  # float32 [1, Q * M]: the centres along them
    centres: Any  # float32 [K, M]
    centre_squares: Any  # float32 [1, M]
    classes: Any  # int32 [1, M]
    limit: Any  # float32
    zeros: Any  # uint8, as many as are beyond a picture: XLA writes slow code for constant ones


def program(
    file: ModelFile, *, rejection: bool = True, integers: bool = False
) -> tuple[Any, Callable[[Any, Array], Array]]:
    """A pure function of pictures that answers as `answers.answer` does, and its arrays.

    Args:
      file: the model; of any family, one network or an ensemble.
      rejection: False leaves novelty out, and rejects nothing, as does a file that does not say
        what is familiar.
      integers: how bytes are multiplied, see `bytes_product`.

    Returns:
      params, a tree of NumPy arrays, and a function (params, images uint8 [B, n_in]) -> float32
      [B, C + 3]: the scores, the label, the confidence, and 1 for rejected or 0. To be compiled by
      the caller, for B of CHUNK or less or a multiple of it. Where the network takes sequences of
      any length and nothing is rejected, the images may have fewer steps than n_in.

      Against `answers.answer`: scores within 2e-5, labels equal but where the two largest scores
      are closer than 4e-5, confidence within 1e-4, and rejected equal but where novelty is within
      3e-4 of the limit, relatively.
    """
    familiar = file.familiar if rejection else None
    columns, rest, scores_of = _network(file.spec, file.params)
    width = columns.shape[1]
    pieces = None
    if familiar is not None:
        pieces, more = _pieces(familiar)
        columns = np.concatenate([columns, more], axis=1)
    product = bytes_product.prepared(columns, integers) if columns.shape[1] else None
    # Scores saturate: how sure they can be at most depends on the temperature, which may be tiny.
    coldness = np.float32(min(1 / file.temperature, 1e30))
    output = file.spec.output

    def chunk(params: Any, images: Array) -> Array:
        product, rest, pieces, coldness = params
        found = jnp.zeros((len(images), 0), jnp.float32)
        if product is not None:
            found = bytes_product.times(images, product)
        scores = scores_of(rest, found[:, :width], images)
        label = jnp.argmax(scores, axis=1)
        confidence = _confidence(scores, output, coldness)
        rejected = jnp.zeros_like(confidence)
        if pieces is not None:
            square = _square_distance(images, found[:, width:], label, pieces)
            novelty = jnp.sqrt(jnp.maximum(square, 0) / confidence)
            rejected = 1 - (novelty <= pieces.limit).astype(jnp.float32)
        last = jnp.stack([label.astype(jnp.float32), confidence, rejected], axis=1)
        return jnp.concatenate([scores, last], axis=1)

    def whole(params: Any, images: Array) -> Array:
        rows, n_in = images.shape
        if rows <= CHUNK or rows % CHUNK:
            return chunk(params, images)
        parts = images.reshape(-1, CHUNK, n_in)
        return lax.map(lambda part: chunk(params, part), parts).reshape(rows, -1)

    return (product, rest, pieces, coldness), whole


def _network(
    spec: Spec, params: Any
) -> tuple[np.ndarray, Any, Callable[[Any, Array, Array], Array]]:
    """What bytes are multiplied by [n_in, n], what else is needed, and the scores from both."""
    if spec.family != "mlp":
        forward = models.build(spec).forward
        every = jax.vmap(forward, in_axes=(None, 0))
        n_in = spec.sizes[0]
        return (
            np.zeros((n_in, 0)),
            params,
            lambda params, _, images: every(params, images.astype(jnp.float32) / 255),
        )
    members, width = spec.members, spec.sizes[1]
    first = np.asarray(params[0].weights, np.float64).reshape(members * width, -1)
    identity = np.eye(width, dtype=np.float32)  # in its place: the product is there already
    if members > 1:
        identity = np.repeat(identity[None], members, axis=0)
    rest = (params[0]._replace(weights=identity), *params[1:])
    forward = models.build(spec._replace(members=1)).forward

    def scores(rest: Any, products: Array, _: Array) -> Array:
        if members == 1:
            return jax.vmap(forward, in_axes=(None, 0))(rest, products)
        z = products.reshape(-1, members, width)
        each = jax.vmap(jax.vmap(forward), in_axes=(None, 0))(rest, z)  # [B, members, C]
        return jnp.mean(each, axis=1)

    return first.T / 255, rest, scores


def _confidence(scores: Array, output: str, coldness: Array) -> Array:
    """[B]: the largest of `calibration.probabilities`, of float32 [B, C]."""
    limits = np.finfo(np.float32)
    z = jnp.where(scores < limits.tiny, math.log(limits.tiny / 2), jnp.log(scores))
    if output == "sigmoid":
        z -= jnp.where(scores >= 1, math.log(limits.epsneg / 2), jnp.log1p(-scores))
    ahead = z - jnp.max(z, axis=1, keepdims=True)
    return 1 / jnp.sum(jnp.exp(ahead * coldness), axis=1)


def _pieces(familiar: Familiar) -> tuple[Pieces, np.ndarray]:
    """What is familiar, and the columns [n_in, K + 1] that bytes are multiplied by for it."""
    mean, components, centres, directions = (np.asarray(part, np.float64) for part in familiar[:4])
    pieces = Pieces(
        mean=(components @ mean)[None],
        mean_square=mean @ mean,
        directions=directions.transpose(2, 1, 0).reshape(len(components), -1),
        shifts=np.einsum("mqk,mk->qm", directions, centres).reshape(1, -1),
        centres=centres.T,
        centre_squares=np.sum(centres**2, axis=1)[None],
        classes=familiar.classes.astype(np.int32)[None],
        limit=familiar.limit,
        zeros=np.zeros(REACH * math.isqrt(len(mean)), np.uint8),
    )
    floats = {
        name: np.float32(array)
        for name, array in pieces._asdict().items()
        if name not in ("classes", "zeros")
    }
    columns = np.concatenate([components, mean[None]]).T
    return pieces._replace(**floats), _smoothed_columns(columns)


def _smoothed_columns(columns: np.ndarray) -> np.ndarray:
    """Smoothing [n_in, n_in], which is symmetric, times columns [n_in, n]."""
    side = math.isqrt(len(columns))
    if side * side != len(columns):  # as `novelty` has it: nobody knows which are neighbours
        return columns
    apart = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    taps = np.where(apart <= REACH, np.exp(-0.5 * (apart / SPREAD) ** 2), 0)
    pictures = columns.reshape(side, side, -1)
    return np.einsum("ab,cd,bdn->acn", taps, taps, pictures, optimize=True).reshape(columns.shape)


def _square_distance(images: Array, products: Array, label: Array, pieces: Pieces) -> Array:
    """[B]: squared distances from the nearest piece of the label; infinity of a blank picture."""
    smooth = _smoothed(images, pieces.zeros)
    brightest = jnp.max(smooth, axis=1)
    scale = 1 / jnp.maximum(brightest, 1)
    K = pieces.mean.shape[1]
    z = products[:, :K] * scale[:, None] - pieces.mean
    square = jnp.sum(smooth * smooth, axis=1) * scale**2
    square += pieces.mean_square - 2 * products[:, K] * scale
    # |z|^2 cancels: |z - c|^2 is less than it by 2 z . c - |c|^2.
    less = 2 * (z @ pieces.centres) - pieces.centre_squares  # [B, M]
    along = z @ pieces.directions - pieces.shifts  # [B, Q * M]
    for part in jnp.split(along * along, along.shape[1] // pieces.classes.shape[1], axis=1):
        less += part
    own = pieces.classes == label[:, None]
    square -= jnp.max(jnp.where(own, less, -jnp.inf), axis=1)
    return jnp.where(brightest > 0, square, jnp.inf)


def _smoothed(images: Array, zeros: Array) -> Array:
    """float32 [B, n_in] of bytes [B, n_in], not yet scaled."""
    rows, n_in = images.shape
    side = math.isqrt(n_in)
    if side * side != n_in:
        return images.astype(jnp.float32)

    def wide(pictures: Array, more: int) -> Array:
        beyond = jnp.broadcast_to(zeros[None, :more].astype(pictures.dtype), (rows, more))
        return jnp.concatenate([beyond, pictures, beyond], axis=1)

    def beside(pictures: Array, distance: int) -> Array:  # one side's pixels at a distance
        return lax.slice_in_dim(pictures, distance, distance + n_in, axis=1)

    # Down the columns: rows lie one after another, and before the first and after the last are 0s.
    tall = wide(images, REACH * side)
    smooth = images.astype(jnp.float32)
    for step in range(1, REACH + 1):
        both = [beside(tall, (REACH + sign * step) * side).astype(jnp.int16) for sign in (-1, 1)]
        smooth += np.float32(TAPS[step]) * (both[0] + both[1]).astype(jnp.float32)
    # Along the rows, where what lies beyond an end is of another row.
    column = np.arange(n_in) % side
    long = wide(smooth, REACH)
    for step in range(1, REACH + 1):
        for away in (-step, step):
            inside = (column + away >= 0) & (column + away < side)
            smooth += (TAPS[step] * inside).astype(np.float32)[None] * beside(long, REACH + away)
    return smooth
