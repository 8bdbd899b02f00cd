"""A spec names a model, or is refused with a sentence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import relative_difference

from jaxnn import gradients, mlp, models
from jaxnn.errors import ConfigError
from jaxnn.models import Spec


def test_the_default_is_the_classic_network() -> None:
    model = models.build()
    params = model.init(jax.random.key(0))
    assert mlp.sizes_of(params) == (784, 16, 16, 10)
    x = jnp.full(784, 0.5)
    assert (model.forward(params, x) == mlp.forward(params, x)).all()


def test_a_spec_reaches_every_function() -> None:
    model = models.build(Spec("mlp", (4, 3, 2), "relu", "softmax", "cross_entropy"))
    params = model.init(jax.random.key(0))
    x, y = jnp.ones(4), jnp.array([0.0, 1.0])
    choices = {"activation": "relu", "output": "softmax"}
    assert (model.forward(params, x) == mlp.forward(params, x, **choices)).all()
    assert float(model.cost(params, x, y)) == pytest.approx(
        float(-jnp.log(model.forward(params, x)[1])), rel=1e-6
    )
    gradient = mlp.backprop(params, x, y, **choices, cost="cross_entropy")
    assert (model.backprop(params, x, y)[0].weights == gradient[0].weights).all()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (Spec(family="oracle"), "unknown family 'oracle'"),
        (Spec(activation="swoosh"), "unknown activation 'swoosh'"),
        (Spec(cost="hinge"), "no cost 'hinge'"),
        (Spec(output="tanh"), "on 'tanh' outputs"),
        (Spec(sizes=(784,)), "give two or more"),
        (Spec(sizes=(784, 0, 10)), "each at least 1"),
        (Spec(sizes=(784,), members=2), "give two or more"),
        (Spec(members=0), "members is 0: give 1 to 1,024"),
        (Spec(members=-3), "members is -3"),
        (Spec(members=1025), "members is 1025"),
        (Spec(members=10**100), "give 1 to 1,024"),
        (Spec(members=True), "members is a bool: give a whole number"),
        (Spec(members=2.0), "members is a float"),  # type: ignore[arg-type]
        (Spec(members="2"), "members is a str"),  # type: ignore[arg-type]
        (Spec(members=[2]), "members is a list"),  # type: ignore[arg-type]
        (Spec(members=None), "members is a NoneType"),  # type: ignore[arg-type]
    ],
)
def test_a_spec_that_names_no_model_is_refused(spec: Spec, sentence: str) -> None:
    models.build(Spec()), models.build(Spec(members=2))  # to which True and 2.0 are equal
    with pytest.raises(ConfigError, match=sentence):
        models.build(spec)


def test_parameters_are_float32_also_where_jax_defaults_to_float64(x64: None) -> None:
    leaves = jax.tree.leaves(models.build(Spec(sizes=(3, 2))).init(jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


CHOICES = ("tanh", "sigmoid", "cross_entropy")
ONE = models.build(Spec("mlp", (6, 4, 3), *CHOICES))
THREE = models.build(Spec("mlp", (6, 4, 3), *CHOICES, members=3))
PARAMS = jax.device_get(jax.jit(THREE.init)(jax.random.key(1)))
X = np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6)
Y = np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0]]


def member(k: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[k], PARAMS)


def numpy_scores(params: Any, x: np.ndarray) -> np.ndarray:
    """Scores [B, 3] of one member: tanh and sigmoid, written out, in float64."""
    hidden = np.tanh(x.astype(float) @ params[0].weights.T + params[0].biases)
    return 1 / (1 + np.exp(-(hidden @ params[1].weights.T + params[1].biases)))


def test_an_ensemble_starts_as_so_many_different_members() -> None:
    for k, key in enumerate(jax.random.split(jax.random.key(1), 3)):
        # The same random bits; made into normal numbers by another program, so not bit for bit.
        assert relative_difference(member(k), jax.jit(ONE.init)(key)) < 1e-6
    assert jax.tree.structure(PARAMS) == jax.tree.structure(ONE.init(jax.random.key(0)))
    assert PARAMS[0].weights.shape == (3, 4, 6)
    assert {leaf.dtype for leaf in jax.tree.leaves(PARAMS)} == {np.dtype("float32")}
    assert np.ptp(PARAMS[0].biases, axis=0).min() > 0.01


def test_an_ensemble_answers_with_the_mean_of_its_members() -> None:
    each = np.stack([numpy_scores(member(k), X) for k in range(3)])  # [K, B, 3]
    found = jax.jit(jax.vmap(THREE.forward, in_axes=(None, 0)))(PARAMS, X)
    # Sums of six float32 terms: a few 1e-7.
    np.testing.assert_allclose(found, each.mean(axis=0), rtol=2e-6)
    members = jax.jit(jax.vmap(models.member_scores, in_axes=(None, None, 0)), static_argnums=0)
    np.testing.assert_allclose(members(THREE.spec, PARAMS, X), each.swapaxes(0, 1), rtol=2e-6)


def test_a_single_network_is_its_own_only_member() -> None:
    x = X[1]
    found = models.member_scores(ONE.spec, member(0), x)
    np.testing.assert_array_equal(found, ONE.forward(member(0), x)[None])


def test_the_cost_of_an_ensemble_is_the_mean_of_its_members_costs() -> None:
    each = [numpy_scores(member(k), X) for k in range(3)]
    expected = np.mean(
        [-np.sum(Y * np.log(a) + (1 - Y) * np.log(1 - a), axis=1) for a in each], axis=0
    )
    found = jax.jit(jax.vmap(THREE.cost, in_axes=(None, 0, 0)))(PARAMS, X, Y)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_the_gradient_of_an_ensemble_is_that_of_its_cost(x64: None) -> None:
    """The explicit chain rule against jax.grad, in float64: what is left is rounding."""
    params = jax.tree.map(lambda leaf: leaf.astype(float), PARAMS)
    x, y = X.astype(float), Y.astype(float)
    found = jax.jit(THREE.backprop)(params, x[0], y[0])
    expected = jax.jit(jax.grad(THREE.cost))(params, x[0], y[0])
    assert relative_difference(found, expected) < 1e-13
    cost, found = jax.jit(THREE.batch_cost_and_backprop)(params, x, y)
    mean = jax.jit(lambda *batch: gradients.batch_cost(*batch, model=THREE))
    assert float(cost) == pytest.approx(float(mean(params, x, y)), rel=1e-13)
    road = jax.jit(lambda *batch: gradients.autodiff_gradient(*batch, model=THREE))
    assert relative_difference(found, road(params, x, y)) < 1e-13
    # and each member's part is a third of what it would be alone
    alone = jax.jit(ONE.batch_backprop)(jax.tree.map(lambda leaf: leaf[2], params), x, y)
    assert relative_difference(jax.tree.map(lambda leaf: 3 * leaf[2], found), alone) < 1e-13


def test_more_members_than_the_spec_says_are_refused() -> None:
    two = models.build(THREE.spec._replace(members=2))
    for function in (two.forward, two.cost, two.backprop):
        rest = (X[0],) if function is two.forward else (X[0], Y[0])
        with pytest.raises(ValueError, match="axis_size"):
            function(PARAMS, *rest)
