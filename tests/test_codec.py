"""Requests to arrays and answers to messages; every invalid request and its sentence."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import codec
from service.codec import Answer
from service.errors import InvalidRequest
from service.pb import digits_pb2


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def digit() -> np.ndarray:
    """A finished digit, which preparing leaves as it is."""
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    return image


def test_pixels_are_viewed_not_copied() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 784), np.uint8).tobytes()
    images = codec.pixels_to_images(pixels, 3)
    assert images.dtype == np.uint8 and images.shape == (3, 784)
    assert np.shares_memory(images, np.frombuffer(pixels, np.uint8))
    assert images.tobytes() == pixels


@given(st.integers(0, 784 * 6), st.integers(1, 5))
def test_only_whole_images_up_to_the_limit_pass(length: int, limit: int) -> None:
    if length % 784 == 0 and 1 <= length // 784 <= limit:
        assert len(codec.pixels_to_images(bytes(length), limit)) == length // 784
    else:
        with pytest.raises(InvalidRequest):
            codec.pixels_to_images(bytes(length), limit)


def test_an_encoded_digit_comes_back_as_its_pixels(digit: np.ndarray) -> None:
    image = codec.encoded_to_image(png(digit), 0)
    assert image.shape == (784,) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, digit.ravel())


@pytest.mark.parametrize(
    "blob",
    [b"", b"no picture", png(np.zeros((28, 28), np.uint8)), png(np.ones((50, 50), np.uint8))[:60]],
    ids=["empty", "text", "blank", "cut short"],
)
def test_an_unreadable_picture_is_named_by_its_index(blob: bytes) -> None:
    with pytest.raises(InvalidRequest, match="encoded image 3"):
        codec.encoded_to_image(blob, 3)


def test_encoded_files_are_counted() -> None:
    assert codec.encoded_files(digits_pb2.EncodedImages(images=[b"a", b"b"]), 2) == [b"a", b"b"]
    with pytest.raises(InvalidRequest, match="2 images, over this server's limit of 1"):
        codec.encoded_files(digits_pb2.EncodedImages(images=[b"a", b"b"]), 1)
    with pytest.raises(InvalidRequest, match="encoded holds no image"):
        codec.encoded_files(digits_pb2.EncodedImages(), 1)


def test_a_response_carries_scores_as_one_run_of_little_endian_floats() -> None:
    scores = np.random.default_rng(1).random((2, 10), np.float32)
    confidences, rejected = np.array([0.25, 0.75]), np.array([True, False])
    answer = Answer(scores.argmax(axis=1), scores, confidences, rejected, "digits", "abc")
    wire = codec.answer_to_response(answer, "my id").SerializeToString()
    assert scores.astype("<f4").tobytes() in wire
    assert confidences.astype("<f4").tobytes() in wire
    back = digits_pb2.ClassifyResponse.FromString(wire)
    assert list(back.labels) == scores.argmax(axis=1).tolist()
    assert (list(back.confidences), list(back.rejected)) == ([0.25, 0.75], [True, False])
    assert (back.classes, back.model_name, back.model_version, back.id) == (
        10,
        "digits",
        "abc",
        "my id",
    )
