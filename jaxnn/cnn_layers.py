"""The layers of a convolutional network, each with its way forward and its way back.

A layer is a description of plain values. Its functions take ONE example, a [H, W, C] (rows,
columns, maps; behind a `Connect` [n]); `jax.vmap` makes a batch of it. Each of them is a link of
the chain:

    forward    a -> out
    backward   dC/dout -> dC/da: how the cost answers to what the layer was given
    gradient   dC/dparams, summed over a batch, from what the layer was given and dC/dout
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn.activations import activation as activation_named

Shape = tuple[int, ...]
EPSILON = 1e-5  # keeps the division by a map's spread finite


class Gains(NamedTuple):
    """The parameters of `Normalise`."""

    gains: Array  # [C]
    biases: Array  # [C]


class Weights(NamedTuple):
    """The parameters of `Connect`."""

    weights: Array  # [n_out, n_in]: row j is what neuron j looks for
    biases: Array  # [n_out]


class Pool(NamedTuple):
    """Each map made smaller: of every square of places the largest value, or the average.

    "max" belongs right behind a `Convolve`. What other layers give, XLA may compute once for the
    maximum and once more for its place, rounded in two ways, and then no place holds the maximum.
    """

    kind: str  # "max" or "average"
    window: int = 2  # height and width of a square; they lie side by side

    def shape(self, shape: Shape) -> Shape:
        """Places at the far edges that fill no square are left out."""
        return (*(side // self.window for side in shape[:2]), shape[2])

    def params(self, shape: Shape) -> Any:
        """None."""
        return ()

    def forward(self, params: tuple[()], a: Array) -> Array:
        """[H, W, C] -> [H', W', C]."""
        squares = self._squares(a)
        return jnp.max(squares, (1, 3)) if self.kind == "max" else jnp.mean(squares, (1, 3))

    def backward(self, params: tuple[()], a: Array, out: Array, delta: Array) -> Array:
        """Routing: dC/dout goes back to where the value came from.

        From a maximum that is one place, or in equal parts all places that hold it; from an average
        it is every place of the square.
        """
        squares = self._squares(a)
        chosen = jnp.ones_like(squares)
        if self.kind == "max":
            chosen = (squares == out[:, None, :, None]).astype(a.dtype)
        share = delta / jnp.sum(chosen, (1, 3))
        high, wide, maps = out.shape
        routed = (chosen * share[:, None, :, None]).reshape(
            high * self.window, wide * self.window, maps
        )
        return jnp.pad(
            routed, [(0, side - kept) for side, kept in zip(a.shape, routed.shape, strict=True)]
        )

    def gradient(self, fed: Array, delta: Array) -> tuple[()]:
        """Nothing to learn here."""
        return ()

    def _squares(self, a: Array) -> Array:
        """[H', window, W', window, C]."""
        high, wide, maps = self.shape(a.shape)
        cut = a[: high * self.window, : wide * self.window]
        return cut.reshape(high, self.window, wide, self.window, maps)


class Activate(NamedTuple):
    """The activation function, at every place of every map; "" is the one of the network."""

    name: str = ""

    def shape(self, shape: Shape) -> Shape:
        """The same."""
        return shape

    def params(self, shape: Shape) -> Any:
        """None."""
        return ()

    def forward(self, params: tuple[()], a: Array) -> Array:
        """sigma(a)."""
        return activation_named(self.name).function(a)

    def backward(self, params: tuple[()], a: Array, out: Array, delta: Array) -> Array:
        """dC/dout sigma'(a)."""
        return delta * activation_named(self.name).derivative(a)

    def gradient(self, fed: Array, delta: Array) -> tuple[()]:
        """Nothing to learn here."""
        return ()


class Normalise(NamedTuple):
    """All maps of ONE example brought to mean 0 and variance 1; then each has a gain and a bias.

        n = (a - mean(a)) / sqrt(var(a) + EPSILON)
        out[i, j, c] = g[c] n[i, j, c] + b[c]

    Source: Ba, Kiros, Hinton, Layer Normalization, 2016. The example's own mean and variance, and
    not a batch's: so an answer depends on nothing but the picture, in training and ever after.
    """

    def shape(self, shape: Shape) -> Shape:
        """The same."""
        return shape

    def params(self, shape: Shape) -> Any:
        """The shapes of its parameters."""
        return Gains(shape[-1:], shape[-1:])  # type: ignore[arg-type]

    def forward(self, params: Gains, a: Array) -> Array:
        """As the formulas above say."""
        return params.gains[None, None] * _normal(a)[0] + params.biases[None, None]

    def backward(self, params: Gains, a: Array, out: Array, delta: Array) -> Array:
        """With d = g dC/dout: (d - mean(d) - n mean(d n)) / sqrt(var(a) + EPSILON).

        What would change the mean or the variance alone is taken out of d: they are fixed.
        """
        n, spread = _normal(a)
        d = params.gains[None, None] * delta
        return (d - jnp.mean(d) - n * jnp.mean(d * n)) / spread

    def gradient(self, fed: Array, delta: Array) -> Gains:
        """sum(dC/dout n) and sum(dC/dout), over the places and the batch."""
        n = jax.vmap(_normal)(fed)[0]
        places = tuple(range(delta.ndim - 1))
        return Gains(jnp.sum(delta * n, axis=places), jnp.sum(delta, axis=places))


class Connect(NamedTuple):
    """Neurons that see all that comes before them, as in an mlp: W a + b, without activation."""

    neurons: int

    def shape(self, shape: Shape) -> Shape:
        """One dimension."""
        return (self.neurons,)

    def params(self, shape: Shape) -> Any:
        """The shapes of its parameters."""
        return Weights((self.neurons, math.prod(shape)), (self.neurons,))  # type: ignore[arg-type]

    def forward(self, params: Weights, a: Array) -> Array:
        """W a + b, a flattened row by row, maps last."""
        return params.weights @ a.ravel() + params.biases

    def backward(self, params: Weights, a: Array, out: Array, delta: Array) -> Array:
        """W' dC/dout, in the shape of a."""
        return (params.weights.T @ delta).reshape(a.shape)

    def gradient(self, fed: Array, delta: Array) -> Weights:
        """The outer products of dC/dout and a, summed over the batch as they are made."""
        return Weights(delta.T @ fed.reshape(len(fed), -1), jnp.sum(delta, axis=0))


def _normal(a: Array) -> tuple[Array, Array]:
    """A with mean 0 and variance 1, and what it was divided by."""
    spread = jnp.sqrt(jnp.var(a) + EPSILON)
    return (a - jnp.mean(a)) / spread, spread
