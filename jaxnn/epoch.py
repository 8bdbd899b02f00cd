"""One epoch of training as one program: a scan over shuffled mini-batches.

The images lie on the device as uint8; a step gathers its mini-batch, changes and scales it, and
takes one step down. Everything here is written for ONE network: `ensemble` vmaps it over many.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxnn import augment, metrics, models
from jaxnn.config import TrainConfig
from jaxnn.gradients import autodiff_gradient, batch_cost, batch_cost_and_gradient
from jaxnn.models import Spec
from jaxnn.optimizers import optimizer_of
from jaxnn.spread import spread

CHUNK = 20  # steps, at most, whose images are gathered at once

Carry = tuple[Any, Any]  # params and optimiser state


class Own(NamedTuple):
    """What a network among many has for itself; None leaves it to the configuration."""

    learning_rate: Array | None = None
    momentum: Array | None = None
    mask: Any = None  # as params: 1 where a parameter takes part, 0 where it is left out


def spec_of(config: TrainConfig) -> Spec:
    """The network that a configuration names."""
    return Spec(
        config.family,
        tuple(config.sizes),
        config.activation,
        config.output,
        config.cost,
        architecture=config.architecture,
    )


def shuffled_batches(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """Indices of an epoch's mini-batches, int32 [steps, batch_size], afresh every epoch.

    Made on the host: shuffling inside the jit costs more than the training of this network.
    """
    order = np.random.default_rng((seed, epoch)).permutation(examples).astype(np.int32)
    steps = examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def changes_key(config: TrainConfig, epoch: int, chunk: int = 0) -> Array:
    """The key of a chunk's changed images, apart from the key of the first parameters."""
    key = jax.random.fold_in(jax.random.key(shuffle_seed(config)), 1)
    key = jax.random.fold_in(key, epoch)
    return jax.random.fold_in(key, chunk) if chunk else key


def changes_strength(config: TrainConfig, epoch: int) -> float:
    """The part of the changes of images that an epoch, counted from 0, uses."""
    return 1 - config.fade * epoch / config.epochs


def shuffle_seed(config: TrainConfig) -> int:
    """What decides the shuffles and the changed images."""
    return config.seed if config.shuffle_seed is None else config.shuffle_seed


def train_step(config: TrainConfig, steps: int) -> Callable[..., tuple[Carry, Array]]:
    """One step: (carry, x [B, n_in], y [B, n_out], own) -> (carry, mean cost before it).

    Args:
      config: how to train.
      steps: in an epoch, for schedules.
    """
    model = models.build(spec_of(config))
    how: dict[str, Any] = {"model": model, "l2": config.l2}

    def by_autodiff(params: Any, x: Array, y: Array) -> tuple[Array, Any]:
        # XLA sees that both go forward the same way, and does it once.
        return batch_cost(params, x, y, **how), autodiff_gradient(params, x, y, **how)

    by_backprop = partial(batch_cost_and_gradient, **how)
    roads: dict[str, Callable[..., tuple[Array, Any]]]
    roads = {"autodiff": by_autodiff, "backprop": by_backprop}
    cost_and_gradient = spread(roads[config.gradient], config.devices)

    def step(carry: Carry, x: Array, y: Array, own: Own = Own()) -> tuple[Carry, Array]:  # noqa: B008
        params, opt_state = carry
        optimizer = optimizer_of(config, steps, own.learning_rate, own.momentum)
        cost, grads = cost_and_gradient(params, x, y)
        if own.mask is not None:
            grads = jax.tree.map(jnp.multiply, grads, own.mask)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), cost

    return step


def epoch_function(config: TrainConfig, steps: int) -> Callable[..., tuple[Carry, Array]]:
    """A whole epoch: (carry, images, labels, order, key, own, strength) -> (carry, mean cost).

    images uint8 [N, n_in], labels [N] or targets [N, n_out], order int [steps, B], key as
    `changes_key` makes it, strength as `changes_strength` does.
    Not jitted: `program` and `ensemble` do that.
    """
    step = train_step(config, steps)
    classes = config.sizes[-1]
    side = math.isqrt(config.sizes[0])  # `checks` has seen to a square where images change
    how = augment.Changes(config.shift, config.rotate, config.scale, config.shear, config.elastic)

    def train_epoch(
        carry: Carry,
        images: Array,
        labels: Array,
        order: Array,
        key: Array,
        own: Own = Own(),  # noqa: B008 - a tuple
        strength: float = 1.0,
    ) -> tuple[Carry, Array]:
        def chunk(carry: Carry, some: tuple[Array, Any]) -> tuple[Carry, Array]:
            indices, keys = some  # [chunk, B], and [chunk] where images change
            return jax.lax.scan(batch, carry, (images[indices], labels[indices], keys))

        def batch(carry: Carry, one: tuple[Array, Array, Any]) -> tuple[Carry, Array]:
            chosen, answers, key = one  # uint8 [B, n_in], [B] or [B, n_out], a key or None
            if key is None:
                x = metrics.pixels_to_input(chosen)
            else:
                x = augment.changed(key, chosen, how, strength, side)
            y = answers if answers.ndim == 2 else metrics.one_hot(answers, classes)
            return step(carry, x, y, own)

        # Gathering the images of several steps at once is faster: see docs/performance.md.
        count = len(order)
        size = max(size for size in range(1, CHUNK + 1) if count % size == 0)
        keys = jax.random.split(key, count).reshape(-1, size) if any(how) else None
        carry, costs = jax.lax.scan(chunk, carry, (order.reshape(-1, size, order.shape[1]), keys))
        return carry, jnp.mean(costs)

    return train_epoch


def program(config: TrainConfig, steps: int) -> Callable[..., tuple[Carry, Array]]:
    """`epoch_function`, jitted; made once for all seeds of a configuration.

    The carry's arrays are donated: their memory becomes the result's.
    """
    return _program(replace(config, seed=0, shuffle_seed=0, validation=0), steps)


@lru_cache(maxsize=8)
def _program(config: TrainConfig, steps: int) -> Callable[..., tuple[Carry, Array]]:
    return jax.jit(epoch_function(config, steps), donate_argnums=0)
