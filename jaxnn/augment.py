"""Changed copies of training images: a moved, turned or stretched 7 is still a 7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

WAVES = 4  # of a bend, along each axis: the shortest is half a picture long


class Changes(NamedTuple):
    """How much an image may change at most; every change up to it is equally likely."""

    shift: int = 0  # pixels, along each axis; whole ones where nothing else changes
    rotate: float = 0.0  # degrees, either way
    scale: float = 0.0  # part of the width and, apart from it, of the height
    shear: float = 0.0  # columns moved for each row from the middle
    elastic: float = 0.0  # pixels: the standard deviation of a smooth random displacement


def changed(
    key: Array, images: Array, how: Changes, strength: ArrayLike = 1.0, side: int = 28
) -> Array:
    """Each image changed at random in its own way; what moves in is background.

    Args:
      key: a typed random key.
      images: uint8 [B, side * side].
      how: the largest changes.
      strength: the part of them that is used, 0 to 1; a shift alone takes no notice.
      side: height and width of an image, in pixels.

    Returns:
      float32 [B, side * side], intensities in [0, 1].
    """
    if not any(how[1:]):
        return shift(key, images, how.shift, side).astype(jnp.float32) / 255

    def one(key: Array, image: Array) -> Array:
        return sampled(image, _places(key, how, strength, side), side)

    return jax.vmap(one)(jax.random.split(key, len(images)), images) / 255


def shift(key: Array, images: Array, most: int, side: int = 28) -> Array:
    """Moves each image by a random whole number of pixels; what moves in is background.

    Args:
      key: a typed random key.
      images: uint8 [B, side * side].
      most: the largest move along each axis, in pixels; every move up to it is equally likely.
      side: height and width of an image, in pixels.

    Returns:
      uint8 [B, side * side].
    """
    pictures = images.reshape(-1, side, side)
    framed = jnp.pad(pictures, ((0, 0), (most, most), (most, most)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)  # [B, 2]

    def cut(picture: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(picture, corner, (side, side))

    return jax.vmap(cut)(framed, corners).reshape(images.shape)


def sampled(image: Array, places: Array, side: int = 28) -> Array:
    """An image read between its pixels, by bilinear interpolation; outside it lies background.

    Args:
      image: [side * side], of any number type.
      places: float32 [2, n], rows and columns to read at; (0, 0) is the middle of the first pixel.
      side: height and width, in pixels.

    Returns:
      float32 [n].
    """
    # A frame of background, so that all four neighbours of a place lie inside.
    framed = jnp.pad(image.reshape(side, side), 2).ravel()
    width = side + 4
    corner = jnp.floor(places)
    row, column = jnp.clip(corner.astype(jnp.int32) + 2, 0, width - 2)
    first = row * width + column
    # Four gathers of one number each: one gather of four takes five times as long on a CPU.
    upper_left, upper_right, lower_left, lower_right = (
        framed[first + step].astype(jnp.float32) for step in (0, 1, width, width + 1)
    )
    down, right = places - corner  # [n] each, parts of a pixel
    upper = upper_left + right * (upper_right - upper_left)
    lower = lower_left + right * (lower_right - lower_left)
    return upper + down * (lower - upper)


def _places(key: Array, how: Changes, strength: ArrayLike, side: int) -> Array:
    """Where one changed image looks for its pixels in the original, float32 [2, side * side]."""
    turn_key, scale_key, shear_key, shift_key, bend_key = jax.random.split(key, 5)
    part = jnp.asarray(strength, jnp.float32)
    angle = part * np.deg2rad(how.rotate) * _within_one(turn_key, ())
    stretch = 1 + part * how.scale * _within_one(scale_key, (2,))
    slant = part * how.shear * _within_one(shear_key, ())
    move = part * how.shift * _within_one(shift_key, (2, 1))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([cos, -sin, sin, cos]).reshape(2, 2)
    slanted = jnp.eye(2, dtype=jnp.float32).at[1, 0].set(slant)
    middle = (side - 1) / 2
    rows, columns = np.mgrid[:side, :side].reshape(2, -1).astype(np.float32) - middle
    places = (turned @ slanted * stretch[None]) @ jnp.stack([rows, columns]) + move + middle
    if how.elastic:
        places = places + part * how.elastic * _bend(bend_key, side)
    return places


def _bend(key: Array, side: int) -> Array:
    """A smooth random displacement, float32 [2, side * side]: a few slow cosine waves.

    Each axis' displacement has the standard deviation 1 on average over the picture.
    """
    pixels = (np.arange(side) + 0.5) / side
    slow = np.cos(np.pi * np.arange(WAVES)[:, None] * pixels)  # [WAVES, side]
    waves = np.einsum("iy,jx->ijyx", slow, slow).reshape(WAVES**2, -1)
    waves /= np.sqrt(np.mean(np.sum(waves**2, axis=0)))
    heights = jax.random.normal(key, (2, WAVES**2), jnp.float32)
    return heights @ waves.astype(np.float32)


def _within_one(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, -1, 1)
