"""One neuron a layer, so that the chain rule can be read off as a product of plain numbers.

    z[l] = w[l] a[l-1] + b[l]        a[l] = sigmoid(z[l])        C = (a[L] - y)^2        a[0] = x

C depends on w[l] through z[l] and a[l] only, so that

    dC/dw[l]   = dz/dw x da/dz x dC/da = a[l-1] x sigmoid'(z[l]) x dC/da[l]
    dC/db[l]   = dz/db x da/dz x dC/da =   1    x sigmoid'(z[l]) x dC/da[l]
    dC/da[l-1] = dz/da x da/dz x dC/da = w[l]   x sigmoid'(z[l]) x dC/da[l]

and the last line hands dC/da to the layer before. Everything in float64: a derivative is compared
with what a tiny move does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import mlp
from jaxnn.errors import ConfigError
from jaxnn.mlp import Layer, Params

LIMIT = 100.0  # of every given number: far beyond where a sigmoid is flat
STEP = 1e-5  # to either side of a parameter; the error of the difference is about its square


class Derivative(NamedTuple):
    """How the cost answers to one number: three factors, their product, and a trial."""

    name: str  # such as "w3"
    factors: tuple[tuple[str, float], ...]  # (("dz3/dw3", ...), ("da3/dz3", ...), ("dC/da3", ...))
    product: float
    measured: float  # central difference: the number moved by STEP to either side


class Stop(NamedTuple):
    """One number that a nudge passes on its way to the cost."""

    name: str  # such as "z3"
    before: float
    after: float  # recomputed with the nudged weight
    predicted: float  # before + the nudge times the factors up to here
    factor: str  # what multiplied the nudge on the step to here, such as "dz3/dw3"; "" at the start
    slope: float  # its value; 1 at the start


class Chain(NamedTuple):
    """A chain of neurons for one example: the way forward, and every sensitivity."""

    weights: tuple[float, ...]  # one a layer
    biases: tuple[float, ...]  # one a layer
    x: float
    y: float
    z: tuple[float, ...]  # one a layer
    a: tuple[float, ...]  # one more: a[0] is x
    cost: float
    derivatives: tuple[Derivative, ...]  # w, b and the activation before, the last layer first


def explain(weights: Sequence[float], biases: Sequence[float], x: float, y: float) -> Chain:
    """The forward pass of a chain and the derivative of its cost by every number in it.

    Args:
      weights: one a layer, at least one.
      biases: as many.
      x: the input.
      y: what the last neuron should say; the cost is (a - y)^2.

    Raises:
      ConfigError: not one bias for each weight, or a number outside -100 to 100.

    Source: Nielsen, Neural Networks and Deep Learning, ch. 2, with one neuron a layer.
    """
    _check(weights, biases, x, y)
    a, z = _forward(weights, biases, x)
    found = []
    dc_da = 2 * (a[-1] - y)
    for layer in range(len(weights), 0, -1):
        before = "x" if layer == 1 else f"a{layer - 1}"
        da_dz = a[layer] * (1 - a[layer])  # sigmoid'(z)
        names = (f"w{layer}", f"b{layer}", before)
        dz = (a[layer - 1], 1.0, weights[layer - 1])  # z = w a + b, by w, by b and by a
        measured = _measure(weights[layer - 1 :], biases[layer - 1 :], a[layer - 1], y)
        found += [
            Derivative(
                name,
                (
                    (f"dz{layer}/d{name}", slope),
                    (f"da{layer}/dz{layer}", da_dz),
                    (f"dC/da{layer}", dc_da),
                ),
                slope * da_dz * dc_da,
                trial,
            )
            for name, slope, trial in zip(names, dz, measured, strict=True)
        ]
        dc_da = found[-1].product  # dC/da of the layer before
    return Chain(
        tuple(weights), tuple(biases), x, y, z, a, cost=(a[-1] - y) ** 2, derivatives=tuple(found)
    )


def travel(chain: Chain, layer: int, nudge: float) -> tuple[Stop, ...]:
    """What a nudge to one weight does to z, a, the layers after and the cost.

    Args:
      chain: what `explain` gave.
      layer: whose weight is nudged, from 1.
      nudge: added to the weight.

    Returns:
      Stops in order: the weight, z and a of each layer from there on, and the cost. At each,
      the number recomputed, and what the product of the slopes so far predicts of it.

    Raises:
      ConfigError: a nudge of 0, or outside -100 to 100.
    """
    if not 0 < abs(nudge) <= LIMIT:
        raise ConfigError(
            f"the nudge is {nudge:g}, expected a number from {-LIMIT:g} to {LIMIT:g} that is not 0"
        )
    moved = list(chain.weights)
    moved[layer - 1] += nudge
    a, z = _forward(moved, chain.biases, chain.x)
    stops = [
        Stop(f"w{layer}", chain.weights[layer - 1], moved[layer - 1], moved[layer - 1], "", 1.0)
    ]

    def go(name: str, before: float, after: float, slope: float) -> None:
        last = stops[-1]
        predicted = before + slope * (last.predicted - last.before)
        stops.append(Stop(name, before, after, predicted, f"d{name}/d{last.name}", slope))

    for at in range(layer, len(moved) + 1):
        slope = chain.a[at - 1] if at == layer else chain.weights[at - 1]
        go(f"z{at}", chain.z[at - 1], z[at - 1], slope)
        go(f"a{at}", chain.a[at], a[at], chain.a[at] * (1 - chain.a[at]))
    go("C", chain.cost, (a[-1] - chain.y) ** 2, 2 * (chain.a[-1] - chain.y))
    return tuple(stops)


def _params(weights: Sequence[float], biases: Sequence[float]) -> Params:
    """A chain as the network that it is: layers of one neuron with one input, in float64."""
    return tuple(
        Layer(jnp.full((1, 1), w, jnp.float64), jnp.full(1, b, jnp.float64))
        for w, b in zip(weights, biases, strict=True)
    )


def _forward(
    weights: Sequence[float], biases: Sequence[float], x: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Every a, x first, and every z."""
    with jax.enable_x64(True):
        z, a = jax.jit(mlp.trace)(_params(weights, biases), jnp.full(1, x, jnp.float64))
        return tuple(float(value[0]) for value in a), tuple(float(value[0]) for value in z)


def _measure(
    weights: Sequence[float], biases: Sequence[float], x: float, y: float
) -> tuple[float, float, float]:
    """dC/d(weight), dC/d(bias) and dC/d(input) of a chain's first neuron, by moving each a little.

    Any neuron is the first of the chain that begins with it, its input the activation before.
    """
    slopes = []
    for move in STEP * np.eye(3):
        costs = [
            _cost((weights[0] + w, *weights[1:]), (biases[0] + b, *biases[1:]), x + a, y)
            for w, b, a in (move, -move)
        ]
        slopes.append((costs[0] - costs[1]) / (2 * STEP))
    return slopes[0], slopes[1], slopes[2]


def _cost(weights: Sequence[float], biases: Sequence[float], x: float, y: float) -> float:
    with jax.enable_x64(True):
        one = jnp.full(1, x, jnp.float64), jnp.full(1, y, jnp.float64)
        return float(jax.jit(mlp.example_cost)(_params(weights, biases), *one))


def _check(weights: Sequence[float], biases: Sequence[float], x: float, y: float) -> None:
    if not len(weights) == len(biases) > 0:
        raise ConfigError(
            f"{len(weights)} weights and {len(biases)} biases: give one of each a layer"
        )
    for number in (*weights, *biases, x, y):
        if not -LIMIT <= number <= LIMIT:  # not a number fails too
            raise ConfigError(f"{number:g} is given, expected numbers from {-LIMIT:g} to {LIMIT:g}")
