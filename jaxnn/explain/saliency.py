"""Which pixels an answer hangs on: the slope of the winning score by each of them.

    slope = d(score of the answer) / d(pixel), with a pixel from 0 (paper) to 1 (ink)

Where it is above 0, a little more ink makes the network surer of its answer, below 0 less sure.
Nothing but a network's scores is asked, so that every family can be. In float64: a score of
0.9999999 has slopes that float32 would lose.

Source: Simonyan, Vedaldi, Zisserman, Deep inside convolutional networks, 2013, sec. 3.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import models
from jaxnn.errors import ShapeError
from jaxnn.models import Model, Spec


class Saliency(NamedTuple):
    """N examples, their answers, and what these hang on."""

    images: np.ndarray  # uint8 [N, ...], as they were given
    scores: np.ndarray  # float64 [N, n_out]
    answers: np.ndarray  # int [N]: the class of the largest score
    slopes: np.ndarray  # float64 [N, ...]: of the answer's score, by each pixel


def saliency(params: Any, spec: Spec, images: np.ndarray) -> Saliency:
    """The slopes of the winning scores of some examples.

    Args:
      params: the network's tree of arrays; of any family, or an ensemble.
      spec: the network they belong to.
      images: uint8 [N, 28, 28], or any [N, ...] of as many numbers as the network takes.

    Raises:
      ShapeError: the network takes another number of pixels.
    """
    pixels = images.reshape(len(images), -1)
    if pixels.shape[1] != spec.sizes[0]:
        raise ShapeError(
            f"a picture has {pixels.shape[1]} pixels, but the network takes {spec.sizes[0]}: "
            "choose another model"
        )
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        found = _slopes(exact, pixels / 255, model=models.build(spec))
        scores, slopes = jax.device_get(found)
    return Saliency(images, scores, scores.argmax(axis=1), slopes.reshape(images.shape))


@partial(jax.jit, static_argnames="model")
def _slopes(params: Any, x: Array, *, model: Model) -> tuple[Array, Array]:
    """Scores [N, n_out] and the slopes [N, n_in] of the largest."""

    def winning(x: Array) -> tuple[Array, Array]:
        scores = model.forward(params, x)
        return jnp.max(scores), scores

    slopes, scores = jax.vmap(jax.grad(winning, has_aux=True))(x)
    return scores, slopes
