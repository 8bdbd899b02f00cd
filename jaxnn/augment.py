"""Changed copies of training images: a moved 7 is still a 7."""

import jax
import jax.numpy as jnp
from jax import Array


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
