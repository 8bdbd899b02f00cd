"""Training: stochastic gradient descent on shuffled mini-batches, one jitted scan an epoch.

`fit` is a function of settings, data and a state to go on from; it writes no files, and reads none
but a teacher's.
The shuffle of an epoch depends on the seed and the epoch's number only, so that going on from a
saved state is exact.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import metrics, models
from jaxnn.checks import check
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.epoch import changes_key, changes_strength, program, spec_of
from jaxnn.errors import RunError
from jaxnn.feed import Feed, from_memory
from jaxnn.optimizers import optimizer_of
from jaxnn.spread import everywhere

__all__ = ["EpochReport", "TrainConfig", "TrainState", "check", "fit", "initial_state", "spec_of"]


class TrainState(NamedTuple):
    """All that training needs to go on, and the best network so far."""

    epoch: int  # epochs done
    params: Any
    opt_state: Any
    best_params: Any
    best_epoch: int
    best_score: float  # validation accuracy; where there is no validation part, minus the cost


class EpochReport(NamedTuple):
    """What one epoch gave."""

    epoch: int  # counted from 1
    cost: float  # mean over the epoch's batches, each measured before its step; l2 included
    held_out_cost: float
    held_out_accuracy: float  # 0 to 1, on the validation part or else the test images
    seconds: float  # of training alone; the first epoch of a process compiles too
    images_per_second: float
    best: bool  # the best epoch so far


def fit(
    config: TrainConfig,
    data: Dataset | Feed,
    *,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState, EpochReport], None] | None = None,
) -> TrainState:
    """Trains until `config.epochs` are done.

    The best network is chosen by accuracy on the validation part where `config.validation` asks
    for one, and by the training cost otherwise: the test images choose nothing.

    Args:
      config: how to train.
      data: uint8 images and labels, or what `feed.from_disk` made of files.
      state: where to go on from; None starts anew from `config.seed`.
      on_epoch: called after each epoch, in order. What it raises ends the training.

    Returns:
      The state after the last epoch.

    Raises:
      ConfigError: a setting that cannot be, or that does not fit the data; another teacher.
      CheckpointError: a teacher that cannot be read.
      RunError: the cost is no longer a number.
    """
    feed = data if isinstance(data, Feed) else from_memory(config, data)
    model = models.build(spec_of(config))
    steps = feed.examples // config.batch_size
    train_epoch = program(config, steps)
    state = state or initial_state(config, feed.examples)
    copies = jax.tree.map(jnp.array, (state.params, state.opt_state))  # donated below
    carry = everywhere(copies, config.devices)

    for epoch in range(state.epoch, config.epochs):
        started = time.perf_counter()
        parts: list[tuple[Any, float]] = []  # mean cost of a chunk, its part of the epoch
        for number, (images, labels, order) in enumerate(feed.chunks(epoch)):
            key = changes_key(config, epoch, number)
            strength = changes_strength(config, epoch)
            carry, mean_cost = train_epoch(carry, images, labels, order, key, strength=strength)
            if parts:  # one chunk computes while the next is prepared, and no more lie waiting
                parts[-1][0].block_until_ready()
            parts.append((mean_cost, len(order) / steps))
        cost = sum(float(mean_cost) * part for mean_cost, part in parts)
        seconds = time.perf_counter() - started
        params, opt_state = jax.device_get(carry)
        tested = metrics.evaluate(params, feed.held_out_images, feed.held_out_labels, model=model)
        # The cost comes before each step, so the last step shows in what was measured after it.
        if not (np.isfinite(cost) and np.isfinite(tested.cost)):
            raise RunError(
                f"training diverged in epoch {epoch + 1}: the cost is {cost}, on held-out images "
                f"{tested.cost}; "
                f"try a --learning-rate below {config.learning_rate:g}"
            )
        score = tested.accuracy if config.validation else -cost
        best = state.best_epoch == 0 or score > state.best_score
        state = state._replace(epoch=epoch + 1, params=params, opt_state=opt_state)
        if best:
            state = state._replace(best_params=params, best_epoch=epoch + 1, best_score=score)
        if on_epoch:
            rate = steps * config.batch_size / seconds
            on_epoch(
                state,
                EpochReport(epoch + 1, cost, tested.cost, tested.accuracy, seconds, rate, best),
            )
    return state


def initial_state(config: TrainConfig, examples: int) -> TrainState:
    """The state before the first epoch, for that many training examples."""
    params = jax.jit(models.build(spec_of(config)).init)(jax.random.key(config.seed))
    opt_state = optimizer_of(config, examples // config.batch_size).init(params)
    return TrainState(0, params, opt_state, params, 0, 0.0)
