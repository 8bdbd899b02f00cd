"""Answers through buckets equal the offline ones, and nothing compiles after the start."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxnn import answers, bytes_product, checkpoint, data
from jaxnn.errors import ConfigError, ShapeError
from service import predictor as predictors
from service.predictor import ALIGNMENT, COPIED_FROM, Predictor, _aligned

BUCKETS = (1, 8)
COMPILATION = "/jax/core/compile/backend_compile_duration"
SHIPPED = checkpoint.load(checkpoint.SHIPPED)


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    """Its largest bucket multiplies integers, whether they are quick here or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictors, "INTEGERS_FROM", 8)
        patch.setattr(bytes_product, "quick_integers", lambda: True)
        yield Predictor(SHIPPED, BUCKETS)


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


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Digits, and among them what is none: uint8 [35, 784]."""
    found = data.load("embedded").test_images[:35].reshape(-1, 784).copy()
    found[::5] = np.random.default_rng(1).integers(0, 256, (7, 784), np.uint8)
    found[3], found[7] = 0, 255
    return found


@pytest.fixture(scope="module")
def truth(images: np.ndarray) -> answers.Answers:
    return answers.answer(SHIPPED, images)


@pytest.mark.parametrize("rejection", [True, False])
def test_answers_equal_the_offline_ones(
    predictor: Predictor, images: np.ndarray, truth: answers.Answers, rejection: bool
) -> None:
    limit = SHIPPED.familiar.limit if SHIPPED.familiar else np.nan
    sure = np.abs(truth.novelty - limit) > 1e-3 * limit  # rounding decides about none of these
    assert sure.all() and truth.rejected.any() and not truth.rejected.all()
    kept = []
    for count in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 18, 20, 24, 32, 33, 35):
        found = predictor(images[:count], rejection)
        assert found.dtype == np.float32 and found.shape == (count, 13)
        kept.append(found)
    for found in kept:  # after other calls: the arrays are nobody else's
        count = len(found)
        # Sums of 784 products in float32, of up to 200, and the slope of a sigmoid.
        np.testing.assert_allclose(
            predictors.scores(found), truth.scores[:count], rtol=0, atol=2e-5
        )
        np.testing.assert_array_equal(predictors.labels(found), truth.labels[:count])
        np.testing.assert_allclose(
            predictors.confidence(found), truth.confidence[:count], rtol=0, atol=1e-4
        )
        expected = truth.rejected[:count] & rejection
        np.testing.assert_array_equal(predictors.rejected(found), expected)


def test_nothing_compiles_after_the_start(
    predictor: Predictor, images: np.ndarray, compilations: list[str]
) -> None:
    for count in range(1, 36):
        for rejection in (True, False):
            predictor(images[:count], rejection)
    predictor(np.asfortranarray(images))  # laid out otherwise
    predictor(images[::2])
    assert compilations == []
    assert predictor.compile_count == 2 * len(BUCKETS)
    jax.jit(lambda x: x * 2.5 + 1)(np.float32(3))  # proof that the listener hears
    assert len(compilations) == 1


def test_chunks(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last is padded, and never by more than it holds."""
    run: list[int] = []

    def spied(images: np.ndarray) -> np.ndarray:
        run.append(len(images))
        return np.zeros((len(images), 13), np.float32)

    monkeypatch.setattr(predictor, "_buckets", (1, 4, 16))
    monkeypatch.setattr(predictor, "_executables", {True: dict.fromkeys((1, 4, 16), spied)})
    for count, chunks in (
        (1, [1]), (2, [4]), (3, [4]), (5, [4, 1]), (7, [4, 4]), (8, [16]), (16, [16]),
        (33, [16, 16, 1]), (38, [16, 16, 4, 4]), (41, [16, 16, 16]),
    ):  # fmt: skip
        run.clear()
        assert len(predictor(np.zeros((count, 784), np.uint8))) == count
        assert run == chunks


def test_a_file_that_does_not_say_what_is_familiar(images: np.ndarray) -> None:
    plain = Predictor(SHIPPED._replace(familiar=None), (3,))
    assert plain.compile_count == 1
    found = plain(images[:2])  # fewer than the only bucket
    assert found.shape == (2, 13) and not predictors.rejected(found).any()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 783), np.uint8),
        np.zeros((0, 784), np.uint8),
        np.zeros(784, np.uint8),
        np.zeros((1, 784), np.float32),
    ],
)
def test_images_that_do_not_fit_are_refused(predictor: Predictor, images: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"expected uint8 \(N, 784\)"):
        predictor(images)


@pytest.mark.parametrize("buckets", [(), (0, 1), (4, 4), (8, 1)])
def test_buckets_grow(buckets: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="buckets are"):
        Predictor(SHIPPED, buckets)


def test_many_images_are_computed_where_they_lie_or_copied_in_this_thread() -> None:
    """JAX would copy memory that begins anywhere, in another thread: see `ALIGNMENT`."""
    many = COPIED_FROM // 784 + 1
    memory = np.random.default_rng(5).integers(0, 256, 784 * many + 64, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    found = [
        _aligned(memory[start + skip : start + skip + 784 * many].reshape(many, 784))
        for skip in (0, 1, 5)
    ]
    assert [array.ctypes.data % ALIGNMENT for array in found] == [0, 0, 0]
    assert [np.shares_memory(array, memory) for array in found] == [True, False, False]
    assert np.array_equal(found[1].ravel(), memory[start + 1 : start + 1 + 784 * many])
    few = memory[start + 1 : start + 1 + 784].reshape(1, 784)
    assert _aligned(few) is few
