"""Costs against NumPy written out, output deltas against jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxnn import costs
from jaxnn.costs import OBJECTIVES
from jaxnn.errors import ConfigError, ShapeError

Z = np.array([-3.0, 0.0, 0.5, 2.0])
Y = np.array([0.0, 0.0, 1.0, 0.0])


def test_quadratic_is_the_plain_sum_of_squares() -> None:
    a, y = jnp.array([0.5, 0.25, 1.0]), jnp.array([1.0, 0.0, 0.0])
    assert costs.quadratic(a, y) == 0.25 + 0.0625 + 1.0


def test_cross_entropy_by_hand(x64: None) -> None:
    a, y = np.array([0.9, 0.2]), np.array([1.0, 0.0])
    expected = -np.log(0.9) - np.log(0.8)
    np.testing.assert_allclose(costs.cross_entropy(jnp.asarray(a), jnp.asarray(y)), expected, 1e-14)


def test_cross_entropy_of_rounded_activations_is_finite_with_its_gradient() -> None:
    a, y = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0, 1.0])
    value, gradient = jax.value_and_grad(costs.cross_entropy)(a, y)
    # Two outputs are wholly wrong: -log of the smallest normal float32 each.
    np.testing.assert_allclose(value, -2 * np.log(np.finfo(np.float32).tiny), rtol=1e-6)
    assert jnp.all(jnp.isfinite(gradient))


TRUTH = {
    ("sigmoid", "quadratic"): lambda z, y: np.sum((scipy.special.expit(z) - y) ** 2),
    ("sigmoid", "cross_entropy"): lambda z, y: (
        -np.sum(y * np.log(scipy.special.expit(z)) + (1 - y) * np.log(scipy.special.expit(-z)))
    ),
    ("sigmoid", "competing"): lambda z, y: (
        -np.sum(y * np.log(scipy.special.softmax(z)))
        - 0.1
        * np.sum(y * np.log(scipy.special.expit(z)) + (1 - y) * np.log(scipy.special.expit(-z)))
    ),
    ("softmax", "quadratic"): lambda z, y: np.sum((scipy.special.softmax(z) - y) ** 2),
    ("softmax", "cross_entropy"): lambda z, y: -np.sum(y * np.log(scipy.special.softmax(z))),
}


@pytest.mark.parametrize("pair", OBJECTIVES)
def test_objective_equals_numpy(pair: tuple[str, str], x64: None) -> None:
    found = OBJECTIVES[pair].cost(jnp.asarray(Z), jnp.asarray(Y))
    np.testing.assert_allclose(found, TRUTH[pair](Z, Y), rtol=1e-13)


@pytest.mark.parametrize("pair", OBJECTIVES)
@pytest.mark.parametrize("y", [Y, np.array([0.1, 0.7, 0.1, 0.3])])
def test_delta_equals_autodiff(pair: tuple[str, str], y: np.ndarray, x64: None) -> None:
    objective = OBJECTIVES[pair]
    expected = jax.grad(objective.cost)(jnp.asarray(Z), jnp.asarray(y))
    found = objective.delta(jnp.asarray(Z), jnp.asarray(y))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pair", OBJECTIVES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_in_float32_stays_finite(pair: tuple[str, str], size: float) -> None:
    z = jnp.array([size, -size, 0.0], jnp.float32)
    for y in jnp.eye(3, dtype=jnp.float32):
        output, cost, delta = OBJECTIVES[pair]
        for found in (output(z), cost(z, y), delta(z, y), jax.grad(cost)(z, y)):
            assert jnp.all(jnp.isfinite(found))


def test_target_of_another_shape_is_refused_and_not_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"y has shape \(1,\).*outputs have shape \(3,\)"):
        costs.quadratic(jnp.zeros(3), jnp.zeros(1))


def test_unknown_pair_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no cost 'hinge' on 'sigmoid' outputs"):
        costs.objective("sigmoid", "hinge")
