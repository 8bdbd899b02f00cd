"""The one way from images to an answer, the same for every API and transport."""

import numpy as np

from jaxnn import answers
from service.codec import Answer
from service.repository import ServedModel


def classify(model: ServedModel, images: np.ndarray) -> Answer:
    """Labels and scores of images uint8 [N, 784], and how far they can be trusted.

    Blocks while the model computes: call it from a thread that may wait.

    Raises:
      ShapeError: the images do not fit the model.
    """
    found = answers.judged(model.file, images, model.predictor(images))
    return Answer(
        found.labels, found.scores, found.confidence, found.rejected, model.name, model.version
    )
