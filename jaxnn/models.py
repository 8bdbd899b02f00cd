"""What a network is, as a value: a `Spec` that can be written down, and the `Model` it names.

A `Model` is a NamedTuple of pure functions, the same ones for every family, so that training,
files and the service need not know which family they hold.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxnn import mlp
from jaxnn.activations import activation as activation_named
from jaxnn.costs import objective as objective_of
from jaxnn.errors import ConfigError

Params = Any  # a pytree of plain arrays


class Spec(NamedTuple):
    """Everything that decides a network's shape and mathematics; plain values only."""

    family: str = "mlp"
    sizes: tuple[int, ...] = mlp.CLASSIC_SIZES
    activation: str = "sigmoid"
    output: str = "sigmoid"
    cost: str = "quadratic"


class Model(NamedTuple):
    """Pure functions of one family, with the spec's choices bound.

    init: key -> params, float32: what training, files and the service hold.
    forward: (params, x [n_in]) -> a [n_out], scores in [0, 1].
    cost: (params, x [n_in], y [n_out]) -> scalar.
    backprop: (params, x [n_in], y [n_out]) -> dC/dparams, by the explicit chain rule.
    batch_backprop: (params, x [B, n_in], y [B, n_out]) -> its mean, contracted over the batch.
    """

    spec: Spec
    init: Callable[[Array], Params]
    forward: Callable[[Params, Array], Array]
    cost: Callable[[Params, Array, Array], Array]
    backprop: Callable[[Params, Array, Array], Params]
    batch_backprop: Callable[[Params, Array, Array], Params]


def _mlp(spec: Spec) -> Model:
    scores: dict[str, Any] = {"activation": spec.activation, "output": spec.output}
    costs: dict[str, Any] = {**scores, "cost": spec.cost}
    return Model(
        spec=spec,
        init=partial(mlp.init, sizes=spec.sizes, dtype=jnp.float32),
        forward=partial(mlp.forward, **scores),
        cost=partial(mlp.example_cost, **costs),
        backprop=partial(mlp.backprop, **costs),
        batch_backprop=partial(mlp.batch_backprop, **costs),
    )


FAMILIES = {"mlp": _mlp}


def build(spec: Spec = Spec()) -> Model:  # noqa: B008 - a Spec is a tuple
    """The model that a spec names.

    Raises:
      ConfigError: a family, activation, cost or layer size that is not known or cannot be.
    """
    return _built(spec._replace(sizes=tuple(spec.sizes)))


@lru_cache
def _built(spec: Spec) -> Model:
    if spec.family not in FAMILIES:
        raise ConfigError(f"unknown family {spec.family!r}: choose one of {', '.join(FAMILIES)}")
    if len(spec.sizes) < 2 or min(spec.sizes) < 1:
        raise ConfigError(f"sizes are {spec.sizes}: give two or more, each at least 1")
    activation_named(spec.activation)
    objective_of(spec.output, spec.cost)
    return FAMILIES[spec.family](spec)
