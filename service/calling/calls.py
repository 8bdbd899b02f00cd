"""The thinking part of both clients: what to send, what to send again, what the replies mean.

Everything here is a generator that yields a step, `Call` or `Sleep`, and is sent its result: the
reply, or the `grpc.RpcError` in its place. It opens no connection and does not wait, so that the
clients for threads and for asyncio (`service.client`) share all of it. Imports no JAX.
"""

import math
import random
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
import numpy as np

from jaxnn.errors import ConfigError, JaxnnError
from service.config import FRAME_BYTES, IMAGE_BYTES, IMAGE_SHAPE
from service.errors import InvalidRequest, ServiceError
from service.pb import digits_pb2

ATTEMPTS = 6
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0


class Classification(NamedTuple):
    """What the server says about N images.

    A server older than the last two fields gives NaN and False in them: it does not know.
    """

    labels: np.ndarray  # int64 [N]
    scores: np.ndarray  # float32 [N, C], 0 to 1
    confidences: np.ndarray  # float32 [N]: the chance that the label is right, if it is a digit
    rejected: np.ndarray  # bool [N]: too unlike the digits of training to be trusted


class Call(NamedTuple):
    """Step: call a method; its result is the reply or the RpcError."""

    method: str
    request: Any
    timeout: float | None  # seconds; None is no limit, as gRPC has it


class Sleep(NamedTuple):
    """Step: wait."""

    seconds: float


class Limits(NamedTuple):
    """How much one request may hold."""

    images: int
    message_bytes: int


T = TypeVar("T")
Steps: TypeAlias = Generator[Call | Sleep, Any, T]


class Caller:
    """The steps of each of a client's methods; remembers the server's limits."""

    def __init__(self, target: str, max_message_bytes: int) -> None:
        """See `service.client`.

        Raises:
          ConfigError: no HOST:PORT, or messages too small for one image.
        """
        if ":" not in target:
            raise ConfigError(f"target is {target!r}, expected HOST:PORT")
        if max_message_bytes < IMAGE_BYTES + FRAME_BYTES:
            raise ConfigError(
                f"max_message_bytes is {max_message_bytes}, expected at least "
                f"{IMAGE_BYTES + FRAME_BYTES}: one image and what is sent with it"
            )
        self._target = target
        self._max_message_bytes = max_message_bytes
        self._limits: Limits | None = None

    def classify(self, images: np.ndarray, timeout: float) -> Steps[Classification]:
        """Steps to classify images uint8 [N, 28, 28] or [N, 784]."""
        rows = rows_of(images)
        deadline = _Deadline(timeout)
        limits = yield from self._limits_for(len(rows), deadline)
        size = min(limits.images, (limits.message_bytes - FRAME_BYTES) // IMAGE_BYTES)
        parts = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            request = digits_pb2.ClassifyRequest(pixels=part.tobytes())
            parts.append((yield from self._classified(request, len(part), deadline)))
        return _joined(parts)

    def classify_encoded(self, files: Sequence[bytes], timeout: float) -> Steps[Classification]:
        """Steps to classify picture files, each the bytes of a PNG, JPEG or other picture."""
        if not files:
            raise InvalidRequest("files is empty: give at least one picture file")
        deadline = _Deadline(timeout)
        limits = yield from self._limits_for(len(files), deadline)
        parts = []
        for group in grouped(files, limits):
            encoded = digits_pb2.EncodedImages(images=group)
            request = digits_pb2.ClassifyRequest(encoded=encoded)
            parts.append((yield from self._classified(request, len(group), deadline)))
        return _joined(parts)

    def model(self, timeout: float) -> Steps[digits_pb2.GetModelResponse]:
        """Steps to ask for the model that answers."""
        return (yield from self._call("GetModel", digits_pb2.GetModelRequest(), _Deadline(timeout)))

    def _limits_for(self, images: int, deadline: "_Deadline") -> Steps[Limits]:
        """What one request may hold; the server is asked once, and only for several images."""
        if images == 1:
            return Limits(1, self._max_message_bytes)
        if self._limits is None:
            model = yield from self._call("GetModel", digits_pb2.GetModelRequest(), deadline)
            self._limits = Limits(
                max(1, model.max_images_per_request),
                max(
                    IMAGE_BYTES + FRAME_BYTES, min(self._max_message_bytes, model.max_message_bytes)
                ),
            )
        return self._limits

    def _classified(
        self, request: digits_pb2.ClassifyRequest, images: int, deadline: "_Deadline"
    ) -> Steps[Classification]:
        """One request's answer, checked against the number of images that it asked about."""
        reply = yield from self._call("Classify", request, deadline)
        trust = len(reply.confidences), len(reply.rejected)
        if (
            (len(reply.labels), len(reply.scores)) != (images, images * reply.classes)
            or trust not in ((images, images), (0, 0))  # an old server knows of neither
        ):
            raise ServiceError(
                f"the server at {self._target} sent {len(reply.labels)} labels, "
                f"{len(reply.scores)} scores of {reply.classes} classes, {trust[0]} confidences "
                f"and {trust[1]} rejections for {images} images: is it a jaxnn server?",
                "DATA_LOSS",
            )
        return Classification(
            np.array(reply.labels, np.int64),
            np.array(reply.scores, np.float32).reshape(images, reply.classes),
            np.array(reply.confidences or [np.nan] * images, np.float32),
            np.array(reply.rejected or [False] * images, bool),
        )

    def _call(self, method: str, request: Any, deadline: "_Deadline") -> Steps[Any]:
        """One call, sent again while the server cannot be reached.

        Raises:
          InvalidRequest: the server refused the request as it stands.
          ServiceError: any other failure.
        """
        for attempt in range(1, ATTEMPTS + 1):
            left = deadline.left()
            reply = yield Call(method, request, None if left == math.inf else left)
            if not isinstance(reply, grpc.RpcError):
                return reply
            delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not come back as one
            if (
                reply.code() is not grpc.StatusCode.UNAVAILABLE
                or attempt == ATTEMPTS
                or delay >= deadline.left()
            ):
                raise failure(reply, self._target, method, deadline.timeout) from reply
            yield Sleep(delay)
        raise AssertionError("unreachable: the last attempt returns or raises")


class _Deadline:
    """The end of a method's time, which all its calls share."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def rows_of(images: np.ndarray) -> np.ndarray:
    """Images as uint8 [N, 784].

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
    return images.reshape(-1, IMAGE_BYTES)


def grouped(files: Sequence[bytes], limits: Limits) -> Iterator[list[bytes]]:
    """Picture files in order, in groups that each fit one request.

    Raises:
      InvalidRequest: a file does not fit any request.
    """
    group: list[bytes] = []
    free = limits.message_bytes - FRAME_BYTES
    for index, file in enumerate(files):
        size = len(file) + 8  # a tag and a length go before each file
        if size > limits.message_bytes - FRAME_BYTES:
            raise InvalidRequest(
                f"picture {index} has {len(file)} bytes, which do not fit a message of "
                f"{limits.message_bytes}: send a smaller picture"
            )
        if size > free or len(group) == limits.images:
            yield group
            group, free = [], limits.message_bytes - FRAME_BYTES
        group.append(file)
        free -= size
    yield group


def failure(error: grpc.RpcError, target: str, method: str, timeout: float) -> JaxnnError:
    """The error to raise for a call that failed for good: one sentence that says what to do."""
    code, details = error.code(), " ".join((error.details() or "").split())
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(details)
    sentence = f"the server at {target} answered {method} with {code.name}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        sentence = (
            f"no server answers at {target}: start one with `jaxnn serve`, or check the address"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        sentence = (
            f"the server at {target} did not answer within {timeout:g} s: "
            "give a longer timeout, or fewer images"
        )
    return ServiceError(sentence, code.name)


def _joined(parts: list[Classification]) -> Classification:
    return Classification(*(np.concatenate(field) for field in zip(*parts, strict=True)))
