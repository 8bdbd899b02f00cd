"""Every directory that must be refused with one sentence, and a bomb that must not go off."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest
from folders import NAMES, make, write

from jaxnn import data
from jaxnn.data import idx, sources
from jaxnn.errors import DataError


def changed(name, change):
    def damage(directory):
        path = directory / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def replaced(name, array):
    return changed(name, lambda blob: idx.encode(array))


def with_header(header):
    return lambda blob: bytes.fromhex(header) + blob[16:]


IMAGES, LABELS = NAMES[0], NAMES[1]
ZEROS = np.zeros((5, 28, 28), np.uint8)
BAD = {
    "no such directory": (
        lambda directory: directory.rename(directory.with_name("moved")),
        r"digits is not a directory: give one that holds the four IDX files",
    ),
    "missing file": (
        lambda directory: (directory / NAMES[3]).unlink(),
        r"digits lacks the labels of the t10k set: looked for t10k-labels-idx1-ubyte, "
        r"t10k-labels\.idx1-ubyte, t10k-labels-idx1-ubyte\.gz, t10k-labels\.idx1-ubyte\.gz",
    ),
    "a folder in place of a file": (
        lambda directory: (
            (directory / IMAGES).unlink(),
            (directory / IMAGES).mkdir(),
        ),
        "lacks the images of the train set",
    ),
    "a pipe in place of a file": (
        lambda directory: ((directory / IMAGES).unlink(), os.mkfifo(directory / IMAGES)),
        "lacks the images of the train set",
    ),
    "empty file": (changed(IMAGES, lambda blob: b""), "has 0 bytes, but an IDX header has"),
    "wrong magic": (
        changed(IMAGES, lambda blob: b"\x7fELF" + blob[4:]),
        f"{IMAGES} starts with the bytes 7f 45 4c 46, but an IDX file starts with",
    ),
    "wrong element type": (
        changed(IMAGES, with_header("00000d03 00000005 0000001c 0000001c")),
        "starts with the bytes 00 00 0d 03",
    ),
    "labels in place of images": (
        replaced(IMAGES, np.zeros(5, np.uint8)),
        f"{IMAGES} has 1 dimensions, expected 3",
    ),
    "images in place of labels": (
        replaced(LABELS, ZEROS),
        f"{LABELS} has 3 dimensions, expected 1",
    ),
    "count too high": (
        changed(IMAGES, with_header("00000803 00000006 0000001c 0000001c")),
        "is cut short: it has 3,936 bytes, but its header declares 4,720",
    ),
    "count too low": (
        changed(IMAGES, with_header("00000803 00000004 0000001c 0000001c")),
        "goes on after the 3,152 bytes that its header declares",
    ),
    "count beyond reason": (
        changed(IMAGES, with_header("00000803 7fffffff 0000001c 0000001c")),
        r"declares 2147483647 x 28 x 28 bytes, expected at most 784,000,000",
    ),
    "negative count": (
        changed(IMAGES, with_header("00000803 ffffffff 0000001c 0000001c")),
        "declares a dimension of 4294967295",
    ),
    "other picture size": (
        replaced(IMAGES, np.zeros((5, 32, 27), np.uint8)),
        "holds images of 32 x 27 pixels, expected 28 x 28",
    ),
    "more images than labels": (
        replaced(IMAGES, np.zeros((6, 28, 28), np.uint8)),
        f"{IMAGES} holds 6 images, but {LABELS} holds 5 labels",
    ),
    "fewer images than labels": (
        replaced(LABELS, np.zeros(6, np.uint8)),
        f"{IMAGES} holds 5 images, but {LABELS} holds 6 labels",
    ),
    "label of ten": (
        replaced(LABELS, np.array([0, 9, 10, 1, 2], np.uint8)),
        f"{LABELS} holds a label 10, expected digits from 0 to 9",
    ),
    "empty set": (
        lambda directory: (
            replaced(IMAGES, ZEROS[:0])(directory),
            replaced(LABELS, np.zeros(0, np.uint8))(directory),
        ),
        f"{IMAGES} holds 0 images, expected at least 1",
    ),
    "truncated": (changed(IMAGES, lambda blob: blob[:-1]), "is cut short: it has 3,935 bytes"),
    "truncated in the header": (changed(IMAGES, lambda blob: blob[:9]), "header should have 16"),
    "trailing bytes": (changed(IMAGES, lambda blob: blob + b"!"), "goes on after the 3,936 bytes"),
    "truncated gzip": (
        changed(IMAGES, lambda blob: gzip.compress(blob)[:-9]),
        f"{IMAGES} is not a whole gzip file",
    ),
    "gzip of two bytes": (changed(IMAGES, lambda blob: b"\x1f\x8b"), "is not a whole gzip file"),
    "gzip of another method": (
        changed(IMAGES, lambda blob: b"\x1f\x8b\x07" + gzip.compress(blob)[3:]),
        "is not a whole gzip file",
    ),
    "flipped bit in gzip": (
        changed(
            IMAGES,
            lambda blob: gzip.compress(blob)[:99] + b"\xff\xff" + gzip.compress(blob)[101:],
        ),
        "is not a whole gzip file",
    ),
    "no deflate in gzip": (
        changed(IMAGES, lambda blob: gzip.compress(blob)[:10] + b"\xff" * 50),
        "is not a whole gzip file",
    ),
    "wrong gzip check sum": (
        changed(IMAGES, lambda blob: gzip.compress(blob)[:-8] + b"\0" * 8),
        "is not a whole gzip file",
    ),
    "rubbish after gzip": (
        changed(IMAGES, lambda blob: gzip.compress(blob) + b"rubbish"),
        "is not a whole gzip file",
    ),
    "no gzip under its name": (
        lambda directory: (
            (directory / IMAGES).unlink(),
            (directory / f"{IMAGES}.gz").write_bytes(b"<html>404</html>"),
        ),
        r"ubyte\.gz starts with the bytes 3c 68 74 6d",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_with_one_sentence(tmp_path, case):
    damage, message = BAD[case]
    directory = write(tmp_path / "digits", make())
    damage(directory)
    with pytest.raises(DataError, match=message) as caught:
        data.load(directory)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = gzip.compress(idx.encode(ZEROS) + bytes(200_000_000), compresslevel=1)
    directory = write(tmp_path, make())
    (directory / IMAGES).write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="goes on after the 3,936 bytes"):
            data.load(directory)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # bytes, of 200 MB
    finally:
        tracemalloc.stop()


def test_unreadable_file(tmp_path, monkeypatch):
    # Root reads everything, so the refusal is made by hand.
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "open_plain_or_gzip", refuse)
    with pytest.raises(DataError, match=rf"{LABELS} cannot be read \(Permission denied\)"):
        data.load(write(tmp_path, make()))
