"""The DigitClassifier API: bytes -> codec -> data plane -> bytes, and nothing else.

Messages come and go as bytes, so that bytes which are no message get a status from our own table
too, and so that another transport can call `answer` and `describe` as gRPC does.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor

import grpc
import numpy as np

from service import codec, dataplane
from service.config import IMAGE_SHAPE, ServiceConfig
from service.errors import InvalidRequest
from service.gate import Gate
from service.pb import digits_pb2
from service.repository import ServedModel
from service.status import guard

SERVICE = digits_pb2.DESCRIPTOR.services_by_name["DigitClassifier"].full_name


class DigitClassifier:
    """Answers on the event loop; decoding and computing have a thread each, off the loop.

    Work that waits for a thread is dropped when its call is cancelled or its deadline passes.
    """

    def __init__(
        self,
        model: ServedModel,
        config: ServiceConfig,
        gate: Gate,
        compute: Executor,
        decode: Executor,
    ) -> None:
        """Hold what every call needs; both executors belong to the caller."""
        self._model = model
        self._config = config
        self._gate = gate
        self._compute = compute
        self._decode = decode

    async def answer(self, data: bytes) -> bytes:
        """A ClassifyRequest's bytes to its ClassifyResponse's.

        Raises:
          InvalidRequest: the request cannot be answered as it stands.
          Stopping: the server takes no more requests.
        """
        self._gate.enter()
        request = codec.parsed(digits_pb2.ClassifyRequest, data)
        images = await self._images(request)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._compute, dataplane.classify, self._model, images)
        return codec.answer_to_response(answer, request.id).SerializeToString()

    async def describe(self, data: bytes) -> bytes:
        """A GetModelRequest's bytes to its GetModelResponse's.

        Raises:
          InvalidRequest: the bytes are no such message.
          Stopping: the server takes no more requests.
        """
        self._gate.enter()
        codec.parsed(digits_pb2.GetModelRequest, data)
        model, file = self._model, self._model.file
        spec = file.spec
        return digits_pb2.GetModelResponse(
            name=model.name,
            version=model.version,
            family=spec.family,
            layer_sizes=spec.sizes,
            activation=spec.activation,
            output=spec.output,
            cost=spec.cost,
            parameter_count=model.parameter_count,
            input_shape=IMAGE_SHAPE,
            classes=spec.sizes[-1],
            max_images_per_request=self._config.max_images_per_request,
            max_message_bytes=self._config.max_message_bytes,
            metrics=model.metrics,
            members=spec.members,
            rejects=file.familiar is not None,
        ).SerializeToString()

    async def _images(self, request: digits_pb2.ClassifyRequest) -> np.ndarray:
        """The request's images, uint8 [N, 784]."""
        limit = self._config.max_images_per_request
        given = request.WhichOneof("input")
        if given == "pixels":
            return codec.pixels_to_images(request.pixels, limit)
        if given == "encoded":
            loop = asyncio.get_running_loop()
            # One at a time, so that calls take turns and a cancelled one stops early.
            return np.stack(
                [
                    await loop.run_in_executor(self._decode, codec.encoded_to_image, blob, index)
                    for index, blob in enumerate(codec.encoded_files(request.encoded, limit))
                ]
            )
        raise InvalidRequest("the request has no input: set pixels or encoded")

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods as gRPC calls them, by name."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Classify": grpc.unary_unary_rpc_method_handler(self._classify),
                "ClassifyStream": grpc.stream_stream_rpc_method_handler(self._classify_stream),
                "GetModel": grpc.unary_unary_rpc_method_handler(self._get_model),
            },
        )

    async def _classify(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        async with guard(context):
            return await self.answer(data)

    async def _classify_stream(
        self, stream: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """One response a request, in order; the first bad request ends the stream."""
        index = 0
        async for data in stream:
            async with guard(context, f"message {index}: "):
                response = await self.answer(data)
            yield response
            index += 1

    async def _get_model(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        async with guard(context):
            return await self.describe(data)
