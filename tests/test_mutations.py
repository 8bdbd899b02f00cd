"""Breaks every formula of the explicit gradient in turn, and sees gradcheck catch it.

A mutation changes one piece of a module's source; the module, and those that import it, are
loaded anew from the changed text, and the network's explicit gradient is taken from there. The
old text must occur exactly once: when a formula is rewritten its mutations fail until they are
rewritten too, so that none can vanish unseen.

A relu that answers 1 at its kink cannot be caught here, since no random z is exactly 0:
test_activations checks the kinks.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from jaxnn import activations, costs, gradcheck, gradients, mlp, models
from jaxnn.gradcheck import Result, check, check_all
from jaxnn.models import Model, Spec

CLASSIC = ("sigmoid", "sigmoid", "quadratic")
BINARY = ("tanh", "sigmoid", "cross_entropy")
COMPETING = ("sigmoid", "sigmoid", "competing")
SQUARES = ("tanh", "softmax", "quadratic")
CATEGORICAL = ("gelu", "softmax", "cross_entropy")
LEAKY = ("leaky_relu", "sigmoid", "quadratic")
RELU = ("relu", "softmax", "cross_entropy")

# What is broken: the module, its text, the text instead, and a network that it matters to.
MUTATIONS: dict[str, tuple[ModuleType, str, str, tuple[str, str, str]]] = {
    # how deltas travel back
    "transposed weights": (mlp, "(layer.weights.T @ delta)", "(layer.weights @ delta)", CLASSIC),
    "weights of the layer before": (mlp, "zip(params[:0:-1]", "zip(params[-2::-1]", CLASSIC),
    "slope at a instead of z": (mlp, "z[-2::-1]", "a[-2:0:-1]", BINARY),
    "slope of the layer after": (mlp, "z[-2::-1]", "z[:0:-1]", CATEGORICAL),
    "no slope": (mlp, "delta) * slope(z_before)", "delta)", CLASSIC),
    "slope added": (mlp, "delta) * slope(z_before)", "delta) + slope(z_before)", CLASSIC),
    "slope of another activation": (
        mlp,
        "slope = activation_named(activation).derivative",
        "slope = activation_named('sigmoid').derivative",
        BINARY,
    ),
    "delta of another cost": (
        mlp,
        "objective_of(output, cost).delta",
        "objective_of(output, 'quadratic').delta",
        BINARY,
    ),
    "delta of another output": (
        mlp,
        "objective_of(output, cost).delta",
        "objective_of('sigmoid', cost).delta",
        SQUARES,
    ),
    # outputs that compete
    "no anchor": (
        costs,
        "softmax_cross_entropy_delta(z, y) + ANCHOR * sigmoid_cross_entropy_delta(z, y)",
        "softmax_cross_entropy_delta(z, y)",
        COMPETING,
    ),
    "anchor as heavy as the rest": (
        costs,
        "_delta(z, y) + ANCHOR * sigmoid_cross_entropy_delta",
        "_delta(z, y) + sigmoid_cross_entropy_delta",
        COMPETING,
    ),
    "outputs that do not compete": (
        costs,
        "softmax_cross_entropy_delta(z, y) + ANCHOR * sigmoid",
        "sigmoid_cross_entropy_delta(z, y) + ANCHOR * sigmoid",
        COMPETING,
    ),
    # from deltas to gradients
    "fed by its own activations": (mlp, "return a[:-1], tuple", "return a[1:], tuple", CLASSIC),
    "deltas in the wrong order": (mlp, "tuple(reversed(found))", "tuple(found)", CLASSIC),
    "transposed outer product": (mlp, "jnp.outer(d, a), d)", "jnp.outer(a, d), d)", CLASSIC),
    "no delta of the biases": (mlp, "jnp.outer(d, a), d)", "jnp.outer(d, a), 0 * d)", CLASSIC),
    "biases fed by activations": (mlp, "jnp.outer(d, a), d)", "jnp.outer(d, a), d * a)", CLASSIC),
    # over the batch
    "weights summed, not averaged": (mlp, "d.T @ a / x.shape[0]", "d.T @ a", CLASSIC),
    "weights divided by n_in": (mlp, "d.T @ a / x.shape[0]", "d.T @ a / x.shape[1]", CLASSIC),
    "weights transposed": (mlp, "d.T @ a / x.shape[0]", "a.T @ d / x.shape[0]", CLASSIC),
    "biases summed, not averaged": (mlp, "jnp.mean(d, axis=0)", "jnp.sum(d, axis=0)", CLASSIC),
    "biases of one example": (mlp, "jnp.mean(d, axis=0)", "d[0]", CLASSIC),
    # deltas of the output layer
    "quadratic: no factor 2": (
        costs,
        "return 2 * (sigmoid(z) - y) * sigmoid_derivative(z)",
        "return (sigmoid(z) - y) * sigmoid_derivative(z)",
        CLASSIC,
    ),
    "quadratic: no slope": (
        costs,
        "return 2 * (sigmoid(z) - y) * sigmoid_derivative(z)",
        "return 2 * (sigmoid(z) - y)",
        CLASSIC,
    ),
    "quadratic: slope at a": (
        costs,
        "return 2 * (sigmoid(z) - y) * sigmoid_derivative(z)",
        "return 2 * (sigmoid(z) - y) * sigmoid_derivative(sigmoid(z))",
        CLASSIC,
    ),
    "cross-entropy: sign": (costs, "return sigmoid(z) - y", "return y - sigmoid(z)", BINARY),
    "cross-entropy: slope not cancelled": (
        costs,
        "return sigmoid(z) - y",
        "return (sigmoid(z) - y) * sigmoid_derivative(z)",
        BINARY,
    ),
    "softmax, quadratic: no factor 2": (costs, "    g = 2 * (a - y)", "    g = a - y", SQUARES),
    "softmax: Jacobian without its rank-one term": (
        costs,
        "return a * (g - jnp.sum(a * g))",
        "return a * g",
        SQUARES,
    ),
    "softmax: Jacobian's diagonal alone": (
        costs,
        "return a * (g - jnp.sum(a * g))",
        "return a * (1 - a) * g",
        SQUARES,
    ),
    "softmax, cross-entropy: one-hot targets only": (
        costs,
        "return softmax(z) * jnp.sum(y) - y",
        "return softmax(z) - y",
        CATEGORICAL,
    ),
    # slopes of the activations
    "sigmoid: a for a (1 - a)": (activations, "return a * (1 - a)", "return a", CLASSIC),
    "sigmoid: z (1 - z)": (activations, "return a * (1 - a)", "return z * (1 - z)", CLASSIC),
    "tanh: no square": (activations, "1 - jnp.tanh(z) ** 2", "1 - jnp.tanh(z)", BINARY),
    "relu: 1 everywhere": (activations, "return (z > 0).astype(z.dtype)", "return 1 + 0 * z", RELU),
    "relu: z > 0 turned round": (activations, "return (z > 0).", "return (z < 0).", RELU),
    "leaky relu: no leak": (activations, "jnp.full_like(z, LEAK)", "jnp.zeros_like(z)", LEAKY),
    "gelu: no z pdf": (activations, "norm.cdf(z) + z * norm.pdf(z)", "norm.cdf(z)", CATEGORICAL),
    "gelu: no z": (activations, "+ z * norm.pdf(z)", "+ norm.pdf(z)", CATEGORICAL),
}

# In `gradients`, where weight decay is added.
L2_MUTATIONS = {
    "decay twice as strong": ("slope + l2 * leaf if", "slope + 2 * l2 * leaf if"),
    "biases decay too": ("if is_weights(leaf) else slope", "if leaf.ndim else slope"),
    "decay grows": ("slope + l2 * leaf if", "slope - l2 * leaf if"),
    "the cost has no 1/2": ("mean + l2 / 2 * sum", "mean + l2 * sum"),
    "the cost decays biases too": ("leaves(params) if is_weights(leaf)]", "leaves(params)]"),
}

# Equal widths, so that no mistake is caught by a shape before the numbers are compared.
SIZES = (3, 3, 3, 3)


def broken(module: ModuleType, old: str, new: str) -> dict[str, ModuleType]:
    """The modules of the explicit gradient, loaded anew with one text changed in one of them."""
    loaded = {}
    with mock.patch.dict(sys.modules):
        for original in (activations, costs, mlp, gradients):
            source = Path(str(original.__file__)).read_text()
            if original is module:
                assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times"
                source = source.replace(old, new)
            name = original.__name__
            spec = importlib.util.spec_from_loader(name, loader=None)
            assert spec
            again = loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            exec(compile(source, name, "exec"), again.__dict__)  # noqa: S102 - our own source
    return loaded


def with_gradient_of(model: Model, again: ModuleType) -> Model:
    """The model with its explicit gradient, and nothing else, taken from another mlp module."""
    explicit = {
        name: type(bound)(getattr(again, name), **bound.keywords)  # a partial as in models
        for name in ("backprop", "batch_backprop")
        if (bound := getattr(model, name))
    }
    return model._replace(**explicit)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """All mutants, and each network unbroken, in one program."""
    text = "layer.weights.T @ delta"
    networks = {}
    for name, (module, old, new, combination) in MUTATIONS.items():
        model = models.build(Spec("mlp", SIZES, *combination))
        networks[name] = with_gradient_of(model, broken(module, old, new)["jaxnn.mlp"])
        networks[f"unbroken {combination}"] = with_gradient_of(
            model, broken(mlp, text, text)["jaxnn.mlp"]
        )
    return dict(zip(networks, check_all(list(networks.values()), seed=5), strict=True))


@pytest.mark.parametrize("name", MUTATIONS)
def test_gradcheck_catches_the_mutation(name: str, results: dict[str, Result]) -> None:
    assert not results[name].passed
    # Against both references: a difference of this size is a formula, not rounding.
    for reference in ("jax.grad", "finite differences"):
        assert max(found.relative for found in results[name].against(reference)) > 1e-3


@pytest.mark.parametrize("combination", sorted({entry[3] for entry in MUTATIONS.values()}))
def test_the_same_networks_pass_unbroken(
    combination: tuple[str, str, str], results: dict[str, Result]
) -> None:
    assert results[f"unbroken {combination}"].passed


@pytest.mark.parametrize("name", L2_MUTATIONS)
def test_gradcheck_catches_a_mutation_of_weight_decay(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = broken(gradients, *L2_MUTATIONS[name])["jaxnn.gradients"]
    monkeypatch.setattr(gradcheck, "gradients", again)
    found = check(Spec(sizes=(3, 2)), l2=0.5)
    assert not found.passed
    assert found.worst.mode == "batch"


def test_every_activation_and_objective_is_broken_somewhere() -> None:
    for index, known in ((0, activations.ACTIVATIONS), (1, ("sigmoid", "softmax"))):
        assert {entry[3][index] for entry in MUTATIONS.values()} == set(known)
    assert {entry[3][1:] for entry in MUTATIONS.values()} == set(costs.OBJECTIVES)


def test_a_text_that_is_gone_is_noticed() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        broken(mlp, "a formula of long ago", "")
