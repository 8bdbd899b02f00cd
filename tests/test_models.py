"""A spec names a model, or is refused with a sentence."""

import jax
import jax.numpy as jnp
import pytest

from jaxnn import mlp, models
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
    ],
)
def test_a_spec_that_names_no_model_is_refused(spec: Spec, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        models.build(spec)


def test_parameters_are_float32_also_where_jax_defaults_to_float64(x64: None) -> None:
    leaves = jax.tree.leaves(models.build(Spec(sizes=(3, 2))).init(jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
