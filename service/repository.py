"""Models on disk to models that answer: read, checked, compiled and warm.

The place where several models and versions, and reloading, are to live.
"""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import checkpoint, models
from jaxnn.checkpoint import ModelFile
from jaxnn.errors import ConfigError
from service.config import IMAGE_BYTES
from service.predictor import BUCKETS, Predictor


class ServedModel(NamedTuple):
    """A model that is ready to answer."""

    name: str
    version: str  # 12 hex digits of the file's SHA-256
    file: ModelFile  # what it says of itself, and what `answers.judged` goes by
    parameter_count: int
    metrics: dict[str, float]
    predictor: Callable[[np.ndarray], np.ndarray]  # uint8 [N, 784] -> float32 [N, C]


def load_model(
    path: str | os.PathLike[str], name: str, buckets: tuple[int, ...] = BUCKETS
) -> ServedModel:
    """Reads a model file and compiles it for serving.

    Args:
      path: a file that `jaxnn.checkpoint.save` wrote.
      name: under which it answers.
      buckets: batch sizes to compile for.

    Raises:
      CheckpointError: the file is missing, damaged, or no model.
      ConfigError: the model does not take images of 784 pixels.
    """
    file = checkpoint.load(path)
    if file.spec.sizes[0] != IMAGE_BYTES:
        raise ConfigError(
            f"{path} takes {file.spec.sizes[0]} inputs, expected {IMAGE_BYTES}: "
            "serve a model of 28 x 28 images"
        )
    if file.familiar is not None:  # float16 in the file: converted once, not in every call
        names = ("mean", "components", "centres", "directions")
        wide = {name: getattr(file.familiar, name).astype(np.float32) for name in names}
        file = file._replace(familiar=file.familiar._replace(**wide))
    return ServedModel(
        name=name,
        version=file.digest[:12],
        file=file,
        parameter_count=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(file.params)),
        metrics={
            name: float(value)
            for name, value in file.metrics.items()
            if isinstance(value, int | float)
        },
        predictor=Predictor(models.build(file.spec), file.params, buckets),
    )
