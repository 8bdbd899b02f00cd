"""What a network is, as a value: a `Spec` that can be written down, and the `Model` it names.

A `Model` is a NamedTuple of pure functions, the same ones for every family, so that training,
files and the service need not know which family they hold.

An ensemble, a spec with several `members`, is a model like any other: the params of one network,
each array with a leading [K], and functions that answer for all K members together.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnn import cnn, lstm, mlp
from jaxnn.activations import activation as activation_named
from jaxnn.costs import objective as objective_of
from jaxnn.errors import ConfigError

MAX_MEMBERS = 1024

Params = Any  # a pytree of plain arrays


class Spec(NamedTuple):
    """Everything that decides a network's shape and mathematics; plain values only."""

    family: str = "mlp"
    sizes: tuple[int, ...] = mlp.CLASSIC_SIZES
    activation: str = "sigmoid"
    output: str = "sigmoid"
    cost: str = "quadratic"
    members: int = 1  # networks of this kind that answer together; above 1 an ensemble
    architecture: str = ""  # a name in the family's ARCHITECTURES; an mlp has its sizes only


class Model(NamedTuple):
    """Pure functions of one family, with the spec's choices bound.

    Of an ensemble, scores and costs are the means over its members. (The mean of the costs is what
    its members were trained on; the cost of the mean scores is never higher.)

    init: key -> params, float32: what training, files and the service hold.
    forward: (params, x [n_in]) -> a [n_out], scores in [0, 1].
    cost: (params, x [n_in], y [n_out]) -> scalar.
    backprop: (params, x [n_in], y [n_out]) -> dC/dparams, by the explicit chain rule.
    batch_backprop: (params, x [B, n_in], y [B, n_out]) -> its mean, contracted over the batch.
    batch_cost_and_backprop: likewise -> (the batch's mean cost, that gradient), for training.
    """

    spec: Spec
    init: Callable[[Array], Params]
    forward: Callable[[Params, Array], Array]
    cost: Callable[[Params, Array, Array], Array]
    backprop: Callable[[Params, Array, Array], Params]
    batch_backprop: Callable[[Params, Array, Array], Params]
    batch_cost_and_backprop: Callable[[Params, Array, Array], tuple[Array, Params]]


def _mlp(spec: Spec) -> Model:
    if spec.architecture:
        raise ConfigError(
            f"architecture is {spec.architecture!r}: an mlp has its sizes only, leave it out"
        )
    scores: dict[str, Any] = {"activation": spec.activation, "output": spec.output}
    costs: dict[str, Any] = {**scores, "cost": spec.cost}
    return Model(
        spec=spec,
        init=partial(mlp.init, sizes=spec.sizes, dtype=jnp.float32),
        forward=partial(mlp.forward, **scores),
        **_explicit(mlp, costs),
    )


def _explicit(family: Any, costs: dict[str, Any]) -> dict[str, Any]:
    """The cost of a family, a module, and its explicit gradient."""
    cost = partial(family.example_cost, **costs)
    batch_backprop = partial(family.batch_backprop, **costs)

    def beside_each_other(params: Params, x: Array, y: Array) -> tuple[Array, Params]:
        # XLA sees that both go forward the same way, and does it once.
        mean = jnp.mean(jax.vmap(cost, in_axes=(None, 0, 0))(params, x, y))
        return mean, batch_backprop(params, x, y)

    both = beside_each_other
    if family is lstm:  # of two scans XLA does not see it
        both = partial(lstm.batch_cost_and_backprop, **costs)
    return {
        "cost": cost,
        "backprop": partial(family.backprop, **costs),
        "batch_backprop": batch_backprop,
        "batch_cost_and_backprop": both,
    }


def _with_architecture(family: Any, spec: Spec) -> Model:
    """Of a family, a module, whose layers have a name."""
    family.check(spec.sizes, spec.architecture)
    scores: dict[str, Any] = {
        "architecture": spec.architecture,
        "activation": spec.activation,
        "output": spec.output,
    }
    costs: dict[str, Any] = {**scores, "cost": spec.cost}
    form: dict[str, Any] = {"sizes": spec.sizes, "architecture": spec.architecture}
    return Model(
        spec=spec,
        init=partial(family.init, **form, dtype=jnp.float32),
        forward=partial(family.forward, **scores),
        **_explicit(family, costs),
    )


FAMILIES: dict[str, Callable[[Spec], Model]] = {
    "mlp": _mlp,
    "cnn": partial(_with_architecture, cnn),
    "lstm": partial(_with_architecture, lstm),
}


def _ensemble(spec: Spec) -> Model:
    """Several networks as one: the mean of what each of them makes of the same example."""
    one = build(spec._replace(members=1))
    members = spec.members

    def mean_cost(params: Params, x: Array, y: Array) -> Array:
        each = jax.vmap(one.cost, in_axes=(0, None, None), axis_size=members)
        return jnp.mean(each(params, x, y))

    def mean_gradient(
        of_one: Callable[[Params, Array, Array], Params], params: Params, x: Array, y: Array
    ) -> Params:
        each = jax.vmap(of_one, in_axes=(0, None, None), axis_size=members)
        return jax.tree.map(lambda leaf: leaf / members, each(params, x, y))

    def mean_cost_and_gradient(params: Params, x: Array, y: Array) -> tuple[Array, Params]:
        each = jax.vmap(one.batch_cost_and_backprop, in_axes=(0, None, None), axis_size=members)
        costs, slopes = each(params, x, y)
        return jnp.mean(costs), jax.tree.map(lambda leaf: leaf / members, slopes)

    return Model(
        spec=spec,
        init=lambda key: jax.vmap(one.init)(jax.random.split(key, members)),
        forward=lambda params, x: jnp.mean(member_scores(spec, params, x), axis=0),
        cost=mean_cost,
        backprop=partial(mean_gradient, one.backprop),
        batch_backprop=partial(mean_gradient, one.batch_backprop),
        batch_cost_and_backprop=mean_cost_and_gradient,
    )


def member_scores(spec: Spec, params: Params, x: Array) -> Array:
    """What every member of an ensemble says by itself, [K, n_out], for one example x [n_in].

    A single network is its own only member, K = 1.
    """
    one = build(spec._replace(members=1))
    if spec.members == 1:
        return one.forward(params, x)[None]
    return jax.vmap(one.forward, in_axes=(0, None), axis_size=spec.members)(params, x)


def build(spec: Spec = Spec()) -> Model:  # noqa: B008 - a Spec is a tuple
    """The model that a spec names.

    Raises:
      ConfigError: a family, activation, cost, layer size or number of members that is not known or
        cannot be.
    """
    # Here, since to the cache 1, 1.0 and True are the same.
    if type(spec.members) is not int:
        raise ConfigError(f"members is a {type(spec.members).__name__}: give a whole number")
    return _built(spec._replace(sizes=tuple(spec.sizes)))


@lru_cache
def _built(spec: Spec) -> Model:
    if spec.family not in FAMILIES:
        raise ConfigError(f"unknown family {spec.family!r}: choose one of {', '.join(FAMILIES)}")
    if len(spec.sizes) < 2 or min(spec.sizes) < 1:
        raise ConfigError(f"sizes are {spec.sizes}: give two or more, each at least 1")
    if not 1 <= spec.members <= MAX_MEMBERS:
        raise ConfigError(f"members is {spec.members}: give 1 to {MAX_MEMBERS:,}")
    activation_named(spec.activation)
    objective_of(spec.output, spec.cost)
    return FAMILIES[spec.family](spec) if spec.members == 1 else _ensemble(spec)
