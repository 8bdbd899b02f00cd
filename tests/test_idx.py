"""The IDX format against hand-written bytes, and everything that must be refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnn.data import idx
from jaxnn.errors import DataError

# Written by hand from the format's description: 2 pictures of 1 x 3 pixels, and 4 labels.
IMAGES = bytes.fromhex("00000803 00000002 00000001 00000003 000102 fdfeff")
LABELS = bytes.fromhex("00000801 00000004 09 00 07 01")


def test_decodes_hand_written_bytes():
    images = idx.decode(IMAGES, "images")
    assert images.dtype == np.uint8
    assert images.tolist() == [[[0, 1, 2]], [[253, 254, 255]]]
    assert idx.decode(LABELS, "labels").tolist() == [9, 0, 7, 1]


def test_encodes_hand_written_bytes():
    assert idx.encode(np.array([[[0, 1, 2]], [[253, 254, 255]]], np.uint8)) == IMAGES
    assert idx.encode(np.array([9, 0, 7, 1], np.uint8)) == LABELS


def test_nothing_is_copied():
    assert not idx.decode(IMAGES, "images").flags.owndata


shapes = st.one_of(hnp.array_shapes(min_dims=d, max_dims=d, min_side=0) for d in (1, 3))


@given(hnp.arrays(np.uint8, shapes))
def test_round_trip(array):
    blob = idx.encode(array)
    assert len(blob) == idx.file_size(array.shape)
    found = idx.decode(blob, "it")
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_encodes_what_is_not_contiguous():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2, ::-1]
    assert np.array_equal(idx.decode(idx.encode(array), "it"), array)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "it has 0 bytes, but an IDX header has 8 or 16"),
        (LABELS[:3], "it has 3 bytes, but an IDX header has 8 or 16"),
        (LABELS[:7], "it has 7 bytes, but its IDX header should have 8"),
        (IMAGES[:15], "it has 15 bytes, but its IDX header should have 16"),
        (b"\x01" + LABELS[1:], "it starts with the bytes 01 00 08 01, but an IDX file starts"),
        (b"\0\x01" + LABELS[2:], "starts with the bytes 00 01 08 01"),
        (b"\0\0\x0d" + LABELS[3:], "starts with the bytes 00 00 0d 01"),  # floats
        (b"\0\0\x08\x02" + IMAGES[4:], "starts with the bytes 00 00 08 02"),  # matrix
        (b"\0\0\x08\0" + LABELS[4:], "starts with the bytes 00 00 08 00"),
        (b"\x03\x08\0\0" + IMAGES[4:], "starts with the bytes 03 08 00 00"),  # little-endian
        (b"\x89PNG\r\n\x1a\n", "starts with the bytes 89 50 4e 47"),
        (LABELS[:-1], "it is cut short: it has 11 bytes, but its header declares 12"),
        (IMAGES[:16], "it is cut short: it has 16 bytes, but its header declares 22"),
        (LABELS + b"\0", "it goes on after the 12 bytes that its header declares"),
        (IMAGES + IMAGES, "it goes on after the 22 bytes that its header declares"),
        (
            bytes.fromhex("00000801 7fffffff 00"),
            "has 9 bytes, but its header declares 2,147,483,655",
        ),
        (bytes.fromhex("00000801 ffffffff 00"), "declares a dimension of 4294967295"),
        (bytes.fromhex("00000803 00000000 ffffffff ffffffff"), "declares a dimension"),
    ],
)
def test_refuses_with_one_sentence(blob, message):
    with pytest.raises(DataError) as caught:
        idx.decode(blob, "it")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_with_the_largest_dimensions():
    blob = bytes.fromhex("00000803 00000000 7fffffff 7fffffff")
    assert idx.decode(blob, "it").shape == (0, 2**31 - 1, 2**31 - 1)


@given(st.binary(max_size=40), st.sampled_from([b"", IMAGES[:4], LABELS[:4]]))
def test_any_bytes_decode_or_are_refused(blob, start):
    try:
        array = idx.decode(start + blob, "it")
    except DataError:
        return
    assert idx.encode(array) == start + blob


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.int64), np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.float32)],
)
def test_encode_refuses(array):
    with pytest.raises(DataError, match=rf"{array.dtype} with {array.ndim} dimensions"):
        idx.encode(array)
