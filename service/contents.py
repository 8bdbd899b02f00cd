"""The contents of input tensors of the Open Inference Protocol to NumPy.

Lengths are compared before anything is made of them, so that what a request costs is bounded by its
own bytes.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.errors import InvalidRequest
from service.pb import open_inference_grpc_pb2 as pb

LENGTH = struct.Struct("<I")  # before each element of BYTES
SHARED_MEMORY = "shared_memory_region"  # a parameter

Raw = bytes | memoryview
Tensor = pb.ModelInferRequest.InferInputTensor

_FIELDS = {
    "UINT8": "uint_contents",
    "INT16": "int_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
_RAW: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "INT16": np.dtype("<i2"),
    "FP32": np.dtype("<f4"),
}


def data(tensor: Tensor, raw: Sequence[Raw], count: int) -> Any:
    """The elements of an input: a list of bytes for BYTES, else an array [count].

    Args:
      tensor: its datatype is one that is known here.
      raw: the raw contents of the request; empty where the input is typed.
      count: how many elements its shape asks for, at least 1.

    Raises:
      InvalidRequest: there are others, none, or both forms.
    """
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
    field = _FIELDS[kind]
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
    wide, limits = np.array(values, np.int64), np.iinfo(_RAW[kind])
    for value in (wide.min(), wide.max()):
        if not limits.min <= value <= limits.max:
            raise InvalidRequest(
                f"{field} holds {value}, expected {limits.min} to {limits.max} for {kind}"
            )
    return wide.astype(_RAW[kind])


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
