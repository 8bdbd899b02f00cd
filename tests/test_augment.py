"""Moved images against NumPy's slices."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import augment


def test_every_image_is_moved_whole_and_every_move_happens() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (200, 28, 28), dtype=np.uint8)
    moved = augment.shift(jax.random.key(0), jnp.asarray(images.reshape(200, 784)), most=1)
    moves = set()
    for before, after in zip(images, np.asarray(moved).reshape(200, 28, 28), strict=True):
        framed = np.pad(before, 1)
        fits = [
            (dy, dx)
            for dy in range(3)
            for dx in range(3)
            if np.array_equal(framed[dy : dy + 28, dx : dx + 28], after)
        ]
        assert len(fits) == 1
        moves.add(fits[0])
    assert len(moves) == 9


def test_no_move_is_no_change_and_keys_decide() -> None:
    images = jnp.arange(784, dtype=jnp.uint8)[None].repeat(20, axis=0)
    assert (augment.shift(jax.random.key(0), images, most=0) == images).all()
    one, same = (augment.shift(jax.random.key(1), images, most=2) for _ in range(2))
    assert (one == same).all()
    assert (one != augment.shift(jax.random.key(2), images, most=2)).any()
