"""The one way from images to an answer, the same for every API and transport."""

import numpy as np

from service.codec import Answer
from service.repository import ServedModel


def classify(model: ServedModel, images: np.ndarray) -> Answer:
    """Labels and scores of images uint8 [N, 784].

    Blocks while the model computes: call it from a thread that may wait.

    Raises:
      ShapeError: the images do not fit the model.
    """
    scores = model.predictor(images)
    return Answer(np.argmax(scores, axis=1), scores, model.name, model.version)
