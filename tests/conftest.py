"""What every test runs under, and fixtures that several share."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAXNN_CACHE", "off")  # tests leave nothing in the user's cache
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two test processes share two cores
# Most programs run once: making their machine code quick costs more than it saves.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import numpy as np
import pytest

from jaxnn.data import Dataset

# A silent change of dtype or a broadcast of unequal ranks is a mistake in a network.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def no_data_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAXNN_DATA of the person who runs the tests must not change them."""
    monkeypatch.delenv("JAXNN_DATA", raising=False)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the whole of MNIST, named by JAXNN_MNIST; the test is skipped without."""
    folder = os.environ.get("JAXNN_MNIST")
    if not folder:
        pytest.skip("the whole of MNIST is not here: name its folder by JAXNN_MNIST")
    return Path(folder)


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """A tiny stand-in for digits: ten fixed random pictures, each with noise on top."""
    rng = np.random.default_rng(7)
    centres = rng.integers(0, 200, (10, 28, 28))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count, dtype=np.uint8) % 10
        noise = rng.integers(0, 56, (count, 28, 28))
        return (centres[labels] + noise).astype(np.uint8), labels

    return Dataset(*draw(230), *draw(50))


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """For optax's own arithmetic, which mixes its integer step count with floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield
