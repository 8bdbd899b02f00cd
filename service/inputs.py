"""What a model takes, decided from its spec: the picture of a digit, or a spoken one."""

import math
from functools import lru_cache
from typing import NamedTuple

from jaxnn.errors import ConfigError
from jaxnn.lstm import ARCHITECTURES
from jaxnn.models import Spec
from service.config import IMAGE_BYTES, IMAGE_SHAPE


class Kind(NamedTuple):
    """What a model takes; every request becomes rows of bytes, uint8 [N, size]."""

    name: str  # "images" or "speech"
    shape: tuple[int, int]  # of a row: pixels, or steps and bands
    fields: tuple[str, ...]  # of ClassifyRequest.input that it can come in
    step: int = 0  # bytes of a step, where rows hold fewer steps or more; see `last_steps`

    @property
    def size(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape)


IMAGES = Kind("images", IMAGE_SHAPE, ("pixels", "encoded"))


@lru_cache
def kind_of(spec: Spec) -> Kind:
    """What the models of a spec take.

    Raises:
      ConfigError: neither 28 x 28 images nor speech.
    """
    n_in = spec.sizes[0]
    if spec.family == "lstm" and ARCHITECTURES[spec.architecture].masked:
        step = ARCHITECTURES[spec.architecture].features
        return Kind("speech", (n_in // step, step), ("features", "recordings", "sounds"), step)
    if n_in != IMAGE_BYTES:
        raise ConfigError(
            f"the model takes {n_in} inputs, expected {IMAGE_BYTES}: serve a model of 28 x 28 "
            "images, or of speech"
        )
    return IMAGES
