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
    made: list[Any] = [None] * len(configs)
    for sizes in {config.sizes for config in configs}:
        which = [k for k, config in enumerate(configs) if config.sizes == sizes]
        keys = jnp.stack([jax.random.key(configs[k].seed) for k in which])
        some = jax.jit(jax.vmap(models.build(spec_of(configs[which[0]])).init))(keys)
        for place, k in enumerate(which):
            made[k] = _widened(
                jax.tree.map(lambda leaf, at=place: np.asarray(leaf[at]), some), model
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


def _widened(params: Any, model: Model) -> Any:
    """Parameters of a narrower network within the model's shapes, zeros around."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, like: np.pad(
            leaf, [(0, most - here) for here, most in zip(leaf.shape, like.shape, strict=True)]
        ),
        params,
        shapes,
    )


def cut_out(stacked: Any, k: int, config: TrainConfig) -> Any:
    """Network k of its own size, out of the stack."""
    shapes = jax.eval_shape(models.build(spec_of(config)).init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, like: leaf[(k, *(slice(n) for n in like.shape))].copy(), stacked, shapes
    )
