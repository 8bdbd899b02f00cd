"""The explicit chain rule against jax.grad and against finite differences, at odd sizes.

Bounds, relative to the largest entry of an array: 1e-12 in float64, a few thousand roundings;
1e-5 in float32, likewise; 1e-6 against central differences, whose own error is about 1e-9.
"""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trees import relative_difference

from jaxnn import gradients, mlp, models
from jaxnn.activations import ACTIVATIONS
from jaxnn.costs import OBJECTIVES
from jaxnn.errors import ShapeError
from jaxnn.models import Model, Spec

ALL = [(activation, *pair) for activation in ACTIVATIONS for pair in OBJECTIVES]


def problem(
    sizes: tuple[int, ...], batch: int, seed: int, dtype: type, model: Model | None = None
) -> tuple[mlp.Params, jax.Array, jax.Array]:
    """Parameters, inputs [B, n_in] in [0, 1] and one-hot targets [B, n_out]."""
    rng = np.random.default_rng(seed)
    params = mlp.init(jax.random.key(seed), sizes, dtype)
    x = rng.random((batch, sizes[0]))
    y = np.eye(sizes[-1])[rng.integers(0, sizes[-1], batch)]
    return params, jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def check_three_ways(
    model: Model, params: mlp.Params, x: jax.Array, y: jax.Array, floor: float = 0.0
) -> None:
    """Batch, mean of examples, examples and one example: each explicit against autodiff."""

    @jax.jit  # one compilation instead of one for every operation and shape
    def both(params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple[dict, dict]:
        each = gradients.per_example_gradients(params, x, y, model=model)
        of_batch = gradients.autodiff_gradient(params, x, y, model=model)
        explicit = {
            "batch": gradients.batch_gradient(params, x, y, model=model),
            "mean": jax.tree.map(functools.partial(jnp.mean, axis=0), each),
            "each": each,
            "one": model.backprop(params, x[0], y[0]),
        }
        autodiff = {
            "batch": of_batch,
            "mean": of_batch,
            "each": jax.vmap(jax.grad(model.cost), in_axes=(None, 0, 0))(params, x, y),
            "one": jax.grad(model.cost)(params, x[0], y[0]),
        }
        return explicit, autodiff

    explicit, autodiff = both(params, x, y)
    for name in explicit:
        bound = 1e-12 if x.dtype == jnp.float64 else 1e-5
        assert relative_difference(explicit[name], autodiff[name], floor) < bound, name


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("activation", "output", "cost"), ALL)
def test_explicit_equals_autodiff(
    activation: str, output: str, cost: str, dtype: type, x64: None
) -> None:
    model = models.build(Spec("mlp", (5, 3, 7, 2), activation, output, cost))
    check_three_ways(model, *problem(model.spec.sizes, 9, 0, dtype))


@pytest.mark.parametrize("sizes", [(784, 16, 16, 10), (784, 30, 10), (1, 1, 1, 1), (3, 50)])
@pytest.mark.parametrize("batch", [1, 33])
def test_explicit_equals_autodiff_at_other_sizes(
    sizes: tuple[int, ...], batch: int, x64: None
) -> None:
    model = models.build(Spec(sizes=sizes))
    check_three_ways(model, *problem(sizes, batch, batch, jnp.float64))


# Each example compiles a new program: few examples, and no shrinking, which would take hours.
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    sizes=st.lists(st.integers(1, 50), min_size=2, max_size=7).map(tuple),
    batch=st.integers(1, 33),
    combination=st.sampled_from(ALL),
    edge=st.sampled_from(["random", "zeros", "ones", "saturated"]),
    seed=st.integers(0, 2**31),
)
def test_explicit_equals_autodiff_anywhere(
    sizes: tuple[int, ...], batch: int, combination: tuple[str, ...], edge: str, seed: int
) -> None:
    jax.config.update("jax_enable_x64", True)  # a fixture would not be renewed for each example
    try:
        model = models.build(Spec("mlp", sizes, *combination))
        params, x, y = problem(sizes, batch, seed, jnp.float64)
        floor = 0.0
        if edge == "saturated":
            # The gradient is what is left where terms of about 1 cancel: 1 is what to compare with.
            params = jax.tree.map(lambda leaf: 40 * leaf, params)
            floor = 1.0
        elif edge != "random":
            x = jnp.full_like(x, edge == "ones")
        check_three_ways(model, params, x, y, floor)
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize(("output", "cost"), OBJECTIVES)
def test_explicit_equals_finite_differences(output: str, cost: str, x64: None) -> None:
    model = models.build(Spec("mlp", (4, 3, 2), "tanh", output, cost))
    params, x, y = problem(model.spec.sizes, 1, 5, jnp.float64)
    found = model.backprop(params, x[0], y[0])
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    step = 1e-6
    slopes = []
    for direction in np.eye(flat.size) * step:
        ahead, behind = (
            model.cost(unflatten(flat + sign * jnp.asarray(direction)), x[0], y[0])
            for sign in (1, -1)
        )
        slopes.append(float(ahead - behind) / (2 * step))
    assert relative_difference(found, unflatten(jnp.asarray(slopes))) < 1e-6


def test_an_outside_network_agrees(x64: None) -> None:
    """A network and cost that share no code with the project."""

    def cost(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
        a = x
        for w, b in params:
            a = 1 / (1 + jnp.exp(-(jnp.einsum("ij,j->i", w, a) + b)))
        return jnp.sum(jnp.square(y - a))

    params, x, y = problem((5, 3, 7, 2), 1, 11, jnp.float64)
    plain = [(layer.weights, layer.biases) for layer in params]
    found = [tuple(layer) for layer in mlp.backprop(params, x[0], y[0])]
    assert relative_difference(found, jax.grad(cost)(plain, x[0], y[0])) < 1e-12


def test_a_step_along_the_descent_direction_lowers_the_cost() -> None:
    params, x, y = problem((6, 4, 3), 8, 0, jnp.float32)
    nudges = gradients.descent_direction(gradients.batch_gradient(params, x, y))
    moved = jax.tree.map(lambda p, n: p + 0.1 * n, params, nudges)
    assert gradients.batch_cost(moved, x, y) < gradients.batch_cost(params, x, y)


@pytest.mark.parametrize(
    ("x", "y"), [((3, 5), (2, 2)), ((5,), (2,)), ((0, 5), (0, 2)), ((3, 5), (3,))]
)
def test_batches_that_do_not_fit_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    params = mlp.init(jax.random.key(0), (5, 2))
    for function in (gradients.batch_gradient, gradients.autodiff_gradient):
        with pytest.raises(ShapeError, match="with the same B"):
            function(params, jnp.zeros(x), jnp.zeros(y))
