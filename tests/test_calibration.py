"""Calibration against slow and independent ways to say the same, and on cases known beforehand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from jaxnn import calibration, checkpoint, data, metrics, models
from jaxnn.errors import ConfigError, ShapeError

RNG = np.random.default_rng(3)
Z = RNG.normal(0, 3, (20_000, 10))
SQUASH = {"sigmoid": expit, "softmax": lambda z: softmax(z, axis=1)}
OUTPUTS = list(SQUASH)


def drawn(chances: np.ndarray) -> np.ndarray:
    """[N] classes at random, each as likely as its row of chances [N, C] says."""
    below = np.cumsum(chances, axis=1) < RNG.random((len(chances), 1))
    return np.minimum(below.sum(axis=1), chances.shape[1] - 1)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_weighted_inputs_are_found_again(output: str, temperature: float) -> None:
    """From float64 scores; at |z| below 15 or so 1 - s keeps nine digits, T = 0.3 takes one."""
    found = calibration.probabilities(SQUASH[output](Z), output, temperature)
    np.testing.assert_allclose(found, softmax(Z / temperature, axis=1), rtol=1e-7, atol=1e-12)


def test_sigmoids_are_independent_events_of_which_one_happened() -> None:
    scores = expit(Z[:50])
    alone = np.empty_like(scores)
    for row, column in np.ndindex(scores.shape):
        others = np.delete(scores[row], column)
        alone[row, column] = scores[row, column] * np.prod(1 - others)
    expected = alone / alone.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibration.probabilities(scores, "sigmoid"), expected, rtol=1e-9)


def test_softmax_scores_are_probabilities_already() -> None:
    scores = softmax(Z, axis=1)
    np.testing.assert_allclose(calibration.probabilities(scores, "softmax"), scores, rtol=1e-12)


TABLES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(0, 1, width=32, allow_subnormal=False)
    | st.sampled_from([0.0, 2.0**-126, 1 - 2.0**-24, 1.0]),
)


@settings(max_examples=200, deadline=None)
@given(TABLES, st.sampled_from(OUTPUTS), st.floats(0.05, 20))
def test_rows_are_distributions_and_the_answer_stays(
    scores: np.ndarray, output: str, temperature: float
) -> None:
    """Whatever the scores, also all 0 or all 1: finite, and the likeliest class is the answer."""
    found = calibration.probabilities(scores, output, temperature)
    assert found.dtype == np.float64
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(found.argmax(axis=1), scores.argmax(axis=1))


def test_hotter_is_less_sure() -> None:
    scores = expit(Z[:100])
    sure = [
        calibration.probabilities(scores, "sigmoid", temperature).max(axis=1)
        for temperature in (0.05, 0.5, 1, 2, 20)
    ]
    assert np.all(np.diff(sure, axis=0) <= 0)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300])
def test_temperatures_beyond_reason_give_distributions(temperature: float) -> None:
    found = calibration.probabilities(np.float32([[0, 0.5, 1], [0, 0, 0]]), "sigmoid", temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_a_score_that_rounded_above_one_is_forgiven() -> None:
    scores = np.float32([[1.0000001, 0], [0.5, 0.5]])
    assert np.all(np.isfinite(calibration.probabilities(scores, "softmax")))
    assert np.all(np.isfinite(calibration.probabilities(scores, "sigmoid")))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_what_scipy_finds_and_near_the_truth(
    output: str, true_temperature: float
) -> None:
    """Labels drawn at a known temperature; 20,000 of them tell it to 1 % or so."""
    labels = drawn(softmax(Z / true_temperature, axis=1))

    def mean_nll(temperature: float) -> float:
        chances = log_softmax(Z / temperature, axis=1)
        return float(-chances[np.arange(len(labels)), labels].mean())

    found = calibration.fit_temperature(SQUASH[output](Z), labels, output)
    independent = minimize_scalar(
        mean_nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-7}
    )
    assert found == pytest.approx(independent.x, rel=1e-5)  # how flat a minimum is, to float64
    assert found == pytest.approx(true_temperature, rel=0.05)


def test_temperatures_without_a_minimum_end_at_the_bounds() -> None:
    scores, all_right = expit(Z[:200]), Z[:200].argmax(axis=1)
    assert calibration.fit_temperature(scores, all_right, "sigmoid") == pytest.approx(0.05)
    all_wrong = Z[:200].argmin(axis=1)
    assert calibration.fit_temperature(scores, all_wrong, "sigmoid") == pytest.approx(20)


def test_an_overconfident_network_is_mended() -> None:
    """Half the images to fit the temperature, the other half to measure the error."""
    labels = drawn(softmax(Z / 2.5, axis=1))
    scores = expit(Z)
    fit, held = slice(0, 10_000), slice(10_000, None)

    def error(temperature: float) -> float:
        chances = calibration.probabilities(scores[held], "sigmoid", temperature)
        return calibration.reliability(chances, labels[held]).ece

    temperature = calibration.fit_temperature(scores[fit], labels[fit], "sigmoid")
    assert error(1.0) > 0.2
    # Chance alone: 15 bins of some hundred images, each off by 0.5/sqrt(count) or so.
    assert error(temperature) < 0.02


def of_confidence(confidence: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes; every answer is class 1."""
    rest = (1 - confidence) / 2
    rows = np.tile([rest, confidence, rest], (right + wrong, 1))
    return rows, np.array([1] * right + [0] * wrong)


@pytest.mark.parametrize(
    ("confidence", "right", "error"), [(0.8, 8, 0.0), (0.9, 6, 0.3), (0.5, 10, 0.5), (1.0, 0, 1.0)]
)
def test_known_errors(confidence: float, right: int, error: float) -> None:
    found = calibration.reliability(*of_confidence(confidence, right, 10 - right))
    assert found.ece == pytest.approx(error, abs=1e-12)
    (full,) = np.flatnonzero(found.counts)
    assert found.edges[full] < confidence <= found.edges[full + 1]
    assert found.counts[full] == 10
    assert found.confidence[full] == pytest.approx(confidence)
    assert found.accuracy[full] == right / 10
    assert np.isnan(np.delete(found.accuracy, full)).all()
    assert np.isnan(np.delete(found.confidence, full)).all()


def test_errors_of_opposite_sign_cancel_within_a_bin_only() -> None:
    sure, unsure = of_confidence(0.9, 5, 5), of_confidence(0.5, 9, 1)
    rows, labels = (np.concatenate(pair) for pair in zip(sure, unsure, strict=True))
    assert calibration.reliability(rows, labels).ece == pytest.approx(0.4)
    assert calibration.reliability(rows, labels, bins=1).ece == pytest.approx(0.0, abs=1e-12)


def slow_reliability(
    rows: np.ndarray, labels: np.ndarray, bins: int
) -> tuple[list[int], list[float], list[float], float]:
    """The definition, bin by bin and image by image; an answer is a row's first largest."""
    counts, confidences, accuracies, error = [], [], [], 0.0
    for index in range(bins):
        sure, right = [], []
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            inside = index / bins < max(row) <= (index + 1) / bins
            if inside or (index == 0 and max(row) == 0):
                sure.append(max(row))
                right.append(float(row.index(max(row)) == label))
        counts.append(len(sure))
        confidences.append(sum(sure) / len(sure) if sure else np.nan)
        accuracies.append(sum(right) / len(right) if right else np.nan)
        if sure:
            error += len(sure) / len(rows) * abs(accuracies[-1] - confidences[-1])
    return counts, confidences, accuracies, error


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 20))
def test_reliability_is_its_definition(draw: st.DataObject, bins: int) -> None:
    """Confidences that lie on the edges of bins among them."""
    shape = draw.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    on_edges = st.integers(0, bins).map(lambda edge: edge / bins)
    rows = draw.draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1) | on_edges))
    labels = draw.draw(hnp.arrays(np.uint8, shape[0], elements=st.integers(0, shape[1] - 1)))
    found = calibration.reliability(rows, labels, bins)
    counts, confidences, accuracies, error = slow_reliability(rows, labels, bins)
    assert found.counts.tolist() == counts
    np.testing.assert_allclose(found.confidence, confidences, rtol=1e-12)
    np.testing.assert_allclose(found.accuracy, accuracies, rtol=1e-12)
    assert found.ece == pytest.approx(error, abs=1e-12)
    assert 0 <= found.ece <= 1


GOOD = np.full((4, 3), 0.5, np.float32)
LABELS = np.zeros(4, np.uint8)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        (GOOD[0], LABELS, r"float32 \(3,\), expected floats \[N, C\]"),
        (GOOD[:0], LABELS[:0], r"float32 \(0, 3\)"),
        (GOOD.astype(int), LABELS, "int64"),
        (GOOD + 1, LABELS, "outside 0 to 1"),
        (-GOOD, LABELS, "outside 0 to 1"),
        (GOOD * np.float32("nan"), LABELS, "outside 0 to 1"),
        (GOOD, LABELS[:3], r"labels are uint8 \(3,\), expected 4 integers"),
        (GOOD, LABELS[:, None], r"uint8 \(4, 1\)"),
        (GOOD, LABELS.astype(float), "float64"),
        (GOOD, LABELS + 3, "outside 0 to 2"),
        (GOOD, LABELS.astype(int) - 1, "outside 0 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(scores: np.ndarray, labels: np.ndarray, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        calibration.fit_temperature(scores, labels, "sigmoid")
    with pytest.raises(ShapeError, match=said):
        calibration.reliability(scores, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_cannot_be_are_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="expected a finite number above 0"):
        calibration.probabilities(GOOD, "sigmoid", temperature)


def test_unknown_outputs_and_no_bins_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown output 'relu': choose one of sigmoid, softmax"):
        calibration.probabilities(GOOD, "relu")
    with pytest.raises(ConfigError, match="unknown output"):
        calibration.fit_temperature(GOOD, LABELS, "relu")
    with pytest.raises(ConfigError, match="bins is 0"):
        calibration.reliability(GOOD, LABELS, bins=0)


@pytest.mark.mnist
def test_the_shipped_model_is_calibrated_by_images_it_is_not_measured_on(mnist: Path) -> None:
    """The claim: at most 0.01 on the test images, by a temperature from training images."""
    file, digits = checkpoint.load(checkpoint.SHIPPED), data.load(str(mnist))
    output, model = file.spec.output, models.build(file.spec)
    seen = metrics.scores(file.params, digits.train_images[-10_000:], model=model)
    temperature = calibration.fit_temperature(seen, digits.train_labels[-10_000:], output)
    scores = metrics.scores(file.params, digits.test_images, model=model)
    chances = calibration.probabilities(scores, output, temperature)
    assert calibration.reliability(chances, digits.test_labels).ece <= 0.01
