"""Proof on this machine: explicit backprop against `jax.grad` and against finite differences.

For one example, for every example of a batch under `vmap`, and for the batch's mean cost:

    |explicit - reference| / max(floor, largest |reference| in the same array of parameters)

`jax.grad` differentiates the cost as written; central finite differences only evaluate it, in
float64 at steps of h, h/2 and h/4:

    D(h) = (C(p + h) - C(p - h)) / 2h         = dC/dp + O(h^2)
    S(h) = (4 D(h/2) - D(h)) / 3              = dC/dp + O(h^4)

With h = 2e-3 the terms left out and the rounding of C are both far below 1e-9 C. Where S(h) and
S(h/2) disagree the cost has a kink within the step (relu and its like): that slope is left out,
and counted. This looks at the cost alone, so that no mistake in the explicit gradient can hide
behind it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnn import gradients, models
from jaxnn.differences import Bound, Difference, difference, flat, scale
from jaxnn.errors import ConfigError
from jaxnn.models import Model, Spec

MODES = ("one", "each", "batch")
# In float32 a hundred roundings of 6e-8 each, in float64 thousands of 1e-16 each.
BOUNDS = {"float32": Bound(1e-5, floor=1.0), "float64": Bound(1e-12, floor=0.1)}
FINITE_BOUND = Bound(1e-6, floor=0.1)
STEP = 2e-3
KINK = 1e-7  # of the largest slope in an array: a smooth cost's S(h) and S(h/2) agree far closer
SEED = 14  # with it a 5-3-7-2 network has most relus on for the first example, none near a kink
MOST_MOVED = 2_000  # parameters that finite differences move, drawn by the seed if there are more


SMALL = {
    "mlp": (("", (5, 3, 7, 2)),),
    "cnn": (("tiny", (121, 3)),),
    "lstm": (("rows", (84, 3, 4, 2)), ("speech", (160, 3, 2))),
}
"""Architectures and sizes to check of each family: all of its formulas, few parameters."""


class Result(NamedTuple):
    """One network in one dtype."""

    spec: Spec
    dtype: str
    differences: tuple[Difference, ...]
    parameters: int
    moved: int  # parameters that finite differences moved; 0 in float32
    kinks: int  # slopes left out, of moved x examples
    silent: int  # arrays whose gradient is 0 in every example: agreement there proves little

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return all(difference.passed for difference in self.differences)

    @property
    def worst(self) -> Difference:
        """The difference that breaks its bound most, or else comes closest to it."""
        return max(self.differences, key=lambda difference: difference.excess)

    def against(self, reference: str) -> list[Difference]:
        """The differences from one reference, in the order of MODES."""
        return [found for found in self.differences if found.reference == reference]


class _Found(NamedTuple):
    """What the program gives for one network."""

    explicit: dict[str, Any]  # a gradient tree for each mode; for "each" its leaves begin with [B]
    autodiff: dict[str, Any]  # likewise
    costs_of_each: Array  # [moved, 6, B]: at p + h, p - h, and the same with h/2 and h/4
    costs_of_batch: Array  # [moved, 6]


def check(
    spec: Spec, dtype: str = "float64", examples: int = 7, seed: int = SEED, l2: float = 0.0
) -> Result:
    """Checks one network; arguments as in `check_all`."""
    return check_all([models.build(spec)], dtype, examples, seed, l2)[0]


def check_all(
    networks: Sequence[Model],
    dtype: str = "float64",
    examples: int = 7,
    seed: int = SEED,
    l2: float = 0.0,
) -> list[Result]:
    """Checks networks of one family and size, in one program: compiling is what takes the time.

    All get the same random parameters, normal inputs (of either sign, so that neurons switch on
    and off from one example to the next) and targets anywhere in [0, 1], not only one-hot.

    Args:
      networks: of one family and the same sizes; whose functions they hold does not matter.
      dtype: "float32", or "float64", which adds the finite differences.
      examples: in the batch, at least 1.
      seed: of parameters and examples.
      l2: as in `gradients.batch_cost`, for the batch.

    Returns:
      A result for each network, in order.

    Raises:
      ConfigError: a setting that cannot be, or networks of several families or sizes.
    """
    if dtype not in BOUNDS:
        raise ConfigError(f"dtype is {dtype!r}: choose one of {', '.join(BOUNDS)}")
    if examples < 1 or seed < 0:
        raise ConfigError(f"examples are {examples} and seed {seed}, expected at least 1 and 0")
    if not 0 <= l2 < np.inf:
        raise ConfigError(f"l2 is {l2}, expected a number of at least 0")
    sizes = networks[0].spec.sizes
    kinds = {(one.spec.family, one.spec.sizes, one.spec.architecture) for one in networks}
    if len(kinds) != 1:
        raise ConfigError(
            "the networks are of several families or sizes: check each kind by itself"
        )
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: _weights_or_biases(rng, leaf.shape).astype(dtype),
        jax.eval_shape(networks[0].init, jax.random.key(0)),
    )
    x = rng.standard_normal((examples, sizes[0])).astype(dtype)
    y = rng.random((examples, sizes[-1])).astype(dtype)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    moved = np.sort(rng.permutation(count)[:MOST_MOVED]) if dtype == "float64" else np.zeros(0, int)
    with jax.enable_x64(dtype == "float64"):
        # The program runs once: optimising its machine code would cost more than it saves.
        program = jax.jit(
            _program(networks, l2), compiler_options={"xla_backend_optimization_level": 0}
        )
        found = jax.device_get(program(params, x, y, moved))
    with np.errstate(invalid="ignore"):  # inf - inf is nan, which breaks every bound
        return [
            _result(model.spec, dtype, params, moved, of_model)
            for model, of_model in zip(networks, found, strict=True)
        ]


def _weights_or_biases(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """As in `mlp.init`, but drawn at once: to compile `init` would take seconds."""
    return rng.standard_normal(shape) / math.prod(shape[1:]) ** 0.5


def _program(networks: Sequence[Model], l2: float) -> Callable[..., list[_Found]]:
    """(params, x [B, n_in], y [B, n_out], moved [M]) -> every gradient and cost to compare."""

    def gradients_of(model: Model, params: Any, x: Array, y: Array) -> tuple[dict, dict]:
        by_example = jax.grad(model.cost)
        explicit = {
            "one": model.backprop(params, x[0], y[0]),
            "each": gradients.per_example_gradients(params, x, y, model=model),
            "batch": gradients.batch_gradient(params, x, y, model=model, l2=l2),
        }
        autodiff = {
            "one": by_example(params, x[0], y[0]),
            "each": jax.vmap(by_example, in_axes=(None, 0, 0))(params, x, y),
            "batch": gradients.autodiff_gradient(params, x, y, model=model, l2=l2),
        }
        return explicit, autodiff

    def program(params: Any, x: Array, y: Array, moved: Array) -> list[_Found]:
        flat, unflatten = ravel_pytree(params)
        steps = STEP * jnp.array([1, -1, 1 / 2, -1 / 2, 1 / 4, -1 / 4], flat.dtype)

        def costs_around(place: Array) -> list[tuple[Array, Array]]:
            def costs_at(step: Array) -> list[tuple[Array, Array]]:
                nearby = unflatten(flat.at[place].add(step))
                return [
                    (
                        jax.vmap(model.cost, in_axes=(None, 0, 0))(nearby, x, y),
                        gradients.batch_cost(nearby, x, y, model=model, l2=l2),
                    )
                    for model in networks
                ]

            return jax.vmap(costs_at)(steps)

        # One parameter after the other: all at once would take the square of their memory.
        costs = jax.lax.map(costs_around, moved)
        return [
            _Found(*gradients_of(model, params, x, y), *of_model)
            for model, of_model in zip(networks, costs, strict=True)
        ]

    return program


def _result(spec: Spec, dtype: str, params: Any, moved: np.ndarray, found: _Found) -> Result:
    """Compares; `found` is on the host."""
    explicit = {mode: flat(found.explicit[mode], mode) for mode in MODES}
    differences = []
    for mode in MODES:
        expected = flat(found.autodiff[mode], mode)
        differences.append(
            difference(params, mode, "jax.grad", explicit[mode], expected, BOUNDS[dtype])
        )
    kinks = 0
    if len(moved):
        each = np.moveaxis(np.asarray(found.costs_of_each), -1, 0)  # [B, M, 6]
        of_batch = np.asarray(found.costs_of_batch)  # [M, 6]
        for mode, costs in zip(MODES, (each[0], each, of_batch), strict=True):
            coarse, fine = _slopes(costs)  # [M], or [B, M] for each example
            slopes = np.zeros_like(explicit[mode])
            slopes[..., moved] = fine
            kink = np.abs(coarse - fine) > KINK * scale(slopes, params, FINITE_BOUND.floor)[moved]
            known = np.zeros(slopes.shape, bool)
            known[..., moved] = ~kink
            kinks += int(kink.sum()) if mode == "each" else 0
            differences.append(
                difference(
                    params, mode, "finite differences", explicit[mode], slopes, FINITE_BOUND, known
                )
            )
    count = explicit["one"].size
    silent = sum(not np.any(leaf) for leaf in jax.tree.leaves(found.autodiff["each"]))
    return Result(spec, dtype, tuple(differences), count, len(moved), kinks, silent)


def _slopes(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S(h) and S(h/2) from costs [..., 6]."""
    at_h, at_half, at_quarter = (
        (costs[..., 2 * k] - costs[..., 2 * k + 1]) / (2 * STEP / 2**k) for k in range(3)
    )
    return (4 * at_half - at_h) / 3, (4 * at_quarter - at_half) / 3
