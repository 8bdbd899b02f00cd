"""Changed images against NumPy's slices and SciPy's interpolation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxnn import augment
from jaxnn.augment import Changes

IMAGES = np.random.default_rng(0).integers(1, 256, (200, 784), dtype=np.uint8)


def changed(seed: int, images: np.ndarray, how: Changes, strength: float = 1.0) -> np.ndarray:
    function = jax.jit(partial(augment.changed, how=how, strength=strength))
    return np.asarray(function(jax.random.key(seed), jnp.asarray(images)))


def test_every_image_is_moved_whole_and_every_move_happens() -> None:
    moved = augment.shift(jax.random.key(0), jnp.asarray(IMAGES), most=1)
    moves = set()
    pairs = zip(IMAGES.reshape(-1, 28, 28), np.asarray(moved).reshape(-1, 28, 28), strict=True)
    for before, after in pairs:
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


def test_a_shift_alone_moves_pixels_unchanged() -> None:
    found = changed(3, IMAGES, Changes(shift=2))
    expected = augment.shift(jax.random.key(3), jnp.asarray(IMAGES), 2)
    np.testing.assert_allclose(found, np.asarray(expected) / 255, rtol=1e-6)  # float32


def test_reading_between_pixels_is_scipys_bilinear_interpolation() -> None:
    places = np.random.default_rng(1).uniform(-4, 32, (2, 784)).astype(np.float32)
    found = jax.jit(augment.sampled)(IMAGES[0], places)
    framed = np.pad(IMAGES[0].reshape(28, 28).astype(np.float64), 8)  # background around
    expected = scipy.ndimage.map_coordinates(framed, places.astype(np.float64) + 8, order=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # of 255: places in float32


def disc(row: float, column: float) -> np.ndarray:
    """A soft spot, whose centre of mass is where it was put: uint8 [784]."""
    rows, columns = np.mgrid[:28, :28]
    spot = 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.5)
    return np.round(spot).astype(np.uint8).ravel()


def centres(images: np.ndarray) -> np.ndarray:
    """Centres of mass [B, 2] from the picture's middle, in pixels."""
    pictures = images.reshape(-1, 28, 28)
    rows, columns = np.mgrid[:28, :28] - 13.5
    mass = pictures.sum(axis=(1, 2))
    return np.stack([(pictures * axis).sum(axis=(1, 2)) / mass for axis in (rows, columns)], axis=1)


def test_a_turn_keeps_the_distance_from_the_middle_and_its_limit() -> None:
    images = np.stack([disc(13.5, 21.5)] * 400)  # 8 pixels right of the middle
    found = centres(changed(0, images, Changes(rotate=20.0)))
    np.testing.assert_allclose(np.hypot(*found.T), 8, atol=0.05)
    angles = np.rad2deg(np.arctan2(found[:, 0], found[:, 1]))
    assert np.abs(angles).max() < 20.3
    assert angles.max() > 18
    assert angles.min() < -18


def test_a_stretch_moves_each_axis_by_itself() -> None:
    images = np.stack([disc(20.5, 20.5)] * 400)  # 7 pixels down and right
    found = centres(changed(0, images, Changes(scale=0.1)))
    # Looking at 7 = s * place for s in 0.9 to 1.1.
    assert (found > 7 / 1.1 - 0.1).all()
    assert (found < 7 / 0.9 + 0.1).all()
    assert np.ptp(found, axis=0).min() > 1.2
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.2


def test_a_slant_moves_columns_by_the_row_only() -> None:
    images = np.stack([disc(20.5, 13.5)] * 400)
    found = centres(changed(0, images, Changes(shear=0.3)))
    moved = found - centres(images[:1])
    assert (np.abs(moved).max(axis=0) > 0.3 * 7 - 0.2).any()
    still = int(np.abs(moved).max(axis=0).argmin())
    assert np.abs(moved[:, still]).max() < 0.05
    assert np.abs(moved[:, 1 - still]).max() < 0.3 * 7 + 0.1


def test_a_bend_is_smooth_and_as_strong_as_asked_for() -> None:
    keys = jax.random.split(jax.random.key(0), 300)
    bends = np.asarray(jax.jit(jax.vmap(lambda key: augment._bend(key, 28)))(keys))
    assert bends.std() == pytest.approx(1, abs=0.05)
    pictures = bends.reshape(-1, 28, 28)
    assert np.abs(np.diff(pictures, axis=1)).max() < 1.5  # neighbours move alike


def test_changes_differ_between_images_and_keys_and_stay_in_range() -> None:
    how = Changes(1, 10.0, 0.1, 0.1, 1.0)
    same = np.stack([disc(9, 9)] * 20)
    found = changed(0, same, how)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert len(np.unique(found, axis=0)) == 20
    np.testing.assert_array_equal(found, changed(0, same, how))
    assert (found != changed(1, same, how)).any()


def test_no_change_is_the_image() -> None:
    how = Changes(rotate=1e-6)  # as good as nothing, but on the way of the turned
    np.testing.assert_allclose(changed(0, IMAGES, how), IMAGES / 255, atol=1e-4)


def test_beside_other_changes_a_shift_goes_between_pixels_too() -> None:
    images = np.stack([disc(13.5, 13.5)] * 400)
    moved = centres(changed(0, images, Changes(shift=3, rotate=1e-6)))
    assert np.abs(moved).max() < 3.05
    assert np.abs(moved).max(axis=0).min() > 2.7
    assert len(np.unique(np.round(moved[:, 0], 1))) > 30


def test_strength_weakens_every_change() -> None:
    images = np.stack([disc(20.5, 20.5)] * 200)
    how = Changes(2, 20.0, 0.1, 0.2, 0.5)
    moved = [
        np.abs(centres(changed(0, images, how, part)) - centres(images[:1])).mean()
        for part in (1.0, 0.5, 0.0)
    ]
    assert moved[0] > 1
    assert moved[1] == pytest.approx(moved[0] / 2, rel=0.1)  # nearly linear
    assert moved[2] < 1e-3
