"""What a long short-term memory is made of: its architectures, its parameters, and its first ones.

Layers of `lstm_cell.Cell`s, one above the other, each in one or in both directions of time, and on
top a `Readout` that looks at what they made of the whole sequence. `lstm` computes with them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxnn.errors import ConfigError, ShapeError
from jaxnn.lstm_cell import Cell


class Architecture(NamedTuple):
    """How an example becomes steps, and what of the steps is read."""

    features: int  # numbers a step
    directions: int  # 1: forwards; 2: backwards as well, side by side
    masked: bool  # sequences differ in length: a step whose first feature is 0 is padding
    mean: bool  # the readout sees the mean output of the real steps; else that after the last


ARCHITECTURES = {
    "rows": Architecture(features=28, directions=1, masked=False, mean=False),
    "speech": Architecture(features=40, directions=2, masked=True, mean=True),
}


class Readout(NamedTuple):
    """From what was remembered to the classes."""

    weights: Array  # [n_out, directions * H]
    biases: Array  # [n_out]


class Params(NamedTuple):
    """Cells of all layers, the lowest first, and the readout."""

    layers: tuple[tuple[Cell, ...], ...]  # a cell for each direction
    readout: Readout


def architecture_named(name: str) -> Architecture:
    """The architecture of that name, or ConfigError."""
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"an lstm has no architecture {name!r}: choose one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def check(sizes: Sequence[int], architecture: str) -> None:
    """Raises ConfigError where an architecture is not known, or sizes do not fit it."""
    features = architecture_named(architecture).features
    if len(sizes) < 3 or min(sizes) < 1 or sizes[0] % features:
        raise ConfigError(
            f"sizes are {tuple(sizes)}: an lstm of architecture {architecture!r} needs a multiple "
            f"of {features} inputs, one or more hidden widths, and the classes"
        )


def steps_of(x: Array, architecture: str) -> Array:
    """One flat example cut into steps, [T, features].

    Raises:
      ShapeError: x is not a whole number of steps, at least one.
    """
    features = architecture_named(architecture).features
    x = jnp.asarray(x)
    if x.ndim != 1 or x.size == 0 or x.size % features:
        raise ShapeError(
            f"x has shape {x.shape}, expected one example, flattened: steps of {features} numbers"
        )
    return x.reshape(-1, features)


def shares(h: Array, real: Array | None) -> Array:
    """The part [T] of each step in the mean over the real ones; 0 where none is real."""
    if real is None:
        return jnp.full(len(h), 1 / len(h), h.dtype)
    return real.astype(h.dtype) / jnp.maximum(jnp.sum(real), 1).astype(h.dtype)


def init(
    key: Array,
    sizes: Sequence[int],
    *,
    architecture: str = "rows",
    dtype: DTypeLike | None = None,
) -> Params:
    """Random parameters: weights normal with variance 1/n_in, biases 0, of the forget gate 1.

    Why 1: a forget gate of sigmoid(0) = 1/2 halves the memory at every step, and with it the slope
    that comes back through time; of one step in ten a thousandth is left. With sigmoid(1) = 0.73 it
    is a twentieth, enough to begin with.

    Args:
      key: a typed random key.
      sizes: inputs, the hidden widths from the lowest layer to the highest, classes.
      architecture: a name in ARCHITECTURES.
      dtype: of every array; JAX's default float where None.

    Raises:
      ConfigError: as `check`.

    Source: Gers, Schmidhuber and Cummins, 2000, and Jozefowicz, Zaremba and Sutskever, An empirical
    exploration of recurrent network architectures, 2015, who found a bias of 1 to matter.
    """
    check(sizes, architecture)
    features, directions, _, _ = ARCHITECTURES[architecture]
    widths = sizes[1:-1]
    seen = [features, *(directions * width for width in widths)]  # by each layer and the readout
    shapes = []
    for n_in, width in zip(seen, widths, strict=False):
        shapes += directions * [(4 * width, n_in), (4 * width, width)]
    shapes.append((sizes[-1], seen[-1]))
    # One draw of the longest for all, then cut: XLA compiles a draw of every length anew.
    longest = max(map(math.prod, shapes))
    keys = jax.random.split(key, len(shapes))
    drawn = jax.vmap(lambda key: jax.random.normal(key, (longest,), dtype))(keys)
    weights = iter(
        [
            row[: math.prod(shape)].reshape(shape) / float(shape[1]) ** 0.5
            for row, shape in zip(drawn, shapes, strict=True)
        ]
    )
    layers = []
    for width in widths:
        biases = jnp.zeros(4 * width, dtype).at[width : 2 * width].set(1)
        layers.append(tuple(Cell(next(weights), next(weights), biases) for _ in range(directions)))
    return Params(tuple(layers), Readout(next(weights), jnp.zeros(sizes[-1], dtype)))
