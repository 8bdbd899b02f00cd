"""From one example to many: nudges that disagree, their average, and how few examples suffice.

The cost of a set is the mean of its examples' costs, so that its negative gradient is the mean of
their nudges. A mini-batch's mean is an estimate of the whole set's: `agreement` measures how far
its direction is off, and what it costs in time.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import metrics, mlp
from jaxnn.errors import ConfigError, DataError, ShapeError
from jaxnn.gradients import autodiff_gradient, batch_gradient, per_example_gradients
from jaxnn.models import Model

DIGITS = (3, 2, 9)  # shown side by side
SIZES = (1, 10, 100, 1000)  # of mini-batches
DRAWS = 20  # mini-batches of each size
REPEATS = 5  # of the whole set's gradient, to time it


class Disagreement(NamedTuple):
    """What k single examples want of p parameters of the last layer, and what all N want."""

    labels: tuple[int, ...]  # of the k examples
    indices: tuple[int, ...]  # where they lie in the set
    neuron: int  # of the layer before the last: the one whose weights to the outputs are shown
    activations: np.ndarray  # float32 [k]: of that neuron, for each example
    names: tuple[str, ...]  # p: "b[0]" ... the output biases, then "w[0,neuron]" ...
    nudges: np.ndarray  # float32 [p, k]: -dC/dparameter of each example
    average: np.ndarray  # float32 [p]: the mean of the k
    everyone: np.ndarray  # float32 [p]: the mean of the nudges of all N examples


class Proof(NamedTuple):
    """The mean of the nudges of all examples against the nudge of their mean cost."""

    examples: int
    parameters: int
    difference: float  # the largest of any parameter
    largest: float  # the largest |nudge| of any parameter, to compare with


class Agreement(NamedTuple):
    """Mini-batches of one size against the whole set."""

    size: int
    cosines: np.ndarray  # float64 [draws]: between the mini-batch's gradient and the whole set's
    angles: np.ndarray  # float64 [draws]: the same in degrees, 0 to 180
    seconds: float  # for one gradient: the fastest draw, since the machine has other work too


def disagreement(
    params: Any, images: np.ndarray, labels: np.ndarray, model: Model
) -> tuple[Disagreement, Proof]:
    """Nudges of the first 3, 2 and 9 of a set, side by side, and of the whole set.

    Args:
      params: the network's tree of arrays, float32; a multilayer perceptron.
      images: uint8 [N, 28, 28].
      labels: uint8 [N].
      model: which network params belong to.

    Raises:
      ConfigError: another family of network.
      DataError: the set has no 3, no 2 or no 9.
      ShapeError: images or labels do not fit the network.
    """
    if model.spec.family != "mlp":
        raise ConfigError(
            f"the network is of the family {model.spec.family!r}: this explains an 'mlp'"
        )
    indices = tuple(_first(labels, digit) for digit in DIGITS)
    x, y = _examples(images, labels, model)
    chosen = np.array(indices)
    each, fed = jax.device_get(_each(params, x[chosen], y[chosen], model=model))
    last = each[-1]  # weights [k, n_out, m], biases [k, n_out]
    neuron = int(np.argmax(np.ptp(fed, axis=0)))  # the three differ most in this one
    mean, of_mean = jax.device_get(_mean_two_ways(params, x, y, model=model))
    outputs = range(y.shape[1])
    nudges = -np.concatenate([last.biases, last.weights[:, :, neuron]], axis=1).T  # [p, k]
    shown = Disagreement(
        labels=DIGITS,
        indices=indices,
        neuron=neuron,
        activations=fed[:, neuron],
        names=(*(f"b[{j}]" for j in outputs), *(f"w[{j},{neuron}]" for j in outputs)),
        nudges=nudges,
        average=nudges.mean(axis=1),
        everyone=-np.concatenate([mean[-1].biases, mean[-1].weights[:, neuron]]),
    )
    one, other = _flat(mean), _flat(of_mean)
    proof = Proof(
        len(images), len(one), float(np.abs(one - other).max()), float(np.abs(other).max())
    )
    return shown, proof


def agreement(
    params: Any, images: np.ndarray, labels: np.ndarray, model: Model, *, seed: int = 0
) -> list[Agreement]:
    """How far mini-batch gradients point away from the whole set's, and how long each takes.

    Args:
      params: the network's tree of arrays, float32.
      images: uint8 [N, 28, 28].
      labels: uint8 [N].
      model: which network params belong to.
      seed: decides which examples make up the mini-batches, drawn without replacement.

    Returns:
      One for each of SIZES below N, DRAWS draws each, and one for the whole set.

    Raises:
      ShapeError: images or labels do not fit the network.
    """
    x, y = _examples(images, labels, model)
    rng = np.random.default_rng(seed)
    whole = _flat(_gradient(params, x, y, model=model))
    found = []
    for size in (*(size for size in SIZES if size < len(x)), len(x)):
        seconds: list[float] = []
        cosines: list[float] = []
        for _ in range(DRAWS if size < len(x) else REPEATS):
            draw = rng.choice(len(x), size, replace=False)
            batch = jax.device_put((x[draw], y[draw]))
            if not cosines:
                _gradient(params, *batch, model=model)  # compiles
            started = time.perf_counter()
            gradient = jax.block_until_ready(_gradient(params, *batch, model=model))
            seconds.append(time.perf_counter() - started)
            cosines.append(_cosine(_flat(gradient), whole))
        angles = np.degrees(np.arccos(cosines))
        found.append(Agreement(size, np.array(cosines), angles, min(seconds)))
    return found


_gradient = jax.jit(batch_gradient, static_argnames="model")


@partial(jax.jit, static_argnames="model")
def _each(params: Any, x: Array, y: Array, *, model: Model) -> tuple[Any, Array]:
    """The gradient of each of k examples, and the activations [k, m] that feed the last layer."""
    ends = {"activation": model.spec.activation, "output": model.spec.output}
    fed = jax.vmap(lambda one: mlp.trace(params, one, **ends).a[-2])(x)
    return per_example_gradients(params, x, y, model=model), fed


@partial(jax.jit, static_argnames="model")
def _mean_two_ways(params: Any, x: Array, y: Array, *, model: Model) -> tuple[Any, Any]:
    """The mean of every example's gradient, made one by one, and the gradient of the mean cost."""

    def add(total: Any, example: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, model.backprop(params, *example)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (x, y))
    mean = jax.tree.map(lambda leaf: leaf / len(x), total)
    return mean, autodiff_gradient(params, x, y, model=model)


def _examples(
    images: np.ndarray, labels: np.ndarray, model: Model
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 [N, n_in] and targets float32 [N, n_out]."""
    n_in, n_out = model.spec.sizes[0], model.spec.sizes[-1]
    x = jnp.asarray(images).reshape(len(images), -1)
    if x.shape[1] != n_in or labels.max() >= n_out:
        raise ShapeError(
            f"the pictures have {x.shape[1]} pixels and labels up to {labels.max()}, but the "
            f"network has {n_in} inputs and {n_out} outputs: choose another model"
        )
    y = metrics.one_hot(jnp.asarray(labels), n_out)
    return np.asarray(metrics.pixels_to_input(x)), np.asarray(y)


def _first(labels: np.ndarray, digit: int) -> int:
    at = np.flatnonzero(labels == digit)
    if len(at) == 0:
        raise DataError(f"the data hold no {digit}, expected digits of every kind")
    return int(at[0])


def _flat(tree: Any) -> np.ndarray:
    """All parameters of a tree in a row, float64 [13002] for the classic network."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two vectors, kept within -1 to 1 against rounding."""
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(cosine, -1, 1))
