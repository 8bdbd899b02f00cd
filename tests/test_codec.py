"""Requests to arrays and answers to messages; every invalid request and its sentence."""

import io

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import codec, preparing
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
    image = preparing.encoded_to_image(png(digit), "picture 0")
    assert image.shape == (784,) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, digit.ravel())


@pytest.mark.parametrize(
    "blob",
    [b"", b"no picture", png(np.zeros((28, 28), np.uint8)), png(np.ones((50, 50), np.uint8))[:60]],
    ids=["empty", "text", "blank", "cut short"],
)
def test_an_unreadable_picture_is_named_by_its_index(blob: bytes) -> None:
    with pytest.raises(InvalidRequest, match="encoded image 3"):
        preparing.encoded_to_image(blob, "encoded image 3")


def test_encoded_files_are_counted() -> None:
    assert codec.encoded_files(digits_pb2.EncodedImages(images=[b"a", b"b"]), 2) == [b"a", b"b"]
    with pytest.raises(InvalidRequest, match="2 images, over this server's limit of 1"):
        codec.encoded_files(digits_pb2.EncodedImages(images=[b"a", b"b"]), 1)
    with pytest.raises(InvalidRequest, match="encoded holds no image"):
        codec.encoded_files(digits_pb2.EncodedImages(), 1)


@given(
    images=st.integers(0, 300),
    classes=st.sampled_from([1, 10, 128, 129, 1000]),
    name=st.text(max_size=200),
    report=st.booleans(),
)
def test_a_response_is_what_protobuf_itself_would_write(
    images: int, classes: int, name: str, report: bool
) -> None:
    rng = np.random.default_rng(images)
    scores = rng.random((images, classes), np.float32)
    labels = rng.integers(0, classes, images).astype(np.float32)
    confidences, rejected = rng.random(images, np.float32), rng.random(images) < 0.5
    rest = digits_pb2.ClassifyResponse(classes=classes, model_name="digits", id=name)
    if report:
        rest.report.batch_images = 5
    expected = digits_pb2.ClassifyResponse()
    expected.CopyFrom(rest)
    expected.labels.extend(labels.astype(int).tolist())
    expected.scores.extend(scores.ravel().tolist())
    expected.confidences.extend(confidences.tolist())
    expected.rejected.extend(rejected.tolist())
    wire = codec.response(labels, scores, confidences, rejected, rest)
    assert digits_pb2.ClassifyResponse.FromString(wire) == expected


PIXELS = st.sampled_from([0, 1, 127, 128, 784, 40_000])
PARTS = st.one_of(
    PIXELS.map(lambda size: digits_pb2.ClassifyRequest(pixels=bytes([7]) * size)),
    st.just(digits_pb2.ClassifyRequest(encoded=digits_pb2.EncodedImages(images=[b"a"]))),
    st.text(max_size=5).map(lambda text: digits_pb2.ClassifyRequest(id=text, priority=1)),
).map(lambda message: message.SerializeToString())
# A length written with more bytes than it needs is odd, and valid.
ODD = st.sampled_from([b"\n", b"\n\x80\x00", b"\n\x83\x80\x80\x80\x80\x00abc", b"\n\xff", b"\xff"])


@given(
    st.lists(st.one_of(PARTS, ODD, st.binary(max_size=9)), max_size=4).map(b"".join),
    st.integers(0, 3),
)
def test_a_request_is_read_as_protobuf_itself_would_read_it(data: bytes, cut: int) -> None:
    data = data[: len(data) - cut]
    try:
        expected = digits_pb2.ClassifyRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequest, match=r"are no jaxnn\.v1\.ClassifyRequest"):
            codec.classify_request(data)
        return
    found, pixels = codec.classify_request(data)
    if pixels is not None:
        assert found.WhichOneof("input") is None
        found.pixels = bytes(pixels)
    assert found == expected


def test_the_pixels_of_a_request_are_not_copied() -> None:
    data = digits_pb2.ClassifyRequest(pixels=bytes(50_000), id="x").SerializeToString()
    _, pixels = codec.classify_request(data)
    assert pixels is not None and pixels.obj is data and len(pixels) == 50_000
