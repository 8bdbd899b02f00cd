"""The network against one written out in NumPy, neuron by neuron."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import gradients, mlp, models
from jaxnn.activations import ACTIVATIONS
from jaxnn.costs import OBJECTIVES
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Model, Spec


def test_the_classic_network_has_13002_parameters() -> None:
    params = mlp.init(jax.random.key(0))
    assert [layer.weights.shape for layer in params] == [(16, 784), (16, 16), (10, 16)]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 13_002
    assert mlp.sizes_of(params) == (784, 16, 16, 10)


def test_parameters_are_a_tree_of_plain_arrays() -> None:
    params = mlp.init(jax.random.key(0), (3, 2))
    assert jax.tree.structure(params) == jax.tree.structure((mlp.Layer(0, 0),))
    assert all(type(leaf) is type(jnp.zeros(1)) for leaf in jax.tree.leaves(params))


def test_init_depends_on_the_key_only() -> None:
    one, same = (mlp.init(jax.random.key(3), (5, 4, 3)) for _ in range(2))
    other = mlp.init(jax.random.key(4), (5, 4, 3))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, same))
    assert not (one[0].weights == other[0].weights).any()
    assert not (one[0].weights[0, :3] == one[1].weights[0, :3]).any()  # no key used twice


def test_init_keeps_weighted_inputs_of_any_width_near_one() -> None:
    for width in (10, 1000):
        weights = mlp.init(jax.random.key(1), (width, 400))[0].weights
        # 400 sums of `width` unit inputs: the standard deviation is known to about 4 %.
        assert np.std(np.asarray(weights @ jnp.ones(width))) == pytest.approx(1.0, abs=0.15)


def by_hand(params: mlp.Params, x: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    a = [x.tolist()]
    z = []
    for weights, biases in params:
        z.append([])
        for row, bias in zip(np.asarray(weights), np.asarray(biases), strict=True):
            z[-1].append(sum(w * before for w, before in zip(row, a[-1], strict=True)) + bias)
        a.append([1 / (1 + np.exp(-value)) for value in z[-1]])
    return z, a


def test_trace_and_forward_equal_neurons_by_hand(x64: None) -> None:
    params = mlp.init(jax.random.key(2), (5, 3, 7, 2))
    x = np.random.default_rng(0).random(5)
    z, a = by_hand(params, x)
    found = mlp.trace(params, jnp.asarray(x))
    for layer, expected in zip(found.z + found.a, z + a, strict=True):
        np.testing.assert_allclose(layer, expected, rtol=1e-13)
    np.testing.assert_allclose(mlp.forward(params, jnp.asarray(x)), a[-1], rtol=1e-13)


def test_a_batch_is_vmap() -> None:
    params = mlp.init(jax.random.key(2), (5, 3, 2))
    x = jax.random.uniform(jax.random.key(0), (4, 5))
    batch = jax.vmap(mlp.forward, in_axes=(None, 0))(params, x)
    np.testing.assert_allclose(batch[2], mlp.forward(params, x[2]), rtol=1e-6)


def test_softmax_outputs_sum_to_one_and_hidden_activation_is_used() -> None:
    params = mlp.init(jax.random.key(2), (5, 3, 4))
    found = mlp.trace(params, jnp.ones(5), activation="relu", output="softmax")
    assert float(found.a[-1].sum()) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(found.a[1], np.maximum(found.z[0], 0))


@pytest.mark.parametrize("shape", [(4,), (6,), (1, 5), ()])
def test_an_input_that_does_not_fit_names_both_shapes(shape: tuple[int, ...]) -> None:
    params = mlp.init(jax.random.key(0), (5, 3))
    with pytest.raises(ShapeError, match=r"expected \(5,\)"):
        mlp.forward(params, jnp.zeros(shape))


@pytest.mark.parametrize("function", [mlp.example_cost, mlp.backprop])
def test_a_target_that_does_not_fit_names_both_shapes(function: object) -> None:
    params = mlp.init(jax.random.key(0), (5, 3))
    with pytest.raises(ShapeError, match=r"y has shape \(1,\).*\(3,\)"):
        function(params, jnp.zeros(5), jnp.zeros(1))  # type: ignore[operator]


@pytest.mark.parametrize("sizes", [(), (784,), (784, 0, 10), (-1, 2)])
def test_sizes_that_make_no_network_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="give two or more"):
        mlp.init(jax.random.key(0), sizes)


@functools.cache
def extremes() -> Callable:
    """(params, x, y) -> for each combination z of all layers, costs and gradients; one program."""

    def of_model(model: Model, params: mlp.Params, x: jax.Array, y: jax.Array) -> tuple:
        scores = {"activation": model.spec.activation, "output": model.spec.output}
        z = jax.vmap(functools.partial(mlp.trace, **scores), in_axes=(None, 0))(params, x).z
        return z, {
            "forward": jax.vmap(model.forward, in_axes=(None, 0))(params, x),
            "cost": gradients.batch_cost(params, x, y, model=model),
            "explicit": gradients.batch_gradient(params, x, y, model=model),
            "examples": gradients.per_example_gradients(params, x, y, model=model),
            "autodiff": gradients.autodiff_gradient(params, x, y, model=model),
        }

    networks = {
        (activation, *objective): models.build(Spec("mlp", (4, 3, 3, 2), activation, *objective))
        for activation in ACTIVATIONS
        for objective in OBJECTIVES
    }

    def all_of_them(params: mlp.Params, x: jax.Array, y: jax.Array) -> dict:
        return {names: of_model(model, params, x, y) for names, model in networks.items()}

    return jax.jit(all_of_them, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("extreme", ["weights", "biases"])
def test_nothing_overflows_where_weighted_inputs_reach_10_000(extreme: str) -> None:
    """Float32. Large weights make a relu's z grow from 1e4 to 1e12 over the layers."""
    rng = np.random.default_rng(4)
    weight, bias = (2e4 if extreme == "weights" else 0.25), 2e4
    params = tuple(
        mlp.Layer(
            np.float32(weight * rng.standard_normal((n_out, n_in))),
            np.float32(bias * rng.choice([-1, 1], n_out)),
        )
        for n_in, n_out in itertools.pairwise((4, 3, 3, 2))
    )
    x = np.float32(rng.uniform(-1, 1, (6, 4)))
    y = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 6)]
    for names, (z, found) in extremes()(params, x, y).items():
        for of_layer in z:
            assert float(jnp.max(jnp.abs(of_layer))) >= 1e4, names
        for name, tree in found.items():
            for leaf in jax.tree.leaves(tree):
                assert np.isfinite(leaf).all(), (names, name)
