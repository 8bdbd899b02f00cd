"""Networks of one depth as a stack of arrays: every leaf of their params with a leading [K].

A narrower network lies in the corner of the widest one's arrays, zeros around, and a mask keeps
these zeros: a missing neuron takes no part.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import models
from jaxnn.config import TrainConfig
from jaxnn.epoch import Own, spec_of
from jaxnn.models import Model


def own_parts(configs: Sequence[TrainConfig], model: Model) -> Own:
    """What the networks do not share, stacked; None for what they do."""

    def stacked(name: str) -> Array | None:
        values = [getattr(config, name) for config in configs]
        if len(set(values)) == 1:
            return None
        return jnp.array(values, jnp.float32)

    mask = None
    if len({config.sizes for config in configs}) > 1:
        ones = {
            config.sizes: _widened(
                jax.tree.map(
                    lambda leaf: np.ones(leaf.shape, np.float32),
                    jax.eval_shape(models.build(spec_of(config)).init, jax.random.key(0)),
                ),
                model,
            )
            for config in configs
        }
        mask = jax.tree.map(lambda *ms: jnp.stack(ms), *(ones[config.sizes] for config in configs))
    return Own(stacked("learning_rate"), stacked("momentum"), mask)


def first_params(configs: Sequence[TrainConfig], model: Model) -> Any:
    """First parameters, each as its own configuration makes them, widened and stacked."""
    made: list[Any] = []  # of each size, a stack of its networks in the widest one's shapes
    places: list[int] = []
    for sizes in dict.fromkeys(config.sizes for config in configs):
        which = [k for k, config in enumerate(configs) if config.sizes == sizes]
        keys = jnp.stack([jax.random.key(configs[k].seed) for k in which])
        made.append(jax.jit(jax.vmap(models.build(spec_of(configs[which[0]])).init))(keys))
        places += which
    if len(made) == 1:
        return made[0]
    order = np.argsort(places)
    widened = [_widened(stack, model, leading=1) for stack in made]
    return jax.tree.map(lambda *stacks: jnp.asarray(np.concatenate(stacks)[order]), *widened)


def _widened(params: Any, model: Model, leading: int = 0) -> Any:
    """Parameters of a narrower network within the model's shapes, zeros around.

    `leading` axes of a stack stay as they are.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def wide(leaf: Any, like: Any) -> np.ndarray:
        here = leaf.shape[leading:]
        more = [(0, most - size) for size, most in zip(here, like.shape, strict=True)]
        return np.pad(np.asarray(leaf), [(0, 0)] * leading + more)

    return jax.tree.map(wide, params, shapes)


def cut_out(stacked: Any, k: int, config: TrainConfig) -> Any:
    """Network k of its own size, out of the stack."""
    shapes = jax.eval_shape(models.build(spec_of(config)).init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, like: leaf[(k, *(slice(n) for n in like.shape))].copy(), stacked, shapes
    )
