"""Costs of one example, each with the output delta, dC/dz, beside it.

`quadratic` and `cross_entropy` take the output activations a. Training goes through an
`Objective` instead, which takes the weighted inputs z of the output layer: the output's
activation and its cost belong together, since sigmoid and logarithm cancel in the mathematics
but not in floating point, where a sigmoid rounds to exactly 1 long before |z| = 100.

All of them take one example and return a scalar; the cost of a batch is the mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from jaxnn.activations import sigmoid, sigmoid_derivative
from jaxnn.errors import ConfigError, ShapeError

ANCHOR = 0.1  # the part of each output's own cost in `competing`


def quadratic(a: Array, y: Array) -> Array:
    """Sum over the outputs of the squared differences from the target.

    There is no factor 1/2: with one-hot targets a network that answers 0 everywhere costs 1.

    Args:
      a: [n_out] output activations.
      y: [n_out] target, one-hot for a digit.

    Returns:
      A scalar in [0, n_out] where a and y lie in [0, 1].
    """
    a, y = matched(a, y)
    return jnp.sum((a - y) ** 2)


def cross_entropy(a: Array, y: Array) -> Array:
    """Binary cross-entropy, -sum(y log a + (1 - y) log(1 - a)), in nats.

    Activations that have rounded to exactly 0 or 1 count as the smallest positive number, so
    that the cost stays finite (at most about 87 an output in float32).

    Args:
      a: [n_out] output activations in [0, 1].
      y: [n_out] target in [0, 1].

    Returns:
      A scalar, at least 0.
    """
    a, y = matched(a, y)
    tiny = jnp.finfo(a.dtype).tiny
    return -jnp.sum(y * jnp.log(jnp.maximum(a, tiny)) + (1 - y) * jnp.log(jnp.maximum(1 - a, tiny)))


def matched(a: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Outputs and target as arrays.

    Raises:
      ShapeError: they differ in shape; a wrong target would broadcast.
    """
    a, y = jnp.asarray(a), jnp.asarray(y)
    if a.shape != y.shape:
        raise ShapeError(f"y has shape {y.shape}, but the outputs have shape {a.shape}")
    return a, y


class Objective(NamedTuple):
    """An output layer's activation and the cost on it, as functions of its weighted inputs z.

    output: z [n_out] -> a [n_out].
    cost: (z [n_out], y [n_out]) -> scalar.
    delta: (z [n_out], y [n_out]) -> dC/dz [n_out].
    """

    output: Callable[[Array], Array]
    cost: Callable[[Array, Array], Array]
    delta: Callable[[Array, Array], Array]


def sigmoid_quadratic_delta(z: Array, y: Array) -> Array:
    """2 (a - y) sigma'(z). Source: Nielsen, Neural Networks and Deep Learning, BP1."""
    return 2 * (sigmoid(z) - y) * sigmoid_derivative(z)


def sigmoid_cross_entropy(z: Array, y: Array) -> Array:
    """sum(log(1 + e^z) - y z): binary cross-entropy of sigmoid(z), exact for any z."""
    return jnp.sum(jax.nn.softplus(z) - y * z)


def sigmoid_cross_entropy_delta(z: Array, y: Array) -> Array:
    """A - y: sigma' has cancelled. Source: Nielsen, ch. 3, eq. 68."""
    return sigmoid(z) - y


def softmax(z: Array) -> Array:
    """exp(z) / sum(exp(z)): positive, with sum 1."""
    return jax.nn.softmax(z)


def softmax_quadratic_delta(z: Array, y: Array) -> Array:
    """J' g with g = 2 (a - y) and softmax's Jacobian J = diag(a) - a a'."""
    a = softmax(z)
    g = 2 * (a - y)
    return a * (g - jnp.sum(a * g))


def softmax_cross_entropy(z: Array, y: Array) -> Array:
    """-sum(y log softmax(z)): categorical cross-entropy, exact for any z."""
    return jnp.sum(y * (logsumexp(z) - z))


def softmax_cross_entropy_delta(z: Array, y: Array) -> Array:
    """A sum(y) - y, which is a - y for targets that sum to 1."""
    return softmax(z) * jnp.sum(y) - y


def competing(z: Array, y: Array) -> Array:
    """Sigmoid outputs that compete: softmax's cross-entropy of z, and ANCHOR of each sigmoid's own.

    The class is the largest output, so what counts is which of the z is ahead: that is what the
    softmax of z sees. It does not see a constant added to all z; the second part does, so that
    each sigmoid keeps a meaning of its own, near 1 for its digit and near 0 for others.
    docs/accuracy.md has what it gives.
    """
    return softmax_cross_entropy(z, y) + ANCHOR * sigmoid_cross_entropy(z, y)


def competing_delta(z: Array, y: Array) -> Array:
    """The sum of both deltas, the second times ANCHOR."""
    return softmax_cross_entropy_delta(z, y) + ANCHOR * sigmoid_cross_entropy_delta(z, y)


OBJECTIVES = {
    ("sigmoid", "quadratic"): Objective(
        sigmoid, lambda z, y: quadratic(sigmoid(z), y), sigmoid_quadratic_delta
    ),
    ("sigmoid", "cross_entropy"): Objective(
        sigmoid, sigmoid_cross_entropy, sigmoid_cross_entropy_delta
    ),
    ("sigmoid", "competing"): Objective(sigmoid, competing, competing_delta),
    ("softmax", "quadratic"): Objective(
        softmax, lambda z, y: quadratic(softmax(z), y), softmax_quadratic_delta
    ),
    ("softmax", "cross_entropy"): Objective(
        softmax, softmax_cross_entropy, softmax_cross_entropy_delta
    ),
}


def objective(output: str, cost: str) -> Objective:
    """The objective of that output activation and cost, or ConfigError."""
    if (output, cost) not in OBJECTIVES:
        known = ", ".join(" + ".join(pair) for pair in OBJECTIVES)
        raise ConfigError(f"no cost {cost!r} on {output!r} outputs: choose one of {known}")
    return OBJECTIVES[output, cost]
