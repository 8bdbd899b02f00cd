"""Training: stochastic gradient descent on shuffled mini-batches, one jitted scan an epoch.

`fit` is a function of settings, data and a state to go on from; it reads and writes no files.
The data lie on the device as uint8; a step gathers its images and scales them to [0, 1]. The
shuffle of an epoch depends on the seed and the epoch's number only, so that going on from a
saved state is exact.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxnn import augment, metrics, models
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.errors import ConfigError, RunError, ShapeError
from jaxnn.gradients import autodiff_gradient, batch_cost, batch_gradient
from jaxnn.models import Model, Spec
from jaxnn.optimizers import optimizer_of

__all__ = ["EpochReport", "TrainConfig", "TrainState", "check", "fit", "initial_state"]

CHUNK = 20  # steps, at most, whose images are gathered at once

Carry = tuple[Any, Any]  # params and optimiser state


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


def spec_of(config: TrainConfig) -> Spec:
    """The network that a configuration names."""
    return Spec("mlp", tuple(config.sizes), config.activation, config.output, config.cost)


def fit(
    config: TrainConfig,
    data: Dataset,
    *,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState, EpochReport], None] | None = None,
) -> TrainState:
    """Trains until `config.epochs` are done.

    The best network is chosen by accuracy on the validation part where `config.validation` asks
    for one, and by the training cost otherwise: the test images choose nothing.

    Args:
      config: how to train.
      data: uint8 images and labels.
      state: where to go on from; None starts anew from `config.seed`.
      on_epoch: called after each epoch, in order. What it raises ends the training.

    Returns:
      The state after the last epoch.

    Raises:
      ConfigError: a setting that cannot be, or that does not fit the data.
      RunError: the cost is no longer a number.
    """
    check(config, data)
    cut = len(data.train_images) - config.validation
    images = jax.device_put(data.train_images[:cut].reshape(cut, -1))  # uint8 [N, n_in]
    labels = jax.device_put(data.train_labels[:cut])  # uint8 [N]
    held_out = (
        (data.train_images[cut:], data.train_labels[cut:])
        if config.validation
        else (data.test_images, data.test_labels)
    )
    model = models.build(spec_of(config))
    optimizer = optimizer_of(config, cut // config.batch_size)
    train_epoch = epoch_function(model, optimizer, config.gradient, config.shift, config.l2)
    shifts_key = jax.random.fold_in(jax.random.key(config.seed), 1)  # apart from the parameters'
    state = state or initial_state(config, cut)
    carry = jax.tree.map(jnp.array, (state.params, state.opt_state))  # copies: donated below

    for epoch in range(state.epoch, config.epochs):
        started = time.perf_counter()
        order = shuffled_batches(config.seed, epoch, cut, config.batch_size)
        key = jax.random.fold_in(shifts_key, epoch)
        carry, mean_cost = train_epoch(carry, images, labels, order, key)
        cost = float(mean_cost)  # waits for the epoch
        seconds = time.perf_counter() - started
        if not np.isfinite(cost):
            raise RunError(
                f"training diverged in epoch {epoch + 1}: the cost is {cost}; "
                f"try a --learning-rate below {config.learning_rate:g}"
            )
        params, opt_state = jax.device_get(carry)
        tested = metrics.evaluate(carry[0], *held_out, model=model)
        score = tested.accuracy if config.validation else -cost
        best = state.best_epoch == 0 or score > state.best_score
        state = state._replace(epoch=epoch + 1, params=params, opt_state=opt_state)
        if best:
            state = state._replace(best_params=params, best_epoch=epoch + 1, best_score=score)
        if on_epoch:
            rate = order.size / seconds
            on_epoch(
                state,
                EpochReport(epoch + 1, cost, tested.cost, tested.accuracy, seconds, rate, best),
            )
    return state


def initial_state(config: TrainConfig, examples: int) -> TrainState:
    """The state before the first epoch, for that many training examples."""
    params = models.build(spec_of(config)).init(jax.random.key(config.seed))
    opt_state = optimizer_of(config, examples // config.batch_size).init(params)
    return TrainState(0, params, opt_state, params, 0, 0.0)


def shuffled_batches(seed: int, epoch: int, examples: int, batch_size: int) -> np.ndarray:
    """Indices of an epoch's mini-batches, int32 [steps, batch_size], afresh every epoch.

    Made on the host: shuffling inside the jit costs more than the training of this network.
    """
    order = np.random.default_rng((seed, epoch)).permutation(examples).astype(np.int32)
    steps = examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def train_step(
    model: Model, optimizer: optax.GradientTransformation, gradient: str, l2: float = 0.0
) -> Callable[[Carry, Array, Array], tuple[Carry, Array]]:
    """One step: ((params, opt_state), images uint8 [B, n_in], labels [B]) -> (the same, cost)."""
    gradient_of = {"autodiff": autodiff_gradient, "backprop": batch_gradient}[gradient]

    def step(carry: Carry, images: Array, labels: Array) -> tuple[Carry, Array]:
        params, opt_state = carry
        x = metrics.pixels_to_input(images)  # [B, n_in]
        y = metrics.one_hot(labels, model.spec.sizes[-1])  # [B, n_out]
        # The cost shares its forward pass with the gradient.
        cost = batch_cost(params, x, y, model=model, l2=l2)
        grads = gradient_of(params, x, y, model=model, l2=l2)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), cost

    return step


@lru_cache(maxsize=8)
def epoch_function(
    model: Model,
    optimizer: optax.GradientTransformation,
    gradient: str,
    shift: int,
    l2: float = 0.0,
) -> Callable[[Carry, Array, Array, np.ndarray, Array], tuple[Carry, Array]]:
    """A whole epoch as one program: (carry, images, labels, order, key) -> (carry, mean cost).

    The carry's arrays are donated: their memory becomes the result's.
    """
    step = train_step(model, optimizer, gradient, l2)

    def train_epoch(
        carry: Carry, images: Array, labels: Array, order: Array, key: Array
    ) -> tuple[Carry, Array]:
        def chunk(carry: Carry, some: tuple[Array, Array]) -> tuple[Carry, Array]:
            indices, keys = some  # [chunk, B] and [chunk]
            return jax.lax.scan(batch, carry, (images[indices], labels[indices], keys))

        def batch(carry: Carry, one: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
            chosen, answers, key = one  # uint8 [B, n_in], [B], a key
            if shift:
                chosen = augment.shift(key, chosen, shift)
            return step(carry, chosen, answers)

        # Gathering the images of several steps at once is faster: see docs/performance.md.
        steps = len(order)
        size = max(size for size in range(1, CHUNK + 1) if steps % size == 0)
        keys = jax.random.split(key, steps).reshape(-1, size)
        carry, costs = jax.lax.scan(chunk, carry, (order.reshape(-1, size, order.shape[1]), keys))
        return carry, jnp.mean(costs)

    return jax.jit(train_epoch, donate_argnums=0)


def check(config: TrainConfig, data: Dataset) -> None:
    """Raises ConfigError where a setting cannot be, or ShapeError where the data cannot."""
    models.build(spec_of(config))
    optimizer_of(config, 1)
    _check_data(data)
    images = data.train_images
    ranges = {
        "epochs": (0, None),
        "batch_size": (1, len(images) - config.validation),
        "shift": (0, 13),  # further, and digits leave the picture
        "validation": (0, len(images) - 1),
        "seed": (0, 2**32 - 1),
        "l2": (0, None),
    }
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not value >= least or (most is not None and value > most):
            limit = f"{least} or more" if most is None else f"{least} to {most}"
            raise ConfigError(f"{name} is {value}, expected {limit} with {len(images)} images")
    if not (np.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise ConfigError(f"learning_rate is {config.learning_rate}, expected a positive number")
    for name in ("gradient", "schedule"):
        known = get_args(get_type_hints(TrainConfig)[name])
        if getattr(config, name) not in known:
            raise ConfigError(f"{name} is {getattr(config, name)!r}: choose {' or '.join(known)}")
    if config.sizes[0] != images[0].size:
        raise ConfigError(
            f"sizes begin with {config.sizes[0]}, but an image has {images[0].size} pixels"
        )
    largest = int(max(data.train_labels.max(), data.test_labels.max()))
    if config.sizes[-1] <= largest:
        raise ConfigError(f"sizes end with {config.sizes[-1]}, but labels go up to {largest}")


def _check_data(data: Dataset) -> None:
    for images, labels in (data[:2], data[2:]):
        if images.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer):
            raise ShapeError(
                f"images are {images.dtype} and labels {labels.dtype}, expected uint8 and integers"
            )
        if len(images) != len(labels) or len(images) == 0 or labels.min() < 0:
            raise ShapeError(
                f"{len(images)} images with {len(labels)} labels: one each, none below 0"
            )
