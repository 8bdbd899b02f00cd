"""Many networks trained at once: the epoch of one network, vmapped over all of them.

The networks share a program and go through it side by side, so that the large products of a step
become one product. They may differ in their seed, learning rate, momentum, width of the hidden
layers and shuffle; a narrower network lives within the widest, its missing neurons masked.
Networks with the same shuffle share their mini-batches, which is what makes many cheap.

Each ends, but for rounding, where `train.fit` with its configuration ends. (Of several widths only
where the optimiser treats every parameter by itself: adafactor does not.)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import metrics, models
from jaxnn.checks import check
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.epoch import (
    changes_key,
    changes_strength,
    epoch_function,
    shuffle_seed,
    shuffled_batches,
    spec_of,
)
from jaxnn.errors import ConfigError
from jaxnn.feed import from_memory
from jaxnn.models import Model
from jaxnn.optimizers import optimizer_of
from jaxnn.stack import cut_out, first_params, own_parts

VARIED = ("seed", "shuffle_seed", "learning_rate", "momentum", "sizes")
CHUNK = 1000  # images measured at once


class Progress(NamedTuple):
    """What one epoch gave: an entry for each network."""

    epoch: int  # counted from 1
    costs: np.ndarray  # float [K]: mean over the epoch's batches; NaN where a network diverged
    held_out_costs: np.ndarray  # float [K]
    held_out_accuracies: np.ndarray  # float [K], 0 to 1
    seconds: float  # of training alone; the first epoch compiles too
    images_per_second: float  # of all networks together


class Trained(NamedTuple):
    """One network at the end, and its best epoch."""

    config: TrainConfig
    params: Any  # NumPy arrays, after the last epoch
    best_params: Any
    best_epoch: int  # 0 where the network diverged in the first
    best_score: float  # validation accuracy; without a validation part, minus the training cost
    diverged: bool


def fit(
    configs: Sequence[TrainConfig],
    data: Dataset,
    *,
    on_epoch: Callable[[Progress], None] | None = None,
) -> tuple[Trained, ...]:
    """Trains a network for each configuration, all at once.

    A network whose cost is no longer a number goes on as such and harms no other.

    Args:
      configs: they may differ in VARIED only; sizes in the hidden layers' widths.
      data: uint8 images and labels.
      on_epoch: called after each epoch. What it raises ends the training.

    Returns:
      One outcome a configuration, in order.

    Raises:
      ConfigError: a setting that cannot be, or configurations too different to go together.
      CheckpointError: a teacher that cannot be read.
    """
    shared = check_all(configs, data)
    feed = from_memory(shared, data)
    images, labels, _ = next(feed.chunks(0))  # all of them, on the device
    held_out = jax.device_put((feed.held_out_images, feed.held_out_labels))
    steps = feed.examples // shared.batch_size

    model = models.build(spec_of(shared))
    own = own_parts(configs, model)
    first = first_params(configs, model)
    own_momentum = 0 if own.momentum is not None else None
    opt_state = jax.vmap(
        lambda params, momentum: optimizer_of(shared, steps, momentum=momentum).init(params),
        in_axes=(0, own_momentum),
    )(first, own.momentum)
    carry = jax.tree.map(jnp.array, (first, opt_state))  # copies: donated below
    best = first
    best_scores = np.full(len(configs), -np.inf)
    best_epochs = np.zeros(len(configs), int)

    orders = [shuffle_seed(config) for config in configs]
    one_order = len(set(orders)) == 1
    train_epoch = program(replace(shared, seed=0, shuffle_seed=0, validation=0), steps, one_order)

    def shuffle(seed: int, epoch: int) -> np.ndarray:
        return shuffled_batches(seed, epoch, feed.examples, shared.batch_size)

    for epoch in range(shared.epochs):
        started = time.perf_counter()
        if one_order:
            order = shuffle(orders[0], epoch)
            key = changes_key(configs[0], epoch)
        else:
            order = np.stack([shuffle(seed, epoch) for seed in orders])
            key = jnp.stack([changes_key(config, epoch) for config in configs])
        carry, found = train_epoch(
            carry, images, labels, order, key, own, changes_strength(shared, epoch)
        )
        costs = np.asarray(found)
        seconds = time.perf_counter() - started
        held_costs, accuracies = map(np.asarray, _measured(carry[0], *held_out, model=model))
        whole = np.isfinite(costs) & np.isfinite(held_costs)  # the last step shows in the latter
        scores = np.where(whole, accuracies if shared.validation else -costs, -np.inf)
        better = scores > best_scores
        best = _chosen(better, carry[0], best)
        best_scores = np.where(better, scores, best_scores)
        best_epochs = np.where(better, epoch + 1, best_epochs)
        if on_epoch:
            rate = len(configs) * steps * shared.batch_size / seconds
            on_epoch(Progress(epoch + 1, costs, held_costs, accuracies, seconds, rate))

    last, best = jax.device_get((carry[0], best))
    return tuple(
        Trained(
            config,
            cut_out(last, k, config),
            cut_out(best, k, config),
            int(best_epochs[k]),
            float(best_scores[k]),
            not all(np.all(np.isfinite(leaf[k])) for leaf in jax.tree.leaves(last)),
        )
        for k, config in enumerate(configs)
    )


def together(trained: Sequence[Trained]) -> Any:
    """The best parameters of several networks of one shape as an ensemble's, a leading axis [K].

    Raises:
      ConfigError: their sizes differ.
    """
    if len({one.config.sizes for one in trained}) != 1:
        raise ConfigError("networks of different sizes make no ensemble: choose those of one size")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(one.best_params for one in trained))


def check_all(configs: Sequence[TrainConfig], data: Dataset) -> TrainConfig:
    """The configuration of the widest network, from which to take what all have in common.

    Raises:
      ConfigError: as in `fit`.
    """
    if not configs:
        raise ConfigError("no network to train: give at least one configuration")
    first = configs[0]
    for config in configs:
        check(config, data)
        if replace(config, **{name: getattr(first, name) for name in VARIED}) != first:
            raise ConfigError(f"networks trained at once may differ in {', '.join(VARIED)} only")
        ends = (config.sizes[:1], config.sizes[-1:], len(config.sizes))
        if ends != (first.sizes[:1], first.sizes[-1:], len(first.sizes)):
            raise ConfigError(
                f"sizes are {config.sizes} and {first.sizes}: networks trained at once may differ "
                "in the widths of their hidden layers only"
            )
    given = {config.momentum is None for config in configs}
    if len(given) > 1:
        raise ConfigError("some networks have a momentum and some have none: give all of them one")
    widest = tuple(map(max, zip(*(config.sizes for config in configs), strict=True)))
    return replace(first, sizes=widest)


@lru_cache(maxsize=8)
def program(config: TrainConfig, steps: int, together: bool) -> Callable[..., tuple[Any, Array]]:
    """`epoch_function`, vmapped and jitted: the carry and what is each network's own are stacked.

    So are the order and the key, unless the networks go `together` through the same batches.
    """
    axis = None if together else 0
    many = jax.vmap(epoch_function(config, steps), in_axes=(0, None, None, axis, axis, 0, None))
    return jax.jit(many, donate_argnums=0)


@jax.jit
def _chosen(better: Array, new: Any, old: Any) -> Any:
    """Network by network, the new parameters where they are better."""

    def of(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *([1] * (new.ndim - 1))), new, old)

    return jax.tree.map(of, new, old)


@partial(jax.jit, static_argnames="model")
def _measured(params: Any, images: Array, labels: Array, *, model: Model) -> tuple[Array, Array]:
    """Mean cost [K] and accuracy [K] of K networks on uint8 images [N, n_in]."""

    def of_one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        x, label = metrics.pixels_to_input(pair[0]), pair[1]
        y = metrics.one_hot(label, model.spec.sizes[-1])

        def of_network(params: Any) -> tuple[Array, Array]:
            right = jnp.argmax(model.forward(params, x)) == label.astype(jnp.int32)
            return model.cost(params, x, y), right

        return jax.vmap(of_network)(params)

    costs, right = jax.lax.map(of_one, (images, labels), batch_size=CHUNK)
    return jnp.mean(costs, axis=0), jnp.mean(right, axis=0, dtype=jnp.float32)
