"""Second order against finite differences of the explicit gradient, and against whole Hessians.

Tolerances: 1e-6 for central differences with a step of 1e-5, whose own error is about 1e-9;
1e-3 for a curvature, which power iterations approach from below.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from trees import relative_difference

from jaxnn import models
from jaxnn.curvature import Curvature, hessian_vector_product, largest_curvature
from jaxnn.gradients import autodiff_gradient, batch_cost, batch_gradient
from jaxnn.models import Spec

SIZES = (4, 3, 2)


def problem(seed: int, sizes: tuple[int, ...] = SIZES) -> Any:
    """Float64 parameters, inputs [6, n_in] and targets [6, n_out] in [0, 1], as NumPy arrays."""
    rng = np.random.default_rng(seed)
    params = tuple(
        models.mlp.Layer(*map(rng.standard_normal, ((n_out, n_in), n_out)))
        for n_in, n_out in itertools.pairwise(sizes)
    )
    return params, rng.standard_normal((6, sizes[0])), rng.random((6, sizes[-1]))


@functools.cache
def curvature_of_bowl() -> Callable:
    """[3] curvatures -> the largest found for a network of 3 parameters, a parabola each."""

    def found(curvatures: jax.Array) -> Curvature:
        def cost(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
            return jnp.sum(curvatures * params["p"] ** 2) / 2

        model = models.build()._replace(cost=cost)
        x = y = jnp.zeros((1, 1))
        params = {"p": jnp.ones(3)}
        return largest_curvature(params, x, y, jax.random.key(0), model=model)

    return jax.jit(found)


@pytest.mark.parametrize(
    "combination", [("sigmoid", "sigmoid", "quadratic"), ("gelu", "softmax", "cross_entropy")]
)
def test_hessian_vector_products_equal_differences_of_backprop(
    combination: tuple[str, str, str], x64: None
) -> None:
    model = models.build(Spec("mlp", SIZES, *combination))
    params, x, y = problem(0)
    v, _, _ = problem(1)
    step = 1e-5

    @jax.jit
    def both(params: tuple, x: jax.Array, y: jax.Array, v: tuple) -> tuple:
        def gradient_at(step: float) -> tuple:
            moved = jax.tree.map(lambda p, d: p + step * d, params, v)
            return batch_gradient(moved, x, y, model=model)

        ahead, behind = gradient_at(step), gradient_at(-step)
        differences = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
        return hessian_vector_product(params, x, y, v, model=model), differences

    found, expected = both(params, x, y, v)
    assert relative_difference(found, expected) < 1e-6


@functools.cache
def top_and_whole_hessian() -> Callable:
    """(params, x, y) -> (largest curvature, its direction [P], whole Hessian [P, P])."""
    model = models.build(Spec("mlp", SIZES))

    def both(params: tuple, x: jax.Array, y: jax.Array) -> tuple:
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        found = largest_curvature(params, x, y, jax.random.key(1), model=model, iterations=400)
        hessian = jax.hessian(lambda flat: batch_cost(unflatten(flat), x, y, model=model))(flat)
        return found, jax.flatten_util.ravel_pytree(found.direction)[0], hessian

    return jax.jit(both)


@pytest.mark.parametrize("seed", range(4))
def test_largest_curvature_equals_the_top_of_the_whole_hessian(seed: int, x64: None) -> None:
    found, direction, hessian = top_and_whole_hessian()(*problem(seed))
    values, vectors = np.linalg.eigh(hessian)
    assert values[0] < 0  # a saddle: what has to be kept apart is there
    assert float(found.value) == pytest.approx(values[-1], rel=1e-3)
    assert abs(float(direction @ vectors[:, -1])) == pytest.approx(1, abs=1e-2)
    assert float(found.stable_rate) == pytest.approx(2 / values[-1], rel=1e-3)


@pytest.mark.parametrize(
    ("curvatures", "largest"),
    [
        ([1.0, 3.0, -2.0], 3.0),
        ([1.0, 3.0, -9.0], 3.0),  # the largest in size is negative
        ([4.0, -4.0, 1.0], 4.0),  # a tie in size, at which plain power iteration never settles
        ([-1.0, -2.0, -3.0], -1.0),  # a hilltop
        ([0.0, 0.0, 0.0], 0.0),  # a plain
    ],
)
def test_largest_curvature_knows_its_sign(
    curvatures: list[float], largest: float, x64: None
) -> None:
    found = curvature_of_bowl()(jnp.array(curvatures))
    assert float(found.value) == pytest.approx(largest, abs=1e-3)
    assert float(found.stable_rate) == pytest.approx(2 / largest if largest > 0 else np.inf, 1e-3)


def test_the_curvature_is_where_step_sizes_begin_to_diverge(x64: None) -> None:
    """A network started beside a minimum: targets are what it answers itself."""
    model = models.build(Spec("mlp", SIZES, "tanh", "sigmoid", "quadratic"))
    minimum, x, _ = problem(3)

    @jax.jit
    def distances(rate_of_limit: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jax.vmap(model.forward, in_axes=(None, 0))(minimum, x)
        curvature = largest_curvature(minimum, x, y, jax.random.key(0), model=model, iterations=100)
        rate = rate_of_limit * curvature.stable_rate
        start = jax.tree.map(lambda m, d: m + 1e-5 * d, minimum, curvature.direction)

        def step(_: int, params: tuple) -> tuple:
            slope = autodiff_gradient(params, x, y, model=model)
            return jax.tree.map(lambda p, s: p - rate * s, params, slope)

        def away(params: tuple) -> jax.Array:
            moved = jax.tree.map(jnp.subtract, params, minimum)
            return jnp.linalg.norm(jax.flatten_util.ravel_pytree(moved)[0])

        return away(start), away(jax.lax.fori_loop(0, 30, step, start))

    before, after = distances(jnp.asarray(0.95))
    # A step multiplies the distance by |1 - 2 x 0.95| = 0.9, and 0.9^30 is 0.042.
    assert float(after / before) == pytest.approx(0.9**30, rel=0.05)
    before, after = distances(jnp.asarray(1.05))
    assert float(after / before) == pytest.approx(1.1**30, rel=0.05)
