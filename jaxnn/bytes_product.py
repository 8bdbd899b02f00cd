"""Bytes times a matrix: by floats, or as exact sums of integers where these are quicker.

Recent processors multiply 8-bit integers several times as fast as floats (Intel's AMX and VNNI),
and pictures are bytes already. A weight becomes the sum of three bytes on scales that each are
254 times finer, which keeps as much of it as float32 does. Sums of integers are exact, so that no
rounding depends on how many rows go together.
"""

import time
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

TERMS = 3  # bytes a weight
_TRIAL = (256, 784, 64)  # rows, inputs and columns that the two ways are tried on
_MARGIN = 1.5  # how much quicker integers have to be


class Product(NamedTuple):
    """A matrix [n_in, n] for bytes, in one of two forms; scales and offsets are None for floats."""

    weights: Any  # float32 [n_in, n], or int8 [n_in, TERMS * n]
    scales: Any  # float32 [TERMS, 1, n]
    offsets: Any  # int32 [1, TERMS * n]: what a picture of 128s gives


def prepared(matrix: np.ndarray, integers: bool) -> Product:
    """A matrix [n_in, n] for `times`; n_in below 65,536, so that int32 holds the sums."""
    if not integers:
        return Product(matrix.astype(np.float32), None, None)
    left, parts, scales = matrix.astype(np.float64), [], []
    scale = np.maximum(np.abs(left).max(axis=0), np.finfo(np.float32).tiny * 254**TERMS) / 127
    for _ in range(TERMS):
        part = np.rint(left / scale)  # -127 to 127
        left = left - part * scale
        parts.append(part)
        scales.append(scale[None])
        scale = scale / 254  # what is left is at most half a unit
    weights = np.concatenate(parts, axis=1)
    offsets = 128 * weights.sum(axis=0, keepdims=True)
    return Product(weights.astype(np.int8), np.array(scales, np.float32), offsets.astype(np.int32))


def times(images: Array, product: Product) -> Array:
    """float32 [B, n] of images uint8 [B, n_in]."""
    if product.scales is None:
        return images.astype(jnp.float32) @ product.weights
    # A flipped top bit is 128 less, as a signed byte.
    signed = lax.bitcast_convert_type(images ^ np.uint8(128), jnp.int8)
    sums = lax.dot(signed, product.weights, preferred_element_type=jnp.int32) + product.offsets
    parts = jnp.split(sums.astype(jnp.float32), TERMS, axis=1)
    scaled = [part * scale for part, scale in zip(parts, product.scales, strict=True)]
    return scaled[2] + scaled[1] + scaled[0]


@lru_cache
def quick_integers() -> bool:
    """Whether this machine's XLA is quicker by integers; tried once, in a fifth of a second."""
    rows, n_in, columns = _TRIAL
    images = np.zeros((rows, n_in), np.uint8)
    seconds = {}
    for integers in (False, True):
        product = prepared(np.ones((n_in, columns)), integers)
        program = jax.jit(times).lower(images, product).compile()
        tries = []
        for _ in range(5):
            start = time.perf_counter()
            program(images, product).block_until_ready()
            tries.append(time.perf_counter() - start)
        seconds[integers] = min(tries)
    return seconds[True] * _MARGIN < seconds[False]
