"""Activation functions, each with its derivative beside it.

An activation turns the weighted input z of a neuron into its activation a. All of them act
element by element on arrays of any shape and keep the dtype. The derivative is taken at z,
not at a; where the function has a kink the derivative is the one that `jax.grad` picks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

from jaxnn.errors import ConfigError


class Activation(NamedTuple):
    """An element-wise function of z, and its derivative at z."""

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)): squeezes the number line into (0, 1)."""
    return jax.nn.sigmoid(z)


def sigmoid_derivative(z: Array) -> Array:
    """sigmoid(z) (1 - sigmoid(z)): at most 1/4, at z = 0, and nearly 0 where |z| > 10."""
    a = sigmoid(z)
    return a * (1 - a)


def tanh(z: Array) -> Array:
    """A sigmoid stretched to (-1, 1): 2 sigmoid(2z) - 1."""
    return jnp.tanh(z)


def tanh_derivative(z: Array) -> Array:
    """1 - tanh(z)^2."""
    return 1 - jnp.tanh(z) ** 2


def relu(z: Array) -> Array:
    """max(0, z)."""
    return jax.nn.relu(z)


def relu_derivative(z: Array) -> Array:
    """1 where z > 0, else 0; 0 at the kink."""
    return (z > 0).astype(z.dtype)


LEAK = 0.01  # slope of leaky relu below 0


def leaky_relu(z: Array) -> Array:
    """Z where z >= 0, else 0.01 z: a relu whose gradient never vanishes."""
    return jax.nn.leaky_relu(z, LEAK)


def leaky_relu_derivative(z: Array) -> Array:
    """1 where z >= 0, else 0.01; 1 at the kink."""
    return jnp.where(z >= 0, jnp.ones_like(z), jnp.full_like(z, LEAK))


def gelu(z: Array) -> Array:
    """Z Phi(z), with Phi the normal distribution function (exact, not the tanh form)."""
    return jax.nn.gelu(z, approximate=False)


def gelu_derivative(z: Array) -> Array:
    """Phi(z) + z phi(z). Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016."""
    return norm.cdf(z) + z * norm.pdf(z)


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, sigmoid_derivative),
    "tanh": Activation(tanh, tanh_derivative),
    "relu": Activation(relu, relu_derivative),
    "leaky_relu": Activation(leaky_relu, leaky_relu_derivative),
    "gelu": Activation(gelu, gelu_derivative),
}


def activation(name: str) -> Activation:
    """The activation of that name, or ConfigError."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
