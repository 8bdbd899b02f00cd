"""Clients of the service, one that blocks and one for asyncio; neither imports JAX.

    with DigitClient("127.0.0.1:50051") as client:
        found = client.classify(images)
        print(found.labels, found.confidences, found.rejected)

What is sent, what is sent again and what replies mean is written once, in `service.calling.calls`;
the classes here only perform its steps.

A call is made again, with growing pauses, where no server could be reached, and where a server
that has too much to do said when to come back; both are safe, since a question changes nothing.
All of a method's calls share its timeout. A stream is many such questions in order, not one gRPC
stream: each is made again by itself, may go to another server, and outlives a server's restart.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Self, Unpack

import grpc
import grpc.aio
import numpy as np

from service.calling.base import Client
from service.calling.calls import PICTURES, RECORDINGS, Asking, Progress
from service.calling.parts import Classification
from service.calling.performers import Loop, Threads
from service.pb import digits_pb2


class DigitClient(Client):
    """A client whose methods block; threads may share it."""

    _transport = grpc

    @cached_property
    def _threads(self) -> Threads:
        return Threads(self._call)

    def classify(
        self,
        images: np.ndarray,
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """Labels, scores and how far to trust them, of images uint8 [N, 28, 28] or [N, 784].

        Args:
          images: 0 is background, 255 is ink; any N from 1. A memory-mapped array is read part by
            part.
          timeout: seconds for all of it; the client's own where None.
          progress: called with the images done and the images in all after each part, in order.
          asking: model, version, skip_rejection, priority: see `service.calling.calls.Asking`.

        Raises:
          InvalidRequest: the images are not such an array, or the server refused them.
          NoSuchModel: the server has no such model or version.
          Unauthenticated, Forbidden: the token is missing, wrong, or not good for this.
          ServiceError: the server cannot be reached, took too long, has too much to do, or failed.
        """
        return self._threads.run(
            self._caller.classify(images, asking, self._seconds(timeout), progress)
        )

    def classify_encoded(
        self,
        files: Sequence[bytes],
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """As `classify`, for the bytes of picture files that the server decodes and prepares."""
        steps = self._caller.classify_files(
            PICTURES, files, asking, self._seconds(timeout), progress
        )
        return self._threads.run(steps)

    def classify_recordings(
        self,
        files: Sequence[bytes],
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """As `classify`, for the bytes of WAV files of a spoken digit each; the model hears."""
        steps = self._caller.classify_files(
            RECORDINGS, files, asking, self._seconds(timeout), progress
        )
        return self._threads.run(steps)

    def classify_stream(
        self,
        source: Iterable[np.ndarray],
        *,
        timeout: float | None = None,
        in_flight: int = 0,
        **asking: Unpack[Asking],
    ) -> Iterator[Classification]:
        """A Classification for each array of a source that may be endless, in its order.

        The source is read in the caller's thread, and never more than `in_flight` arrays ahead of
        what was handed out. A slow source, such as a camera, is read before the last answer is
        handed out unless `in_flight` is 1.

        Args:
          source: arrays as `classify` takes them.
          timeout: seconds for each of them.
          in_flight: arrays under way together; the client's own where 0.
          asking: as for `classify`.

        Raises:
          As `classify`, the sentence begins with "message I: ", I from 0; and what the source
          raises. The answers to all messages before come first.
        """
        steps = self._caller.classify_stream(asking, self._seconds(timeout), in_flight)
        return self._threads.stream(steps, iter(source))

    def model(
        self, name: str = "", version: str = "", *, timeout: float | None = None
    ) -> digits_pb2.GetModelResponse:
        """The model that answers; fields and errors as in protos/digits.proto and `classify`."""
        return self._threads.run(self._caller.model(name, version, self._seconds(timeout)))

    def models(self, *, timeout: float | None = None) -> list[digits_pb2.ModelEntry]:
        """Every version of every model that the server knows of."""
        return self._threads.run(self._caller.models(self._seconds(timeout)))

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        for channel in self._channels:
            channel.close()
        self._threads.close()

    def __enter__(self) -> Self:
        """Use as a context manager, which closes the client at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """As `close`."""
        self.close()


class AsyncDigitClient(Client):
    """A client for asyncio: the methods of `DigitClient`, each to be awaited.

    Make it where its event loop runs.
    """

    _transport = grpc.aio

    @cached_property
    def _loop(self) -> Loop:
        return Loop(self._call)

    async def classify(
        self,
        images: np.ndarray,
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """As `DigitClient.classify`."""
        steps = self._caller.classify(images, asking, self._seconds(timeout), progress)
        return await self._loop.run(steps)

    async def classify_encoded(
        self,
        files: Sequence[bytes],
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """As `DigitClient.classify_encoded`."""
        steps = self._caller.classify_files(
            PICTURES, files, asking, self._seconds(timeout), progress
        )
        return await self._loop.run(steps)

    async def classify_recordings(
        self,
        files: Sequence[bytes],
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        **asking: Unpack[Asking],
    ) -> Classification:
        """As `DigitClient.classify_recordings`."""
        steps = self._caller.classify_files(
            RECORDINGS, files, asking, self._seconds(timeout), progress
        )
        return await self._loop.run(steps)

    async def classify_stream(
        self,
        source: AsyncIterable[np.ndarray],
        *,
        timeout: float | None = None,
        in_flight: int = 0,
        **asking: Unpack[Asking],
    ) -> AsyncIterator[Classification]:
        """As `DigitClient.classify_stream`; no answer waits for a slow source."""
        steps = self._caller.classify_stream(asking, self._seconds(timeout), in_flight)
        async for found in self._loop.stream(steps, aiter(source)):
            yield found

    async def model(
        self, name: str = "", version: str = "", *, timeout: float | None = None
    ) -> digits_pb2.GetModelResponse:
        """As `DigitClient.model`."""
        return await self._loop.run(self._caller.model(name, version, self._seconds(timeout)))

    async def models(self, *, timeout: float | None = None) -> list[digits_pb2.ModelEntry]:
        """As `DigitClient.models`."""
        return await self._loop.run(self._caller.models(self._seconds(timeout)))

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        """Use as a context manager, which closes the client at the end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()
