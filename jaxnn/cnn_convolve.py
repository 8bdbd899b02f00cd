"""The layer that gave convolutional networks their name, and the convolutions of its gradient.

Forward it is a convolution of the picture with small kernels. What comes back through it is a
convolution too, of dC/dout with the kernels turned around; and so is the gradient of the kernels,
of the picture with dC/dout. `cnn_layers` has the layers that go with it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxnn import cnn_products

Shape = tuple[int, ...]


class Kernels(NamedTuple):
    """The parameters of `Convolve`."""

    kernels: Array  # [F, K, K, C]: kernel j is what map j looks for
    biases: Array  # [F]


class Convolve(NamedTuple):
    """Every map looks for one small pattern, its kernel, at every place of the picture.

        out[i, j, f] = b[f] + sum over u, v, c of K[f, u, v, c] a[S i + u - P, S j + v - P, c]

    with the stride S and the padding P; beyond the edge a is 0.
    """

    maps: int
    window: int = 5  # height and width of a kernel
    stride: int = 1
    padding: int = 0  # rows and columns of zeros on each side

    def shape(self, shape: Shape) -> Shape:
        """Of what comes out, for the shape of what goes in; with a 0 or less where it cannot be."""
        sides = [_places(side + 2 * self.padding, self.window, self.stride) for side in shape[:2]]
        return (*sides, self.maps)

    def params(self, shape: Shape) -> Any:
        """The shapes of its parameters."""
        return Kernels((self.maps, self.window, self.window, shape[2]), (self.maps,))  # type: ignore[arg-type]

    def forward(self, params: Kernels, a: Array) -> Array:
        """As the formula above says."""
        kernels = params.kernels.transpose(1, 2, 3, 0)
        edges = [(self.padding, self.padding)] * 2
        return convolution(a, kernels, edges, stride=self.stride) + params.biases[None, None]

    def backward(self, params: Kernels, a: Array, out: Array, delta: Array) -> Array:
        """A convolution as well: of dC/dout, with every kernel turned by 180 degrees.

        a[i, j] took part in the outputs above and left of it. With a stride, dC/dout has zeros
        between its places; and its frame is as wide as a kernel reaches.
        """
        pads = []
        for side, places in zip(a.shape[:2], delta.shape[:2], strict=True):
            first = self.window - 1 - self.padding
            spread = (places - 1) * self.stride + 1
            pads.append((first, side + self.window - 1 - first - spread))
        turned = params.kernels[:, ::-1, ::-1].transpose(1, 2, 0, 3)  # [K, K, F, C]
        return convolution(delta, turned, pads, spread=self.stride)

    def gradient(self, fed: Array, delta: Array) -> Kernels:
        """And once more: of the input with dC/dout, which now takes the place of a kernel.

        dC/dK[f, u, v, c] = sum over i, j of dC/dout[i, j, f] a[S i + u - P, S j + v - P, c]

        Args:
          fed: [B, H, W, C] what the layer was given.
          delta: [B, H', W', F] dC/dout.
        """
        convolved = partial(gradient_as_convolution, layer=self)
        if self.stride > 1:
            kernels = convolved(fed, delta)
        else:
            products = partial(cnn_products.gradient, padding=self.padding)
            kernels = lax.platform_dependent(fed, delta, cpu=products, default=convolved)
        return Kernels(kernels.transpose(3, 0, 1, 2), jnp.sum(delta, axis=(0, 1, 2)))


def gradient_as_convolution(fed: Array, delta: Array, layer: Convolve) -> Array:
    """`Convolve.gradient` of the kernels, [K, K, C, F], as a convolution."""
    edges = [
        (layer.padding, (places - 1) * layer.stride + layer.window - layer.padding - side)
        for side, places in zip(fed.shape[1:3], delta.shape[1:3], strict=True)
    ]
    # Where a convolution sums over the maps, this one sums over the images of the batch.
    swapped = fed.transpose(3, 1, 2, 0), delta.transpose(1, 2, 0, 3)
    return convolutions(*swapped, edges, apart=layer.stride).transpose(1, 2, 0, 3)


def _places(side: int, window: int, stride: int) -> int:
    """Where a window can stand along a side."""
    return (side - window) // stride + 1


def convolution(
    picture: Array,
    kernels: Array,
    edges: Sequence[tuple[int, int]],
    *,
    stride: int = 1,
    spread: int = 1,
) -> Array:
    """`convolutions` of ONE picture [H, W, C]: in the way that is quickest where it runs."""

    def general(picture: Array, kernels: Array) -> Array:
        return convolutions(picture[None], kernels, edges, stride=stride, spread=spread)[0]

    if (stride, spread) != (1, 1) or not cnn_products.quick(picture.shape, kernels.shape, edges):
        return general(picture, kernels)
    products = partial(cnn_products.convolution, edges=edges)
    return lax.platform_dependent(picture, kernels, cpu=products, default=general)


def convolutions(
    pictures: Array,
    kernels: Array,
    edges: Sequence[tuple[int, int]],
    *,
    stride: int = 1,
    spread: int = 1,
    apart: int = 1,
) -> Array:
    """Sums of products of kernels and what lies under them, at every place of every picture.

    Maps last in pictures, and outputs last in kernels: XLA has quick code for this order alone in
    the loops of the CPU (jax-ml/jax#12868), and in others is 15 to 60 times slower there.

    Args:
      pictures: [N, H, W, C].
      kernels: [K, K, C, F].
      edges: rows of zeros above and below, columns to the left and the right; below 0 cuts off.
      stride: from one place of the kernels to the next.
      spread: of the pictures' rows and columns: 2 puts a zero between any two.
      apart: likewise, of the kernels'.

    Returns:
      [N, H', W', F].
    """
    return lax.conv_general_dilated(
        pictures,
        kernels,
        (stride, stride),
        edges,
        lhs_dilation=(spread, spread),
        rhs_dilation=(apart, apart),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
