"""Which input tensors of the Open Inference Protocol models take, and what comes of them.

Names, types, shapes and sizes are checked here and in `service.contents`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from service import codec, preparing
from service.config import IMAGE_BYTES, IMAGE_SHAPE
from service.contents import Raw, Tensor, data
from service.errors import InvalidRequest
from service.inputs import Kind
from service.parameters import shown, whole
from service.pb import open_inference_grpc_pb2 as pb
from service.preparing import Sound, Unprepared

SAMPLE_RATE = "sample_rate"  # a parameter of requests with audio


class _Sent(NamedTuple):
    """An input, and what else there is to know of it."""

    tensor: Tensor
    raw: Sequence[Raw]
    kind: Kind
    parameters: Mapping[str, Any]  # of the request


class Input(NamedTuple):
    """An input that models of a kind take; a request has one of them."""

    name: str
    datatypes: tuple[str, ...]  # the usual one first
    shape: tuple[int, ...]  # of one row, the usual one; -1 for any size
    others: tuple[tuple[int, ...], ...]  # its other shapes
    read: Callable[[_Sent, int], np.ndarray | Unprepared]  # of N rows

    def told(self) -> str:
        """Its shapes, for sentences."""
        sizes = [["N", *map(str, shape)] for shape in (self.shape, *self.others)]
        return " or ".join(f"[{', '.join(one)}]".replace("-1", "any") for one in sizes)


def inputs_of(kind: Kind) -> tuple[Input, ...]:
    """The inputs of a kind of model."""
    if kind.name == "images":
        shapes = (IMAGE_SHAPE, (*IMAGE_SHAPE, 1))
        return (
            Input("images", ("UINT8", "FP32"), (IMAGE_BYTES,), shapes, _images),
            Input("pictures", ("BYTES",), (), ((1,),), _pictures),
        )
    return (
        Input("features", ("UINT8",), (-1, kind.step), ((kind.size,),), _features),
        Input("audio", ("FP32", "INT16"), (-1,), (), _audio),
        Input("recordings", ("BYTES",), (), ((1,),), _recordings),
    )


def inputs(
    request: pb.ModelInferRequest, raw: Sequence[Raw], max_rows: int, kind: Kind
) -> np.ndarray | Unprepared:
    """The input tensor of a request.

    Args:
      request: with one input.
      raw: its raw contents; empty where the input is typed.
      max_rows: the largest N to accept.
      kind: what the model takes.

    Returns:
      Rows uint8 [N, n_in], read-only where they are a view of the message; or what has to be
      prepared to become such.

    Raises:
      InvalidRequest: the inputs are not what the model takes.
    """
    if len(request.inputs) != 1:
        raise InvalidRequest(
            f"the request has {len(request.inputs)} inputs, expected one: {_takes(kind)}"
        )
    tensor = request.inputs[0]
    for one in inputs_of(kind):
        if one.name == tensor.name and tensor.datatype in one.datatypes:
            count = _count(tensor, one)
            codec.check_count(count, max_rows)
            return one.read(_Sent(tensor, raw, kind, request.parameters), count)
    raise InvalidRequest(
        f"the input is {shown(tensor.name)} of datatype {shown(tensor.datatype)}, but the model "
        f"takes {kind.name}: {_takes(kind)}"
    )


def _takes(kind: Kind) -> str:
    """What to send, for sentences."""
    each = [f"{one.name} ({' or '.join(one.datatypes)}, {one.told()})" for one in inputs_of(kind)]
    return f"send {', '.join(each[:-1])} or {each[-1]}"


def _count(tensor: Tensor, known: Input) -> int:
    """N, where the shape is N and then one of the shapes that one row may have."""
    shape = tensor.shape[:5]
    if not any(_fits(shape[1:], one) for one in (known.shape, *known.others)) or not shape:
        more = ", ..." if len(tensor.shape) > 5 else ""
        found = f"[{', '.join(map(str, shape))}{more}]"
        raise InvalidRequest(f"input {tensor.name} has the shape {found}, expected {known.told()}")
    if shape[0] < 1:
        raise InvalidRequest(f"input {tensor.name} has the shape {shape}: send one row or more")
    return shape[0]


def _fits(shape: Sequence[int], known: Sequence[int]) -> bool:
    return len(shape) == len(known) and all(
        size >= 1 if expected == -1 else size == expected
        for size, expected in zip(shape, known, strict=True)
    )


def _images(sent: _Sent, count: int) -> np.ndarray:
    values = data(sent.tensor, sent.raw, count * IMAGE_BYTES)
    images: np.ndarray = _pixels(values) if sent.tensor.datatype == "FP32" else values
    return images.reshape(count, IMAGE_BYTES)


def _pictures(sent: _Sent, count: int) -> Unprepared:
    return preparing.pictures(data(sent.tensor, sent.raw, count), "picture")


def _features(sent: _Sent, count: int) -> np.ndarray:
    """Words of fewer steps are filled up: a step of zeros says that there is none."""
    steps, bands = sent.kind.shape
    given = sent.tensor.shape[1] if len(sent.tensor.shape) == 3 else steps
    if given > steps:
        raise InvalidRequest(
            f"input features has {given} steps, expected 1 to {steps}: send the loudest {steps}"
        )
    found: np.ndarray = data(sent.tensor, sent.raw, count * given * bands).reshape(count, -1)
    if given == steps:
        return found
    rows = np.zeros((count, sent.kind.size), np.uint8)
    rows[:, : given * bands] = found
    return rows


def _audio(sent: _Sent, count: int) -> Unprepared:
    rate = whole(sent.parameters, SAMPLE_RATE, 2**31 - 1) or preparing.RATE
    clips = data(sent.tensor, sent.raw, count * sent.tensor.shape[1]).reshape(count, -1)
    return preparing.sounds([Sound(clip, rate, padded=True) for clip in clips], "audio")


def _recordings(sent: _Sent, count: int) -> Unprepared:
    return preparing.recordings(data(sent.tensor, sent.raw, count))


def _pixels(values: np.ndarray) -> np.ndarray:
    """Uint8 from float32 of 0 to 1, rounded to the nearest 255th."""
    lowest, highest = values.min(), values.max()  # NaN, if there is one
    if not (lowest >= 0 and highest <= 1):
        raise InvalidRequest(
            f"FP32 images hold values from {lowest:g} to {highest:g}, expected 0 to 1: divide "
            "grey values by 255, or send them as UINT8"
        )
    return np.rint(values * np.float32(255)).astype(np.uint8)
