"""The IDX format of the MNIST files: bytes to arrays and back, no input or output.

    2 bytes  zero
    1 byte   element type: 0x08 is uint8, the only one here
    1 byte   number of dimensions n: 1 for labels, 3 for images
    4n bytes the dimensions, big-endian
    the elements, row-major, to the end of the file

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

import math

import numpy as np

from jaxnn.errors import DataError

_UINT8 = 0x08
_KINDS = {1: "labels (00 00 08 01)", 3: "images (00 00 08 03)"}
_MAX_DIMENSION = 2**31 - 1
MAX_HEADER = 4 + 4 * 3  # bytes


def dimensions(start: bytes, what: str) -> tuple[int, ...]:
    """The dimensions that a file's header declares: (N,) or (N, height, width).

    Args:
      start: the file's first `MAX_HEADER` bytes, or all of them where it is shorter.
      what: the file's name, for messages.

    Raises:
      DataError: no IDX header of uint8 with one or three dimensions.
    """
    if len(start) < 4:
        raise DataError(f"{what} has {len(start)} bytes, but an IDX header has 8 or 16")
    if start[:2] != b"\0\0" or start[2] != _UINT8 or start[3] not in _KINDS:
        raise DataError(
            f"{what} starts with the bytes {start[:4].hex(' ')}, but an IDX file starts with "
            f"those of {' or '.join(_KINDS.values())}"
        )
    size = 4 + 4 * start[3]
    if len(start) < size:
        raise DataError(f"{what} has {len(start)} bytes, but its IDX header should have {size}")
    dims = tuple(int.from_bytes(start[at : at + 4], "big") for at in range(4, size, 4))
    if max(dims) > _MAX_DIMENSION:  # a negative one, as the format has it
        raise DataError(f"{what} declares a dimension of {max(dims)}, expected a signed 32-bit one")
    return dims


def file_size(dims: tuple[int, ...]) -> int:
    """The bytes of a whole file with these dimensions, header included."""
    return 4 + 4 * len(dims) + math.prod(dims)


def decode(blob: bytes, what: str) -> np.ndarray:
    """The array in an IDX file.

    Args:
      blob: the whole file, uncompressed.
      what: the file's name, for messages.

    Returns:
      uint8 [N] or [N, height, width], a read-only view of `blob`: nothing is copied.

    Raises:
      DataError: not an IDX file of uint8, or fewer or more bytes than its header declares.
    """
    dims = dimensions(blob[:MAX_HEADER], what)
    size = file_size(dims)
    if len(blob) < size:
        raise DataError(
            f"{what} is cut short: it has {len(blob):,} bytes, but its header declares {size:,}"
        )
    if len(blob) > size:
        raise DataError(f"{what} goes on after the {size:,} bytes that its header declares")
    return np.frombuffer(blob, np.uint8, offset=size - math.prod(dims)).reshape(dims)


def encode(array: np.ndarray) -> bytes:
    """The IDX file of an array, uint8 [N] or [N, height, width].

    Raises:
      DataError: another dtype, or another number of dimensions.
    """
    if array.dtype != np.uint8 or array.ndim not in _KINDS:
        raise DataError(
            f"an array of {array.dtype} with {array.ndim} dimensions does not go into an IDX file: "
            f"give uint8 with 1 (labels) or 3 (images)"
        )
    header = bytes((0, 0, _UINT8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
