"""Optimisers by their name in optax, with a learning rate that may change over the run."""

import inspect
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnn.config import TrainConfig
from jaxnn.errors import ConfigError


def optimizer_of(
    config: TrainConfig,
    steps: int,
    learning_rate: Array | None = None,
    momentum: Array | None = None,
) -> optax.GradientTransformation:
    """The optax optimiser that a configuration names.

    Args:
      config: the settings; `check_optimizer` has found them possible.
      steps: in an epoch, for schedules.
      learning_rate: in place of the configuration's; may be traced.
      momentum: likewise.
    """
    rate: Any = config.learning_rate if learning_rate is None else learning_rate
    momentum = config.momentum if momentum is None else momentum  # type: ignore[assignment]
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, max(config.epochs * steps, 1))
    extra = {} if momentum is None else {"momentum": momentum}
    return getattr(optax, config.optimizer)(learning_rate=rate, **extra)


def check_optimizer(config: TrainConfig) -> None:
    """Raises ConfigError where optax has no such optimiser, or it does not take the settings."""
    _check(config.optimizer, config.momentum is not None, config.schedule)


@lru_cache
def _check(name: str, momentum: bool, schedule: str) -> None:
    make = getattr(optax, name, None)
    takes = inspect.signature(make).parameters if inspect.isfunction(make) else {}
    if make is None or "learning_rate" not in takes:
        raise ConfigError(
            f"optax has no optimiser {name!r} that takes a learning rate: try sgd, adam or adamw"
        )
    if momentum and "momentum" not in takes:
        raise ConfigError(f"optimizer {name} takes no momentum: leave --momentum out, or use sgd")
    rate: Any = optax.cosine_decay_schedule(1.0, 10) if schedule == "cosine" else 1.0
    try:
        made = make(learning_rate=rate, **({"momentum": 0.5} if momentum else {}))
        tiny = {"w": jnp.zeros(2)}
        state, _ = jax.eval_shape(lambda p: (made.init(p), made.update(p, made.init(p), p)), tiny)
    except (TypeError, ValueError) as error:  # some need the cost, or take no schedule
        raise ConfigError(
            f"optimizer {name} needs more than a rate and gradients, or takes no {schedule} "
            "schedule: try sgd, adam or adamw"
        ) from error
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise ConfigError(f"optimizer {name} keeps a random key, which is not saved: try adam")
