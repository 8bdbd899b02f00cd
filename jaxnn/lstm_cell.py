"""One layer of a long short-term memory in one direction: through time, and back through time.

A step takes the features x[t] and what the step before left, an output h[t-1] and a memory c[t-1]:

    z    = weights x[t] + recurrent h[t-1] + biases     weighted inputs of four gates of H each
    i    = sigmoid(z_i)                    input gate: how much of the news is let in
    f    = sigmoid(z_f)                    forget gate: how much of the memory is kept
    g    = tanh(z_g)                       cell gate: the news itself
    o    = sigmoid(z_o)                    output gate: how much of the memory is shown
    c[t] = f c[t-1] + i g                  the memory: what is kept, and what is new
    h[t] = o tanh(c[t])                    the output

Every line but the first is about each of the H units by itself; in the first, all units see all
others. `squash` stands for tanh, or whatever activation takes its place.

Source: Hochreiter and Schmidhuber, Long short-term memory, 1997; the forget gate: Gers,
Schmidhuber and Cummins, Learning to forget, 2000.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxnn.activations import Activation, sigmoid


class Cell(NamedTuple):
    """One direction of one layer; the rows of the gates i, f, g, o lie one below the other."""

    weights: Array  # [4H, n]: what each gate looks for in the features
    recurrent: Array  # [4H, H]: and in the output of the step before
    biases: Array  # [4H]


class Steps(NamedTuple):
    """Gates and states at every step, in the order of x; each [T, H]."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array


class Slopes(NamedTuple):
    """How c[t] and h[t] answer to what they are made of, at every step; each [T, H]."""

    c_to_z_i: Array
    c_to_z_f: Array
    c_to_z_g: Array
    c_to_c: Array  # to the memory of the step before
    h_to_z_o: Array
    h_to_c: Array


STAYS = (0, 0, 0, 1, 0, 0)  # Slopes of a padded step, c[t] = c[t-1]: its gates move nothing


def run(
    cell: Cell, x: Array, real: Array | None, squash: Activation, reverse: bool = False
) -> tuple[Steps, Slopes]:
    """All steps of one sequence, and the derivative of each of their lines for the way back.

    What the features add to z is known before the first step, so one matrix product gives it for
    all of them; the scan is left with the product that has to wait for the step before.
    The slopes are taken here, where everything that they are made of is at hand.

    Args:
      cell: weights [4H, n], recurrent [4H, H] and biases [4H].
      x: [T, n] features.
      real: bool [T], False at a step that is padding: it leaves h and c as they are. None where
        every step is real.
      squash: the activation of the cell gate and of the memory; tanh in the sources.
      reverse: from the last step to the first.
    """
    seen = x @ cell.weights.T  # [T, 4H]
    nothing = jnp.zeros(cell.recurrent.shape[1], seen.dtype)

    def step(before: tuple[Array, Array], now: tuple[Array, Array | None]) -> tuple:
        (h, c), (seen, real) = before, now
        z_i, z_f, z_g, z_o = jnp.split(seen + h @ cell.recurrent.T + cell.biases, 4)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), squash.function(z_g), sigmoid(z_o)
        c_now = f * c + i * g
        h_now = o * squash.function(c_now)
        slopes = Slopes(
            c_to_z_i=g * i * (1 - i),  # c[t] = f c[t-1] + i g, where i = sigmoid(z_i) ...
            c_to_z_f=c * f * (1 - f),
            c_to_z_g=i * squash.derivative(z_g),
            c_to_c=f,
            h_to_z_o=h_now * (1 - o),  # h[t] = o tanh(c[t]), where o = sigmoid(z_o)
            h_to_c=o * squash.derivative(c_now),
        )
        if real is not None:
            h_now, c_now = jnp.where(real, h_now, h), jnp.where(real, c_now, c)
            slopes = Slopes(*(jnp.where(real, *both) for both in zip(slopes, STAYS, strict=True)))
        return (h_now, c_now), (Steps(i, f, g, o, c_now, h_now), slopes)

    return lax.scan(step, (nothing, nothing), (seen, real), reverse=reverse)[1]


def before(states: Array, reverse: bool = False) -> Array:
    """The states [T, H] that each step began with: those of the step before, 0 at the first."""
    nothing = jnp.zeros_like(states[:1])
    if reverse:
        return jnp.concatenate([states[1:], nothing])
    return jnp.concatenate([nothing, states[:-1]])


def run_back(
    cell: Cell,
    slopes: Slopes,
    above: Array | None,
    last: Array,
    real: Array | None,
    reverse: bool = False,
) -> Array:
    """Backpropagation through time: how the cost answers to z at every step, dC/dz [T, 4H].

    Two roads lead from h[t] to the cost, upwards to the layer above, and through the step after;
    what comes back by them adds up. So the walk goes from the last step to the first, and each
    takes with it dC/dh and dC/dc by the second road. A step is the chain rule, from the cell's
    last line to its first.

    Args:
      cell: as in `run`.
      slopes: what `run` gave.
      above: [T, H], dC/dh[t] by the first road; None where nothing looks at the single steps.
      last: [H], dC/dh of the state that the last step leaves.
      real: as in `run`.
      reverse: as in `run`: the last step is then the first of x.

    Source: Werbos, Backpropagation through time: what it does and how to do it, 1990.
    """

    def step(after: tuple[Array, Array], now: tuple[Slopes, Array | None, Array | None]) -> tuple:
        (dh, dc), (slope, above, real) = after, now
        if above is not None:
            dh = dh + above  # both roads
        dc = dc + dh * slope.h_to_c  # h[t] = o tanh(c[t])
        dz_i, dz_f, dz_g = dc * slope.c_to_z_i, dc * slope.c_to_z_f, dc * slope.c_to_z_g
        dz = jnp.concatenate([dz_i, dz_f, dz_g, dh * slope.h_to_z_o])
        dh_before = dz @ cell.recurrent  # z = ... + recurrent h[t-1]
        if real is not None:
            dh_before = jnp.where(real, dh_before, dh)
        return (dh_before, dc * slope.c_to_c), dz  # c[t] = f c[t-1] + ...

    nothing = jnp.zeros_like(last)
    return lax.scan(step, (last, nothing), (slopes, above, real), reverse=not reverse)[1]


def gradient(dz: Array, x: Array, h_before: Array) -> Cell:
    """What all rows ask of one cell, summed: the same weights work at every step.

    One matrix product takes the place of N outer products. It makes the gradient turned round, a
    row for each number that was seen: XLA is a third quicker with the wide matrix behind.

    Args:
      dz: [N, 4H], dC/dz of N steps, of one example or of many.
      x: [N, n], the features they saw.
      h_before: [N, H], the outputs of the steps before them.
    """
    seen = jnp.concatenate([x, h_before], axis=1)  # [N, n + H]
    found = seen.T @ dz  # [n + H, 4H]
    n = x.shape[1]
    return Cell(found[:n].T, found[n:].T, jnp.sum(dz, axis=0))
