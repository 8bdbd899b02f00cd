"""What a convolutional network is made of: architectures by name, shapes, first parameters."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxnn.cnn_convolve import Convolve
from jaxnn.cnn_layers import Activate, Connect, Normalise, Pool
from jaxnn.errors import ConfigError

Layer = Convolve | Pool | Activate | Normalise | Connect
Params = tuple[Any, ...]  # an entry a layer: Kernels, Gains, Weights or ()

LENET: tuple[Layer, ...] = (
    Convolve(16, 5),
    Pool("max"),
    Activate(),
    Convolve(32, 5),
    Pool("max"),
    Activate(),
    Connect(48),
    Activate(),
)
"""Two convolutions, each with its maps made smaller, and 48 neurons that see all of them: for
28 x 28 pixels and 10 classes 38,362 parameters. Source of the form: LeCun, Bottou, Bengio, Haffner,
Gradient-Based Learning Applied to Document Recognition, 1998, fig. 2."""

DEEP: tuple[Layer, ...] = (
    Convolve(32, 5),
    Pool("max"),
    Normalise(),
    Activate(),
    Convolve(64, 3, padding=1),
    Normalise(),
    Activate(),
    Convolve(64, 3, padding=1),
    Pool("max"),
    Normalise(),
    Activate(),
    Convolve(96, 3),
    Normalise(),
    Activate(),
    Pool("average"),
)
"""Four convolutions, each with its maps normalised: for 28 x 28 pixels and 10 classes 116,010
parameters, and seven times the work of `lenet`."""

TINY: tuple[Layer, ...] = (
    Convolve(2, 3, stride=2, padding=1),
    Pool("max"),
    Normalise(),
    Activate(),
    Convolve(3, 2),
    Activate(),
    Pool("average"),
    Connect(4),
    Activate(),
)
"""Every kind of layer once or more, for checking gradients: for 11 x 11 pixels and up."""

ARCHITECTURES: dict[str, tuple[Layer, ...]] = {"lenet": LENET, "deep": DEEP, "tiny": TINY}
"""Layers by name; one more `Connect`, to the classes, comes after them."""


def layers(
    architecture: str, sizes: Sequence[int] = (784, 10), activation: str = "relu"
) -> tuple[Layer, ...]:
    """The layers of an architecture, the one to the classes included.

    Raises:
      ConfigError: it is not known, or a picture of that size cannot go through it.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"a cnn has no architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}"
        )
    if len(sizes) != 2 or math.isqrt(sizes[0]) ** 2 != sizes[0]:
        raise ConfigError(
            f"sizes of a cnn are {tuple(sizes)}, expected the pixels of a square picture and the "
            "classes only, such as 784 10: the layers between them are its architecture"
        )
    found = (*ARCHITECTURES[architecture], Connect(sizes[-1]))
    for shape in shapes(found, sizes[0]):
        if min(shape) < 1:
            raise ConfigError(
                f"sizes begin with {sizes[0]}: a picture of so few pixels has none left on its way "
                f"through a cnn of architecture {architecture!r}"
            )
    return tuple(Activate(activation) if layer == Activate() else layer for layer in found)


def check(sizes: Sequence[int], architecture: str) -> None:
    """Raises ConfigError where there is no such network; as `layers`."""
    layers(architecture, sizes)


def shapes(some: Sequence[Layer], pixels: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of `Trace.a`."""
    side = math.isqrt(pixels)
    found: list[tuple[int, ...]] = [(side, side, 1)]
    for layer in some:
        found.append(layer.shape(found[-1]))
    return tuple(found)


def init(
    key: Array,
    sizes: Sequence[int] = (784, 10),
    architecture: str = "lenet",
    dtype: DTypeLike | None = None,
) -> Params:
    """Random parameters: weights normal with variance 2/n_in, gains 1, biases 0.

    n_in is how many numbers a neuron or a place of a map sees. Why 2: a relu lets half of them
    through, so that the activations of every layer keep the size of those before.

    Args:
      key: a typed random key, `jax.random.key(seed)`.
      sizes: pixels of a square picture, and classes.
      architecture: a name in ARCHITECTURES.
      dtype: of every array; JAX's default float where None.

    Returns:
      A tuple with an entry for each layer.

    Raises:
      ConfigError: as `layers`.

    Source: He, Zhang, Ren, Sun, Delving Deep into Rectifiers, 2015, sec. 2.2.
    """
    some = layers(architecture, sizes)
    forms = [
        layer.params(shape) for layer, shape in zip(some, shapes(some, sizes[0]), strict=False)
    ]
    counts = [math.prod(form[0]) if form else 0 for form in forms]
    # One draw for all, then cut: XLA compiles a draw of every length anew.
    drawn = jax.random.normal(key, (sum(counts),), dtype)
    params: list[Any] = []
    used = 0
    for form, count in zip(forms, counts, strict=True):
        if not form:
            params.append(())
            continue
        weights, biases = form
        if len(weights) == 1:  # gains
            first = jnp.ones(weights, drawn.dtype)
        else:
            n_in = math.prod(weights[1:])
            first = drawn[used : used + count].reshape(weights) * (2 / n_in) ** 0.5
        params.append(type(form)(first, jnp.zeros(biases, drawn.dtype)))
        used += count
    return tuple(params)
