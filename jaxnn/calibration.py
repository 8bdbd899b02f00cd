"""How far a network's confidence can be trusted: scores as probabilities, and how true they are.

A network is calibrated where, of all images that it reads with a confidence of 0.8, it reads 80 %
correctly. One number, the temperature, is fitted after training on images whose labels are known.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxnn.errors import ConfigError, ShapeError

COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are tried
HALVINGS = 24  # of the range between them: what is left is below 1e-6 of T
OUTPUTS = ("sigmoid", "softmax")


class Reliability(NamedTuple):
    """Confidence against accuracy, in bins of confidence; an empty bin has NaN for both."""

    edges: np.ndarray  # [bins + 1] from 0 to 1; a bin holds what lies above its lower edge
    counts: np.ndarray  # int [bins] images
    confidence: np.ndarray  # [bins] mean probability of the answer, 0 to 1
    accuracy: np.ndarray  # [bins] part of the answers that are right, 0 to 1
    ece: float  # expected calibration error, 0 to 1: mean distance of the two over all images


def probabilities(scores: ArrayLike, output: str, temperature: float = 1.0) -> np.ndarray:
    """Class probabilities of a network's scores: softmax(z / T).

    z is what the last layer's activation made the scores of, up to a constant that softmax does
    not see: log s for softmax, the log-odds log(s / (1 - s)) for sigmoids. Why that for sigmoids,
    and not s over the sum of all s: take the scores for the chances of independent events, one a
    class. Since an image shows exactly one class, class i has the chance that event i happens and
    no other does, s_i times all (1 - s_j), which is in proportion to s_i / (1 - s_i): at T = 1
    this is softmax of the log-odds. T above 1 makes a network less sure of itself, T below 1
    surer; which answer is the likeliest never changes.

    Args:
      scores: [N, C] activations of the last layer, 0 to 1. So that z stays finite, one that
        rounded to 1 counts as half a unit of its last place less, and one that rounded to 0 as
        half the smallest normal number of its dtype.
      output: the last layer's activation, "sigmoid" or "softmax".
      temperature: T, above 0, as `fit_temperature` finds it.

    Returns:
      float64 [N, C], each row a distribution: 0 to 1, its sum 1.

    Raises:
      ShapeError: scores of another shape, or outside 0 to 1.
      ConfigError: an output that is not known, or a temperature that is not above 0.

    Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017, sec. 4.2.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature}, expected a finite number above 0")
    return _softmax(_weighted_inputs(scores, output), temperature)


def fit_temperature(scores: ArrayLike, labels: ArrayLike, output: str) -> float:
    """The temperature that makes the true classes likeliest, between COLDEST and HOTTEST.

    Minimises the mean over the images of -log p(label). That is convex in 1/T, with the slope
    mean(sum_i p_i z_i - z_label), so that the range is halved by the slope's sign. Where every
    answer is right, the coldest T is the best.

    Args:
      scores: [N, C] as in `probabilities`; of images that the network was not trained on, if any
        can be had: it is too sure of those that it has seen.
      labels: int [N] true classes, 0 to C - 1.
      output: the last layer's activation, "sigmoid" or "softmax".

    Raises:
      ShapeError: scores or labels that do not fit each other, or out of range.
      ConfigError: an output that is not known.

    Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017, sec. 4.2.
    """
    z = _weighted_inputs(scores, output)
    truth = _classes(labels, z.shape)
    ahead = z - np.take_along_axis(z, truth[:, None], axis=1)  # [N, C] of the true class
    cold, hot = COLDEST, HOTTEST
    for _ in range(HALVINGS):
        middle = math.sqrt(cold * hot)
        too_sure = np.sum(_softmax(z, middle) * ahead) > 0
        cold, hot = (middle, hot) if too_sure else (cold, middle)
    return math.sqrt(cold * hot)


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """How often the network is right, against how sure it is, in bins of equal width.

    Args:
      probabilities: [N, C] as `probabilities` gives them; the largest of a row is the answer, and
        its value the confidence.
      labels: int [N] true classes, 0 to C - 1.
      bins: at least 1.

    Raises:
      ShapeError: probabilities or labels that do not fit each other, or out of range.
      ConfigError: no bins.

    Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017, eq. 2-3.
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins}, expected 1 or more")
    rows = _table(probabilities, "probabilities")
    confidence = rows.max(axis=1)
    right = rows.argmax(axis=1) == _classes(labels, rows.shape)
    edges = np.arange(bins + 1) / bins
    place = np.searchsorted(edges[1:-1], confidence)  # a confidence on an edge: the bin below
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=each, minlength=bins) for each in (confidence, right)]
    mean_confidence, accuracy = np.divide(
        sums, counts, out=np.full((2, bins), np.nan), where=counts > 0
    )
    ece = float(np.abs(sums[0] - sums[1]).sum() / len(rows))
    return Reliability(edges, counts, mean_confidence, accuracy, ece)


def _weighted_inputs(scores: ArrayLike, output: str) -> np.ndarray:
    """float64 [N, C]: the last layer's z, shifted so that the largest of a row is 0."""
    if output not in OUTPUTS:
        raise ConfigError(f"unknown output {output!r}: choose one of {', '.join(OUTPUTS)}")
    table = _table(scores, "scores")
    limits, s = np.finfo(table.dtype), table.astype(np.float64)
    z = np.log(np.maximum(s, float(limits.tiny) / 2))
    if output == "sigmoid":
        z -= np.log(np.maximum(1 - s, float(limits.epsneg) / 2))
    return z - z.max(axis=1, keepdims=True)


def _softmax(z: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(z / T) of each row, where the largest z is 0."""
    with np.errstate(over="ignore"):  # a tiny T: -infinity, a probability of 0, as it should be
        powers = np.exp(z / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def _table(numbers: ArrayLike, name: str) -> np.ndarray:
    """Floats [N, C] from 0 to 1, N and C at least 1."""
    table = np.asarray(numbers)
    if table.ndim != 2 or table.size == 0 or not np.issubdtype(table.dtype, np.floating):
        raise ShapeError(f"{name} are {table.dtype} {table.shape}, expected floats [N, C]")
    if not np.all((table >= 0) & (table <= 1 + 1e-6)):  # a float32 softmax may round up; no NaN
        raise ShapeError(f"{name} lie outside 0 to 1")
    return table


def _classes(labels: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    truth = np.asarray(labels)
    if truth.shape != shape[:1] or not np.issubdtype(truth.dtype, np.integer):
        raise ShapeError(
            f"labels are {truth.dtype} {truth.shape}, expected {shape[0]} integers: one an image"
        )
    if truth.min() < 0 or truth.max() >= shape[1]:
        raise ShapeError(f"labels lie outside 0 to {shape[1] - 1}: the classes that have a score")
    return truth.astype(np.int64)
