"""The explicit chain rule against jax.grad and against finite differences, at odd sizes.

Bounds, relative to the largest entry of an array: 1e-12 in float64, a few thousand roundings;
1e-5 in float32, likewise; 1e-6 against central differences, whose own error is about 1e-9.
"""

import functools
import itertools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trees import relative_difference

from jaxnn import gradients, mlp, models, train
from jaxnn.activations import ACTIVATIONS
from jaxnn.config import TrainConfig
from jaxnn.costs import OBJECTIVES
from jaxnn.data import Dataset
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Model, Spec

# A program that runs once: what optimising its machine code takes would not come back.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
ALL = [(activation, *pair) for activation in ACTIVATIONS for pair in OBJECTIVES]


def problem(sizes: tuple[int, ...], batch: int, seed: int, dtype: type) -> tuple[Any, Any, Any]:
    """Parameters, inputs [B, n_in] in [0, 1] and one-hot targets [B, n_out].

    NumPy's, since JAX would compile a program for every shape.
    """
    rng = np.random.default_rng(seed)
    params = tuple(
        mlp.Layer(
            np.asarray(rng.standard_normal((n_out, n_in)) / n_in**0.5, dtype),
            np.asarray(rng.standard_normal(n_out), dtype),
        )
        for n_in, n_out in itertools.pairwise(sizes)
    )
    x = rng.random((batch, sizes[0])).astype(dtype)
    return params, x, np.eye(sizes[-1], dtype=dtype)[rng.integers(0, sizes[-1], batch)]


def both_of(model: Model, params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple[dict, dict]:
    """Batch, mean of examples, examples and one example: each explicit, and by autodiff."""
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


def compare(explicit: dict, autodiff: dict, dtype: type, floor: float = 0.0) -> None:
    for name in explicit:
        bound = 1e-12 if dtype == jnp.float64 else 1e-5
        assert relative_difference(explicit[name], autodiff[name], floor) < bound, name


def check_three_ways(
    model: Model, params: mlp.Params, x: jax.Array, y: jax.Array, floor: float = 0.0
) -> None:
    both = jax.jit(functools.partial(both_of, model), compiler_options=UNOPTIMISED)
    compare(*both(params, x, y), x.dtype.type, floor)


@functools.cache
def both_of_all(dtype: type) -> dict[tuple[str, ...], tuple[dict, dict]]:
    """For every combination; one program, since compiling is what takes the time."""
    networks = {names: models.build(Spec("mlp", (5, 3, 7, 2), *names)) for names in ALL}

    def program(params: mlp.Params, x: jax.Array, y: jax.Array) -> dict:
        return {names: both_of(model, params, x, y) for names, model in networks.items()}

    return jax.jit(program, compiler_options=UNOPTIMISED)(*problem((5, 3, 7, 2), 9, 0, dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("names", ALL, ids="-".join)
def test_explicit_equals_autodiff(names: tuple[str, ...], dtype: type, x64: None) -> None:
    compare(*both_of_all(dtype)[names], dtype)


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
            x = np.full_like(x, edge == "ones")
        check_three_ways(model, params, x, y, floor)
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize(("output", "cost"), OBJECTIVES)
def test_explicit_equals_finite_differences(output: str, cost: str, x64: None) -> None:
    model = models.build(Spec("mlp", (4, 3, 2), "tanh", output, cost))
    params, x, y = problem(model.spec.sizes, 1, 5, jnp.float64)
    found = jax.jit(model.backprop)(params, x[0], y[0])
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    cost = jax.jit(lambda flat: model.cost(unflatten(flat), x[0], y[0]))
    step = 1e-6
    slopes = []
    for direction in np.eye(flat.size) * step:
        ahead, behind = cost(np.asarray(flat) + direction), cost(np.asarray(flat) - direction)
        slopes.append(float(ahead - behind) / (2 * step))
    assert relative_difference(found, unflatten(jnp.asarray(slopes))) < 1e-6


@pytest.mark.parametrize("sizes", [(5, 3, 7, 2), (784, 30, 10)])
def test_an_outside_network_agrees(sizes: tuple[int, ...], x64: None) -> None:
    """A network and cost that share no code with the project."""

    def cost(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
        a = x
        for w, b in params:
            a = 1 / (1 + jnp.exp(-(jnp.einsum("ij,j->i", w, a) + b)))
        return jnp.sum(jnp.square(y - a))

    params, x, y = problem(sizes, 1, 11, jnp.float64)
    plain = [(layer.weights, layer.biases) for layer in params]
    found = [tuple(layer) for layer in jax.jit(mlp.backprop)(params, x[0], y[0])]
    assert relative_difference(found, jax.jit(jax.grad(cost))(plain, x[0], y[0])) < 1e-12


def test_a_step_along_the_descent_direction_lowers_the_cost() -> None:
    params, x, y = problem((6, 4, 3), 8, 0, jnp.float32)

    @jax.jit
    def costs(params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        nudges = gradients.descent_direction(gradients.batch_gradient(params, x, y))
        moved = jax.tree.map(lambda p, n: p + 0.1 * n, params, nudges)
        return gradients.batch_cost(params, x, y), gradients.batch_cost(moved, x, y)

    before, after = costs(params, x, y)
    assert after < before


@pytest.mark.parametrize(
    ("x", "y"), [((3, 5), (2, 2)), ((5,), (2,)), ((0, 5), (0, 2)), ((3, 5), (3,))]
)
def test_batches_that_do_not_fit_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    params, _, _ = problem((5, 2), 1, 0, jnp.float32)
    for function in (gradients.batch_gradient, gradients.autodiff_gradient):
        with pytest.raises(ShapeError, match="with the same B"):
            function(params, np.zeros(x), np.zeros(y))


def decay_by_hand(params: mlp.Params, l2: float) -> mlp.Params:
    """l2 w for every weight, 0 for every bias."""
    return tuple(mlp.Layer(l2 * layer.weights, 0 * layer.biases) for layer in params)


@pytest.mark.parametrize("l2", [1e-3, 0.7])
def test_weight_decay_adds_to_cost_and_gradient_and_spares_biases(l2: float, x64: None) -> None:
    @jax.jit
    def all_of_them(params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple:
        return (
            gradients.batch_cost(params, x, y, l2=l2) - gradients.batch_cost(params, x, y),
            gradients.batch_gradient(params, x, y),
            gradients.batch_gradient(params, x, y, l2=l2),
            gradients.autodiff_gradient(params, x, y, l2=l2),
        )

    params, x, y = problem((5, 3, 7, 2), 9, 0, jnp.float64)
    added, plain, explicit, autodiff = all_of_them(params, x, y)
    squares = sum(float((np.asarray(layer.weights) ** 2).sum()) for layer in params)
    assert float(added) == pytest.approx(l2 / 2 * squares, rel=1e-12)
    by_hand = jax.tree.map(jnp.add, plain, decay_by_hand(params, l2))
    assert relative_difference(explicit, by_hand) < 1e-12
    assert relative_difference(explicit, autodiff) < 1e-12


@pytest.mark.parametrize("gradient", ["autodiff", "backprop"])
def test_training_follows_the_gradient_with_weight_decay(gradient: str, blobs: Dataset) -> None:
    config = TrainConfig(
        sizes=(784, 3, 10), epochs=1, batch_size=230, learning_rate=0.5, l2=0.1, gradient=gradient
    )
    reports: list[train.EpochReport] = []
    before = train.initial_state(config, 230).params
    after = train.fit(config, blobs, on_epoch=lambda _, report: reports.append(report)).params
    x = np.asarray(blobs.train_images.reshape(230, 784) / 255, np.float32)
    y = np.eye(10, dtype=np.float32)[blobs.train_labels]
    cost, slope = jax.jit(jax.value_and_grad(functools.partial(gradients.batch_cost, l2=0.1)))(
        before, x, y
    )
    expected = jax.tree.map(lambda p, s: np.asarray(p) - 0.5 * np.asarray(s), before, slope)
    assert relative_difference(after, expected) < 1e-5
    assert reports[0].cost == pytest.approx(float(cost), rel=1e-5)


@pytest.mark.parametrize("l2", [-0.1, float("nan")])
def test_weight_decay_that_cannot_be_is_refused(l2: float, blobs: Dataset) -> None:
    with pytest.raises(ConfigError, match="l2 is"):
        train.check(TrainConfig(l2=l2), blobs)


def test_weight_decay_of_an_ensemble_is_refused() -> None:
    """Its biases have rank 2 and would pass for weights."""
    model = models.build(models.Spec(sizes=(3, 2), members=2))
    params = model.init(jax.random.key(0))
    x, y = jnp.zeros((1, 3), jnp.float32), jnp.zeros((1, 2), jnp.float32)
    for gradient in (gradients.autodiff_gradient, gradients.batch_gradient):
        with pytest.raises(ConfigError, match="not for 2 members"):
            gradient(params, x, y, model=model, l2=0.1)
