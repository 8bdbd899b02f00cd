"""A trained network as a teacher: what a student is to answer, from its scores and the labels.

A label says that an image is a 4; a teacher says also that it could be a 9. The target of an image
is a mixture of both,

    y = (1 - w) one_hot(label) + w softmax(z / T)

with w = `teacher_weight`, T = `teacher_temperature` and the teacher's z as `calibration` takes it
from its scores (for softmax outputs their logarithms). y is at least 0 and sums to 1, so it can
stand wherever a one-hot target does: every cost in `costs.OBJECTIVES` is defined for it, and its
delta is exact. The teacher looks once, before training, at each unchanged image, so an epoch costs
what it does without one.

Unlike in the source, the student's own outputs are not divided by T: it is to be as unsure as its
target is.

Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015, sec. 2.
"""

from pathlib import Path

import numpy as np

from jaxnn import calibration, checkpoint, metrics, models, ready_made
from jaxnn.checkpoint import ModelFile
from jaxnn.config import TrainConfig
from jaxnn.errors import CheckpointError, ConfigError


def targets(
    scores: np.ndarray, labels: np.ndarray, output: str, weight: float, temperature: float
) -> np.ndarray:
    """The mixture of labels and a teacher's answers, float32 [N, C], each row with sum 1.

    Args:
      scores: [N, C] activations of the teacher's last layer, 0 to 1.
      labels: int [N] true classes, 0 to C - 1.
      output: the teacher's last activation, "sigmoid" or "softmax".
      weight: w, 0 to 1: 0 is the labels alone, 1 the teacher alone.
      temperature: T, above 0: 1 is the teacher as it is, a large one makes all classes alike.
    """
    y = weight * calibration.probabilities(scores, output, temperature)
    y[np.arange(len(labels)), labels] += 1 - weight
    return y.astype(np.float32)


def lessons(config: TrainConfig, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The targets of a training set by the teacher that the settings name, float32 [N, C].

    Args:
      config: settings with a teacher.
      images: uint8 [N, n_in].
      labels: int [N].

    Raises:
      CheckpointError, ConfigError: as in `load`.
    """
    file = load(config)
    scores = metrics.scores(file.params, images, model=models.build(file.spec))
    return targets(
        scores, labels, file.spec.output, config.teacher_weight, config.teacher_temperature
    )


def load(config: TrainConfig) -> ModelFile:
    """The teacher that the settings name: a file, or one that comes with jaxnn.

    Raises:
      CheckpointError: the file cannot be used.
      ConfigError: it is another one than `teacher_checksum` says, or has other inputs or classes
        than the student.
    """
    try:
        file = checkpoint.load(ready_made.path_of(Path(config.teacher)))
    except CheckpointError as error:
        raise CheckpointError(f"the teacher {error}") from error
    if config.teacher_checksum not in ("", file.digest):
        raise ConfigError(
            f"the teacher {config.teacher} has the checksum {file.digest[:12]}..., expected "
            f"{config.teacher_checksum[:12]}...: name the file that the run began with, or begin "
            "anew with this one"
        )
    theirs, ours = file.spec.sizes, config.sizes
    if (theirs[0], theirs[-1]) != (ours[0], ours[-1]):
        raise ConfigError(
            f"the teacher {config.teacher} has {theirs[0]} inputs and {theirs[-1]} classes, but "
            f"sizes begin with {ours[0]} and end with {ours[-1]}: name a teacher for the same task"
        )
    return file


def checksum(config: TrainConfig) -> str:
    """SHA-256 of the teacher's file, 64 hex digits; "" without a teacher.

    Raises:
      CheckpointError, ConfigError: as in `load`.
    """
    return load(config).digest if config.teacher else config.teacher_checksum
