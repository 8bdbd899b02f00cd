"""The multilayer perceptron: layers of neurons, each seeing the whole layer before it.

Parameters are a tuple of `Layer`s, a pytree of plain arrays and nothing else. Every function
takes ONE example; a batch is `jax.vmap`. `activation` names the hidden layers' function,
`output` and `cost` what stands on the last layer (see `costs.OBJECTIVES`); by default the classic
network: sigmoids everywhere and the quadratic cost.

    z[l] = W[l] a[l-1] + b[l]        weighted inputs of layer l; a[0] is the picture
    a[l] = sigma(z[l])               activations, numbers from 0 to 1
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxnn.activations import activation as activation_named
from jaxnn.costs import matched
from jaxnn.costs import objective as objective_of
from jaxnn.errors import ConfigError, ShapeError

CLASSIC_SIZES = (784, 16, 16, 10)


class Layer(NamedTuple):
    """One layer's weights and biases."""

    weights: Array  # [n_out, n_in]: row j is what neuron j looks for
    biases: Array  # [n_out]


Params = tuple[Layer, ...]


class Trace(NamedTuple):
    """Every neuron's state for one example."""

    z: tuple[Array, ...]  # one [n_l] a layer: weighted inputs
    a: tuple[Array, ...]  # one more than z, since a[0] is x: activations


def init(
    key: Array, sizes: Sequence[int] = CLASSIC_SIZES, dtype: DTypeLike | None = None
) -> Params:
    """Random parameters: weights normal with variance 1/n_in, biases normal with variance 1.

    Why: a sigmoid learns only where its slope is not flat, |z| of a few units. The sum of n_in
    weighted inputs has a variance n_in times that of one weight, so a variance of 1/n_in keeps
    z near 1 for any width. With unit weights a neuron that sees 100 lit pixels would have |z|
    about 10, a slope below 1e-4, and would hardly learn.

    Args:
      key: a typed random key, `jax.random.key(seed)`.
      sizes: neurons in each layer, the inputs first: (784, 16, 16, 10) has 13,002 parameters.
      dtype: of every array; JAX's default float where None.

    Returns:
      A tuple of len(sizes) - 1 layers.

    Raises:
      ConfigError: fewer than two sizes, or one below 1.

    Source: LeCun, Bottou, Orr, Mueller, Efficient BackProp, 1998, sec. 4.6.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"sizes are {tuple(sizes)}: give two or more, each at least 1")
    pairs = list(itertools.pairwise(sizes))
    shapes = [shape for n_in, n_out in pairs for shape in ((n_out, n_in), (n_out,))]
    keys = jax.vmap(jax.random.split)(jax.random.split(key, len(pairs))).reshape(-1)
    # One draw of the longest for all, then cut: XLA compiles a draw of every length anew.
    longest = max(map(math.prod, shapes))
    drawn = jax.vmap(lambda key: jax.random.normal(key, (longest,), dtype))(keys)
    weights, biases = (
        [drawn[k, : math.prod(shapes[k])].reshape(shapes[k]) for k in range(part, len(shapes), 2)]
        for part in (0, 1)
    )
    return tuple(
        Layer(w / float(n_in) ** 0.5, b)
        for w, b, (n_in, _) in zip(weights, biases, pairs, strict=True)
    )


def sizes_of(params: Params) -> tuple[int, ...]:
    """The neurons in each layer, the inputs first."""
    return (params[0].weights.shape[1], *(layer.weights.shape[0] for layer in params))


def trace(
    params: Params, x: Array, *, activation: str = "sigmoid", output: str = "sigmoid"
) -> Trace:
    """Weighted inputs z and activations a of every layer, for one example.

    Args:
      params: layers of weights [n_out, n_in] and biases [n_out].
      x: [n_in of the first layer] input, for a digit [784] intensities in [0, 1].
      activation: of the hidden layers, a name in `activations.ACTIVATIONS`.
      output: of the last layer, "sigmoid" or "softmax".

    Raises:
      ShapeError: x does not fit the first layer (while tracing, under jit).
    """
    x = jnp.asarray(x)
    n_in = params[0].weights.shape[1]
    if x.shape != (n_in,):
        raise ShapeError(f"x has shape {x.shape}, expected ({n_in},): one example, flattened")
    hidden = activation_named(activation).function
    outer = objective_of(output, "quadratic").output
    z: list[Array] = []
    a = [x]
    for index, layer in enumerate(params):
        z.append(layer.weights @ a[-1] + layer.biases)
        a.append(outer(z[-1]) if index == len(params) - 1 else hidden(z[-1]))
    return Trace(tuple(z), tuple(a))


def forward(
    params: Params, x: Array, *, activation: str = "sigmoid", output: str = "sigmoid"
) -> Array:
    """The last layer's activations, [n_out], for one example; arguments as in `trace`."""
    return trace(params, x, activation=activation, output=output).a[-1]


def example_cost(
    params: Params,
    x: Array,
    y: Array,
    *,
    activation: str = "sigmoid",
    output: str = "sigmoid",
    cost: str = "quadratic",
) -> Array:
    """The cost of one example, a scalar: what `jax.grad` differentiates.

    Args:
      params: layers of weights [n_out, n_in] and biases [n_out].
      x: [n_in] input.
      y: [n_out] target, one-hot for a digit.
      activation: of the hidden layers.
      output: of the last layer.
      cost: "quadratic" or "cross_entropy".

    Raises:
      ShapeError: x or y does not fit the layers.
    """
    z = trace(params, x, activation=activation, output=output).z[-1]
    z, y = matched(z, y)
    return objective_of(output, cost).cost(z, y)


def deltas(
    params: Params,
    x: Array,
    y: Array,
    *,
    activation: str = "sigmoid",
    output: str = "sigmoid",
    cost: str = "quadratic",
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Backpropagation proper: how the cost answers to the weighted input of every neuron.

    Starts with dC/dz of the last layer and walks back: a neuron of layer l moves C through
    every neuron of layer l + 1 that it feeds, in proportion to the weights between them.

    Returns:
      Activations a[0] .. a[L-1] that feed each layer, and dC/dz of each layer, [n_l].

    Source: Nielsen, Neural Networks and Deep Learning, ch. 2, BP1 and BP2.
    """
    slope = activation_named(activation).derivative
    z, a = trace(params, x, activation=activation, output=output)
    _, y = matched(z[-1], y)
    delta = objective_of(output, cost).delta(z[-1], y)  # BP1
    found = [delta]
    for layer, z_before in zip(params[:0:-1], z[-2::-1], strict=True):
        delta = (layer.weights.T @ delta) * slope(z_before)  # BP2
        found.append(delta)
    return a[:-1], tuple(reversed(found))


def backprop(
    params: Params,
    x: Array,
    y: Array,
    *,
    activation: str = "sigmoid",
    output: str = "sigmoid",
    cost: str = "quadratic",
) -> Params:
    """Gradient of one example's cost, by the chain rule and without `jax.grad`.

    Args:
      params: layers of weights [n_out, n_in] and biases [n_out].
      x: [n_in] input, for a digit [784] intensities in [0, 1], row-major 28 x 28.
      y: [n_out] target, one-hot for a digit.
      activation: of the hidden layers.
      output: of the last layer.
      cost: "quadratic" (the sum of squares has no factor 1/2) or "cross_entropy".

    Returns:
      dC/dparams: the same tree, shapes and dtype as `params`.

    Raises:
      ShapeError: x or y does not fit the layers.

    Source: Nielsen, Neural Networks and Deep Learning, ch. 2, BP1 to BP4.
    """
    fed, delta = deltas(params, x, y, activation=activation, output=output, cost=cost)
    return tuple(Layer(jnp.outer(d, a), d) for a, d in zip(fed, delta, strict=True))  # BP4, BP3


def batch_backprop(
    params: Params,
    x: Array,
    y: Array,
    *,
    activation: str = "sigmoid",
    output: str = "sigmoid",
    cost: str = "quadratic",
) -> Params:
    """Gradient of a batch's mean cost: the outer products of `backprop`, summed as they are made.

    One matrix product a layer takes the place of B outer products of [n_out, n_in] each.

    Args:
      params: as in `backprop`.
      x: [B, n_in] inputs.
      y: [B, n_out] targets.
      activation: of the hidden layers.
      output: of the last layer.
      cost: of one example; the batch's is the mean.

    Returns:
      The mean over the batch of dC/dparams, the same tree as `params`.
    """

    def of_one(x: Array, y: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        return deltas(params, x, y, activation=activation, output=output, cost=cost)

    fed, delta = jax.vmap(of_one)(x, y)  # [B, n_in] and [B, n_out] a layer
    return tuple(
        Layer(d.T @ a / x.shape[0], jnp.mean(d, axis=0)) for a, d in zip(fed, delta, strict=True)
    )
