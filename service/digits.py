"""The DigitClassifier API: bytes -> codec -> data plane -> bytes, and nothing else."""

import time

import numpy as np

from service import codec, preparing
from service.config import ServiceConfig
from service.dataplane import DataPlane
from service.errors import InvalidRequest
from service.inputs import Kind
from service.pb import digits_pb2
from service.preparing import Unprepared
from service.rpc import Api, Call, Method

MAX_ID = 100  # characters of a request's id that are written down
SERVICE = digits_pb2.DESCRIPTOR.services_by_name["DigitClassifier"].full_name


class DigitClassifier:
    """The methods of the API, as `api`."""

    def __init__(self, plane: DataPlane, config: ServiceConfig) -> None:
        """Hold what every call needs."""
        self._plane = plane
        self._config = config
        self.api = Api(
            SERVICE,
            "v1",
            (
                Method("Classify", self.classify),
                Method("ClassifyStream", self.classify, stream=True),
                Method("GetModel", self.model),
                Method("ListModels", self.models),
            ),
        )

    async def classify(self, data: bytes, call: Call) -> bytes:
        """A ClassifyRequest's bytes to its ClassifyResponse's.

        Raises:
          JaxnnError: those of `service.dataplane.DataPlane`, and InvalidRequest for a request that
            cannot be answered as it stands.
        """
        request, pixels = codec.classify_request(data)
        call.request_id = request.id[:MAX_ID]
        if request.priority > 2:
            raise InvalidRequest(f"priority is {request.priority}, expected 0, 1 or 2")
        model = self._plane.registry.choose(request.model_name, request.model_version)
        given = self._given(request, pixels, model.takes)
        if isinstance(given, Unprepared):
            given = await self._plane.prepared(call, given)
        answer = await self._plane.classify(
            call,
            given,
            model,
            rejection=not request.skip_rejection,
            priority=request.priority,
        )
        began = time.monotonic()
        rest = digits_pb2.ClassifyResponse(
            classes=answer.scores.shape[1],
            model_name=answer.model.name,
            model_version=answer.model.version,
            id=request.id,
            report=_report(call) if request.report else None,
        )
        response = codec.response(*answer[:4], rest)
        call.encode = time.monotonic() - began
        return response

    async def model(self, data: bytes, call: Call) -> bytes:
        """A GetModelRequest's bytes to its GetModelResponse's.

        Raises:
          InvalidRequest: the bytes are no such message.
          NoSuchModel: no such model is ready.
        """
        request = codec.parsed(digits_pb2.GetModelRequest, data)
        model = self._plane.registry.choose(request.name, request.version)
        file, spec = model.file, model.file.spec
        return digits_pb2.GetModelResponse(
            name=model.name,
            version=model.version,
            family=spec.family,
            layer_sizes=spec.sizes,
            activation=spec.activation,
            output=spec.output,
            cost=spec.cost,
            parameter_count=model.parameter_count,
            input_shape=model.takes.shape,
            classes=spec.sizes[-1],
            max_images_per_request=self._config.max_images_per_request,
            max_message_bytes=self._config.max_message_bytes,
            metrics=model.metrics,
            members=spec.members,
            rejects=file.familiar is not None,
            sha256=file.digest,
            inputs=model.takes.fields,
        ).SerializeToString()

    async def models(self, data: bytes, call: Call) -> bytes:
        """A ListModelsRequest's bytes to its ListModelsResponse's.

        Raises:
          InvalidRequest: the bytes are no such message.
        """
        codec.parsed(digits_pb2.ListModelsRequest, data)
        entries = [
            digits_pb2.ModelEntry(
                name=entry.name,
                version=entry.version,
                state=entry.state,
                reason=entry.reason,
                preferred=entry.preferred,
            )
            for entry in self._plane.registry.entries()
        ]
        return digits_pb2.ListModelsResponse(models=entries).SerializeToString()

    def _given(
        self, request: digits_pb2.ClassifyRequest, pixels: memoryview | None, takes: Kind
    ) -> np.ndarray | Unprepared:
        """The request's rows uint8 [N, n_in], or what has to be prepared to become such."""
        given = "pixels" if pixels is not None else request.WhichOneof("input")
        wanted = ", ".join(takes.fields[:-1]) + f" or {takes.fields[-1]}"
        if given is None:
            raise InvalidRequest(f"the request has no input: set {wanted}")
        if given not in takes.fields:
            raise InvalidRequest(
                f"the request has {given}, but the model takes {takes.name}: set {wanted}, or ask "
                "another model"
            )
        limit = self._config.max_images_per_request
        match given:
            case "pixels":
                return codec.pixels_to_images(request.pixels if pixels is None else pixels, limit)
            case "encoded":
                files = codec.encoded_files(request.encoded, limit)
                return preparing.pictures(files, "encoded image")
            case "features":
                return codec.features_to_rows(request.features, takes.shape, limit)
            case "recordings":
                return preparing.recordings(codec.recorded_files(request.recordings, limit))
        return preparing.sounds(codec.sent_sounds(request.sounds, limit))


def _report(call: Call) -> digits_pb2.Report:
    """Where the call's time went."""
    return digits_pb2.Report(
        batch_images=call.batch_rows,
        released=call.released,
        queue_us=round(1e6 * call.queue),
        prepare_us=round(1e6 * call.prepare),
        assembly_us=round(1e6 * call.assembly),
        compute_us=round(1e6 * call.compute),
    )
