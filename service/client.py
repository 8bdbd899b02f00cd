"""Clients of the service, one that blocks and one for asyncio; neither imports JAX.

    with DigitClient("127.0.0.1:50051") as client:
        found = client.classify(images)
        print(found.labels, found.confidences, found.rejected)

What is sent, what is sent again and what replies mean is written once, in `service.calls`; the
classes here only perform its steps.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
import numpy as np

from service.calls import Call, Caller, Classification, Sleep, Steps
from service.config import MAX_MESSAGE_BYTES
from service.pb import digits_pb2, digits_pb2_grpc

T = TypeVar("T")


class _Client:
    """Settings and error-free construction, the same for both clients."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 30.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Connects on the first call.

        Args:
          target: the server's HOST:PORT.
          timeout: seconds that one method may take in all, retries included; math.inf is no limit.
          max_message_bytes: the largest request to send; longer arrays go in several.

        Raises:
          ConfigError: the target is no HOST:PORT, or a message cannot hold one image.
        """
        self._caller = Caller(target, max_message_bytes)
        self._timeout = timeout
        self._channel = self._open(
            target,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # gRPC itself waits a second before it connects again, and fails every call until
                # then: our retries come sooner.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
                # Through a proxy of the environment, this machine would mean the proxy's machine.
                ("grpc.enable_http_proxy", 0 if _is_this_machine(target) else 1),
            ],
        )
        self._stub = digits_pb2_grpc.DigitClassifierStub(self._channel)

    _open: Any  # opens a channel

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class DigitClient(_Client):
    """A client whose methods block."""

    _open = staticmethod(grpc.insecure_channel)

    def classify(self, images: np.ndarray, *, timeout: float | None = None) -> Classification:
        """Labels, scores and how far to trust them, of images uint8 [N, 28, 28] or [N, 784].

        Args:
          images: 0 is background, 255 is ink; any N from 1.
          timeout: seconds for all of it; the client's own where None.

        Raises:
          InvalidRequest: the images are not such an array, or the server refused them.
          ServiceError: the server cannot be reached, took too long, or failed.
        """
        return self._run(self._caller.classify(images, self._seconds(timeout)))

    def classify_encoded(
        self, files: Sequence[bytes], *, timeout: float | None = None
    ) -> Classification:
        """As `classify`, for the bytes of picture files that the server decodes and prepares."""
        return self._run(self._caller.classify_encoded(files, self._seconds(timeout)))

    def model(self, *, timeout: float | None = None) -> digits_pb2.GetModelResponse:
        """The model that answers; fields and errors as in protos/digits.proto and `classify`."""
        return self._run(self._caller.model(self._seconds(timeout)))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Use as a context manager, which closes the client at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        result = None
        try:
            while True:
                result = self._perform(steps.send(result))
        except StopIteration as end:
            return end.value

    def _perform(self, step: Call | Sleep) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        try:
            return getattr(self._stub, step.method)(step.request, timeout=step.timeout)
        except grpc.RpcError as error:
            return error


class AsyncDigitClient(_Client):
    """A client for asyncio: the methods of `DigitClient`, each to be awaited.

    Make it where its event loop runs.
    """

    _open = staticmethod(grpc.aio.insecure_channel)

    async def classify(self, images: np.ndarray, *, timeout: float | None = None) -> Classification:
        """As `DigitClient.classify`."""
        return await self._run(self._caller.classify(images, self._seconds(timeout)))

    async def classify_encoded(
        self, files: Sequence[bytes], *, timeout: float | None = None
    ) -> Classification:
        """As `DigitClient.classify_encoded`."""
        return await self._run(self._caller.classify_encoded(files, self._seconds(timeout)))

    async def model(self, *, timeout: float | None = None) -> digits_pb2.GetModelResponse:
        """As `DigitClient.model`."""
        return await self._run(self._caller.model(self._seconds(timeout)))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Use as a context manager, which closes the client at the end."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        result = None
        try:
            while True:
                result = await self._perform(steps.send(result))
        except StopIteration as end:
            return end.value

    async def _perform(self, step: Call | Sleep) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        try:
            return await getattr(self._stub, step.method)(step.request, timeout=step.timeout)
        except grpc.RpcError as error:
            return error


def _is_this_machine(target: str) -> bool:
    host = target.rpartition(":")[0]
    return host in ("localhost", "[::1]") or host.startswith("127.")
