"""The networks of model files as modules of PyTorch, for `benchmarks.torch_server`.

Bytes go in, 255 for white: the first layer's weights are divided by that instead.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jaxnn import cnn
from jaxnn.cnn_convolve import Convolve
from jaxnn.cnn_layers import EPSILON, Activate, Connect, Normalise, Pool
from jaxnn.errors import ConfigError
from jaxnn.lstm import ARCHITECTURES
from jaxnn.models import Spec

TOGETHER = 64  # sequences: of more, those of like length are computed together
WHITE = np.float32(255)
ACTIVATIONS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}


def network(spec: Spec, params: Any) -> nn.Module:
    """A module: uint8 [N, n_in] -> z [N, classes], the weighted inputs of the last layer.

    Raises:
      ConfigError: an ensemble, or cells with another function than tanh.
    """
    if spec.members != 1:
        raise ConfigError(f"the file holds {spec.members} networks, expected a single one")
    if spec.family == "lstm":
        return Lstm(spec, params)
    layers = _cnn(spec, params) if spec.family == "cnn" else _mlp(spec, params)
    built: Any = nn.Sequential(*layers)
    return built.to(memory_format=torch.channels_last)  # two to three times as quick here


class Floats(nn.Module):
    """Bytes [N, n] to floats in a shape [N, ...]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return images.float().view(-1, *self._shape)


class Flat(nn.Module):
    """[N, C, H, W] to [N, H * W * C]: as jaxnn has it, and as the memory is, maps last."""

    def forward(self, a: Tensor) -> Tensor:
        return a.permute(0, 2, 3, 1).flatten(1)


def _mlp(spec: Spec, params: Any) -> list[nn.Module]:
    layers: list[nn.Module] = [Floats(spec.sizes[0])]
    for weights, biases in params:
        scaled = weights if len(layers) > 1 else weights / WHITE
        layers += [_linear(scaled, biases), ACTIVATIONS[spec.activation]()]
    return layers[:-1]


def _cnn(spec: Spec, params: Any) -> list[nn.Module]:
    """Of an architecture that begins with a Convolve, which then takes bytes as they are."""
    some = cnn.layers(spec.architecture, spec.sizes, spec.activation)
    side = math.isqrt(spec.sizes[0])
    found: list[nn.Module] = [Floats(1, side, side)]
    for layer, own, shape in zip(some, params, cnn.shapes(some, spec.sizes[0]), strict=False):
        match layer:
            case Convolve(maps, window, stride, padding):
                kernels = own.kernels.transpose(0, 3, 1, 2)
                scaled = kernels if len(found) > 1 else kernels / WHITE
                module: Any = nn.Conv2d(shape[2], maps, window, stride, padding)
                found.append(_filled(module, weight=scaled, bias=own.biases))
            case Pool("max", window):
                found.append(nn.MaxPool2d(window))
            case Pool(_, window):
                found.append(nn.AvgPool2d(window))
            case Activate(name):
                found.append(ACTIVATIONS[name]())
            case Normalise():  # one group: of all maps together
                module = nn.GroupNorm(1, shape[-1], eps=EPSILON)
                found.append(_filled(module, weight=own.gains, bias=own.biases))
            case Connect():
                found += [Flat()] * (len(shape) == 3)
                found.append(_linear(own.weights, own.biases))
    return found


class Lstm(nn.Module):
    """Layers of nn.LSTM, each direction by itself, and the readout.

    Backwards each sequence is turned round by its own length: quicker than packed sequences, by a
    third where there are 32.
    """

    def __init__(self, spec: Spec, params: Any) -> None:
        if spec.activation != "tanh":
            raise ConfigError(f"the cells have {spec.activation}, expected tanh alone")
        super().__init__()
        self._how = ARCHITECTURES[spec.architecture]
        first = WHITE
        layers = []
        for cells in params.layers:
            layers.append(nn.ModuleList(_cell(cell, first) for cell in cells))
            first = np.float32(1)
        self._layers: Any = nn.ModuleList(layers)
        self._readout = _linear(*params.readout)

    def forward(self, images: Tensor) -> Tensor:
        steps = images.view(len(images), -1, self._how.features)
        if not self._how.masked or len(images) <= TOGETHER:
            return self._together(steps)
        order = (steps[:, :, 0] > 0).sum(1).argsort()
        found = torch.cat([self._together(steps[part]) for part in order.split(TOGETHER)])
        return torch.empty_like(found).index_copy_(0, order, found)

    def _together(self, steps: Tensor) -> Tensor:
        """Weighted inputs [N, classes] of uint8 [N, T, features], as far as the longest goes."""
        x = steps.transpose(0, 1)  # [T, N, features], which nn.LSTM likes better
        real = x[:, :, 0] > 0 if self._how.masked else torch.ones(x.shape[:2], dtype=torch.bool)
        lengths = real.sum(0).clamp(min=1)
        longest = int(lengths.max())
        x, real = x[:longest].float().contiguous(), real[:longest]
        turned = (lengths - 1 - torch.arange(longest)[:, None]).clamp(min=0)[:, :, None]
        for forwards, *backwards in self._layers:
            h = [forwards(x)[0]]
            for cell in backwards:
                back = cell(x.gather(0, turned.expand_as(x)))[0]
                h.append(back.gather(0, turned.expand_as(back)))
            x = torch.cat(h, 2) if backwards else h[0]
        if self._how.mean:
            read = (x * real[:, :, None]).sum(0) / lengths[:, None]
        else:  # what the last step of each direction left
            width = x.shape[2] // self._how.directions
            last = x[lengths - 1, torch.arange(x.shape[1]), :width]
            read = torch.cat([last, x[0, :, width:]], 1)
        return self._readout(read)


def _cell(cell: Any, scale: np.float32) -> nn.LSTM:
    """One direction of one layer; the gates have the same order. One of two biases is 0."""
    module = nn.LSTM(cell.weights.shape[1], cell.recurrent.shape[1])
    return _filled(
        module,
        weight_ih_l0=cell.weights / scale,
        weight_hh_l0=cell.recurrent,
        bias_ih_l0=cell.biases,
        bias_hh_l0=np.zeros_like(cell.biases),
    )


def _linear(weights: np.ndarray, biases: np.ndarray) -> nn.Linear:
    return _filled(nn.Linear(*reversed(weights.shape)), weight=weights, bias=biases)


def _filled(module: Any, **arrays: np.ndarray) -> Any:
    """The module with these parameters."""
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(module, name).copy_(torch.from_numpy(np.array(array, np.float32)))
    return module
