"""One digit through the network: what it is read as, what that costs, and what it wants changed.

The cost is the quadratic one, whatever the network was trained by: the sum of the squared
differences between the outputs and the target. Everything the example wants is a nudge, a
negative gradient, layer by layer from the last:

    outputs              -dC/da[L] = 2 (y - a[L])
    biases               -dC/db[l] = -dC/dz[l]
    weights              -dC/dW[l] = -dC/dz[l] a[l-1]^T   in proportion to the activations before
    activations before   -dC/da[l-1] = -W[l]^T dC/dz[l]   in proportion to the weights
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import metrics, mlp
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Spec


class LayerNudges(NamedTuple):
    """What one example wants of one layer of n neurons, each fed by m activations."""

    activations: np.ndarray  # float32 [n]: what they are, a
    wishes: np.ndarray  # float32 [n]: what they should do, -dC/da
    biases: np.ndarray  # float32 [n]: -dC/db
    weights: np.ndarray  # float32 [n, m]: -dC/dW


class DigitExplanation(NamedTuple):
    """One picture, its cost, and its nudges."""

    image: np.ndarray  # uint8 [28, 28]
    label: int  # what it is
    answer: int  # what it is read as
    target: np.ndarray  # float32 [n_out]: 1 at the label, else 0
    terms: np.ndarray  # float32 [n_out]: (a - y)^2
    cost: float  # their sum
    pixel_wishes: np.ndarray  # float32 [28, 28]: -dC/dx, which pixels brighter or darker
    layers: tuple[LayerNudges, ...]  # the first hidden layer first


def explain(params: mlp.Params, spec: Spec, image: np.ndarray, label: int) -> DigitExplanation:
    """What one example does to a network and wants of it.

    Args:
      params: the network's layers, float32.
      spec: the network they belong to; a multilayer perceptron.
      image: uint8 [28, 28], ink bright on black.
      label: what the image shows, from 0 to n_out - 1.

    Raises:
      ConfigError: another family of network, or a label that it has no output for.
      ShapeError: the network takes another number of pixels.
    """
    if spec.family != "mlp":
        raise ConfigError(f"the network is of the family {spec.family!r}: this explains an 'mlp'")
    n_in, n_out = spec.sizes[0], spec.sizes[-1]
    if image.size != n_in:
        raise ShapeError(
            f"the picture has {image.size} pixels, but the network takes {n_in}: "
            "choose another model"
        )
    if not 0 <= label < n_out:
        raise ConfigError(f"the label is {label}, expected a digit from 0 to {n_out - 1}")
    target = metrics.one_hot(jnp.asarray(label), n_out)
    a, wishes, gradient = jax.device_get(
        _explain(params, jnp.asarray(image).reshape(-1), target, spec=spec)
    )
    terms = np.square(a[-1] - target)
    return DigitExplanation(
        image=image,
        label=label,
        answer=int(np.argmax(a[-1])),
        target=np.asarray(target),
        terms=terms,
        cost=float(np.sum(terms)),
        pixel_wishes=wishes[0].reshape(image.shape),
        layers=tuple(
            LayerNudges(a_l, wish, -layer.biases, -layer.weights)
            for a_l, wish, layer in zip(a[1:], wishes[1:], gradient, strict=True)
        ),
    )


@partial(jax.jit, static_argnames="spec")
def _explain(
    params: mlp.Params, pixels: Array, y: Array, *, spec: Spec
) -> tuple[tuple[Array, ...], tuple[Array, ...], mlp.Params]:
    """Activations and -dC/da of every layer, the picture first, and the gradient."""
    x = metrics.pixels_to_input(pixels)
    ends = {"activation": spec.activation, "output": spec.output}
    a = mlp.trace(params, x, **ends).a
    _, delta = mlp.deltas(params, x, y, **ends, cost="quadratic")
    before = tuple(-layer.weights.T @ d for layer, d in zip(params, delta, strict=True))
    return a, (*before, 2 * (y - a[-1])), mlp.backprop(params, x, y, **ends, cost="quadratic")
