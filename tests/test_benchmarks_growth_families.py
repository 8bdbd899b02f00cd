"""The benchmark of a step's cost in convolutional networks and LSTMs: its own arithmetic."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import growth_families
from benchmarks.growth_families import BATCH, CLASSES, Axis, Cnn, Lstm
from benchmarks.timing import Times
from jaxnn import epoch, models
from jaxnn.cnn_network import ARCHITECTURES


def in_products(jaxpr: Any) -> int:
    """The multiplications of all matrix products of a program; of a loop's, in all its turns."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _), left = (
                equation.params["dimension_numbers"],
                equation.invars[0].aval,
            )
            inner = math.prod(left.shape[axis] for axis in contracted)
            count += inner * math.prod(equation.outvars[0].aval.shape)
        turns = equation.params.get("length", 1)
        for part in jax.tree.leaves(equation.params, is_leaf=lambda one: hasattr(one, "jaxpr")):
            if hasattr(part, "jaxpr"):
                count += turns * in_products(part.jaxpr)
    return count


@pytest.mark.parametrize("point", [Lstm(width=3, steps=4), Lstm(width=5, layers=3, steps=2)])
def test_the_multiplications_of_an_lstm_are_those_of_its_program(point: Lstm) -> None:
    model = models.build(epoch.spec_of(point.config()))
    params = jax.eval_shape(model.init, jax.random.key(0))
    x, y = np.zeros((BATCH, point.config().sizes[0]), "f4"), np.zeros((BATCH, CLASSES), "f4")
    program = jax.make_jaxpr(model.batch_cost_and_backprop)(params, x, y)
    # What the pixels ask for is in the program, too; nobody uses it, and XLA leaves it out.
    unused = BATCH * point.steps * 4 * point.width * growth_families.FEATURES
    assert in_products(program.jaxpr) == point.multiplications() + unused


def test_the_multiplications_of_a_convolutional_network_by_hand() -> None:
    """16 places, kernels of 9: 2 maps of 1 picture, 2 maps of 2 maps; 4 places of 2 maps left."""
    found = Cnn(maps=2, convolutions=2, side=4).multiplications()
    assert found == BATCH * (2 * 16 * 9 * 2 + 3 * 16 * 9 * 2 * 2 + 3 * 4 * 2 * CLASSES)


def test_a_point_trains_and_leaves_the_table_of_architectures_as_it_was() -> None:
    before = dict(ARCHITECTURES)
    run = growth_families.steps(Cnn(maps=2, convolutions=1, side=4))
    assert before == ARCHITECTURES
    params = run()
    assert all(np.all(np.isfinite(leaf)) for leaf in params)
    assert any(np.any(leaf) for leaf in params)
    for again, leaf in zip(run(), params, strict=True):  # from the same start
        np.testing.assert_array_equal(again, leaf)


def test_examples_are_digits_of_any_length() -> None:
    digits = growth_families.examples(784)[0]
    np.testing.assert_array_equal(growth_families.examples(196)[0], digits[:, :196])
    np.testing.assert_array_equal(growth_families.examples(1568)[0][:, 784:], digits)


def test_all_curves_of_a_family_meet_in_one_point() -> None:
    for quick in (True, False):
        for family in (Lstm, Cnn):
            curves = [one for one in growth_families.axes(quick) if type(one.points[0]) is family]
            assert len(curves) == 3
            assert all(family() in one.points for one in curves)
    assert {len(one.points) for one in growth_families.axes(quick=True)} == {2}


def test_points_of_two_families_with_the_same_numbers_are_two_points() -> None:
    assert len({Lstm(64, 2, 28), Cnn(64, 2, 28)}) == 2


def test_the_run_gives_a_step_and_the_table_its_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {2: 0.2, 4: 0.4}  # seconds of STEPS steps

    def interleaved(entered: Any, repeats: int, budget: float) -> dict:
        params = [np.ones(1)]
        return {
            point: growth_families.timing.Outcome(params, Times(*3 * (taken[point.width],)))
            for point in entered
        }

    monkeypatch.setattr(growth_families.timing, "interleaved", interleaved)
    points = (Lstm(width=2), Lstm(width=4))
    result = growth_families.run(True, (Axis("lstm: hidden units", "width", points),))
    small, large = (point.multiplications() for point in points)
    assert [one["median"] for one in result["axes"]["lstm: hidden units"]] == [0.1, 0.2]
    text = growth_families.table(result)
    exponent = f"{math.log2(large / small):.2f}"
    assert f"| lstm: hidden units, 2 to 4 | 1.00 | 1.00 | {exponent} | {exponent} |" in text
    line = f"| lstm: hidden units: 4 | 200.00 | 200.00 to 200.00 | {large / 1e6:,.0f} |"
    assert f"{line} {large / 0.2 / 1e9:,.0f} | 2.00 ({large / small:.2f}) |" in text
