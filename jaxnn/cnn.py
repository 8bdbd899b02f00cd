"""The convolutional network: small patterns, looked for everywhere in a picture.

A sibling of `mlp`, with functions of the same names. Parameters are a tuple with an entry for each
layer: a NamedTuple of plain arrays, or () where a layer has none. Every function takes ONE example,
a flat picture [side * side]; a batch is `jax.vmap`.

The layers themselves, each with its way forward and its way back, are in `cnn_convolve` and
`cnn_layers`, the architectures in `cnn_network`. What stands here is the chain: forward from layer
to layer, and backward by the chain rule, link by link.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn.cnn_network import ARCHITECTURES, Layer, Params, check, init, layers, shapes
from jaxnn.costs import matched
from jaxnn.costs import objective as objective_of
from jaxnn.errors import ShapeError

__all__ = [
    "ARCHITECTURES", "Params", "Trace", "backprop", "batch_backprop", "check", "deltas",
    "example_cost", "forward", "init", "layers", "shapes", "trace",
]  # fmt: skip


class Trace(NamedTuple):
    """What every layer was given and gave, for one example."""

    a: tuple[Array, ...]  # one more than layers: a[0] is the picture [side, side, 1], a[l + 1] is
    # what layer l gave: [H, W, C], or [n] behind a Connect; the last is z, weighted inputs
    scores: Array  # [n_out] the last layer's activations


def trace(
    params: Params,
    x: Array,
    *,
    architecture: str = "lenet",
    activation: str = "relu",
    output: str = "softmax",
) -> Trace:
    """What every layer makes of one example.

    Args:
      params: an entry for each layer.
      x: [side * side] intensities in [0, 1], row by row.
      architecture: a name in ARCHITECTURES.
      activation: what `Activate` does, a name in `activations.ACTIVATIONS`.
      output: of the last layer, "sigmoid" or "softmax".

    Raises:
      ShapeError: x does not fit (while tracing, under jit).
    """
    x = jnp.asarray(x)
    side = math.isqrt(x.size)
    if x.ndim != 1 or side**2 != x.size:
        raise ShapeError(f"x has shape {x.shape}, expected one square picture, flattened")
    some = layers(architecture, (x.size, len(params[-1].biases)), activation)
    _check(params, some, x.size)
    a = [x.reshape(side, side, 1)]
    for layer, of_layer in zip(some, params, strict=True):
        a.append(layer.forward(of_layer, a[-1]))
    return Trace(tuple(a), objective_of(output, "quadratic").output(a[-1]))


def forward(params: Params, x: Array, **choices: str) -> Array:
    """The last layer's activations, [n_out], for one example; arguments as in `trace`."""
    return trace(params, x, **choices).scores


def example_cost(
    params: Params,
    x: Array,
    y: Array,
    *,
    architecture: str = "lenet",
    activation: str = "relu",
    output: str = "softmax",
    cost: str = "cross_entropy",
) -> Array:
    """The cost of one example, a scalar: what `jax.grad` differentiates.

    Args:
      params: an entry for each layer.
      x: [side * side] picture.
      y: [n_out] target, one-hot for a digit.
      architecture: as in `trace`.
      activation: as in `trace`.
      output: as in `trace`.
      cost: one that goes with the output, see `costs.OBJECTIVES`.

    Raises:
      ShapeError: x or y does not fit.
    """
    choices = {"architecture": architecture, "activation": activation, "output": output}
    z, y = matched(trace(params, x, **choices).a[-1], y)
    return objective_of(output, cost).cost(z, y)


def deltas(
    params: Params,
    x: Array,
    y: Array,
    *,
    architecture: str = "lenet",
    activation: str = "relu",
    output: str = "softmax",
    cost: str = "cross_entropy",
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Backpropagation proper: how the cost answers to what every layer gave.

    Starts with dC/dz of the last layer and walks back: each layer says what its input did to the
    cost, given what its output did.

    Returns:
      What each layer was given, and dC/dout of each layer.
    """
    choices = {"architecture": architecture, "activation": activation, "output": output}
    a, _ = trace(params, x, **choices)
    z, y = matched(a[-1], y)
    delta = objective_of(output, cost).delta(z, y)
    found = [delta]
    some = layers(architecture, (x.size, len(z)), activation)
    for index in range(len(some) - 1, 0, -1):  # what the picture itself would do is not asked
        delta = some[index].backward(params[index], a[index], a[index + 1], delta)
        found.append(delta)
    return a[:-1], tuple(reversed(found))


def backprop(params: Params, x: Array, y: Array, **choices: str) -> Params:
    """Gradient of one example's cost, by the chain rule and without `jax.grad`.

    Args:
      params: an entry for each layer.
      x: [side * side] picture, intensities in [0, 1], row by row.
      y: [n_out] target, one-hot for a digit.
      **choices: architecture, activation, output and cost, as in `example_cost`.

    Returns:
      dC/dparams: the same tree, shapes and dtype as `params`.

    Raises:
      ShapeError: x or y does not fit.
    """
    return batch_backprop(params, jnp.asarray(x)[None], jnp.asarray(y)[None], **choices)


def batch_backprop(params: Params, x: Array, y: Array, **choices: str) -> Params:
    """Gradient of a batch's mean cost: what the examples ask for, summed as it is made.

    Args:
      params: as in `backprop`.
      x: [B, side * side] pictures.
      y: [B, n_out] targets.
      **choices: as in `backprop`.

    Returns:
      The mean over the batch of dC/dparams, the same tree as `params`.
    """
    fed, delta = jax.vmap(lambda x, y: deltas(params, x, y, **choices))(x, y)
    some = layers(choices.get("architecture", "lenet"), (x.shape[1], y.shape[1]))
    sums = (layer.gradient(a, d) for layer, a, d in zip(some, fed, delta, strict=True))
    return jax.tree.map(lambda total: total / len(x), tuple(sums))


def _check(params: Params, some: Sequence[Layer], pixels: int) -> None:
    """Raises ShapeError where parameters, layers and picture do not belong together."""
    for layer, of_layer, shape in zip(some, params, shapes(some, pixels), strict=False):
        expected = tuple(layer.params(shape))
        found = tuple(jnp.shape(leaf) for leaf in of_layer)
        if found != expected:
            raise ShapeError(
                f"a {type(layer).__name__} has parameters of shapes {found}, expected {expected}: "
                f"x with {pixels} pixels does not fit the network"
            )
