"""Files of uint8 rows on disk, IDX or NumPy's: their headers checked, any rows read, none mapped.

A row is an image or a label. What a header declares is held against the file's size whenever the
file is opened. Files are read, not mapped into memory: a mapped file that is cut short meanwhile
kills the process, where reading says so.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data import idx
from jaxnn.errors import DataError

_PIECE = 2**20  # bytes, about, that a whole file is read by
_ALIGNMENT = 64  # bytes; JAX takes over an array that starts at a multiple, and copies any other
# What np.save writes before uint8 in C order; matched in place of NumPy's own reader, which
# evaluates the header as Python.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00[\x00-\xff]{2}\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \((\d{1,18}),(?: (\d{1,18}))?(?:, (\d{1,18}))?\), \} *\n"
)
_LONGEST_HEADER = 4096  # bytes; NumPy pads its own to 128

Span = tuple[int, int]  # the first row and how many


class Rows(NamedTuple):
    """A file of uint8 rows, one an image or a label, after a header."""

    path: Path
    offset: int  # bytes before the first row
    shape: tuple[int, ...]  # as the header has it; the first is the number of rows

    @property
    def width(self) -> int:
        """Bytes in a row."""
        return math.prod(self.shape[1:])


def find(folder: Path, part: str, kind: str) -> Rows:
    """The file of a folder that holds a part's "images" or "labels", its header read.

    Args:
      folder: where it lies.
      part: "train" or "t10k".
      kind: "images" for [N, height, width], where NumPy's may be [N, n_in]; "labels" for [N].

    Raises:
      DataError: none there, or no header of uint8 with as many dimensions.
      OSError: the folder cannot be searched, or the file not be read.
    """
    ndims = {"images": (3, 2), "labels": (1,)}[kind]
    plain = [f"{part}-{kind}{mark}idx{ndims[0]}-ubyte" for mark in "-."]
    names = [*plain, f"{part}-{kind}.npy", *(f"{name}.gz" for name in plain)]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        looked = ", ".join(names)
        raise DataError(f"{folder} lacks the {kind} of the {part} set: looked for {looked}")
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    if start[:2] == b"\x1f\x8b":
        raise DataError(
            f"{path} is gzipped, but streaming reads anywhere in a file: unpack it by gunzip -k"
        )
    rows = (_npy_header if path.suffix == ".npy" else _idx_header)(path, start)
    if len(rows.shape) not in ndims:
        expected = " or ".join(map(str, ndims))
        raise DataError(f"{path} has {len(rows.shape)} dimensions, expected {expected}")
    return rows


def open_rows(rows: Rows) -> BufferedReader:
    """The file, to be read by `take`.

    Raises:
      DataError: it cannot be opened, or has not, or no longer, the size that its header declares.
    """
    try:
        file = rows.path.open("rb")
    except OSError as error:
        raise DataError(f"{rows.path} cannot be read: {error.strerror}") from None
    found, declared = os.fstat(file.fileno()).st_size, rows.offset + math.prod(rows.shape)
    if found != declared:
        file.close()
        raise DataError(
            f"{rows.path} has {found:,} bytes, but its header declares {declared:,}: "
            "put the whole file there"
        )
    return file


def take(file: BufferedReader, rows: Rows, spans: Iterable[Span]) -> np.ndarray:
    """Some rows, in the order of the spans: uint8 [n, width], in new memory.

    The memory starts where JAX wants it, so that putting it on a CPU device copies nothing.

    Raises:
      DataError: the file ends too early or cannot be read.
    """
    spans = list(spans)
    size = sum(count for _, count in spans) * rows.width
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % _ALIGNMENT
    array = memory[skip : skip + size]
    at = 0
    for first, count in spans:
        here = array[at : at + count * rows.width]
        try:
            file.seek(rows.offset + first * rows.width)
            whole = file.readinto(here.data) == len(here)
        except OSError as error:
            raise DataError(f"{rows.path} cannot be read: {error.strerror}") from None
        if not whole:
            raise DataError(f"{rows.path} was cut short while it was read: put it back and resume")
        at += len(here)
    return array.reshape(-1, rows.width)


def pieces(rows: Rows) -> Iterator[np.ndarray]:
    """The whole file in order, uint8 [n, width] each, of about a megabyte or one row.

    Raises:
      DataError: as `open_rows` and `take`.
    """
    step = max(1, _PIECE // rows.width)
    with open_rows(rows) as file:
        for first in range(0, rows.shape[0], step):
            yield take(file, rows, [(first, min(step, rows.shape[0] - first))])


def _idx_header(path: Path, start: bytes) -> Rows:
    dims = idx.dimensions(start[: idx.MAX_HEADER], str(path))
    return Rows(path, idx.file_size(dims) - math.prod(dims), dims)


def _npy_header(path: Path, start: bytes) -> Rows:
    header = _NPY.match(start)
    if header is None or header.end() != 10 + int.from_bytes(start[8:10], "little"):
        raise DataError(
            f"{path} starts with {ascii(start[:80])[1:]}, expected NumPy's header of "
            "uint8 in C order: write it by np.save of np.ascontiguousarray(array, np.uint8)"
        )
    return Rows(path, header.end(), tuple(int(n) for n in header.groups() if n is not None))
