"""Gradients of batches: by automatic differentiation, and by the explicit chain rule.

Three roads to one gradient, and tests that they meet: `autodiff_gradient` (`jax.grad` of the mean
cost), the mean of `per_example_gradients` (the explicit backprop under `vmap`), and
`batch_gradient` (the explicit backprop contracted over the batch, as fast as the first).
All take a batch, x [B, n_in] and y [B, n_out], and a model, by default the classic network.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn import models
from jaxnn.errors import ShapeError
from jaxnn.models import Model

CLASSIC = models.build()


def batch_cost(params: Any, x: Array, y: Array, *, model: Model = CLASSIC) -> Array:
    """The mean over the batch of the cost of one example, a scalar."""
    _check_batch(x, y)
    return jnp.mean(jax.vmap(model.cost, in_axes=(None, 0, 0))(params, x, y))


def autodiff_gradient(params: Any, x: Array, y: Array, *, model: Model = CLASSIC) -> Any:
    """`jax.grad` of `batch_cost`: the same tree as params."""
    return jax.grad(batch_cost)(params, x, y, model=model)


def per_example_gradients(params: Any, x: Array, y: Array, *, model: Model = CLASSIC) -> Any:
    """What each example alone asks for: the tree of params, each leaf with a leading [B]."""
    _check_batch(x, y)
    return jax.vmap(model.backprop, in_axes=(None, 0, 0))(params, x, y)


def batch_gradient(params: Any, x: Array, y: Array, *, model: Model = CLASSIC) -> Any:
    """The mean of `per_example_gradients`, by matrix products: the same tree as params."""
    _check_batch(x, y)
    return model.batch_backprop(params, x, y)


def descent_direction(gradient: Any) -> Any:
    """The negative gradient: the nudges that lower the cost fastest."""
    return jax.tree.map(jnp.negative, gradient)


def _check_batch(x: Array, y: Array) -> None:
    if x.ndim < 2 or y.ndim != 2 or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ShapeError(
            f"x has shape {x.shape} and y {y.shape}, expected [B, n_in] and [B, n_out] "
            "with the same B of at least 1"
        )
