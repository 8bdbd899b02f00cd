"""How good a network is: scores of many images, accuracy, confusion; how sure an ensemble is."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxnn import models
from jaxnn.errors import ShapeError
from jaxnn.models import Model

CLASSIC = models.build()
CHUNK = 1000  # images computed at once: enough to fill the machine, little to hold


class Evaluation(NamedTuple):
    """A network measured on a set of images."""

    cost: float  # mean over the images
    accuracy: float  # part of the images read correctly, 0 to 1
    confusion: np.ndarray  # int [n_out, n_out]: row is the true digit, column the answer
    scores: np.ndarray  # float [N, n_out]: the last layer's activations


def pixels_to_input(images: Array) -> Array:
    """uint8 pixels of any shape -> float32 intensities in [0, 1]."""
    return images.astype(jnp.float32) / 255


def one_hot(labels: Array, classes: int) -> Array:
    """Labels of any shape -> float32 targets with one more axis, [..., classes]."""
    return jax.nn.one_hot(labels, classes, dtype=jnp.float32)


@partial(jax.jit, static_argnames="model")
def _scores_and_costs(
    params: Any, images: Array, labels: Array, *, model: Model
) -> tuple[Array, Array]:
    def of_one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        x = pixels_to_input(pair[0])
        y = one_hot(pair[1], model.spec.sizes[-1])
        return model.forward(params, x), model.cost(params, x, y)

    return jax.lax.map(of_one, (images, labels), batch_size=CHUNK)


def scores(params: Any, images: ArrayLike, *, model: Model = CLASSIC) -> np.ndarray:
    """The network's answers to uint8 images [N, 28, 28] or [N, 784]: float32 [N, n_out]."""
    flat = _flat(images, model)
    labels = jnp.zeros(len(flat), jnp.uint8)
    return np.asarray(_scores_and_costs(params, flat, labels, model=model)[0])


@partial(jax.jit, static_argnames="model")
def _votes(params: Any, images: Array, *, model: Model) -> Array:
    def of_one(image: Array) -> Array:
        x = pixels_to_input(image)
        answers = jnp.argmax(models.member_scores(model.spec, params, x), axis=1)  # [K]
        return jnp.sum(answers == jnp.argmax(model.forward(params, x)))

    return jax.lax.map(of_one, images, batch_size=CHUNK)


def agreement(params: Any, images: ArrayLike, *, model: Model = CLASSIC) -> np.ndarray:
    """How far the members of an ensemble agree, image by image: a measure of its uncertainty.

    A member's own answer is the class of its largest score; members that were started or trained
    differently disagree mostly where the ensemble is wrong. A single network agrees with itself.

    Args:
      params: the model's tree of arrays.
      images: uint8 [N, 28, 28] or [N, 784], N at least 1.
      model: which network params belong to; K = model.spec.members.

    Returns:
      float32 [N]: the part of the members, in steps of 1/K, whose own answer is the ensemble's;
      exactly 1 where all of them agree, 0 where the mean of their scores chose a class that is
      nobody's first.

    Raises:
      ShapeError: images do not fit the network.
    """
    votes = _votes(params, _flat(images, model), model=model)
    # Divided here: compiled code multiplies by 1/K, and 41 * (1/41) is not 1 in float32.
    return np.asarray(votes, np.float32) / np.float32(model.spec.members)


def evaluate(
    params: Any, images: ArrayLike, labels: ArrayLike, *, model: Model = CLASSIC
) -> Evaluation:
    """Measures a network.

    Args:
      params: the model's tree of arrays.
      images: uint8 [N, 28, 28] or [N, 784], N at least 1.
      labels: uint8 [N].
      model: which network params belong to.

    Raises:
      ShapeError: images do not fit the network, or labels the images.
    """
    flat = _flat(images, model)
    labels = np.asarray(labels)
    if labels.shape != (len(flat),) or len(flat) == 0:
        raise ShapeError(f"{len(flat)} images with labels of shape {labels.shape}: one label each")
    found, costs = _scores_and_costs(params, flat, jnp.asarray(labels), model=model)
    found = np.asarray(found)  # the rest in NumPy: JAX would compile each of its steps
    predicted = np.argmax(found, axis=1)
    return Evaluation(
        cost=float(np.mean(np.asarray(costs))),
        accuracy=accuracy(predicted, labels),
        confusion=confusion_matrix(predicted, labels, model.spec.sizes[-1]),
        scores=found,
    )


def accuracy(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Part of the answers that are right, 0 to 1.

    Args:
      predicted: [N] labels, or [N, n_out] scores, of which the largest is the answer.
      actual: [N] true labels.

    Raises:
      ShapeError: not as many answers as labels, or none.
    """
    predicted, actual = _labels(predicted, actual)
    return float(np.mean(predicted == actual))


def confusion_matrix(predicted: ArrayLike, actual: ArrayLike, classes: int = 10) -> np.ndarray:
    """int64 [classes, classes]: how often the digit of a row was read as that of a column.

    Args:
      predicted: [N] labels, or [N, n_out] scores.
      actual: [N] true labels.
      classes: one more than the largest label.

    Raises:
      ShapeError: not as many answers as labels, none, or a label out of range.
    """
    predicted, actual = _labels(predicted, actual)
    if min(predicted.min(), actual.min()) < 0 or max(predicted.max(), actual.max()) >= classes:
        raise ShapeError(f"labels lie outside 0 to {classes - 1}")
    cells = actual.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(cells, minlength=classes**2)
    return counts.reshape(classes, classes)


def _labels(predicted: ArrayLike, actual: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    answers, truth = np.asarray(predicted), np.asarray(actual)
    if answers.ndim == 2:
        answers = np.argmax(answers, axis=1)
    if answers.shape != truth.shape or answers.ndim != 1 or len(truth) == 0:
        raise ShapeError(
            f"{answers.shape} answers for {truth.shape} labels: one answer each, at least one"
        )
    return answers, truth


def _flat(images: ArrayLike, model: Model) -> Array:
    """uint8 [N, ...] -> uint8 [N, n_in] on the device."""
    images = jnp.asarray(images)
    n_in = model.spec.sizes[0]
    fits = images.ndim > 1 and len(images) > 0 and images[0].size == n_in
    if not fits or images.dtype != jnp.uint8:
        raise ShapeError(
            f"images are {images.dtype} {images.shape}, expected uint8 [N, {n_in}] "
            "or the same as pictures, N at least 1"
        )
    return images.reshape(len(images), n_in)
