"""Long short-term memories: networks that read a sequence step by step and remember.

`lstm_cell` has one layer's mathematics, `lstm_network` the parameters; here they become a network.
Every function but the last two takes ONE example; a batch is `jax.vmap`. An example is flat, and an
`Architecture` says how it is cut into steps. `activation` stands where the classic cell has tanh;
`output` and `cost` are what stands on the readout (see `costs.OBJECTIVES`), as in every family.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn.activations import activation as activation_named
from jaxnn.costs import matched
from jaxnn.costs import objective as objective_of
from jaxnn.lstm_cell import Cell, Slopes, Steps, before, gradient, run, run_back
from jaxnn.lstm_network import (
    ARCHITECTURES,
    Architecture,
    Params,
    Readout,
    architecture_named,
    check,
    init,
    shares,
    steps_of,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Cell",
    "Params",
    "Readout",
    "Steps",
    "Trace",
    "backprop",
    "batch_backprop",
    "batch_cost_and_backprop",
    "check",
    "example_cost",
    "forward",
    "init",
    "trace",
]


class Trace(NamedTuple):
    """Every gate and state over time, for one example of T steps."""

    real: Array | None  # bool [T]: False where a step is padding; None where none can be
    layers: tuple[tuple[Steps, ...], ...]  # as in Params, the lowest first, by direction
    read: Array  # [directions * H]: what the readout sees
    z: Array  # [n_out]: its weighted inputs
    a: Array  # [n_out]: its activations, the scores


def trace(
    params: Params,
    x: Array,
    *,
    architecture: str = "rows",
    activation: str = "tanh",
    output: str = "sigmoid",
) -> Trace:
    """Gates, memories and outputs of every layer over time, for one example.

    Args:
      params: cells and readout.
      x: [T * features] floats, step after step; examples may differ in T. Where the architecture
        is masked, a step whose first feature is 0 is padding and changes nothing.
      architecture: a name in ARCHITECTURES.
      activation: in tanh's place, a name in `activations.ACTIVATIONS`.
      output: of the readout, "sigmoid" or "softmax".

    Raises:
      ShapeError: x is not a whole number of steps, at least one.
    """
    return _trace(params, steps_of(x, architecture), architecture, activation, output)[0]


def _trace(
    params: Params, x: Array, architecture: str, activation: str, output: str
) -> tuple[Trace, tuple[tuple[Slopes, ...], ...]]:
    """`trace` of steps [T, features], and the slopes of all cells, by layer and direction."""
    how, squash = architecture_named(architecture), activation_named(activation)
    real = x[:, 0] > 0 if how.masked else None
    layers, slopes = [], []
    for cells in params.layers:
        runs = [run(cell, x, real, squash, bool(d)) for d, cell in enumerate(cells)]
        layers.append(tuple(steps for steps, _ in runs))
        slopes.append(tuple(of_cell for _, of_cell in runs))
        x = _side_by_side(layers[-1])
    if how.mean:
        read = shares(x, real) @ x
    else:  # what the last step of each direction left; padding has not touched it
        read = jnp.concatenate([steps.h[(-1, 0)[d]] for d, steps in enumerate(layers[-1])])
    z = params.readout.weights @ read + params.readout.biases
    a = objective_of(output, "quadratic").output(z)
    return Trace(real, tuple(layers), read, z, a), tuple(slopes)


def _side_by_side(layer: tuple[Steps, ...]) -> Array:
    """What a layer shows the next one, [T, directions * H]."""
    return jnp.concatenate([steps.h for steps in layer], axis=1)


def forward(params: Params, x: Array, **choices: str) -> Array:
    """The scores [n_out] of one example; arguments as in `trace`."""
    return trace(params, x, **choices).a


def example_cost(
    params: Params, x: Array, y: Array, *, cost: str = "quadratic", **choices: str
) -> Array:
    """The cost of one example, a scalar: what `jax.grad` differentiates.

    Args:
      params: cells and readout.
      x: [T * features] floats, as in `trace`.
      y: [n_out] target.
      cost: "quadratic", "cross_entropy" or "competing".
      **choices: architecture, activation and output, as in `trace`.

    Raises:
      ShapeError: x or y does not fit.
    """
    z, y = matched(trace(params, x, **choices).z, y)
    return objective_of(choices.get("output", "sigmoid"), cost).cost(z, y)


class Deltas(NamedTuple):
    """What a gradient is made of: dC/dz of every product with parameters, and what went in."""

    dz: tuple[tuple[Array, ...], ...]  # [T, 4H] for each cell
    h_before: tuple[tuple[Array, ...], ...]  # [T, H] for each cell
    x: tuple[Array, ...]  # [T, n] for each layer: the features that its cells saw
    delta: Array  # [1, n_out]: dC/dz of the readout
    read: Array  # [1, directions * H]
    cost: Array  # [1]


def _deltas(
    params: Params,
    x: Array,
    y: Array,
    *,
    architecture: str = "rows",
    activation: str = "tanh",
    output: str = "sigmoid",
    cost: str = "quadratic",
) -> Deltas:
    """Backpropagation proper: from the readout down the layers, in each of them back through time.

    x are steps, [T, features].
    """
    how = architecture_named(architecture)
    (real, layers, read, z, _), slopes = _trace(params, x, architecture, activation, output)
    z, y = matched(z, y)
    objective = objective_of(output, cost)
    delta = objective.delta(z, y)
    dread = params.readout.weights.T @ delta  # [directions * H]
    last = jnp.split(jnp.zeros_like(dread) if how.mean else dread, how.directions)
    above = jnp.outer(shares(layers[-1][0].h, real), dread) if how.mean else None
    dz: list[tuple[Array, ...]] = []
    for cells, layer in zip(params.layers[::-1], slopes[::-1], strict=True):
        parts = [None] * how.directions if above is None else jnp.split(above, how.directions, 1)
        if dz:  # only the highest layer's last state is looked at
            last = [jnp.zeros_like(of_cell.h_to_c[0]) for of_cell in layer]
        dz.append(
            tuple(
                run_back(cell, of_cell, parts[d], last[d], real, bool(d))
                for d, (cell, of_cell) in enumerate(zip(cells, layer, strict=True))
            )
        )
        # What the cells of both directions ask of the features below them adds up.
        down = [of_cell @ cell.weights for of_cell, cell in zip(dz[-1], cells, strict=True)]
        above = sum(down[1:], down[0])
    return Deltas(
        dz=tuple(reversed(dz)),
        h_before=tuple(
            tuple(before(steps.h, bool(d)) for d, steps in enumerate(layer)) for layer in layers
        ),
        x=(x, *map(_side_by_side, layers[:-1])),
        delta=delta[None],
        read=read[None],
        cost=objective.cost(z, y)[None],
    )


def _gradient(found: Deltas) -> Params:
    """The sum of what all rows ask for."""
    layers = tuple(
        tuple(gradient(dz, x, h_before) for dz, h_before in zip(*of_cells, strict=True))
        for *of_cells, x in zip(found.dz, found.h_before, found.x, strict=True)
    )
    readout = Readout(found.delta.T @ found.read, jnp.sum(found.delta, axis=0))
    return Params(layers, readout)


def backprop(params: Params, x: Array, y: Array, **choices: str) -> Params:
    """Gradient of one example's cost, by the chain rule and without `jax.grad`.

    Args:
      params: cells and readout.
      x: [T * features] floats, as in `trace`.
      y: [n_out] target.
      **choices: architecture, activation, output and cost, as in `example_cost`.

    Returns:
      dC/dparams: the same tree, shapes and dtype as `params`.

    Raises:
      ShapeError: x or y does not fit.
    """
    x = steps_of(x, choices.get("architecture", "rows"))
    return _gradient(_deltas(params, x, y, **choices))


def batch_backprop(params: Params, x: Array, y: Array, **choices: str) -> Params:
    """Gradient of a batch's mean cost, by matrix products over time and batch together.

    Args:
      params: cells and readout.
      x: [B, T * features] floats.
      y: [B, n_out] targets.
      **choices: as in `backprop`.

    Returns:
      The mean over the batch of dC/dparams, the same tree as `params`.
    """
    return batch_cost_and_backprop(params, x, y, **choices)[1]


def batch_cost_and_backprop(
    params: Params, x: Array, y: Array, **choices: str
) -> tuple[Array, Params]:
    """A batch's mean cost, and `batch_backprop`, from one walk through time.

    XLA does not see that two scans do the same: the cost apart from its gradient takes another.
    """
    architecture = choices.get("architecture", "rows")
    steps = jax.vmap(lambda x: steps_of(x, architecture))(x)  # [B, T, features]
    # Time goes first, as the scans want it: to turn the features round here is the cheapest place.
    found = jax.vmap(lambda x, y: _deltas(params, x, y, **choices), in_axes=(1, 0), out_axes=1)(
        jnp.swapaxes(steps, 0, 1), y
    )
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    mean = jax.tree.map(lambda leaf: leaf / len(x), _gradient(rows))
    return jnp.mean(rows.cost), mean
