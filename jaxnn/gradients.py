"""Gradients of batches: by automatic differentiation, and by the explicit chain rule.

Three roads to one gradient, and tests that they meet: `autodiff_gradient` (`jax.grad` of the mean
cost), the mean of `per_example_gradients` (the explicit backprop under `vmap`), and
`batch_gradient` (the explicit backprop contracted over the batch, as fast as the first).
All take a batch, x [B, n_in] and y [B, n_out], and a model, by default the classic network.

Weight decay, `l2`, adds l2/2 times the sum of the squared weights to a batch's mean cost, and so
l2 times each weight to its gradient; biases are left alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn import models
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Model

CLASSIC = models.build()


def is_weights(leaf: Array) -> bool:
    """Whether an array of parameters is weights (of rank 2 or more), and not biases."""
    return leaf.ndim >= 2


def batch_cost(
    params: Any, x: Array, y: Array, *, model: Model = CLASSIC, l2: float = 0.0
) -> Array:
    """The mean over the batch of the cost of one example, plus weight decay, a scalar."""
    _check_batch(x, y)
    _check_single(model, l2)
    mean = jnp.mean(jax.vmap(model.cost, in_axes=(None, 0, 0))(params, x, y))
    return _decayed_cost(mean, params, l2)


def autodiff_gradient(
    params: Any, x: Array, y: Array, *, model: Model = CLASSIC, l2: float = 0.0
) -> Any:
    """`jax.grad` of `batch_cost`: the same tree as params."""
    return jax.grad(batch_cost)(params, x, y, model=model, l2=l2)


def per_example_gradients(params: Any, x: Array, y: Array, *, model: Model = CLASSIC) -> Any:
    """What each example alone asks for: the tree of params, each leaf with a leading [B]."""
    _check_batch(x, y)
    return jax.vmap(model.backprop, in_axes=(None, 0, 0))(params, x, y)


def batch_gradient(
    params: Any, x: Array, y: Array, *, model: Model = CLASSIC, l2: float = 0.0
) -> Any:
    """The mean of `per_example_gradients`, by matrix products, plus weight decay: as params."""
    _check_batch(x, y)
    _check_single(model, l2)
    return _decayed_gradient(model.batch_backprop(params, x, y), params, l2)


def batch_cost_and_gradient(
    params: Any, x: Array, y: Array, *, model: Model = CLASSIC, l2: float = 0.0
) -> tuple[Array, Any]:
    """`batch_cost` and `batch_gradient` at once: what training needs, with one way forward."""
    _check_batch(x, y)
    _check_single(model, l2)
    cost, gradient = model.batch_cost_and_backprop(params, x, y)
    return _decayed_cost(cost, params, l2), _decayed_gradient(gradient, params, l2)


def descent_direction(gradient: Any) -> Any:
    """The negative gradient: the nudges that lower the cost fastest."""
    return jax.tree.map(jnp.negative, gradient)


def _decayed_cost(mean: Array, params: Any, l2: float) -> Array:
    if not l2:
        return mean
    weights = [leaf for leaf in jax.tree.leaves(params) if is_weights(leaf)]
    return mean + l2 / 2 * sum(jnp.sum(leaf**2) for leaf in weights)


def _decayed_gradient(mean: Any, params: Any, l2: float) -> Any:
    if not l2:
        return mean
    return jax.tree.map(
        lambda slope, leaf: slope + l2 * leaf if is_weights(leaf) else slope, mean, params
    )


def _check_batch(x: Array, y: Array) -> None:
    if x.ndim < 2 or y.ndim != 2 or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ShapeError(
            f"x has shape {x.shape} and y {y.shape}, expected [B, n_in] and [B, n_out] "
            "with the same B of at least 1"
        )


def _check_single(model: Model, l2: float) -> None:
    if l2 and model.spec.members > 1:  # an ensemble's biases have rank 2 and would pass for weights
        raise ConfigError(
            f"weight decay is for one network, not for {model.spec.members} members: train each"
        )
