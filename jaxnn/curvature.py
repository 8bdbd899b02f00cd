"""Second order: how fast the slope itself changes, and what that says about the step size.

The Hessian H of the cost, [P, P] for P parameters, is never written down. Its product with a
vector v is a derivative of the gradient along v, and costs about as much as two gradients:

    H v = d/dt grad C(params + t v) at t = 0

Along a direction of curvature c the cost is a parabola, C + s t + c t^2 / 2. A step of plain
gradient descent multiplies the distance from its minimum by 1 - rate c: it shrinks only where
|1 - rate c| < 1, so rate < 2 / c for the largest c decides which rates can settle in a minimum.
Negative curvature (near a saddle) sets no such limit: every rate leads away, downhill.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnn.gradients import CLASSIC, autodiff_gradient
from jaxnn.models import Model


class Curvature(NamedTuple):
    """The largest curvature of a cost at a point."""

    value: Array  # scalar, the largest eigenvalue of the Hessian; negative on top of a hill
    direction: Any  # the tree of params, of length 1

    @property
    def stable_rate(self) -> Array:
        """The rate above which plain gradient descent diverges here; infinite if not curved up."""
        return jnp.where(self.value > 0, 2 / self.value, jnp.inf)


def hessian_vector_product(
    params: Any, x: Array, y: Array, v: Any, *, model: Model = CLASSIC
) -> Any:
    """The Hessian of `gradients.batch_cost`, times v.

    Args:
      params: of the model.
      x: [B, n_in] inputs.
      y: [B, n_out] targets.
      v: the same tree, shapes and dtype as params.
      model: the network.

    Returns:
      H v: the same tree as params.

    Source: Pearlmutter, Fast Exact Multiplication by the Hessian, 1994.
    """
    return jax.jvp(lambda p: autodiff_gradient(p, x, y, model=model), (params,), (v,))[1]


def largest_curvature(
    params: Any, x: Array, y: Array, key: Array, *, model: Model = CLASSIC, iterations: int = 50
) -> Curvature:
    """The largest eigenvalue of the Hessian, by twice that many power iterations.

    Power iteration finds the eigenvalue m that is largest in size, which may be a negative one.
    So it runs twice: on H for |m|, then on H + |m| I, whose eigenvalues are H's moved up to where
    none is negative and the largest is largest in size too.

    Args:
      params: of the model.
      x: [B, n_in] inputs.
      y: [B, n_out] targets.
      key: draws the direction to start from.
      model: the network.
      iterations: of each of the two; the error shrinks with the gap to the next eigenvalue, and
        the value, never above the true one, is good to a few per cent long before the direction.
    """
    flat, unflatten = ravel_pytree(params)

    def hessian_times(v: Array) -> Array:
        product = hessian_vector_product(params, x, y, unflatten(v), model=model)
        return ravel_pytree(product)[0]

    def power(v: Array, shift: Array) -> Array:
        def step(_: int, v: Array) -> Array:
            product = hessian_times(v) + shift * v
            length = jnp.linalg.norm(product)
            return jnp.where(length > 0, product / jnp.where(length > 0, length, 1), v)

        return jax.lax.fori_loop(0, iterations, step, v)

    start = jax.random.normal(key, flat.shape, flat.dtype)
    start /= jnp.linalg.norm(start)
    size = jnp.linalg.norm(hessian_times(power(start, jnp.zeros((), flat.dtype))))
    direction = power(start, size)
    return Curvature(direction @ hessian_times(direction), unflatten(direction))
