"""What gradcheck finds, names and refuses; test_mutations shows that it catches every formula."""

import json
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import cli, costs, gradcheck, models
from jaxnn.activations import ACTIVATIONS
from jaxnn.commands.gradcheck import Gradcheck
from jaxnn.costs import OBJECTIVES
from jaxnn.errors import ConfigError
from jaxnn.gradcheck import Result, check, check_all
from jaxnn.models import Model, Spec

SMALL = Spec(sizes=(3, 2))


def planted(model: Model, change: Any) -> Model:
    """The model with `change` applied to the explicit gradient of one example."""

    def backprop(params: Any, x: jax.Array, y: jax.Array) -> Any:
        return change(model.backprop(params, x, y))

    return model._replace(backprop=backprop)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["gradcheck", "--family", "mlp", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def planted_results() -> list[Result]:
    """A network as it is, with one wrong weight, with one wrong bias, and with a nan."""
    sound = models.build(Spec(sizes=(4, 3, 2)))
    return check_all(
        [
            sound,
            planted(sound, lambda g: (g[0], g[1]._replace(weights=g[1].weights.at[1, 2].add(0.1)))),
            planted(sound, lambda g: (g[0]._replace(biases=g[0].biases.at[2].mul(2)), g[1])),
            planted(sound, lambda g: (g[0]._replace(biases=g[0].biases * jnp.nan), g[1])),
        ],
        examples=3,
    )


def test_a_sound_network_passes_and_was_really_checked(planted_results: list[Result]) -> None:
    sound = planted_results[0]
    assert sound.passed
    assert (sound.parameters, sound.moved, sound.kinks, sound.silent) == (23, 23, 0, 0)
    assert [(found.mode, found.reference) for found in sound.differences] == [
        (mode, reference)
        for reference in ("jax.grad", "finite differences")
        for mode in ("one", "each", "batch")
    ]
    for found in sound.differences:
        assert found.explicit == pytest.approx(found.expected, rel=1e-6)
        assert found.expected != 0


def test_the_wrong_parameter_is_named(planted_results: list[Result]) -> None:
    weight, bias = (
        [found for found in result.differences if not found.passed]
        for result in planted_results[1:3]
    )
    assert [(found.mode, found.reference) for found in weight] == [
        (mode, reference)
        for reference in ("jax.grad", "finite differences")
        for mode in ("one", "each")  # the batch's own formula is sound
    ]
    for found in weight:
        assert (found.leaf, found.at) == ("[1].weights", (1, 2))
        assert found.explicit - found.expected == pytest.approx(0.1)
        assert found.place == "weights of layer 2, row 2, column 3 (params[1].weights[1, 2])"
    for found in bias:
        assert found.place == "biases of layer 1, row 3 (params[0].biases[2])"
        assert found.explicit == pytest.approx(2 * found.expected)
    assert [found.example is None for found in bias] == [True, False, True, False]


def test_nan_breaks_every_bound(planted_results: list[Result]) -> None:
    broken = planted_results[3]
    assert not broken.passed
    assert np.isnan(broken.worst.relative)
    assert broken.worst.excess == np.inf
    assert broken.worst.leaf == "[0].biases"


def test_kinks_within_the_step_and_arrays_without_a_gradient_are_counted() -> None:
    """A 'network' of another family: a dictionary of parameters and a cost with a kink beside one.

    The kink of |p1 - bend| lies 1e-4 from p1, within the step; the slope at p1 is 1.
    """
    bend = np.random.default_rng(gradcheck.SEED).standard_normal(3)[1] - 1e-4

    def cost(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        p = params["p"]
        return p[0] ** 2 * jnp.sum(x) + jnp.abs(p[1] - bend) + jnp.sin(p[2]) * jnp.sum(y)

    def backprop(params: Any, x: jax.Array, y: jax.Array) -> Any:
        p = params["p"]
        slopes = [2 * p[0] * jnp.sum(x), jnp.sign(p[1] - bend), jnp.cos(p[2]) * jnp.sum(y)]
        return {"p": jnp.stack(slopes), "unused": jnp.zeros(2, x.dtype)}

    def batch_backprop(params: Any, x: jax.Array, y: jax.Array) -> Any:
        each = jax.vmap(backprop, in_axes=(None, 0, 0))(params, x, y)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)

    model = Model(
        Spec("kinked", (2, 2)),
        init=lambda key: {"p": jnp.zeros(3), "unused": jnp.zeros(2)},
        forward=lambda params, x: x,
        cost=cost,
        backprop=backprop,
        batch_backprop=batch_backprop,
        batch_cost_and_backprop=lambda params, x, y: (x[0, 0], batch_backprop(params, x, y)),
    )
    (found,) = check_all([model], examples=5)
    assert found.passed
    assert found.kinks == 5
    assert found.silent == 1
    assert found.worst.place == f"params['p'][{found.worst.at[0]}]"


def test_a_large_network_is_moved_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradcheck, "MOST_MOVED", 5)
    found = check(SMALL)
    assert found.passed
    assert (found.parameters, found.moved) == (8, 5)


def test_float32_has_no_finite_differences_and_float64_stays_inside() -> None:
    found = check(SMALL, "float32")
    assert found.passed
    assert not found.against("finite differences")
    assert found.moved == 0
    check(SMALL, "float64")
    assert jnp.zeros(1).dtype == jnp.float32


@pytest.mark.parametrize("seed", [0, 1])
def test_one_seed_gives_the_same_result_and_another_another(seed: int) -> None:
    same = [check(SMALL, "float32", seed=1), check(SMALL, "float32", seed=seed)]
    assert (same[0] == same[1]) == (seed == 1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "float16"}, "dtype is 'float16': choose one of float32, float64"),
        ({"examples": 0}, "examples are 0"),
        ({"seed": -1}, "seed -1, expected"),
        ({"l2": -0.5}, "l2 is -0.5"),
        ({"l2": float("nan")}, "l2 is nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check(SMALL, **settings)


def test_networks_of_different_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="several families or sizes"):
        check_all([models.build(Spec(sizes=(3, 2))), models.build(Spec(sizes=(2, 3)))])


def test_the_command_shows_a_table_and_the_closest_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "--sizes", "3", "2", "--activation", "tanh", "--output", "softmax")
    assert code == 0
    table = [line.split() for line in out.splitlines() if line.startswith(" mlp")]
    assert [row[2:5] for row in table] == [
        ["softmax,", cost, dtype]
        for cost in ("quadratic", "cross_entropy")
        for dtype in ("float32", "float64")
    ]
    assert [len(row) for row in table] == [8, 9, 8, 9]  # float32 has no finite differences
    assert "All agree; closest to its bound is tanh with softmax" in " ".join(out.split())


def test_the_command_without_arguments_takes_every_combination_in_both_dtypes() -> None:
    (specs,) = Gradcheck(family="mlp").kinds()
    assert {(spec.activation, spec.output, spec.cost) for spec in specs} == {
        (activation, *objective) for activation in ACTIVATIONS for objective in OBJECTIVES
    }
    hints = get_type_hints(Gradcheck)
    choices = {name: set(get_args(get_args(hints[name])[0])) for name in ("activation", "dtype")}
    assert choices == {"activation": set(ACTIVATIONS), "dtype": set(gradcheck.BOUNDS)}
    assert set(get_args(hints["family"])) == {*models.FAMILIES, "all"}
    assert set(gradcheck.SMALL) == set(models.FAMILIES)
    assert Gradcheck().seed == gradcheck.SEED


def test_a_broken_derivative_exits_1_and_names_the_parameter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_factor_2(z: jax.Array, y: jax.Array) -> jax.Array:
        return (sigmoid(z) - y) * sigmoid_derivative(z)  # type: ignore[name-defined] # noqa: F821

    # In the function's place everywhere, also where its name was bound before.
    monkeypatch.setattr(costs.sigmoid_quadratic_delta, "__code__", without_the_factor_2.__code__)
    words = ["--sizes", "3", "2", "--activation", "relu", "--output", "sigmoid", "--json", "-"]
    code, out, err = run(capsys, *words, "--cost", "quadratic", "--dtype", "float64", "--l2", "0")
    assert code == 1
    assert "1 of 1 combinations break a bound, relu with sigmoid and quadratic in float64" in err
    assert "of layer 1, row" in err
    result = json.loads(out)
    assert result["passed"] is False
    (only,) = result["results"]
    assert only["passed"] is False
    for found in only["differences"]:
        assert found["explicit"] / found["expected"] == pytest.approx(0.5)
        assert found["leaf"] in ("[0].weights", "[0].biases")


def test_json_of_a_nan_is_null(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_nothing(z: jax.Array, y: jax.Array) -> jax.Array:
        return z * jnp.nan

    monkeypatch.setattr(costs.sigmoid_quadratic_delta, "__code__", of_nothing.__code__)
    words = ["--sizes", "3", "2", "--activation", "relu", "--output", "sigmoid", "--json", "-"]
    code, out, _ = run(capsys, *words, "--cost", "quadratic", "--dtype", "float32")
    assert code == 1
    result = json.loads(out, parse_constant=pytest.fail)
    assert [found["relative"] for found in result["results"][0]["differences"]] == [None] * 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sizes", "3"], "give two or more"),
        (["--examples", "0"], "examples are 0"),
        (["--l2", "-1"], "l2 is -1"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert sentence in err
