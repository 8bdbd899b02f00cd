"""Long short-term memories against a loop in NumPy, `jax.grad` and finite differences."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import relative_difference

from jaxnn import gradients, lstm, models
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.lstm import Architecture
from jaxnn.models import Model, Spec

FEATURES = 3
EXAMPLES = 5
# One and two directions and layers, with and without padding, both ways to read; odd sizes.
KINDS = {
    "plain": (Architecture(FEATURES, 1, False, False), (5 * FEATURES, 4, 2)),
    "last": (Architecture(FEATURES, 1, True, False), (7 * FEATURES, 5, 3, 2)),
    "mean": (Architecture(FEATURES, 2, True, True), (7 * FEATURES, 3, 3)),
}
CHECKED = ("last", "mean")  # their gradients, too; `jaxnn gradcheck` has the others
LENGTHS = (7, 4, 1, 5, 0)  # real steps of the examples, where some are padding


@pytest.fixture(scope="module", autouse=True)
def kinds() -> Iterator[None]:
    """The architectures of this file, known for as long as it runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (architecture, _) in KINDS.items():
            patch.setitem(lstm.ARCHITECTURES, name, architecture)
        yield
    models._built.cache_clear()


class Case(NamedTuple):
    """A network and a batch in float64, and what one program made of them."""

    model: Model
    params: Any
    x: np.ndarray  # [EXAMPLES, n_in]
    y: np.ndarray  # [EXAMPLES, n_out]
    found: dict[str, Any]


def network(name: str, cost: str = "cross_entropy") -> Model:
    return models.build(Spec("lstm", KINDS[name][1], "tanh", "softmax", cost, architecture=name))


def drawn(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Parameters, inputs in (0, 1) and targets, float64; padding as LENGTHS says."""
    architecture, sizes = KINDS[name]
    rng = np.random.default_rng(len(name))
    shapes = jax.eval_shape(network(name).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    x = rng.uniform(0.1, 1, (EXAMPLES, sizes[0] // FEATURES, FEATURES))
    if architecture.masked:
        for example, length in zip(x, LENGTHS, strict=True):
            example[length:] = 0
        x[3, 2] = 0  # and a gap, between real steps
    return params, x.reshape(EXAMPLES, -1), rng.random((EXAMPLES, sizes[-1]))


@pytest.fixture(scope="module")
def cases(kinds: None) -> dict[str, Case]:
    """Every kind, in one program: compiling is what takes the time."""

    def program(given: dict[str, tuple]) -> dict[str, dict]:
        found: dict[str, dict[str, Any]] = {}
        for name, (params, x, y) in given.items():
            model = network(name)
            choices = {"architecture": name, "output": "softmax"}
            found[name] = {"trace": jax.vmap(partial(lstm.trace, **choices), (None, 0))(params, x)}
            if name in CHECKED:
                slopes = jax.vmap(jax.value_and_grad(model.cost), (None, 0, 0))
                found[name]["autodiff"] = slopes(params, x, y)
        # One example under vmap here, a batch there: both make the same products.
        params, x, y = given["last"]
        found["last"]["each"] = gradients.per_example_gradients(params, x, y, model=network("last"))
        params, x, y = given["mean"]
        costs = {"architecture": "mean", "output": "softmax", "cost": "cross_entropy"}
        found["mean"]["batch"] = lstm.batch_cost_and_backprop(params, x, y, **costs)
        return found

    with jax.enable_x64(True):
        given = {name: drawn(name) for name in KINDS}
        options = {"xla_backend_optimization_level": 0}
        found = jax.device_get(jax.jit(program, compiler_options=options)(given))
    return {name: Case(network(name), *given[name], found[name]) for name in KINDS}


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def by_hand(name: str, params: Any, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores, and the outputs of each layer: one step, one direction after the other."""
    architecture, _ = KINDS[name]
    steps = [step for step in x.reshape(-1, FEATURES) if step[0] > 0 or not architecture.masked]
    outputs = []
    for layer in params.layers:
        ways = []
        for direction, (weights, recurrent, biases) in enumerate(layer):
            width = recurrent.shape[1]
            h, c, seen = np.zeros(width), np.zeros(width), []
            for step in steps[::-1] if direction else steps:
                z = (weights @ step + recurrent @ h + biases).reshape(4, width)
                c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[2])
                h = sigmoid(z[3]) * np.tanh(c)
                seen.append(h)
            ways.append(seen[::-1] if direction else seen)
        last = np.concatenate([way[0 if d else -1] if way else h for d, way in enumerate(ways)])
        steps = [np.concatenate(hs) for hs in zip(*ways, strict=True)]
        outputs.append(np.array(steps))
    read = np.mean(steps, axis=0) if architecture.mean and steps else last
    z = params.readout.weights @ read + params.readout.biases
    return np.exp(z) / np.sum(np.exp(z)), outputs


@pytest.mark.parametrize("name", KINDS)
def test_scores_and_states_equal_a_loop_by_hand(cases: dict[str, Case], name: str) -> None:
    """To 1e-13: the same sums in another order. Padding is left out by hand, not stepped over."""
    case = cases[name]
    for x, scores in zip(case.x, case.found["trace"].a, strict=True):
        np.testing.assert_allclose(scores, by_hand(name, case.params, x)[0], rtol=1e-13)
    # Of the first example, all of whose steps are real.
    trace = jax.tree.map(lambda leaf: leaf[0], case.found["trace"])
    for layer, expected in zip(trace.layers, by_hand(name, case.params, case.x[0])[1], strict=True):
        h = np.concatenate([steps.h for steps in layer], axis=1)
        np.testing.assert_allclose(h, expected, rtol=1e-12)
        for steps in layer:
            before = np.concatenate([np.zeros_like(steps.c[:1]), steps.c[:-1]])
            if steps is layer[0]:  # the memory, from its gates
                np.testing.assert_allclose(
                    steps.c, steps.f * before + steps.i * steps.g, rtol=1e-12
                )
            np.testing.assert_allclose(steps.h, steps.o * np.tanh(steps.c), rtol=1e-12)


def test_backpropagation_through_time_equals_autodiff(cases: dict[str, Case]) -> None:
    found = cases["last"].found
    assert relative_difference(found["each"], found["autodiff"][1], floor=0.1) < 1e-11
    found = cases["mean"].found
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), found["autodiff"])
    assert relative_difference(found["batch"], mean, floor=0.1) < 1e-11


@pytest.mark.parametrize("name", CHECKED)
def test_autodiff_equals_finite_differences_of_the_loop(cases: dict[str, Case], name: str) -> None:
    """The loop leaves padding out: so this says, too, that padding changes no gradient.

    In NumPy alone: central differences at 1e-5 of a few slopes, good to about 1e-9.
    """
    case = cases[name]
    leaves, tree = jax.tree.flatten(case.params)
    each = jax.tree.leaves(case.found["autodiff"][1])
    slopes = [leaf.mean(axis=0) for leaf in each]
    rng = np.random.default_rng(0)

    def cost(leaf: int, place: int, by: float) -> float:
        nearby = [array.copy() for array in leaves]
        nearby[leaf].flat[place] += by
        params = jax.tree.unflatten(tree, nearby)
        costs = [
            -np.sum(y * np.log(by_hand(name, params, x)[0]))
            for x, y in zip(case.x, case.y, strict=True)
        ]
        return float(np.mean(costs))

    for leaf, slope in enumerate(slopes):
        for place in rng.permutation(slope.size)[:3]:
            expected = (cost(leaf, place, 1e-5) - cost(leaf, place, -1e-5)) / 2e-5
            assert slope.flat[place] == pytest.approx(expected, abs=1e-8)


def test_a_short_sequence_needs_no_padding() -> None:
    """As a service sends it: example 1 has 4 real steps; its shape alone says so."""
    params, x, _ = drawn("mean")
    found = jax.eval_shape(partial(lstm.trace, architecture="mean"), params, x[1, : 4 * FEATURES])
    assert found.layers[0][0].h.shape == (4, 3) and found.a.shape == (3,)


def test_a_sequence_of_nothing_but_padding_gives_finite_scores(cases: dict[str, Case]) -> None:
    case = cases["last"]
    biases = case.params.readout.biases
    expected = np.exp(biases) / np.exp(biases).sum()
    np.testing.assert_allclose(case.found["trace"].a[4], expected, rtol=1e-13)
    slopes = jax.tree.map(lambda leaf: leaf[4], case.found["each"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes.layers))


def test_init_has_the_shapes_of_its_architecture_and_opens_the_forget_gates() -> None:
    model = models.build(Spec("lstm", (80, 5, 3, 2), "tanh", architecture="speech"))
    quick = {"xla_backend_optimization_level": 0}
    params = jax.device_get(jax.jit(model.init, compiler_options=quick)(jax.random.key(1)))
    shapes = jax.tree.map(np.shape, params)
    both = 2 * (lstm.Cell((20, 40), (20, 5), (20,)),), 2 * (lstm.Cell((12, 10), (12, 3), (12,)),)
    assert shapes == lstm.Params(both, lstm.Readout((2, 6), (2,)))
    for cells, width in zip(params.layers, (5, 3), strict=True):
        for cell in cells:
            np.testing.assert_array_equal(
                cell.biases.reshape(4, width).sum(axis=1), [0, width, 0, 0]
            )
    forwards, backwards = params.layers[0]
    assert not np.any(forwards.weights == backwards.weights)  # no key used twice
    # 800 weights of variance 1/40: their spread is known to about 3 %.
    assert np.std(forwards.weights) * 40**0.5 == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(
    ("sizes", "architecture", "message"),
    [
        ((784, 5, 10), "columns", "no architecture 'columns'"),
        ((784, 10), "rows", "one or more hidden widths"),
        ((785, 5, 10), "rows", "a multiple of 28 inputs"),
        ((784, 0, 10), "rows", "each at least 1|one or more hidden"),
    ],
)
def test_a_network_that_cannot_be_is_refused(
    sizes: tuple[int, ...], architecture: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        models.build(Spec("lstm", sizes, "tanh", architecture=architecture))
    with pytest.raises(ConfigError, match=message):
        lstm.init(jax.random.key(0), sizes, architecture=architecture)


@pytest.mark.parametrize("shape", [(27,), (29,), (0,), (), (1, 28)])
def test_an_input_that_is_no_whole_number_of_steps_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="steps of 28 numbers"):
        jax.eval_shape(lambda x: lstm.forward(None, x, architecture="rows"), jnp.zeros(shape))


def test_a_target_that_does_not_fit_names_both_shapes() -> None:
    params = jax.eval_shape(lambda key: lstm.init(key, (28, 2, 3)), jax.random.key(0))
    for function in (lstm.example_cost, lstm.backprop):
        with pytest.raises(ShapeError, match=r"y has shape \(1,\).*\(3,\)"):
            jax.eval_shape(function, params, jnp.zeros(28), jnp.zeros(1))
