"""Products of bytes equal NumPy's in float64, by floats and by integers."""

import jax
import numpy as np
import pytest

from jaxnn import bytes_product

times = jax.jit(bytes_product.times)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 784), np.uint8)
IMAGES[0, :2] = (0, 255)
# Columns of very different sizes, one of zeros, and one so small that its bytes are all 0.
MATRIX = RNG.normal(size=(784, 6)) * np.array([1e-6, 1, 1e4, 0, 30, 1e-60])


@pytest.mark.parametrize("integers", [False, True])
def test_a_product_of_bytes(integers: bool) -> None:
    found = times(IMAGES, bytes_product.prepared(MATRIX, integers))
    assert found.shape == (9, 6) and found.dtype == np.float32
    truth = IMAGES.astype(np.float64) @ MATRIX
    # Sums of 784 terms, rounded 784 times by 6e-8 of what they then are.
    bound = 5e-7 * 255 * np.sqrt(784) * np.abs(MATRIX).max(axis=0) + 1e-37
    assert np.all(np.abs(np.asarray(found) - truth) < bound)


def test_integers_do_not_depend_on_the_rows_beside_them() -> None:
    product = bytes_product.prepared(MATRIX, integers=True)
    together = np.asarray(times(IMAGES, product))
    alone = [np.asarray(times(IMAGES[k : k + 1], product)) for k in (0, 8)]
    np.testing.assert_array_equal(together[[0, 8]], np.concatenate(alone))
