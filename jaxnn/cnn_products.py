"""Convolutions of stride 1 as products of matrices: the quick way on processors.

What takes the time is one large product, which processors' libraries are best at. Of a kernel's two
directions, one is dealt with before it and the other after it:

- The columns lie side by side: beside every place's maps stand those of the places to its right, as
  many as a kernel is wide. So one row of a kernel meets one row of this matrix.
- All rows of the kernels are multiplied at once, and what each row gave is moved up by as many
  places as the row stands below the first, and added.

For a picture of one map, as at the start of a network, that is a product of thin matrices, which is
slow: there 2 x 2 neighbouring places are computed together, by a kernel a row and a column larger
that holds the smaller one four times, at its four corners.

docs/performance.md has what it gives, and where `lax.conv_general_dilated` is quicker.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

QUICK_TO = 2**15  # numbers a picture, side by side: beyond, they do not stay in the cache
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))

Edges = Sequence[tuple[int, int]]


def quick(shape: Sequence[int], window: Sequence[int], edges: Edges) -> bool:
    """Whether a picture [H, W, C] is small enough for these products to be the quicker way."""
    high, wide, maps = shape
    return high * (wide + sum(edges[1]) - window[1] + 1) * window[1] * maps <= QUICK_TO


def convolution(picture: Array, kernels: Array, edges: Edges) -> Array:
    """Sums of products of kernels and what lies under them.

    Args:
      picture: [H, W, C].
      kernels: [K, K', C, F].
      edges: rows of zeros above and below, columns to the left and the right; below 0 cuts off.

    Returns:
      [H', W', F], with H' = H + edges - K + 1 and W' likewise.
    """
    rows, columns, maps, count = kernels.shape
    if _in_blocks(picture.shape, kernels.shape, edges):
        corners = [
            jnp.pad(kernels[:, :, 0], ((down, 1 - down), (right, 1 - right), (0, 0)))
            for down, right in CORNERS
        ]
        found = _blocks(picture, rows, columns) @ jnp.stack(corners, 2).reshape(-1, 4 * count)
        high, wide, _ = found.shape
        parted = found.reshape(high, wide, 2, 2, count).transpose(0, 2, 1, 3, 4)
        return parted.reshape(2 * high, 2 * wide, count)
    above, below = edges[0]
    together = kernels.transpose(1, 2, 0, 3).reshape(columns * maps, rows * count)
    every = jnp.split(_side_by_side(picture, columns, edges[1]) @ together, rows, axis=2)
    moved = [_moved(part, above - u, below - rows + 1 + u) for u, part in enumerate(every)]
    return sum(moved[1:], start=moved[0])


def gradient(fed: Array, delta: Array, padding: int) -> Array:
    """dC/dkernels: the sum over pictures and places of what a kernel saw there, times dC/dout.

    Args:
      fed: [B, H, W, C].
      delta: [B, H', W', F] dC/dout.
      padding: rows and columns of zeros on each side of `fed`.

    Returns:
      [K, K', C, F], K and K' as the sides demand.
    """
    (_, high, wide, maps), (_, down, along, count) = fed.shape, delta.shape
    rows, columns = high + 2 * padding - down + 1, wide + 2 * padding - along + 1
    edges = [(padding, padding)] * 2
    # What is seen is made as in `convolution`, picture by picture, so that XLA makes it once.
    if _in_blocks(fed.shape[1:], (rows, columns), edges):
        seen = jax.vmap(lambda picture: _blocks(picture, rows, columns))(fed)
        parted = delta.reshape(-1, down // 2, 2, along // 2, 2, count).transpose(0, 1, 3, 2, 4, 5)
        found = _product(seen, parted).reshape(rows + 1, columns + 1, 4, count)
        corners = [
            found[u : u + rows, v : v + columns, corner] for corner, (u, v) in enumerate(CORNERS)
        ]
        return sum(corners[1:], start=corners[0])[:, :, None]
    seen = jax.vmap(lambda picture: _side_by_side(picture, columns, edges[1]))(fed)
    moved = [
        jax.vmap(lambda one, u=u: _moved(one, u - padding, high - down - u + padding))(delta)
        for u in range(rows)
    ]
    found = _product(seen, jnp.concatenate(moved, axis=3))
    return found.reshape(columns, maps, rows, count).transpose(2, 0, 1, 3)


def _product(seen: Array, delta: Array) -> Array:
    """The sum over pictures and places of outer products, from [B, H', W', ...] each."""
    places = math.prod(seen.shape[:3])
    return seen.reshape(places, -1).T @ delta.reshape(places, -1)


def _side_by_side(picture: Array, columns: int, edge: tuple[int, int]) -> Array:
    """[H, W', columns * C]: at each place its own maps and those to its right."""
    framed = lax.pad(picture, _zero(picture), [(0, 0, 0), (*edge, 0), (0, 0, 0)])
    places = framed.shape[1] - columns + 1
    return jnp.concatenate([framed[:, v : v + places] for v in range(columns)], axis=2)


def _moved(rows: Array, above: int, below: int) -> Array:
    """[H, W, C] with rows of zeros above and below; a number below 0 cuts rows off."""
    return lax.pad(rows, _zero(rows), [(above, below, 0), (0, 0, 0), (0, 0, 0)])


def _zero(like: Array) -> Array:
    return jnp.zeros((), like.dtype)


def _in_blocks(shape: Sequence[int], window: Sequence[int], edges: Edges) -> bool:
    """Whether there is one map, no edge, and an even number of places each way."""
    places = [side - size + 1 for side, size in zip(shape[:2], window[:2], strict=True)]
    return shape[2] == 1 and not any(map(any, edges)) and not any(n % 2 for n in places)


def _blocks(picture: Array, rows: int, columns: int) -> Array:
    """[H'/2, W'/2, (rows + 1) (columns + 1)]: what 2 x 2 neighbouring places see."""
    high, wide = picture.shape[0] - rows + 1, picture.shape[1] - columns + 1
    seen = [
        picture[u : u + high : 2, v : v + wide : 2]
        for u in range(rows + 1)
        for v in range(columns + 1)
    ]
    return jnp.concatenate(seen, axis=2)
