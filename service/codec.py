"""Messages to NumPy arrays and back; all validation of requests. Knows no gRPC call and no JAX."""

from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from service import fields
from service.config import IMAGE_BYTES
from service.errors import InvalidRequest
from service.pb import digits_pb2
from service.preparing import RATE, Sound

WORTH_A_VIEW = 2**15  # bytes: smaller messages are copied in less time than they are taken apart
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
            "send the message that protos/ describes"
        ) from error


def classify_request(data: bytes) -> tuple[digits_pb2.ClassifyRequest, memoryview | None]:
    """A ClassifyRequest, and its pixels where they need not be copied out of its bytes.

    The message then comes without its pixels.

    Raises:
      InvalidRequest: the bytes are no such message.
    """
    rest, found = fields.split(data, _PIXELS) if len(data) > WORTH_A_VIEW else (data, [])
    if found:
        request = parsed(digits_pb2.ClassifyRequest, rest)
        if request.WhichOneof("input") is None:  # else the last of the two counts
            return request, found[-1]
    return parsed(digits_pb2.ClassifyRequest, data), None


def pixels_to_images(pixels: bytes | memoryview, max_images: int) -> np.ndarray:
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


def features_to_rows(features: bytes, shape: tuple[int, int], max_rows: int) -> np.ndarray:
    """The rows of features in a run of raw bytes: uint8 [N, steps x bands], a view.

    Args:
      features: N rows, one after the other.
      shape: steps and bands of one.
      max_rows: the largest N to accept.

    Raises:
      InvalidRequest: no bytes, a length that is no multiple of a row's, or more than max_rows.
    """
    steps, bands = shape
    size = steps * bands
    if not features or len(features) % size:
        raise InvalidRequest(
            f"features has {len(features)} bytes, expected N x {size}: send {steps} steps of "
            f"{bands} bytes a word, those that it lacks as zeros"
        )
    check_count(len(features) // size, max_rows, "row")
    return np.frombuffer(features, np.uint8).reshape(-1, size)


def check_count(rows: int, max_rows: int, what: str = "image") -> None:
    """Refuse a request with more rows than the server takes.

    Raises:
      InvalidRequest: more than max_rows.
    """
    if rows > max_rows:
        raise InvalidRequest(
            f"the request has {rows} {what}s, over this server's limit of {max_rows}: "
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


def recorded_files(recordings: digits_pb2.Recordings, max_rows: int) -> list[bytes]:
    """The WAV files of a request.

    Raises:
      InvalidRequest: none, or more than max_rows.
    """
    if not recordings.files:
        raise InvalidRequest("recordings holds no file: send one WAV file for each word")
    check_count(len(recordings.files), max_rows, "recording")
    return list(recordings.files)


def sent_sounds(sounds: digits_pb2.Sounds, max_rows: int) -> list[Sound]:
    """The sounds of a request.

    Raises:
      InvalidRequest: none, more than max_rows, or half a sample.
    """
    if not sounds.sounds:
        raise InvalidRequest("sounds holds no sound: send one for each word")
    check_count(len(sounds.sounds), max_rows, "sound")
    found = []
    for index, sound in enumerate(sounds.sounds):
        if len(sound.samples) % 2:
            raise InvalidRequest(
                f"sound {index} has {len(sound.samples)} bytes, expected an even number: send "
                "samples of 16 bits, little-endian"
            )
        found.append(Sound(np.frombuffer(sound.samples, "<i2"), sound.sample_rate or RATE))
    return found


def response(
    labels: np.ndarray,
    scores: np.ndarray,
    confidences: np.ndarray,
    rejected: np.ndarray,
    rest: digits_pb2.ClassifyResponse,
) -> bytes:
    """A ClassifyResponse's bytes, the arrays of N images beside what `rest` holds.

    A packed field is the array's own bytes behind a tag and a length: written so, 1,024 images
    take 20 microseconds instead of 600 number by number.

    Args:
      labels: [N] whole numbers.
      scores: float32 [N, C].
      confidences: float32 [N].
      rejected: bool [N].
      rest: the fields that are no arrays.
    """
    small = scores.shape[1] <= 128  # a varint of one byte
    if not small:
        rest.labels.extend(labels.astype(int).tolist())
    parts = [
        _packed(_LABELS, labels.astype(np.uint8)) if small else b"",
        _packed(_SCORES, scores),
        rest.SerializeToString(),
        _packed(_CONFIDENCES, confidences),
        _packed(_REJECTED, rejected),
    ]
    return b"".join(parts)


def _packed(tag: bytes, array: np.ndarray) -> bytes:
    data, size = array.tobytes(), array.nbytes
    while size > 127:
        tag += bytes([size & 127 | 128])
        size >>= 7
    return tag + bytes([size]) + data


def _tag(message: type[Message], name: str) -> bytes:
    """The byte before a field that has a length, by the wire format of protocol buffers."""
    return bytes([message.DESCRIPTOR.fields_by_name[name].number << 3 | 2])


_PIXELS = digits_pb2.ClassifyRequest.DESCRIPTOR.fields_by_name["pixels"].number
_LABELS, _SCORES, _CONFIDENCES, _REJECTED = (
    _tag(digits_pb2.ClassifyResponse, name)
    for name in ("labels", "scores", "confidences", "rejected")
)
