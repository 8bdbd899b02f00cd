"""Optimisers by their name in optax, with a learning rate that may change over the run."""

import inspect
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError


def optimizer_of(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """The optax optimiser that a configuration names, for an epoch of that many steps.

    Raises:
      ConfigError: optax has none of that name, or it takes no momentum.
    """
    decay = config.epochs * steps if config.schedule == "cosine" else None
    return _optimizer(config.optimizer, config.learning_rate, config.momentum, decay)


@lru_cache
def _optimizer(
    name: str, learning_rate: float, momentum: float | None, decay_steps: int | None
) -> optax.GradientTransformation:
    make = getattr(optax, name, None)
    takes = inspect.signature(make).parameters if inspect.isfunction(make) else {}
    if make is None or "learning_rate" not in takes:
        raise ConfigError(
            f"optax has no optimiser {name!r} that takes a learning rate: try sgd, adam or adamw"
        )
    if momentum is not None and "momentum" not in takes:
        raise ConfigError(f"optimizer {name} takes no momentum: leave --momentum out, or use sgd")
    rate: Any = learning_rate
    if decay_steps is not None:
        rate = optax.cosine_decay_schedule(learning_rate, max(decay_steps, 1))
    extra = {} if momentum is None else {"momentum": momentum}
    try:
        made = make(learning_rate=rate, **extra)
        tiny = {"w": jnp.zeros(2)}
        state, _ = jax.eval_shape(lambda p: (made.init(p), made.update(p, made.init(p), p)), tiny)
    except TypeError as error:  # some need the cost, or further settings
        raise ConfigError(
            f"optimizer {name} needs more than a rate and gradients: try sgd, adam or adamw"
        ) from error
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise ConfigError(f"optimizer {name} keeps a random key, which is not saved: try adam")
    return made
