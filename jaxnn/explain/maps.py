"""What a convolutional network looks for, and where it finds it: filters and feature maps."""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnn import cnn, metrics
from jaxnn.cnn_convolve import Convolve, Kernels
from jaxnn.cnn_layers import Activate, Connect, Normalise, Pool
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.models import Spec

STRONGEST = 12  # patches of each filter
MOST = 10_000  # images that are looked through for them
CHUNK = 500  # of these at once


class Filters(NamedTuple):
    """The F filters of the first layer, and the patches of pictures that each answers to most."""

    kernels: np.ndarray  # float32 [F, K, K]
    patches: np.ndarray  # uint8 [F, n, K, K]: the strongest first, each from another picture
    responses: np.ndarray  # float32 [F, n]: kernel times patch, summed, and the bias
    indices: np.ndarray  # int [F, n]: which picture a patch is from
    corners: np.ndarray  # int [F, n, 2]: its first row and column there; below 0 beyond the edge
    images: int  # how many pictures were looked through


class Stage(NamedTuple):
    """Layers up to an activation function, and what they made of a picture."""

    name: str  # such as "convolution 5 x 5, max pooling 2 x 2, relu"
    maps: np.ndarray  # float32 [H, W, C], or [n] behind a Connect


class Features(NamedTuple):
    """One picture on its way through a network."""

    image: np.ndarray  # uint8 [28, 28]
    stages: tuple[Stage, ...]
    scores: np.ndarray  # float32 [n_out]


def filters(params: cnn.Params, spec: Spec, images: np.ndarray, count: int = STRONGEST) -> Filters:
    """The filters of the first layer and what they answer to.

    Args:
      params: the network's layers.
      spec: the network they belong to, a cnn.
      images: uint8 [N, 28, 28]; the first MOST of them are looked through.
      count: patches of each filter, at most N.

    Raises:
      ConfigError: another family of network, or an ensemble.
      ShapeError: the network takes another number of pixels.
    """
    images = images[:MOST]
    first = _layers(spec, images[0].size)[0]
    if not isinstance(first, Convolve):
        raise ConfigError(f"a {spec.architecture} does not begin with filters: choose another cnn")
    largest, places = jax.device_get(_answers(params[0], jnp.asarray(images), first=first))
    indices = np.argsort(-largest, axis=0, kind="stable")[:count].T  # [F, n]
    map_index = np.arange(first.maps)[:, None]
    wide = first.shape((*images.shape[1:], 1))[1]  # places in a row
    corners = np.stack(np.divmod(places[indices, map_index], wide), axis=-1) * first.stride
    edge, side = first.padding, first.window
    padded = np.pad(images, [(0, 0), (edge, edge + side), (edge, edge + side)])
    rows, columns = (corners[..., k, None] + np.arange(side) for k in range(2))  # each [F, n, K]
    return Filters(
        kernels=np.asarray(params[0].kernels)[..., 0],
        patches=padded[indices[..., None, None], rows[..., None], columns[..., None, :]],
        responses=largest[indices, map_index],
        indices=indices,
        corners=corners - edge,
        images=len(images),
    )


def features(params: cnn.Params, spec: Spec, image: np.ndarray) -> Features:
    """What every stage of a network makes of one picture.

    Args:
      params: the network's layers.
      spec: the network they belong to, a cnn.
      image: uint8 [28, 28].

    Raises:
      ConfigError: another family of network, or an ensemble.
      ShapeError: the network takes another number of pixels.
    """
    some = _layers(spec, image.size)
    a, scores = jax.device_get(_trace(params, jnp.asarray(image).reshape(-1), spec=spec))
    ends = [at + 1 for at, layer in enumerate(some) if isinstance(layer, Activate)]
    stages = [
        Stage(", ".join(_said(layer) for layer in some[begin:end]), a[end])
        for begin, end in pairwise([0, *ends])
    ]
    return Features(image, tuple(stages), scores)


def _layers(spec: Spec, pixels: int) -> tuple[cnn.Layer, ...]:
    if spec.family != "cnn" or spec.members > 1:
        found = f"of the family {spec.family!r}" if spec.members == 1 else "an ensemble"
        raise ConfigError(f"the network is {found}: this looks into the layers of one 'cnn'")
    if pixels != spec.sizes[0]:
        raise ShapeError(
            f"the picture has {pixels} pixels, but the network takes {spec.sizes[0]}: "
            "choose another model"
        )
    return cnn.layers(spec.architecture, spec.sizes, spec.activation)


@partial(jax.jit, static_argnames="first")
def _answers(params: Kernels, images: Array, *, first: Convolve) -> tuple[Array, Array]:
    """Of each picture and filter: the strongest response [N, F], and its place, row by row."""

    def of_one(image: Array) -> tuple[Array, Array]:
        found = first.forward(params, metrics.pixels_to_input(image)[..., None])
        places = found.reshape(-1, first.maps)
        return jnp.max(places, axis=0), jnp.argmax(places, axis=0)

    return jax.lax.map(of_one, images, batch_size=CHUNK)


@partial(jax.jit, static_argnames="spec")
def _trace(params: cnn.Params, pixels: Array, *, spec: Spec) -> cnn.Trace:
    return cnn.trace(
        params,
        metrics.pixels_to_input(pixels),
        architecture=spec.architecture,
        activation=spec.activation,
        output=spec.output,
    )


def _said(layer: cnn.Layer) -> str:
    """A layer in words."""
    match layer:
        case Convolve():
            return f"convolution {layer.window} x {layer.window}"
        case Pool():
            return f"{layer.kind} pooling {layer.window} x {layer.window}"
        case Activate():
            return layer.name
        case Normalise():
            return "normalised"
        case Connect():
            return f"{layer.neurons} neurons"
