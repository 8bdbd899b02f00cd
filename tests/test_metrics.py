"""Figures against counts made by hand."""

import jax
import numpy as np
import pytest

from jaxnn import metrics, mlp, models
from jaxnn.data import Dataset
from jaxnn.errors import ShapeError
from jaxnn.models import Spec

MODEL = models.build(Spec(sizes=(784, 5, 10)))
PARAMS = MODEL.init(jax.random.key(0))
ENSEMBLE = models.build(MODEL.spec._replace(members=5))
MEMBERS = jax.device_get(ENSEMBLE.init(jax.random.key(1)))


def test_accuracy_of_labels_and_of_scores() -> None:
    assert metrics.accuracy([1, 2, 3, 4], [1, 2, 0, 0]) == 0.5
    assert metrics.accuracy(np.eye(3), [0, 1, 1]) == pytest.approx(2 / 3)


def test_confusion_rows_are_the_truth() -> None:
    found = metrics.confusion_matrix(predicted=[0, 2, 2, 1], actual=[0, 1, 2, 1], classes=3)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 1, 1], [0, 0, 1]])


def test_confusion_refuses_labels_out_of_range() -> None:
    with pytest.raises(ShapeError, match="outside 0 to 2"):
        metrics.confusion_matrix([0, 3], [0, 1], classes=3)


@pytest.mark.parametrize(("predicted", "actual"), [([1, 2], [1]), ([], []), ([[[1]]], [1])])
def test_answers_that_do_not_match_labels_are_refused(predicted: list, actual: list) -> None:
    with pytest.raises(ShapeError, match="one answer each"):
        metrics.accuracy(predicted, actual)


def test_scores_equal_the_network_example_by_example(blobs: Dataset) -> None:
    found = metrics.scores(PARAMS, blobs.test_images, model=MODEL)
    for image, row in zip(blobs.test_images[:3], found, strict=False):
        x = image.reshape(784).astype(np.float32) / np.float32(255)
        # float32 sums of 784 terms in another order differ by a few 1e-7.
        np.testing.assert_allclose(row, mlp.forward(PARAMS, x), rtol=1e-5)


def test_evaluate_equals_its_parts_also_over_several_chunks() -> None:
    rng = np.random.default_rng(0)
    count = metrics.CHUNK + 7
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    found = metrics.evaluate(PARAMS, images, labels, model=MODEL)
    np.testing.assert_array_equal(found.scores, metrics.scores(PARAMS, images, model=MODEL))
    assert found.accuracy == np.mean(found.scores.argmax(1) == labels)
    assert found.confusion.sum() == count
    cost = np.mean(np.sum((found.scores - np.eye(10)[labels]) ** 2, axis=1))
    assert found.cost == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 783), np.uint8),
        np.zeros((2, 28, 28), np.float32),
        np.zeros((784,), np.uint8),
    ],
)
def test_images_that_do_not_fit_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"expected uint8 \[N, 784\]"):
        metrics.scores(PARAMS, images, model=MODEL)


def test_evaluate_refuses_labels_that_do_not_fit(blobs: Dataset) -> None:
    with pytest.raises(ShapeError, match="one label each"):
        metrics.evaluate(PARAMS, blobs.test_images, blobs.test_labels[:-1], model=MODEL)


def numpy_member_scores(images: np.ndarray) -> np.ndarray:
    """Scores [K, N, 10] of every member of the ensemble by itself, in float64."""
    a = images.reshape(len(images), 784) / 255

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    return np.stack(
        [
            sigmoid(sigmoid(a @ w1.T + b1) @ w2.T + b2)
            for w1, b1, w2, b2 in zip(*jax.tree.leaves(MEMBERS), strict=True)
        ]
    )


def test_an_ensemble_is_measured_by_the_mean_of_its_members(blobs: Dataset) -> None:
    expected = numpy_member_scores(blobs.test_images).mean(axis=0)
    found = metrics.evaluate(MEMBERS, blobs.test_images, blobs.test_labels, model=ENSEMBLE)
    # float32 sums of 784 terms
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    assert found.accuracy == np.mean(expected.argmax(1) == blobs.test_labels)


def test_agreement_is_the_part_of_the_members_that_answer_as_the_ensemble() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (metrics.CHUNK + 7, 28, 28), dtype=np.uint8)  # two chunks
    each = numpy_member_scores(images)
    votes = each.argmax(axis=2) == each.mean(axis=0).argmax(axis=1)
    found = metrics.agreement(MEMBERS, images, model=ENSEMBLE)
    assert (found.dtype, found.shape) == (np.float32, (len(images),))
    # Exact but for answers that float32 decides otherwise: nearly a tie, here none.
    np.testing.assert_array_equal(found, votes.mean(axis=0).astype(np.float32))
    assert len(np.unique(found)) > 1


def test_members_that_are_all_the_same_agree_exactly(blobs: Dataset) -> None:
    # In float32 41 * (1 / 41) is not 1.
    assert np.float32(41) * (np.float32(1) / np.float32(41)) != 1
    model = models.build(MODEL.spec._replace(members=41))
    params = jax.tree.map(lambda leaf: np.stack([leaf] * 41), PARAMS)
    assert (metrics.agreement(params, blobs.test_images, model=model) == 1).all()
    assert (metrics.agreement(PARAMS, blobs.test_images, model=MODEL) == 1).all()


def test_agreement_may_be_nobodys_first_choice() -> None:
    """Two members with an opinion each, and a mean that chooses the second of both."""
    model = models.build(Spec(sizes=(1, 3), members=2))
    biases = np.array([[3, 2, -9], [-9, 2, 3]], np.float32)
    params = (mlp.Layer(np.zeros((2, 3, 1), np.float32), biases),)
    assert metrics.agreement(params, np.zeros((1, 1), np.uint8), model=model).tolist() == [0]


def test_agreement_refuses_images_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"expected uint8 \[N, 784\]"):
        metrics.agreement(MEMBERS, np.zeros((2, 783), np.uint8), model=ENSEMBLE)
