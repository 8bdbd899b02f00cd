"""What a gradient means, in numbers: against derivatives written out here in NumPy."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import models
from jaxnn.data import Dataset
from jaxnn.errors import ConfigError, DataError, ShapeError
from jaxnn.explain import batch, chain, digit
from jaxnn.models import Spec

moderate = st.floats(-3, 3, allow_subnormal=False)
three = st.tuples(moderate, moderate, moderate)


def sigmoid(z: np.ndarray | float) -> np.ndarray | float:
    return 1 / (1 + np.exp(-z))


def chain_cost(w: tuple, b: tuple, x: float, y: float) -> float:
    for weight, bias in zip(w, b, strict=True):
        x = sigmoid(weight * x + bias)
    return (x - y) ** 2


# A chain of single neurons


@settings(max_examples=40, deadline=None)
@given(w=three, b=three, x=moderate, y=moderate)
def test_chain_derivatives_are_the_products_written_out(
    w: tuple, b: tuple, x: float, y: float
) -> None:
    found = chain.explain(w, b, x, y)
    a1 = sigmoid(w[0] * x + b[0])
    a2 = sigmoid(w[1] * a1 + b[1])
    a3 = sigmoid(w[2] * a2 + b[2])
    d3 = a3 * (1 - a3) * 2 * (a3 - y)
    d2 = a2 * (1 - a2) * w[2] * d3
    d1 = a1 * (1 - a1) * w[1] * d2
    expected = {
        "w3": a2 * d3, "b3": d3, "a2": w[2] * d3,
        "w2": a1 * d2, "b2": d2, "a1": w[1] * d2,
        "w1": x * d1, "b1": d1, "x": w[0] * d1,
    }  # fmt: skip
    assert [derivative.name for derivative in found.derivatives] == list(expected)
    np.testing.assert_allclose(found.a, (x, a1, a2, a3), rtol=1e-14)
    assert found.cost == pytest.approx(chain_cost(w, b, x, y), rel=1e-13)
    for derivative in found.derivatives:
        # Both in float64 through the same few operations, in another order.
        assert derivative.product == pytest.approx(expected[derivative.name], rel=1e-11, abs=1e-15)
        factors = [value for _, value in derivative.factors]
        assert derivative.product == pytest.approx(np.prod(factors), rel=1e-13, abs=1e-300)
        # A central difference over 1e-5 errs by about 1e-10 times the third derivative, and by
        # the rounding of a cost of up to 16 over that step.
        assert derivative.measured == pytest.approx(derivative.product, rel=1e-6, abs=2e-9)


def test_chain_names_its_factors() -> None:
    found = chain.explain((1.5, -2.0, 3.0), (-1.0, 1.0, -0.5), 1.0, 1.0)
    by_name = {derivative.name: dict(derivative.factors) for derivative in found.derivatives}
    assert list(by_name["w2"]) == ["dz2/dw2", "da2/dz2", "dC/da2"]
    assert list(by_name["x"]) == ["dz1/dx", "da1/dz1", "dC/da1"]
    assert by_name["w2"]["dz2/dw2"] == found.a[1]
    assert by_name["b2"]["dz2/db2"] == 1
    assert by_name["a1"]["dz2/da1"] == -2


@settings(max_examples=20, deadline=None)
@given(w=three, b=three, x=moderate, y=moderate, layer=st.integers(1, 3))
def test_a_travelling_nudge_ends_where_the_cost_does(
    w: tuple, b: tuple, x: float, y: float, layer: int
) -> None:
    found = chain.explain(w, b, x, y)
    stops = chain.travel(found, layer, 0.5)
    moved = list(w)
    moved[layer - 1] += 0.5
    assert stops[0][:3] == (f"w{layer}", w[layer - 1], moved[layer - 1])
    assert stops[-1].name == "C"
    assert stops[-1].before == found.cost
    assert stops[-1].after == pytest.approx(chain_cost(moved, b, x, y), rel=1e-12)
    slope = next(d.product for d in found.derivatives if d.name == f"w{layer}")
    assert stops[-1].predicted - stops[-1].before == pytest.approx(0.5 * slope, abs=1e-13)


def test_the_smaller_the_nudge_the_better_its_prediction() -> None:
    found = chain.explain((1.5, -2.0, 3.0), (-1.0, 1.0, -0.5), 1.0, 1.0)
    errors = [
        abs(chain.travel(found, 1, nudge)[-1].after - chain.travel(found, 1, nudge)[-1].predicted)
        for nudge in (0.01, 0.001)
    ]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)  # what is left is quadratic


@pytest.mark.parametrize(
    ("weights", "biases", "x", "said"),
    [
        ((1.0, 2.0), (1.0,), 0.0, "2 weights and 1 biases"),
        ((), (), 0.0, "0 weights"),
        ((1.0,), (np.nan,), 0.0, "nan is given"),
        ((1.0,), (1.0,), 1e9, "from -100 to 100"),
    ],
)
def test_chains_that_cannot_be(weights: tuple, biases: tuple, x: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chain.explain(weights, biases, x, 1.0)


@pytest.mark.parametrize("nudge", [0.0, np.nan, 101.0])
def test_nudges_that_cannot_be(nudge: float) -> None:
    found = chain.explain((1.0,), (0.0,), 1.0, 1.0)
    with pytest.raises(ConfigError, match="the nudge is"):
        chain.travel(found, 1, nudge)


# One digit


def by_hand(
    params: models.Params, spec: Spec, image: np.ndarray, label: int
) -> tuple[list, list, list]:
    """Activations of each layer, x first, dC/da and dC/dz of each, in float64.

    Hidden neurons are sigmoids or relus; softmax by its full Jacobian.
    """
    a = [image.reshape(-1) / 255.0]
    slopes = []  # da/dz, [n, n]
    for index, (weights, biases) in enumerate(params):
        z = weights.astype(np.float64) @ a[-1] + biases
        if index == len(params) - 1 and spec.output == "softmax":
            e = np.exp(z - z.max())
            a.append(e / e.sum())
            slopes.append(np.diag(a[-1]) - np.outer(a[-1], a[-1]))
        elif index == len(params) - 1 or spec.activation == "sigmoid":
            a.append(sigmoid(z))
            slopes.append(np.diag(a[-1] * (1 - a[-1])))
        else:
            a.append(np.maximum(z, 0))
            slopes.append(np.diag((z > 0).astype(float)))
    dc_da = [2 * (a[-1] - np.eye(spec.sizes[-1])[label])]
    dc_dz = []
    for (weights, _), slope in zip(params[::-1], slopes[::-1], strict=True):
        dc_dz.insert(0, slope @ dc_da[0])
        dc_da.insert(0, weights.astype(np.float64).T @ dc_dz[0])
    return a, dc_da, dc_dz


@pytest.mark.parametrize(
    "spec", [Spec(), Spec(sizes=(784, 12, 10), activation="relu", output="softmax")]
)
def test_digit_wants_minus_the_derivatives(spec: Spec, blobs: Dataset) -> None:
    params = jax.device_get(models.build(spec).init(jax.random.key(3)))
    image, label = blobs.test_images[4], int(blobs.test_labels[4])
    found = digit.explain(params, spec, image, label)
    a, dc_da, dc_dz = by_hand(params, spec, image, label)
    tolerance = {"rtol": 1e-4, "atol": 1e-6}  # float32 sums of 784 terms of size 1/28
    target = np.eye(10)[label]
    np.testing.assert_allclose(found.terms, (a[-1] - target) ** 2, **tolerance)
    assert found.cost == pytest.approx(np.sum((a[-1] - target) ** 2), rel=1e-5)
    assert found.answer == np.argmax(a[-1])
    assert len(found.layers) == len(spec.sizes) - 1
    for index, layer in enumerate(found.layers):
        np.testing.assert_allclose(layer.activations, a[index + 1], **tolerance)
        np.testing.assert_allclose(layer.wishes, -dc_da[index + 1], **tolerance)
        np.testing.assert_allclose(layer.biases, -dc_dz[index], **tolerance)
        np.testing.assert_allclose(layer.weights, -np.outer(dc_dz[index], a[index]), **tolerance)
    np.testing.assert_allclose(found.pixel_wishes.reshape(-1), -dc_da[0], **tolerance)


def test_the_label_wishes_up_and_the_others_down(blobs: Dataset) -> None:
    params = jax.device_get(models.build().init(jax.random.key(0)))
    found = digit.explain(params, Spec(), blobs.test_images[2], 7)
    up = np.arange(10) == 7
    assert np.array_equal(found.layers[-1].wishes > 0, up)
    assert np.array_equal(found.layers[-1].biases > 0, up)
    assert np.array_equal(found.layers[-1].weights > 0, np.repeat(up[:, None], 16, axis=1))


def test_following_the_nudges_lowers_the_cost(blobs: Dataset) -> None:
    params = jax.device_get(models.build().init(jax.random.key(0)))
    image = blobs.test_images[0]
    found = digit.explain(params, Spec(), image, 0)
    moved = tuple(
        type(layer)(layer.weights + 0.01 * nudge.weights, layer.biases + 0.01 * nudge.biases)
        for layer, nudge in zip(params, found.layers, strict=True)
    )
    assert digit.explain(moved, Spec(), image, 0).cost < found.cost


def test_digits_that_cannot_be_explained() -> None:
    image = np.zeros((28, 28), np.uint8)
    params = models.build().init(jax.random.key(0))
    for label in (-1, 10):
        with pytest.raises(ConfigError, match=f"label is {label}, expected a digit from 0 to 9"):
            digit.explain(params, Spec(), image, label)
    with pytest.raises(ShapeError, match="100 pixels, but the network takes 784"):
        digit.explain(params, Spec(), image[:10, :10], 1)
    with pytest.raises(ConfigError, match="family 'cnn'"):
        digit.explain(params, Spec(family="cnn"), image, 1)


# From one to many


def gradient_by_hand(params: models.Params, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the mean cost, all parameters in a row, weights before biases, in float64."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        a, _, dc_dz = by_hand(params, Spec(), image, label)
        pairs = [(np.outer(d, before).ravel(), d) for before, d in zip(a, dc_dz, strict=False)]
        rows.append(np.concatenate([part for pair in pairs for part in pair]))
    return np.mean(rows, axis=0)


@pytest.fixture(scope="module")
def network() -> models.Params:
    return jax.device_get(models.build().init(jax.random.key(0)))


def test_single_nudges_and_their_means(network: models.Params, blobs: Dataset) -> None:
    images, labels = blobs.train_images, blobs.train_labels
    shown, proof = batch.disagreement(network, images, labels, models.build())
    assert shown.labels == (3, 2, 9)
    assert shown.indices == (3, 2, 9)  # the labels count up
    last = slice(-170, None)  # 10 x 16 weights, then 10 biases
    which = [*range(160, 170), *range(shown.neuron, 160, 16)]  # the biases, then w[j, neuron]
    assert shown.names[:2] == ("b[0]", "b[1]")
    assert shown.names[12] == f"w[2,{shown.neuron}]"
    singles = [-gradient_by_hand(network, images[[i]], [i]) for i in (3, 2, 9)]
    for column, nudge in enumerate(singles):
        np.testing.assert_allclose(
            shown.nudges[:, column], nudge[last][which], rtol=1e-4, atol=1e-7
        )
    np.testing.assert_allclose(
        shown.average, np.mean(singles, axis=0)[last][which], rtol=1e-4, atol=1e-7
    )
    whole = -gradient_by_hand(network, images, labels)
    np.testing.assert_allclose(shown.everyone, whole[last][which], rtol=1e-4, atol=1e-7)
    # float32: a sum of 230 numbers of one size, and again by matrix products.
    assert proof.difference <= 1e-5 * proof.largest
    assert proof.largest == pytest.approx(np.abs(whole).max(), rel=1e-5)
    assert (proof.examples, proof.parameters) == (230, 13002)


def test_each_digit_wants_its_own_output_up(network: models.Params, blobs: Dataset) -> None:
    shown, _ = batch.disagreement(network, blobs.train_images, blobs.train_labels, models.build())
    for column, label in enumerate(shown.labels):
        assert np.array_equal(shown.nudges[:10, column] > 0, np.arange(10) == label)


def test_larger_batches_point_closer_to_the_whole(network: models.Params, blobs: Dataset) -> None:
    found = batch.agreement(network, blobs.train_images, blobs.train_labels, models.build(), seed=1)
    assert [one.size for one in found] == [1, 10, 100, 230]
    whole = gradient_by_hand(network, blobs.train_images, blobs.train_labels)
    rng = np.random.default_rng(1)
    for cosine in found[0].cosines:  # the same draws, and their angles by hand
        draw = rng.choice(230, 1, replace=False)
        one = gradient_by_hand(network, blobs.train_images[draw], blobs.train_labels[draw])
        expected = one @ whole / np.linalg.norm(one) / np.linalg.norm(whole)
        assert cosine == pytest.approx(expected, abs=1e-5)
    medians = [np.median(one.angles) for one in found]
    assert medians == sorted(medians, reverse=True)
    assert found[-1].angles.max() < 0.05  # degrees; float32 sums in another order
    np.testing.assert_allclose(np.cos(np.radians(found[0].angles)), found[0].cosines, rtol=1e-12)
    assert all(one.seconds > 0 for one in found)


def test_sets_and_networks_that_cannot_be(network: models.Params, blobs: Dataset) -> None:
    images, labels = blobs.train_images, blobs.train_labels
    with pytest.raises(DataError, match="no 2"):
        batch.disagreement(network, images, np.where(labels == 2, 3, labels), models.build())
    for spec, said in ((Spec(sizes=(784, 9)), "9 outputs"), (Spec(sizes=(100, 10)), "100 inputs")):
        with pytest.raises(ShapeError, match=said):
            batch.agreement(network, images, labels, models.build(spec))
    other = models.build()._replace(spec=Spec(family="cnn"))
    with pytest.raises(ConfigError, match="family 'cnn'"):
        batch.disagreement(network, images, labels, other)
