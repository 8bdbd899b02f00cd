"""Activations against NumPy and SciPy, their derivatives against jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxnn.activations import ACTIVATIONS, activation
from jaxnn.errors import ConfigError

TRUTH = {
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z >= 0, z, 0.01 * z),
    "gelu": lambda z: z * scipy.special.ndtr(z),
}
Z = np.concatenate([np.linspace(-8, 8, 101), [0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0]])


def test_every_activation_has_a_truth_to_compare_with() -> None:
    assert TRUTH.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_equals_scipy(name: str, x64: None) -> None:
    # A few ulp: both sides round once or twice.
    np.testing.assert_allclose(ACTIVATIONS[name].function(jnp.asarray(Z)), TRUTH[name](Z), 1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_equals_autodiff_kinks_included(name: str, x64: None) -> None:
    function, derivative = ACTIVATIONS[name]
    expected = jax.vmap(jax.grad(function))(jnp.asarray(Z))
    np.testing.assert_allclose(derivative(jnp.asarray(Z)), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("z", [1e4, -1e4])
def test_saturated_in_float32_stays_finite(name: str, z: float) -> None:
    for function in ACTIVATIONS[name]:
        assert jnp.isfinite(function(jnp.float32(z)))
        assert jnp.isfinite(jax.grad(function)(jnp.float32(z)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dtype_is_kept(name: str) -> None:
    for function in ACTIVATIONS[name]:
        assert function(jnp.zeros(3, jnp.float32)).dtype == jnp.float32


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown activation 'swoosh'.*sigmoid, tanh"):
        activation("swoosh")
