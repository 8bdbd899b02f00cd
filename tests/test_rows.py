"""Files of rows on disk: headers by NumPy and by hand, rows against the arrays, hostile files."""

import errno
import gzip
import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.data import idx, rows
from jaxnn.errors import DataError

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
HEADER = b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (5, 6), }"


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def padded(header: bytes) -> bytes:
    """A whole file of 5 x 6 bytes, its header of 128 bytes as NumPy pads it."""
    return header.ljust(127) + b"\n" + bytes(30)


def found(folder: Path, name: str, blob: bytes) -> rows.Rows:
    """What `find` says of this file alone, as images, and that the file can be opened as that."""
    (folder / name).write_bytes(blob)
    it = rows.find(folder, "train", "images")
    rows.open_rows(it).close()
    return it


@pytest.mark.parametrize(
    ("name", "blob", "shape"),
    [
        ("train-images-idx3-ubyte", idx.encode(IMAGES), (5, 2, 3)),
        ("train-images.idx3-ubyte", idx.encode(IMAGES), (5, 2, 3)),
        ("train-images.npy", npy(IMAGES), (5, 2, 3)),
        ("train-images.npy", npy(IMAGES.reshape(5, 6)), (5, 6)),
        ("train-images.npy", padded(HEADER), (5, 6)),
    ],
)
def test_headers_and_rows(tmp_path, name, blob, shape):
    it = found(tmp_path, name, blob)
    assert it == (tmp_path / name, len(blob) - 30, shape)
    assert it.width == 6
    with rows.open_rows(it) as file:
        taken = rows.take(file, it, [(3, 2), (0, 1), (2, 1)])
    assert taken.dtype == np.uint8
    expected = np.frombuffer(blob[-30:], np.uint8).reshape(5, 6)[[3, 4, 0, 2]]
    assert np.array_equal(taken, expected)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=3))
def test_every_header_of_numpy_is_understood(shape):
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)
    it = rows._npy_header(Path("it.npy"), file.getvalue())
    assert (it.offset, it.shape) == (len(file.getvalue()), tuple(shape))


def test_labels_have_one_dimension(tmp_path):
    (tmp_path / "t10k-labels.npy").write_bytes(npy(np.arange(7, dtype=np.uint8)))
    it = rows.find(tmp_path, "t10k", "labels")
    assert (it.shape, it.width) == ((7,), 1)


def test_new_memory_starts_where_jax_takes_it_over(tmp_path):
    it = found(tmp_path, "train-images.npy", npy(IMAGES))
    with rows.open_rows(it) as file:
        kept = [rows.take(file, it, [(0, count)]) for count in (1, 2, 3, 4, 5)]
    assert [array.ctypes.data % 64 for array in kept] == [0] * 5
    assert not any(np.shares_memory(a, b) for a in kept for b in kept if a is not b)


def test_pieces_are_the_file_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_PIECE", 2**16)
    array = np.random.default_rng(0).integers(0, 256, (1_003, 28, 28), np.uint8)  # 12 pieces
    it = found(tmp_path, "train-images.npy", npy(array))
    digits = array.reshape(-1, 784)
    at = 0
    tracemalloc.start()
    for piece in rows.pieces(it):
        assert np.array_equal(piece, digits[at : at + len(piece)])
        at += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert at == 1_003
    assert peak < 6 * 2**16 < digits.nbytes  # two pieces, the comparison, and a file's buffer


def test_pieces_of_rows_longer_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_PIECE", 4)
    it = found(tmp_path, "train-images.npy", npy(IMAGES))
    assert [piece.shape for piece in rows.pieces(it)] == [(1, 6)] * 5


BAD = {
    "gzip": ("train-images-idx3-ubyte.gz", gzip.compress(idx.encode(IMAGES)), "by gunzip -k"),
    "gzip, by another name": (
        "train-images-idx3-ubyte",
        gzip.compress(idx.encode(IMAGES)),
        "train-images-idx3-ubyte is gzipped, but streaming reads anywhere in a file: unpack it",
    ),
    "wrong magic": (
        "train-images-idx3-ubyte",
        b"\x7fELF" + idx.encode(IMAGES)[4:],
        "starts with the bytes 7f 45 4c 46, but an IDX file starts with",
    ),
    "floats": (
        "train-images-idx3-ubyte",
        b"\0\0\x0d" + idx.encode(IMAGES)[3:],
        "starts with the bytes 00 00 0d 03",
    ),
    "labels": (
        "train-images-idx3-ubyte",
        idx.encode(np.zeros(5, np.uint8)),
        "has 1 dimensions, expected 3 or 2",
    ),
    "empty": ("train-images-idx3-ubyte", b"", "has 0 bytes, but an IDX header has"),
    "cut short": (
        "train-images-idx3-ubyte",
        idx.encode(IMAGES)[:-1],
        "has 45 bytes, but its header declares 46: put the whole file there",
    ),
    "trailing bytes": (
        "train-images-idx3-ubyte",
        idx.encode(IMAGES) + b"!",
        "has 47 bytes, but its header declares 46",
    ),
    "beyond reason": (
        "train-images-idx3-ubyte",
        bytes.fromhex("00000803 7fffffff 7fffffff 7fffffff"),
        "has 16 bytes, but its header declares 9,903,520,300,447,984,150,353,281,039",
    ),
    "npy, empty": ("train-images.npy", b"", "expected NumPy's header of uint8 in C order"),
    "npy, cut short": ("train-images.npy", npy(IMAGES)[:-1], "has 157 bytes, but its header"),
    "npy, cut in the header": ("train-images.npy", npy(IMAGES)[:100], "expected NumPy's header"),
    "npy, trailing bytes": ("train-images.npy", npy(IMAGES) + b"!", "has 159 bytes, but its"),
    "npy of floats": (
        "train-images.npy",
        npy(IMAGES.astype(np.float32)),
        "'descr': '<f4', .*expected NumPy's header of uint8 in C order: write it by np.save",
    ),
    "npy in Fortran order": (
        "train-images.npy",
        npy(np.asfortranarray(IMAGES)),
        "'fortran_order': True, .*expected NumPy's header of uint8 in C order",
    ),
    "npy of objects": (
        "train-images.npy",
        npy(np.array([None, {}])),
        r"'descr': '\|O', .*expected NumPy's header",
    ),
    "npy of four dimensions": (
        "train-images.npy",
        npy(np.zeros((2, 1, 1, 1), np.uint8)),
        "expected NumPy's header",
    ),
    "npy of one dimension": (
        "train-images.npy",
        npy(np.zeros(5, np.uint8)),
        "has 1 dimensions, expected 3 or 2",
    ),
    "npy of none": ("train-images.npy", npy(np.uint8(5)), "expected NumPy's header"),
    "npy with code": (
        "train-images.npy",
        padded(HEADER.replace(b"(5, 6)", b"(5, exit())")),
        "expected NumPy's header",
    ),
    "npy with a negative size": (
        "train-images.npy",
        padded(HEADER.replace(b"(5, 6)", b"(-5, 6)")),
        "expected NumPy's header",
    ),
    "npy with another header's length": (
        "train-images.npy",
        padded(HEADER.replace(b"\x76", b"\x75")),
        "expected NumPy's header",
    ),
    "npz": ("train-images.npy", b"PK\x03\x04" + bytes(99), "expected NumPy's header"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_with_one_sentence(tmp_path, case):
    name, blob, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        found(tmp_path, name, blob)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200), st.sampled_from([b"", HEADER, npy(IMAGES), idx.encode(IMAGES)]))
def test_any_bytes_are_understood_or_refused(blob, start):
    for header in (rows._npy_header, rows._idx_header):
        try:
            it = header(Path("it"), start + blob)
        except DataError as error:
            assert str(error).isprintable()
        else:
            assert it.offset <= len(start + blob)
            assert min(it.shape) >= 0


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_only_files_are_read(tmp_path, make):
    make(tmp_path / "train-images-idx3-ubyte")
    looked = (
        r"lacks the images of the train set: looked for train-images-idx3-ubyte, "
        r"train-images\.idx3-ubyte, train-images\.npy, train-images-idx3-ubyte\.gz, "
        r"train-images\.idx3-ubyte\.gz"
    )
    with pytest.raises(DataError, match=looked):
        rows.find(tmp_path, "train", "images")


def test_a_file_that_has_gone_or_changed_since(tmp_path):
    it = found(tmp_path, "train-images.npy", npy(IMAGES))
    it.path.write_bytes(npy(IMAGES[:4]))
    with pytest.raises(DataError, match="has 152 bytes, but its header declares 158"):
        rows.open_rows(it)
    it.path.unlink()
    with pytest.raises(DataError, match=r"train-images.npy cannot be read: No such file"):
        rows.open_rows(it)


def test_a_file_that_is_cut_short_while_open(tmp_path):
    it = found(tmp_path, "train-images.npy", npy(np.zeros((500, 28, 28), np.uint8)))
    with rows.open_rows(it) as file:
        os.truncate(it.path, 128 + 300 * 784)
        assert len(rows.take(file, it, [(0, 300)])) == 300
        with pytest.raises(DataError, match=r"train-images.npy was cut short while it was read"):
            rows.take(file, it, [(299, 2)])


def test_a_disk_that_fails(tmp_path):
    class Failing(io.RawIOBase):
        def seek(self, *_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    it = found(tmp_path, "train-images.npy", npy(IMAGES))
    with pytest.raises(DataError, match=r"train-images.npy cannot be read: Input/output error"):
        rows.take(Failing(), it, [(0, 1)])
