"""What a model file says of pictures: the digit, how sure it is, and whether it is one at all."""

from typing import NamedTuple

import numpy as np

from jaxnn import calibration, metrics, models
from jaxnn import novelty as novelties
from jaxnn.checkpoint import ModelFile


class Answers(NamedTuple):
    """What N pictures were read as."""

    labels: np.ndarray  # int [N]: the class of the largest score, the lowest among equals
    scores: np.ndarray  # float32 [N, C] activations of the last layer, 0 to 1
    confidence: np.ndarray  # float64 [N]: the chance that the label is right, if it is a digit
    novelty: np.ndarray  # float32 [N]: how unlike the digits of training; 0 where none are known
    rejected: np.ndarray  # bool [N]: too unlike them for the answer to be trusted


def answer(file: ModelFile, images: np.ndarray) -> Answers:
    """Reads images uint8 [N, 28, 28] or [N, n_in], N at least 1.

    Raises:
      ShapeError: the images do not fit the network.
    """
    scores = metrics.scores(file.params, images, model=models.build(file.spec))
    return judged(file, images, scores)


def judged(file: ModelFile, images: np.ndarray, scores: np.ndarray) -> Answers:
    """The answers that scores float32 [N, C], already computed, amount to.

    Raises:
      ShapeError: images and scores do not fit each other or the file.
    """
    chances = calibration.probabilities(scores, file.spec.output, file.temperature)
    labels = scores.argmax(axis=1)
    novelty = np.zeros(len(scores), np.float32)
    rejected = np.zeros(len(scores), bool)
    if file.familiar is not None:  # files of old do not say what is familiar
        novelty = novelties.novelty(images, chances, file.familiar)
        rejected = novelties.rejected(novelty, file.familiar)
    return Answers(labels, scores, chances.max(axis=1), novelty, rejected)
