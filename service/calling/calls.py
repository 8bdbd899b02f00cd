"""The thinking part of both clients: what to send, in how many parts, and when again.

Generators of the steps of `service.calling.steps`, shared by the clients for threads and for
asyncio. Imports no JAX.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import grpc
import numpy as np

from jaxnn.errors import ConfigError
from service.calling.failures import failure
from service.calling.parts import Classification, Limits, believed, checked, concatenated, grouped
from service.calling.steps import Deadline, Steps, attempts, in_order, streamed
from service.config import FRAME_BYTES, IMAGE_BYTES
from service.errors import InvalidRequest
from service.pb import digits_pb2

Progress = Callable[[int, int], None]  # images done, images in all
MESSAGES: dict[str, tuple[Any, Any]] = {
    "Classify": (digits_pb2.ClassifyRequest, digits_pb2.ClassifyResponse),
    "GetModel": (digits_pb2.GetModelRequest, digits_pb2.GetModelResponse),
    "ListModels": (digits_pb2.ListModelsRequest, digits_pb2.ListModelsResponse),
}


class Asking(TypedDict, total=False):
    """What can be said with every question."""

    model: str  # which model is to answer; the server's default where not given
    version: str  # which of its versions; the server chooses where not given
    skip_rejection: bool  # leave out the test whether a picture is a digit: most of the work
    priority: int  # 1 before 2; the server's default where not given


class _Files(NamedTuple):
    """A way to send files."""

    what: str  # one of them
    input: Callable[[list[bytes]], dict[str, Any]]  # as a field of a ClassifyRequest


PICTURES = _Files("picture", lambda files: {"encoded": digits_pb2.EncodedImages(images=files)})
RECORDINGS = _Files("recording", lambda files: {"recordings": digits_pb2.Recordings(files=files)})


class Caller:
    """The steps of each of a client's methods; remembers the server's limits."""

    def __init__(self, target: str, max_message_bytes: int, in_flight: int = 4) -> None:
        """See `service.client`.

        Raises:
          ConfigError: messages too small for one image, or none at a time.
        """
        if max_message_bytes < IMAGE_BYTES + FRAME_BYTES:
            raise ConfigError(
                f"max_message_bytes is {max_message_bytes}, expected at least "
                f"{IMAGE_BYTES + FRAME_BYTES}: one image and what is sent with it"
            )
        if in_flight < 1:
            raise ConfigError(f"in_flight is {in_flight}, expected 1 or more")
        self._target = target
        self._max_message_bytes = max_message_bytes
        self._in_flight = in_flight
        self._limits: Limits | None = None

    def classify(
        self,
        images: np.ndarray,
        asking: Asking,
        timeout: float,
        progress: Progress | None = None,
        in_flight: int = 0,
    ) -> Steps[Classification]:
        """Steps to classify images uint8 [N, 28, 28] or [N, 784]."""
        images, fields, deadline = checked(images), _fields(**asking), Deadline(timeout)
        limits = yield from self._limits_for(len(images), asking, deadline)
        size = min(limits.images, (limits.message_bytes - FRAME_BYTES) // IMAGE_BYTES)

        def job(start: int) -> Steps[Classification]:
            part = images[start : start + size]  # copied when it is sent, not before
            request = digits_pb2.ClassifyRequest(pixels=part.tobytes(), **fields)
            return (yield from self._part(request, start, len(part), len(images), deadline))

        jobs = map(job, range(0, len(images), size))
        width = min(in_flight or self._in_flight, -(-len(images) // size))
        return (yield from _joined(jobs, width, deadline, len(images), progress))

    def classify_files(
        self,
        kind: _Files,
        files: Sequence[bytes],
        asking: Asking,
        timeout: float,
        progress: Progress | None = None,
    ) -> Steps[Classification]:
        """Steps to classify PICTURES or RECORDINGS, each the bytes of a file."""
        if not files:
            raise InvalidRequest(f"files is empty: give at least one {kind.what} file")
        fields, deadline = _fields(**asking), Deadline(timeout)
        limits = yield from self._limits_for(len(files), asking, deadline)
        groups = list(grouped(files, limits, kind.what))
        starts = itertools.accumulate(map(len, groups), initial=0)

        def job(group: list[bytes], start: int) -> Steps[Classification]:
            request = digits_pb2.ClassifyRequest(**kind.input(group), **fields)
            return (yield from self._part(request, start, len(group), len(files), deadline))

        width = min(self._in_flight, len(groups))
        jobs = map(job, groups, starts)
        return (yield from _joined(jobs, width, deadline, len(files), progress))

    def classify_stream(self, asking: Asking, timeout: float, in_flight: int) -> Steps[None]:
        """Steps that pull arrays from a source and emit a Classification for each."""
        _fields(**asking)  # a mistake is named before the source is read

        def job(images: np.ndarray) -> Steps[Classification]:
            return self.classify(images, asking, timeout, in_flight=1)

        return (yield from streamed(job, in_flight or self._in_flight))

    def model(self, name: str, version: str, timeout: float) -> Steps[digits_pb2.GetModelResponse]:
        """Steps to ask for the model that answers."""
        request = digits_pb2.GetModelRequest(name=name, version=version)
        return (yield from self._call("GetModel", request, Deadline(timeout)))

    def models(self, timeout: float) -> Steps[list[digits_pb2.ModelEntry]]:
        """Steps to ask for every model that the server knows of."""
        reply = yield from self._call(
            "ListModels", digits_pb2.ListModelsRequest(), Deadline(timeout)
        )
        return list(reply.models)

    def _limits_for(self, images: int, asking: Asking, deadline: Deadline) -> Steps[Limits]:
        """What one request may hold; the server is asked once, and only for several images."""
        if images == 1:
            return Limits(1, self._max_message_bytes)
        if self._limits is None:
            request = digits_pb2.GetModelRequest(
                name=asking.get("model", ""), version=asking.get("version", "")
            )
            model = yield from self._call("GetModel", request, deadline)
            self._limits = Limits(
                max(1, model.max_images_per_request),
                max(
                    IMAGE_BYTES + FRAME_BYTES, min(self._max_message_bytes, model.max_message_bytes)
                ),
            )
        return self._limits

    def _part(
        self,
        request: digits_pb2.ClassifyRequest,
        start: int,
        images: int,
        total: int,
        deadline: Deadline,
    ) -> Steps[Classification]:
        """One request's answer, checked against the number of images that it asked about."""
        try:
            reply = yield from self._call("Classify", request, deadline)
        except InvalidRequest as error:
            if images == total:
                raise
            # The server counts from the start of the part.
            raise InvalidRequest(
                f"of images {start} to {start + images - 1}, sent together: {error}"
            ) from error
        return believed(reply, images, self._target)

    def _call(self, method: str, request: Any, deadline: Deadline) -> Steps[Any]:
        """One call, with its retries.

        Raises:
          InvalidRequest, NoSuchModel, Unauthenticated, Forbidden: the server refused the request
            as it stands.
          ServiceError: any other failure.
        """
        reply = yield from attempts(method, request, deadline)
        if isinstance(reply, grpc.RpcError):
            raise failure(reply, self._target, method, deadline.timeout) from reply
        return reply


def _fields(
    model: str = "", version: str = "", skip_rejection: bool = False, priority: int = 0
) -> dict[str, Any]:
    """What `Asking` says, as fields of a ClassifyRequest."""
    if not 0 <= priority < 2**32:
        raise InvalidRequest(f"priority is {priority}, expected 0 (the server's default) or more")
    return {
        "model_name": model,
        "model_version": version,
        "skip_rejection": skip_rejection,
        "priority": priority,
    }


def _joined(
    jobs: Iterator[Steps[Classification]],
    in_flight: int,
    deadline: Deadline,
    total: int,
    progress: Progress | None,
) -> Steps[Classification]:
    """The parts of an answer, in order, as one."""
    parts: list[Classification] = []
    done = 0

    def add(part: Classification) -> None:
        nonlocal done
        parts.append(part)
        done += len(part.labels)
        if progress:
            progress(done, total)

    yield from in_order(jobs, in_flight, deadline, add)
    return concatenated(parts)
