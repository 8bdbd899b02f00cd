"""The Open Inference Protocol: bytes -> tensors -> data plane -> bytes.

Messages come and go as bytes; what carries them is not known here. What the service answers is
described in protos/open_inference_grpc.proto.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from jaxnn import __version__
from service import catalogue, statistics
from service.codec import parsed
from service.config import ServiceConfig
from service.dataplane import DataPlane
from service.errors import Forbidden, InvalidRequest, NoSuchModel, Unsupported
from service.fields import split
from service.outputs import outputs, written
from service.parameters import parameters, shown
from service.pb import open_inference_grpc_pb2 as pb
from service.preparing import Unprepared
from service.rpc import Api, Call, Method
from service.tensors import inputs

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_EXTENSIONS = [
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
]
_CONTROL_EXTENSION = "model_repository"
_STREAM_STATUS = "triton_grpc_error"  # metadata: end the stream at an error
_RAW_FIELD = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_LARGE = 4096  # bytes: up to here a copy costs less than looking for what need not be copied
_MAX_ID = 100  # characters of a request's id that are written down
_MAX_NAME = 200  # characters of a model's name


class Inference:
    """Answers each method's request; `api` is the table of them."""

    def __init__(self, plane: DataPlane, config: ServiceConfig, taking: Callable[[], bool]) -> None:
        """Hold what every call needs.

        Args:
          plane: answers, and knows the models.
          config: what callers may ask for, and whether they may load and unload models.
          taking: whether the server takes work; False from when it is told to stop.
        """
        self._plane = plane
        self._config = config
        self._taking = taking
        self.api = Api(
            SERVICE,
            "v2",
            (
                Method("ModelInfer", self.infer),
                Method("ModelStreamInfer", self.stream_infer, stream=True, on_error=stream_error),
                Method("ServerLive", self.server_live),
                Method("ServerReady", self.server_ready),
                Method("ModelReady", self.model_ready),
                Method("ServerMetadata", self.server_metadata),
                Method("ModelMetadata", self.model_metadata),
                Method("ModelConfig", self.model_config),
                Method("ModelStatistics", self.model_statistics),
                Method("RepositoryIndex", self.repository_index),
                Method("RepositoryModelLoad", self.load, control=True),
                Method("RepositoryModelUnload", self.unload, control=True),
            ),
        )

    async def infer(self, data: bytes, call: Call) -> bytes:
        """A ModelInferRequest to its ModelInferResponse."""
        return (await self._inferred(data, call)).SerializeToString()

    async def stream_infer(self, data: bytes, call: Call) -> bytes:
        """A ModelInferRequest of a stream to its ModelStreamInferResponse."""
        response = await self._inferred(data, call)
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()

    async def _inferred(self, data: bytes, call: Call) -> pb.ModelInferResponse:
        rest, large = split(data, _RAW_FIELD) if len(data) > _LARGE else (data, [])
        request = parsed(pb.ModelInferRequest, rest)
        raw = large or request.raw_input_contents
        call.request_id = call.request_id or request.id[:_MAX_ID]
        _check_names(request.model_name, request.model_version)
        asked = parameters(request.parameters)
        wanted = outputs(request)
        model = self._plane.registry.choose(request.model_name, request.model_version)
        given = inputs(request, raw, self._config.max_images_per_request, model.takes)
        if isinstance(given, Unprepared):
            given = await self._plane.prepared(call, given)
        answer = await self._plane.classify(
            call,
            given,
            model,
            rejection=any(output.name == "rejected" for output in wanted),
            priority=asked.priority,
            timeout=asked.timeout,
        )
        began = time.monotonic()
        response = written(answer, wanted, raw=bool(raw))
        response.id = request.id
        call.encode = time.monotonic() - began
        if asked.report:
            _report(response, call)
        return response

    async def server_live(self, data: bytes, call: Call) -> bytes:
        """Whether the server answers: it does."""
        parsed(pb.ServerLiveRequest, data)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, data: bytes, call: Call) -> bytes:
        """Whether the server takes work, and some model is there to do it."""
        parsed(pb.ServerReadyRequest, data)
        ready = self._taking() and any(
            entry.state == "READY" for entry in self._plane.registry.entries()
        )
        return pb.ServerReadyResponse(ready=ready).SerializeToString()

    async def model_ready(self, data: bytes, call: Call) -> bytes:
        """Whether a model answers; false for one that is not there."""
        request = parsed(pb.ModelReadyRequest, data)
        try:
            self._plane.registry.choose(request.name, request.version)
            ready = self._taking()
        except NoSuchModel:
            ready = False
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, data: bytes, call: Call) -> bytes:
        """The server's name, its version and what works of the protocol's extensions."""
        parsed(pb.ServerMetadataRequest, data)
        control = [_CONTROL_EXTENSION] if self._config.model_control else []
        return pb.ServerMetadataResponse(
            name="jaxnn", version=__version__, extensions=sorted([*_EXTENSIONS, *control])
        ).SerializeToString()

    async def model_metadata(self, data: bytes, call: Call) -> bytes:
        """What a model takes and gives."""
        request = parsed(pb.ModelMetadataRequest, data)
        _check_names(request.name, request.version)
        registry = self._plane.registry
        model = registry.choose(request.name, request.version)
        return catalogue.metadata(model, registry.entries()).SerializeToString()

    async def model_config(self, data: bytes, call: Call) -> bytes:
        """How a model is batched and queued."""
        request = parsed(pb.ModelConfigRequest, data)
        _check_names(request.name, request.version)
        model = self._plane.registry.choose(request.name, request.version)
        return catalogue.configuration(model, self._config).SerializeToString()

    async def model_statistics(self, data: bytes, call: Call) -> bytes:
        """Counters of a model, one of its versions, or all."""
        request = parsed(pb.ModelStatisticsRequest, data)
        name, version = request.name, request.version
        _check_names(name, version)
        registry = self._plane.registry
        if name:
            registry.choose(name, version)  # it is there
        elif version:
            raise InvalidRequest("the request names a version and no model: name the model, too")
        entries = [
            entry
            for entry in registry.entries()
            if name in ("", entry.name) and version in ("", entry.version)
        ]
        return statistics.all_statistics(entries, self._plane.telemetry).SerializeToString()

    async def repository_index(self, data: bytes, call: Call) -> bytes:
        """Every version of every model."""
        request = parsed(pb.RepositoryIndexRequest, data)
        _check_repository(request.repository_name)
        entries = self._plane.registry.entries()
        return catalogue.index(entries, request.ready).SerializeToString()

    async def load(self, data: bytes, call: Call) -> bytes:
        """Load a model from the repository folder, or load it again."""
        request = parsed(pb.RepositoryModelLoadRequest, data)
        self._check_control(request)
        if request.parameters:
            name = min(request.parameters)
            raise Unsupported(
                f"parameter {shown(name)} of a load is not served: models come from the "
                "repository folder, so put the model there and load it without parameters"
            )
        await self._plane.registry.load(request.model_name)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def unload(self, data: bytes, call: Call) -> bytes:
        """Serve a model no longer."""
        request = parsed(pb.RepositoryModelUnloadRequest, data)
        self._check_control(request)
        await self._plane.registry.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    def _check_control(
        self, request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest
    ) -> None:
        if not self._config.model_control:
            raise Forbidden(
                "this server's callers may not load or unload models: start it with model_control"
            )
        _check_repository(request.repository_name)
        if not request.model_name:
            raise InvalidRequest("the request names no model: set model_name")
        _check_names(request.model_name)


def stream_error(data: bytes, code: str, sentence: str, call: Call) -> bytes | None:
    """The answer that tells a stream of an error; None where the caller wants a status instead."""
    if call.metadata(_STREAM_STATUS) == "true":
        return None
    response = pb.ModelStreamInferResponse(error_message=sentence)
    with suppress(InvalidRequest):  # where the bytes are no request they have no id
        response.infer_response.id = parsed(pb.ModelInferRequest, data).id
    return response.SerializeToString()


def _report(response: pb.ModelInferResponse, call: Call) -> None:
    """Says how the answer came about."""
    told = response.parameters
    told["batch_images"].int64_param = call.batch_rows
    told["released"].string_param = call.released
    for name in ("queue", "prepare", "assembly", "compute"):
        told[f"{name}_us"].int64_param = round(getattr(call, name) * 1e6)


def _check_repository(name: str) -> None:
    if name:
        raise Unsupported(
            f"there is no repository {shown(name)}, since there is one only: leave its name empty"
        )


def _check_names(name: str, version: str = "") -> None:
    """A name that no model can have must not come back in a sentence."""
    for what, text in (("model", name), ("version", version)):
        if len(text) > _MAX_NAME:
            raise NoSuchModel(
                f"there is no {what} {shown(text)}: its name has over {_MAX_NAME} letters"
            )
