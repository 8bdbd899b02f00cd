"""Scores through buckets equal the plain forward pass, and nothing compiles after the start."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxnn import mlp, models
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Spec
from service.predictor import Predictor

BUCKETS = (1, 4, 16)
COMPILATION = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def params() -> mlp.Params:
    return mlp.init(jax.random.key(3), (784, 8, 10))


@pytest.fixture(scope="module")
def predictor(params: mlp.Params) -> Predictor:
    return Predictor(models.build(Spec(sizes=(784, 8, 10))), params, BUCKETS)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Everything that XLA compiles during a test, as JAX itself reports it."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: str | int) -> None:
        if event == COMPILATION:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 784), np.uint8)


def by_numpy(params: mlp.Params, images: np.ndarray) -> np.ndarray:
    a = images / 255
    for layer in params:
        z = a @ np.asarray(layer.weights, np.float64).T + np.asarray(layer.biases, np.float64)
        a = 1 / (1 + np.exp(-z))
    return a


@pytest.mark.parametrize("count", [1, 2, 4, 5, 15, 16, 17, 32, 35])
def test_scores_equal_the_network_in_float64(
    predictor: Predictor, params: mlp.Params, count: int
) -> None:
    images = random_images(count)
    scores = predictor(images)
    assert scores.dtype == np.float32 and scores.shape == (count, 10)
    # Sums of 784 products in float32 differ from float64 by a few 1e-7 after the sigmoid.
    np.testing.assert_allclose(scores, by_numpy(params, images), rtol=0, atol=2e-6)


def test_nothing_compiles_after_the_start(predictor: Predictor, compilations: list[str]) -> None:
    for count in (*range(1, 40), 100):
        predictor(random_images(count))
    assert compilations == []
    assert predictor.compile_count == len(BUCKETS)
    jax.jit(lambda x: x * 2.5 + 1)(np.float32(3))  # proof that the listener hears
    assert len(compilations) == 1


def test_only_the_last_chunk_is_padded(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[int] = []

    def spied(bucket: int, images: np.ndarray) -> np.ndarray:
        run.append(bucket)
        assert images.shape == (bucket, 784)
        return np.zeros((bucket, 10), np.float32)

    for bucket in BUCKETS:
        monkeypatch.setitem(
            predictor._executables, bucket, lambda _, images, bucket=bucket: spied(bucket, images)
        )
    for count, chunks in ((1, [1]), (3, [4]), (16, [16]), (33, [16, 16, 1]), (37, [16, 16, 16])):
        run.clear()
        predictor(random_images(count))
        assert run == chunks


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 783), np.uint8), np.zeros(784, np.uint8), np.zeros((1, 784), np.float32)],
)
def test_images_that_do_not_fit_are_refused(predictor: Predictor, images: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"expected uint8 \(N, 784\)"):
        predictor(images)


@pytest.mark.parametrize("buckets", [(), (0, 1), (4, 4), (8, 1)])
def test_buckets_grow(buckets: tuple[int, ...], params: mlp.Params) -> None:
    with pytest.raises(ConfigError, match="buckets are"):
        Predictor(models.build(Spec(sizes=(784, 8, 10))), params, buckets)
