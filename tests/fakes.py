"""A server of both APIs without a network: it labels by the first pixel and writes down everything.

It has threads of its own, so that clients for threads and for asyncio can be tested the same way.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple, Self

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as inference_pb

# A proxy of the environment must not stand between a test and its own server.
os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - as gRPC spells it


class Asked(NamedTuple):
    """One call that the server saw."""

    method: str
    request: Any
    metadata: dict[str, str]
    peer: str  # differs by connection
    at: float  # s, by time.monotonic()


def labels_of(request: digits_pb2.ClassifyRequest) -> list[int]:
    """The first pixel, or the first byte of a file, mod 10."""
    pixels = np.frombuffer(request.pixels, np.uint8).reshape(-1, 784)
    files = [file[0] % 10 for file in request.encoded.images]
    return files or (pixels[:, 0] % 10).tolist()


def answer(request: digits_pb2.ClassifyRequest, **fields: Any) -> digits_pb2.ClassifyResponse:
    """What the server says: a score of 1 for the label, all of it sure."""
    labels = labels_of(request)
    return digits_pb2.ClassifyResponse(
        **{
            "labels": labels,
            "scores": np.eye(10)[labels].ravel().tolist(),
            "classes": 10,
            "confidences": [1] * len(labels),
            "rejected": [False] * len(labels),
            "model_name": "fake",
            "model_version": "1",
            **fields,
        }
    )


class Refusal(Exception):  # noqa: N818 - reads as what it is
    """Raised by what answers: a status code and a hint."""


class Fake:
    """The server, in a `with`. Change its fields to change what it does."""

    def __init__(
        self,
        *,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        images: int = 4096,
        message_bytes: int = 2**24,
    ) -> None:
        self.asked: list[Asked] = []
        self.limits = {"max_images_per_request": images, "max_message_bytes": message_bytes}
        self.refusals: list[tuple[grpc.StatusCode, str | None]] = []  # in turn, with their hints
        self.classify: Callable[[digits_pb2.ClassifyRequest], Any] = answer
        self.inputs = [("pictures", "BYTES", [-1]), ("images", "UINT8", [-1, 28, 28])]  # of v2
        self.busy = self.most_busy = 0  # calls of Classify at the same time
        self.health = health.HealthServicer()
        self._lock = threading.Lock()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)]
        )
        methods = {"Classify": self._classify, "GetModel": self._model, "ListModels": self._models}
        inference = {"ModelInfer": self._infer, "ModelMetadata": self._metadata}
        self._server.add_generic_rpc_handlers(
            (
                self._service("jaxnn.v1.DigitClassifier", methods, digits_pb2),
                self._service("inference.GRPCInferenceService", inference, inference_pb),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        address = f"127.0.0.1:{port}"
        if credentials:
            port = self._server.add_secure_port(address, credentials)
        else:
            port = self._server.add_insecure_port(address)
        self.target = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self.well(True)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)

    def well(self, serving: bool) -> None:
        """Say so to whoever watches its health."""
        status = health_pb2.HealthCheckResponse
        self.health.set("", status.SERVING if serving else status.NOT_SERVING)

    def requests(self, method: str) -> list[Any]:
        """What it was asked by one method, in the order of arrival."""
        return [asked.request for asked in self.asked if asked.method == method]

    def _service(self, name: str, methods: dict[str, Any], messages: Any) -> Any:
        def handler(method: str, respond: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
            kind = getattr(messages, f"{method}Request")

            def behave(data: bytes, context: grpc.ServicerContext) -> bytes:
                request = kind.FromString(data)
                metadata = {key: str(value) for key, value in context.invocation_metadata()}
                self.asked.append(
                    Asked(method, request, metadata, context.peer(), time.monotonic())
                )
                try:
                    self._refuse()
                    reply: bytes = respond(request).SerializeToString()
                except ValueError as error:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                except Refusal as refusal:
                    code, hint = refusal.args
                    if hint is not None:
                        context.set_trailing_metadata((("grpc-retry-pushback-ms", hint),))
                    context.abort(code, "refused")
                return reply

            return grpc.unary_unary_rpc_method_handler(behave)

        return grpc.method_handlers_generic_handler(
            name, {method: handler(method, respond) for method, respond in methods.items()}
        )

    def _refuse(self) -> None:
        if self.refusals:
            raise Refusal(*self.refusals.pop(0))

    def _classify(self, request: digits_pb2.ClassifyRequest) -> Any:
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            return self.classify(request)
        finally:
            with self._lock:
                self.busy -= 1

    def _model(self, request: digits_pb2.GetModelRequest) -> Any:
        return digits_pb2.GetModelResponse(name="fake", version="1", **self.limits)

    def _models(self, request: digits_pb2.ListModelsRequest) -> Any:
        entry = digits_pb2.ModelEntry(name="fake", version="1", state="READY", preferred=True)
        return digits_pb2.ListModelsResponse(models=[entry])

    def _infer(self, request: inference_pb.ModelInferRequest) -> Any:
        response = inference_pb.ModelInferResponse(model_name=request.model_name)
        rows = request.inputs[0].shape[0]
        response.outputs.add(name="labels", datatype="INT64", shape=[rows])
        response.raw_output_contents.append(bytes(8 * rows))
        return response

    def _metadata(self, request: inference_pb.ModelMetadataRequest) -> Any:
        response = inference_pb.ModelMetadataResponse(name=request.name)
        for name, datatype, shape in self.inputs:
            response.inputs.add(name=name, datatype=datatype, shape=shape)
        return response
