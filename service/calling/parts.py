"""Questions cut to what one request may hold, and their answers put together again.

Knows neither gRPC nor JAX.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from service.config import FRAME_BYTES, IMAGE_BYTES, IMAGE_SHAPE
from service.errors import InvalidRequest, ServiceError
from service.pb import digits_pb2


class Classification(NamedTuple):
    """What the server says about N images.

    A server older than the third and fourth fields gives NaN and False in them: it does not know.
    """

    labels: np.ndarray  # int64 [N]
    scores: np.ndarray  # float32 [N, C], 0 to 1
    confidences: np.ndarray  # float32 [N]: the chance that the label is right, if it is a digit
    rejected: np.ndarray  # bool [N]: too unlike the digits of training to be trusted
    model: str = ""  # that answered
    versions: tuple[str, ...] = ()  # of it: one, or more where it was replaced between two parts


class Limits(NamedTuple):
    """How much one request may hold."""

    images: int
    message_bytes: int


def checked(images: np.ndarray) -> np.ndarray:
    """Images as they are, nothing copied.

    Raises:
      InvalidRequest: not uint8, not [N, 28, 28] or [N, 784], or no image.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InvalidRequest(
            f"images are {images.dtype}, expected uint8: 0 is background, 255 is ink"
        )
    if images.shape[1:] not in (IMAGE_SHAPE, (IMAGE_BYTES,)):
        raise InvalidRequest(
            f"images have shape {images.shape}, expected (N, 28, 28) or (N, 784): "
            "a single image is images[None]"
        )
    if not len(images):
        raise InvalidRequest(f"images have shape {images.shape}: give at least one image")
    return images


def grouped(files: Sequence[bytes], limits: Limits, what: str) -> Iterator[list[bytes]]:
    """Files in order, in groups that each fit one request; `what` names one in errors.

    Raises:
      InvalidRequest: a file does not fit any request.
    """
    group: list[bytes] = []
    free = limits.message_bytes - FRAME_BYTES
    for index, file in enumerate(files):
        size = len(file) + 8  # a tag and a length go before each file
        if size > limits.message_bytes - FRAME_BYTES:
            raise InvalidRequest(
                f"{what} {index} has {len(file)} bytes, which do not fit a message of "
                f"{limits.message_bytes}: send a smaller {what}"
            )
        if size > free or len(group) == limits.images:
            yield group
            group, free = [], limits.message_bytes - FRAME_BYTES
        group.append(file)
        free -= size
    yield group


def believed(reply: digits_pb2.ClassifyResponse, images: int, target: str) -> Classification:
    """A reply, checked against the number of images that it answers.

    Args:
      reply: as it came.
      images: asked about.
      target: the server, for the sentence.

    Raises:
      ServiceError: its fields have other lengths.
    """
    trust = len(reply.confidences), len(reply.rejected)
    if (
        (len(reply.labels), len(reply.scores)) != (images, images * reply.classes)
        or trust not in ((images, images), (0, 0))  # an old server knows of neither
    ):
        raise ServiceError(
            f"the server at {target} sent {len(reply.labels)} labels, "
            f"{len(reply.scores)} scores of {reply.classes} classes, {trust[0]} confidences "
            f"and {trust[1]} rejections for {images} images: is it a jaxnn server?",
            "DATA_LOSS",
        )
    return Classification(
        np.array(reply.labels, np.int64),
        np.array(reply.scores, np.float32).reshape(images, reply.classes),
        np.array(reply.confidences or [np.nan] * images, np.float32),
        np.array(reply.rejected or [False] * images, bool),
        reply.model_name,
        (reply.model_version,),
    )


def concatenated(parts: Sequence[Classification]) -> Classification:
    """One answer out of several, in their order."""
    versions = dict.fromkeys(version for part in parts for version in part.versions)
    return Classification(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.confidences for part in parts]),
        np.concatenate([part.rejected for part in parts]),
        parts[0].model,
        tuple(versions),
    )
