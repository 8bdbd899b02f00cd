"""Descent against hand-written loops and optax, its outcomes, and `jaxnn descend`."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import cli
from jaxnn.commands.descend import LINES, Descend
from jaxnn.errors import ConfigError
from jaxnn.expressions import parse
from jaxnn.surfaces import (
    MAX_STEPS,
    OPTIMIZERS,
    SURFACES,
    descend,
    heights,
    too_large_a_step,
)

BOWL = parse("0.5*x**2 + 2*y**2")
VALLEYS = parse(SURFACES["valleys"].expression)
EXAMPLE = "y*cos(x) + 0.6*x"


def test_the_gradient_of_the_worked_example() -> None:
    """df/dx = -y sin x + 0.6 and df/dy = cos x; float64, so to a few roundings."""
    path = descend(parse(EXAMPLE), (1.0, 3.0), steps=5)
    np.testing.assert_allclose(path.gradients[0], [-3 * np.sin(1) + 0.6, np.cos(1)], rtol=1e-14)
    np.testing.assert_allclose(path.gradients[0], [-1.92, 0.54], atol=0.005)
    np.testing.assert_allclose(path.values[0], 3 * np.cos(1) + 0.6, rtol=1e-14)


def test_plain_descent_is_the_loop_one_would_write() -> None:
    path = descend(BOWL, (-3.0, 1.2), learning_rate=0.1, steps=20)
    point = np.array([-3.0, 1.2])
    for step in range(21):
        gradient = point * [1, 4]
        np.testing.assert_allclose(path.points[step], point, rtol=1e-13)
        np.testing.assert_allclose(path.gradients[step], gradient, rtol=1e-13)
        np.testing.assert_allclose(path.values[step], point**2 @ [0.5, 2], rtol=1e-13)
        point = point - 0.1 * gradient
    assert len(path.points) == 21
    np.testing.assert_allclose(path.lengths, 0.1 * path.slopes[:-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("momentum", optax.sgd(0.05, momentum=0.9)), ("adam", optax.adam(0.05))],
)
def test_momentum_and_adam_are_those_of_optax(
    name: str, theirs: optax.GradientTransformation, x64: None
) -> None:
    """Float64, 30 steps: the order of the operations differs, by roundings only."""
    path = descend(VALLEYS, (0.6, 1.6), learning_rate=0.05, steps=30, optimizer=name)

    @jax.jit
    def move(point: jax.Array, state: optax.OptState) -> tuple[jax.Array, optax.OptState]:
        gradient = jax.grad(lambda point: VALLEYS(point[0], point[1]))(point)
        update, state = theirs.update(gradient, state)
        return optax.apply_updates(point, update), state

    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
        point = jnp.array([0.6, 1.6])
        state = theirs.init(point)
        for ours in path.points:
            np.testing.assert_allclose(ours, point, rtol=1e-10)
            point, state = move(point, state)


def test_two_starts_end_in_different_minima() -> None:
    ends = []
    for start in SURFACES["valleys"].starts:
        path = descend(VALLEYS, start)
        assert path.outcome == "converged"
        assert "a minimum" in path.note
        assert path.slopes[-1] <= 1e-6 < path.slopes[-2]
        x, y = path.points[-1]
        np.testing.assert_allclose([x**3 - 2 * x + 0.3, y], 0, atol=1e-6)
        ends.append(x)
    assert ends[0] < -1 < 1 < ends[1]


def test_what_descent_ends_in() -> None:
    """Every outcome, and what is said of it."""

    def ends(text: str, start: tuple[float, float], rate: float = 0.1) -> tuple[str, str]:
        path = descend(parse(text), start, learning_rate=rate, steps=100)
        for array in (path.points, path.values, path.gradients):
            assert np.isfinite(array).all()
        return path.outcome, path.note

    assert ends("x**2 - y**2", (1.0, 0.0)) == (
        "converged",
        "a saddle, not a minimum: any push to the side would lead on down",
    )
    outcome, note = ends("-x**2 - y**2", (0.0, 0.0))
    assert (outcome, note[:9]) == ("converged", "a maximum")
    assert ends("0*x", (1.0, 1.0)) == ("converged", "a flat place")
    outcome, note = ends("x**2 - y**2", (1.0, 1.0))
    assert (outcome, note[:17]) == ("diverged", "f falls on and on")
    for rate in (1.02, 1.1, 5.0, 1e300):  # the bowl's limit is 1: beyond it each step climbs
        outcome, note = ends("x**2 + y**2", (1.0, 1.0), rate)
        assert (outcome, note[:23]) == ("diverged", "the steps are too large")
    outcome, note = ends("sqrt(x)", (1.0, 1.0))
    assert (outcome, note[:34]) == ("diverged", "the next step leaves the surface: ")
    assert ends(EXAMPLE, (1.0, 3.0)) == ("moving", "the slope is still 1")


def test_the_stable_learning_rate_is_two_over_the_curvature() -> None:
    """The bowl curves by 4 along y: below 0.5 it converges, above it does not."""
    assert descend(BOWL, (-3.0, 1.2)).note.endswith("below a learning rate of 0.5")
    for rate, outcome in ((0.49, "converged"), (0.51, "diverged")):
        path = descend(BOWL, (0.1, 1.2), learning_rate=rate, steps=1000)
        assert path.outcome == outcome


def test_too_large_a_step_is_found() -> None:
    rate, path = too_large_a_step(BOWL, (-3.0, 1.2), learning_rate=0.1, steps=100)
    assert (rate, path.outcome) == (0.8, "diverged")
    rate, path = too_large_a_step(parse("sin(x)"), (1.0, 1.0), learning_rate=1e-9, steps=10)
    assert (rate, path.outcome) == (1e-9 * 2**8, "moving")


def test_heights_are_the_function_on_a_grid() -> None:
    x, y = np.linspace(-1, 1, 5), np.linspace(0, 3, 4)
    found = heights(parse("x**2*y + log(y)"), x, y)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found, x**2 * y[:, None] + np.log(y)[:, None], rtol=1e-14)


@pytest.mark.parametrize(
    ("start", "options", "said"),
    [
        ((1, 1), {"optimizer": "magic"}, "unknown optimizer 'magic': choose one of sgd"),
        ((1, 1), {"steps": 0}, "steps is 0, expected 1 to 100,000"),
        ((1, 1), {"steps": MAX_STEPS + 1}, "expected 1 to 100,000"),
        ((1, 1), {"learning_rate": 0.0}, "learning rate is 0.0, expected a positive"),
        ((1, 1), {"learning_rate": float("nan")}, "expected a positive number"),
        ((float("nan"), 1), {}, "expected x and y from"),
        ((1, float("nan")), {}, "expected x and y from"),
        ((1, 1e7), {}, "expected x and y from"),
    ],
)
def test_settings_out_of_range_are_refused(start: tuple, options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        descend(BOWL, start, **options)


@pytest.mark.parametrize(
    ("text", "start"), [("log(x)", (-1, 0)), ("sqrt(x)", (0, 0)), ("1/0", (1, 1))]
)
def test_a_start_where_the_surface_is_not_finite_is_refused(text: str, start: tuple) -> None:
    """The root has a value at 0, but no finite slope there."""
    with pytest.raises(ConfigError, match="not finite at the start"):
        descend(parse(text), start)


def test_the_command_names_every_surface_and_optimizer() -> None:
    hints = get_type_hints(Descend)
    assert set(get_args(get_args(hints["surface"])[0])) == set(SURFACES)
    assert set(get_args(hints["optimizer"])) == {*OPTIMIZERS, "all"}


@pytest.mark.parametrize("name", SURFACES)
def test_every_named_surface_goes_downhill_from_where_it_starts(name: str) -> None:
    surface = SURFACES[name]
    for start in surface.starts:
        path = descend(
            parse(surface.expression),
            start,
            learning_rate=surface.learning_rate,
            steps=surface.steps,
        )
        assert path.outcome in ("converged", "moving")
        assert path.values[-1] < path.values[0]


def test_descend_shows_the_worked_example(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["descend", "--expression", EXAMPLE, "--start", "1", "3", "--steps", "100"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"f(x, y) = {EXAMPLE}, learning rate 0.1"
    first = next(line for line in lines if line.split()[:1] == ["0"])
    assert first.split() == ["0", "1.0000", "3.0000", "2.2209", "-1.9244", "0.5403", "0.1999"]
    assert lines[-1].startswith("still moving after 100 steps")
    rows = [line for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert len(rows) <= LINES
    assert rows[-1].split()[0] == "100"


def test_descend_with_no_argument_shows_two_minima(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["descend"]) == 0
    out = capsys.readouterr().out
    assert out.count("converged after 136 steps: a minimum") == 2


def test_descend_json_has_every_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["descend", "--expression", "x**2 + y**2", "--learning-rate", "1.1"]
    words += ["--start", "1", "2", "--start", "-1", "0", "--optimizer", "all", "--json"]
    assert cli.main([*words, "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(p["start"], p["optimizer"]) for p in result["paths"]] == [
        (start, name) for start in ([1, 2], [-1, 0]) for name in OPTIMIZERS
    ]
    assert result["paths"][0]["outcome"] == "diverged"
    assert result["paths"][0]["points"][0] == [1, 2]
    assert result["paths"][0]["gradients"][0] == [2, 4]
    assert cli.main([*words, str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text()) == result


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--expression", "foo(x)"], "the functions sin, cos"),
        (["--expression", "log(x)", "--start", "-1", "2"], "not finite at the start (-1, 2)"),
        (["--surface", "bowl", "--expression", "x"], "choose one"),
        (["--start", "1", "1"] * 6, "6 starts are given, at most 5"),
        (["--plot", "x.jpg"], "x.jpg names no figure"),
    ],
)
def test_descend_refuses_in_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["descend", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
