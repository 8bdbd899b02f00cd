"""Messages to NumPy arrays and back; all validation of requests. Knows no gRPC call and no JAX."""

from typing import NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from jaxnn.data import preprocess
from jaxnn.errors import DataError
from service.config import IMAGE_BYTES
from service.errors import InvalidRequest
from service.pb import digits_pb2


class Answer(NamedTuple):
    """What a model says about N images, and which model it was."""

    labels: np.ndarray  # [N] the class of the largest score, the lowest among equals
    scores: np.ndarray  # [N, C] float32, in [0, 1]
    confidences: np.ndarray  # [N] the calibrated chance that the label is right, 0 to 1
    rejected: np.ndarray  # bool [N]: too unlike the digits of training to be trusted
    model_name: str
    model_version: str


M = TypeVar("M", bound=Message)


def parsed(kind: type[M], data: bytes) -> M:
    """The message that bytes hold.

    Raises:
      InvalidRequest: they hold no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(
            f"the request's {len(data)} bytes are no {kind.DESCRIPTOR.full_name}: "
            "send the message that protos/digits.proto describes"
        ) from error


def pixels_to_images(pixels: bytes, max_images: int) -> np.ndarray:
    """The images in a run of raw bytes.

    Args:
      pixels: N x 784 bytes, row-major, 0 background to 255 ink.
      max_images: the largest N to accept.

    Returns:
      uint8 [N, 784], a read-only view of the bytes: nothing is copied.

    Raises:
      InvalidRequest: no bytes, a length that is no multiple of 784, or more than max_images.
    """
    if not pixels:
        raise InvalidRequest(
            "pixels is empty: send N x 784 bytes, one 28 x 28 image after the other"
        )
    if len(pixels) % IMAGE_BYTES:
        raise InvalidRequest(
            f"pixels has {len(pixels)} bytes, which is no multiple of {IMAGE_BYTES}: "
            "send N x 784 bytes, one 28 x 28 image after the other"
        )
    check_count(len(pixels) // IMAGE_BYTES, max_images)
    return np.frombuffer(pixels, np.uint8).reshape(-1, IMAGE_BYTES)


def check_count(images: int, max_images: int) -> None:
    """Refuse a request with more images than the server takes.

    Raises:
      InvalidRequest: more than max_images.
    """
    if images > max_images:
        raise InvalidRequest(
            f"the request has {images} images, over this server's limit of {max_images}: "
            "send them in several requests"
        )


def encoded_files(encoded: digits_pb2.EncodedImages, max_images: int) -> list[bytes]:
    """The picture files of a request.

    Raises:
      InvalidRequest: none, or more than max_images.
    """
    if not encoded.images:
        raise InvalidRequest("encoded holds no image: send one PNG or JPEG file for each image")
    check_count(len(encoded.images), max_images)
    return list(encoded.images)


def encoded_to_image(blob: bytes, index: int) -> np.ndarray:
    """One picture file, decoded and prepared: uint8 [784].

    Args:
      blob: a PNG, JPEG or other picture file.
      index: its place in the request, from 0, which an error names.

    Raises:
      InvalidRequest: the picture cannot be read, or holds no digit.
    """
    what = f"encoded image {index}"
    try:
        return preprocess.prepare(preprocess.decode(blob, what)).reshape(IMAGE_BYTES)
    except DataError as error:
        sentence = str(error)
        raise InvalidRequest(sentence if what in sentence else f"{what}: {sentence}") from error


def answer_to_response(answer: Answer, request_id: str) -> digits_pb2.ClassifyResponse:
    """The message that carries an answer back."""
    return digits_pb2.ClassifyResponse(
        labels=answer.labels.tolist(),
        scores=answer.scores.ravel().tolist(),
        classes=answer.scores.shape[1],
        model_name=answer.model_name,
        model_version=answer.model_version,
        id=request_id,
        confidences=answer.confidences.tolist(),
        rejected=answer.rejected.tolist(),
    )
