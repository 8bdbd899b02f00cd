"""A long short-term memory while it reads: gates, memories, and its opinion, step by step."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import lstm, metrics
from jaxnn.costs import objective as objective_of
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Spec


class Reading(NamedTuple):
    """One direction of the highest layer, over the T real steps of one example."""

    steps: lstm.Steps  # gates i, f, g, o, memory c and output h, each float32 [T, H]
    scores: np.ndarray  # float32 [T, n_out]: if all it knew were the steps that it has read


class Gates(NamedTuple):
    """One example, read."""

    sequence: np.ndarray  # uint8 [T, features]: the example's real steps
    readings: tuple[Reading, ...]  # forwards, and where the network does so backwards
    layers: int  # of the network; the highest one, which the answer is read from, is shown
    scores: np.ndarray  # float32 [n_out]: of the whole


def gates(params: lstm.Params, spec: Spec, row: np.ndarray) -> Gates:
    """Gates, memories and scores over time for one example.

    Args:
      params: the network's cells and readout.
      spec: the network they belong to, an lstm.
      row: uint8, n_in numbers of any shape: a picture, or a row of features.

    Raises:
      ConfigError: another family of network, or an ensemble.
      ShapeError: the network takes another number of pixels, or all steps are padding.
    """
    if spec.family != "lstm" or spec.members > 1:
        found = f"of the family {spec.family!r}" if spec.members == 1 else "an ensemble"
        raise ConfigError(f"the network is {found}: this looks into the gates of one 'lstm'")
    if row.size != spec.sizes[0]:
        raise ShapeError(
            f"the example has {row.size} numbers, but the network takes {spec.sizes[0]}: "
            "choose another model"
        )
    how = lstm.ARCHITECTURES[spec.architecture]
    sequence = row.reshape(-1, how.features)
    if how.masked:
        sequence = sequence[sequence[:, 0] > 0]
        if not len(sequence):
            raise ShapeError("the example has no step, expected one or more that are no padding")
    trace, developing = jax.device_get(_read(params, jnp.asarray(sequence), spec=spec))
    readings = tuple(map(Reading, trace.layers[-1], developing))
    return Gates(sequence, readings, len(trace.layers), trace.a)


@partial(jax.jit, static_argnames="spec")
def _read(params: lstm.Params, sequence: Array, *, spec: Spec) -> tuple[lstm.Trace, Array]:
    """The trace, and for each direction the scores [T, n_out] after each step."""
    x = metrics.pixels_to_input(sequence)
    trace = partial(
        lstm.trace,
        params,
        architecture=spec.architecture,
        activation=spec.activation,
        output=spec.output,
    )
    if not lstm.ARCHITECTURES[spec.architecture].masked:
        # What is read is what the last step left, and any step may be the last.
        whole, (weights, biases) = trace(x.ravel()), params.readout
        output = objective_of(spec.output, "quadratic").output
        return whole, jax.vmap(lambda h: output(weights @ h + biases))(whole.layers[-1][0].h)[None]
    # All steps; those up to each, as the way forwards knows them; those from each, as the other.
    every = jnp.ones((len(x), len(x)), x.dtype)
    known = jnp.concatenate([every[:1], jnp.tril(every), jnp.triu(every)])
    traces = jax.vmap(lambda steps: trace((x * steps[:, None]).ravel()))(known)
    developing = traces.a[1:].reshape(2, len(x), -1)
    return jax.tree.map(lambda leaf: leaf[0], traces), developing[: len(traces.layers[-1])]
