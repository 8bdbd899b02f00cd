"""Input tensors of the Open Inference Protocol to NumPy.

All their validation is here: names, types, shapes, sizes. Lengths are compared before anything is
made of them, so that what a request costs is bounded by its own bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from service import codec
from service.config import IMAGE_BYTES, IMAGE_SHAPE
from service.errors import InvalidRequest
from service.parameters import shown
from service.pb import open_inference_grpc_pb2 as pb

IMAGES, PICTURES = "images", "pictures"  # inputs

_SHAPES = ([IMAGE_BYTES], [*IMAGE_SHAPE], [*IMAGE_SHAPE, 1])  # of one image
_CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}
_RAW: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_TAKES = (
    "send images (UINT8 or FP32, [N, 784], [N, 28, 28] or [N, 28, 28, 1]) or pictures (BYTES, [N])"
)
LENGTH = struct.Struct("<I")  # before each element of BYTES
SHARED_MEMORY = "shared_memory_region"  # a parameter

Raw = bytes | memoryview


class Inputs(NamedTuple):
    """What a request asks about."""

    images: np.ndarray | None  # uint8 [N, 784]; read-only where it is a view of the message
    pictures: list[bytes]  # N files, where there are no images


def inputs(request: pb.ModelInferRequest, raw: Sequence[Raw], max_images: int) -> Inputs:
    """The input tensor of a request.

    Args:
      request: with one input.
      raw: its raw contents; empty where the input is typed.
      max_images: the largest N to accept.

    Raises:
      InvalidRequest: the inputs are not what the model takes.
    """
    if len(request.inputs) != 1:
        raise InvalidRequest(
            f"the request has {len(request.inputs)} inputs, expected one: {_TAKES}"
        )
    tensor = request.inputs[0]
    kind = tensor.datatype
    if tensor.name == IMAGES and kind in ("UINT8", "FP32"):
        count = _count(tensor, _SHAPES)
        codec.check_count(count, max_images)
        data = _data(tensor, raw, count * IMAGE_BYTES)
        images = _pixels(data) if kind == "FP32" else data
        return Inputs(images.reshape(count, IMAGE_BYTES), [])
    if tensor.name == PICTURES and kind == "BYTES":
        count = _count(tensor, ([], [1]))
        codec.check_count(count, max_images)
        return Inputs(None, _data(tensor, raw, count))
    raise InvalidRequest(f"the input is {shown(tensor.name)} of datatype {shown(kind)}: {_TAKES}")


def _count(tensor: pb.ModelInferRequest.InferInputTensor, of_one: Iterable[list[int]]) -> int:
    """N, where the shape is N and then one of the shapes that one element may have."""
    shape = tensor.shape[:5]
    if not shape or shape[1:] not in of_one:
        listed = " or ".join(f"[{', '.join(['N', *map(str, one)])}]" for one in of_one)
        more = ", ..." if len(tensor.shape) > 5 else ""
        found = f"[{', '.join(map(str, shape))}{more}]"
        raise InvalidRequest(f"input {tensor.name} has the shape {found}, expected {listed}")
    if shape[0] < 1:
        raise InvalidRequest(f"input {tensor.name} has the shape {shape}: send one image or more")
    return shape[0]


def _data(tensor: pb.ModelInferRequest.InferInputTensor, raw: Sequence[Raw], count: int) -> Any:
    """The elements of the input: a list of bytes for BYTES, else an array."""
    kind = tensor.datatype
    filled = tensor.contents.ListFields() if tensor.HasField("contents") else []
    if not raw:
        if not filled and SHARED_MEMORY in tensor.parameters:
            raise InvalidRequest("shared memory is not served: send the contents of the input")
        return _typed(kind, filled, count)
    if filled:
        raise InvalidRequest("the input has contents and raw_input_contents: send one of them")
    if len(raw) != 1:
        raise InvalidRequest(f"one input has {len(raw)} raw_input_contents: send one")
    if kind == "BYTES":
        return _unpacked(raw[0], count)
    dtype = _RAW[kind]
    if len(raw[0]) != count * dtype.itemsize:
        raise InvalidRequest(
            f"input {tensor.name} has {len(raw[0])} raw bytes, and its shape asks for "
            f"{count * dtype.itemsize} as {kind}: make them agree"
        )
    return np.frombuffer(raw[0], dtype)


def _typed(kind: str, filled: Sequence[tuple[Any, Any]], count: int) -> Any:
    """The elements from the one field of contents that the datatype names."""
    field = _CONTENTS[kind]
    names = [descriptor.name for descriptor, _ in filled]
    if names != [field]:
        found = " and ".join(names) or "no contents"
        raise InvalidRequest(f"an input of {kind} has {found}: send {field}, or raw_input_contents")
    values = filled[0][1]
    if len(values) != count:
        raise InvalidRequest(
            f"{field} has {len(values)} elements, and the shape asks for {count}: make them agree"
        )
    if kind == "BYTES":
        return list(values)
    if kind == "FP32":
        return np.array(values, np.float32)
    wide = np.array(values, np.uint32)
    if wide.max() > 255:
        raise InvalidRequest(f"{field} holds {wide.max()}, expected 0 to 255 for UINT8")
    return wide.astype(np.uint8)


def _pixels(values: np.ndarray) -> np.ndarray:
    """Uint8 from float32 of 0 to 1, rounded to the nearest 255th."""
    lowest, highest = values.min(), values.max()  # NaN, if there is one
    if not (lowest >= 0 and highest <= 1):
        raise InvalidRequest(
            f"FP32 images hold values from {lowest:g} to {highest:g}, expected 0 to 1: divide "
            "grey values by 255, or send them as UINT8"
        )
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _unpacked(raw: Raw, count: int) -> list[bytes]:
    """The elements of a BYTES tensor from its raw contents."""
    elements: list[bytes] = []
    start = 0
    while len(elements) < count and start + LENGTH.size <= len(raw):
        (length,) = LENGTH.unpack_from(raw, start)
        start += LENGTH.size + length
        if start > len(raw):
            raise InvalidRequest(
                f"element {len(elements)} of the BYTES input says that it has {length} bytes, "
                f"{start - len(raw)} more than there are: send each length as 4 bytes, "
                "little-endian, and then the element"
            )
        elements.append(bytes(raw[start - length : start]))
    if len(elements) != count or start != len(raw):
        raise InvalidRequest(
            f"the BYTES input has {len(elements)} elements and {len(raw) - start} bytes more, and "
            f"its shape asks for {count}: make them agree"
        )
    return elements
