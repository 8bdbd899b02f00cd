"""Ready-made requests for a load (`service.calling.load`), for a server of either API.

A server is asked first what it takes, and once for an answer of the right size; after that bytes
go out and come back as they are, so that little of the client's work is in the figures.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from jaxnn import data
from jaxnn.errors import ConfigError
from service.calling.channels import Metadata
from service.calling.failures import failure
from service.calling.load import Ask
from service.config import IMAGE_BYTES
from service.errors import ServiceError
from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as inference_pb

DIFFERENT = 8  # requests: a cache of answers should not be what is measured
MAX_REQUEST_BYTES = 2**30
STEPS = 20  # of a word, where a model takes any number: half a second
V1, V2 = "jaxnn.v1.DigitClassifier", "inference.GRPCInferenceService"
KINDS: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}

R = TypeVar("R")


class Wanted(NamedTuple):
    """What to ask for; empty fields are left to the server, or taken from its metadata."""

    rows: int = 1  # images a request
    model: str = ""
    version: str = ""
    skip_rejection: bool = False  # v1 only
    input: str = ""  # v2 only, as the next two
    datatype: str = ""  # a key of KINDS
    shape: tuple[int, ...] = ()  # of one image


class Line(NamedTuple):
    """A connection to a server, for sentences and for calls."""

    target: str
    channel: Any  # of grpc.aio
    metadata: Metadata
    timeout: float  # s

    async def call(self, service: str, method: str, request: Any, kind: type[R]) -> R:
        """One call, for a message.

        Raises:
          JaxnnError: it failed, or the answer is no such message.
        """
        send = self.channel.unary_unary(f"/{service}/{method}")
        try:
            reply = await send(
                request.SerializeToString(), timeout=self.timeout, metadata=self.metadata
            )
            return kind.FromString(reply)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            raise failure(error, self.target, method, self.timeout) from error
        except DecodeError as error:
            raise ServiceError(
                f"the server at {self.target} answered {method} with bytes that are no "
                f"{service} message: is it a server of this API?",
                "DATA_LOSS",
            ) from error


class Questions(NamedTuple):
    """Requests as bytes, and where they go."""

    path: str  # as in "/jaxnn.v1.DigitClassifier/Classify"
    requests: list[bytes]

    def ask(self, channel: Any, metadata: Metadata) -> Ask:
        """A way to ask them in turn over one channel."""
        send = channel.unary_unary(self.path)
        turn = itertools.cycle(self.requests)
        return lambda timeout: send(next(turn), timeout=timeout, metadata=metadata)


async def of_v1(line: Line, wanted: Wanted) -> Questions:
    """Questions for jaxnn's own API.

    Raises:
      JaxnnError: the server cannot be reached, takes fewer images, or answers something else.
    """
    about = digits_pb2.GetModelRequest(name=wanted.model, version=wanted.version)
    model = await line.call(V1, "GetModel", about, digits_pb2.GetModelResponse)
    if 0 < model.max_images_per_request < wanted.rows:
        raise ConfigError(
            f"rows is {wanted.rows}, over the limit of {model.max_images_per_request} images a "
            f"request of the server at {line.target}"
        )
    hears = "features" in model.inputs
    rows = _words(wanted.rows, *model.input_shape) if hears else _digits(wanted.rows, IMAGE_BYTES)
    requests = []
    for one in rows:
        request = digits_pb2.ClassifyRequest(
            model_name=wanted.model,
            model_version=wanted.version,
            skip_rejection=wanted.skip_rejection,
        )
        setattr(request, "features" if hears else "pixels", one.tobytes())
        requests.append(request)
    reply = await line.call(V1, "Classify", requests[0], digits_pb2.ClassifyResponse)
    _check_rows(line, wanted.rows, len(reply.labels))
    return Questions(f"/{V1}/Classify", [each.SerializeToString() for each in requests])


async def of_v2(line: Line, wanted: Wanted) -> Questions:
    """Questions for any server of the Open Inference Protocol.

    Raises:
      JaxnnError: the server cannot be reached, its model has no input that digits could be sent
        to, or answers something else.
    """
    name, datatype, shape = wanted.input, wanted.datatype, [wanted.rows, *wanted.shape]
    batched = True
    if not (name and datatype and wanted.shape):
        about = inference_pb.ModelMetadataRequest(name=wanted.model, version=wanted.version)
        model = await line.call(V2, "ModelMetadata", about, inference_pb.ModelMetadataResponse)
        tensor = _input(model.inputs, wanted, line.target)
        name, datatype = tensor.name, datatype or tensor.datatype
        if not wanted.shape:
            batched = list(tensor.shape[:1]) == [-1]
            shape = _shape(list(tensor.shape), wanted.rows, name)
    kind = KINDS[datatype]
    size = math.prod(shape) * kind.itemsize
    if size > MAX_REQUEST_BYTES:
        raise ConfigError(f"a request would have {size} bytes: ask for fewer rows")
    requests = []
    rows = _digits(1, math.prod(shape))
    if name == "features":  # of speech, where pixels of 0 would be no steps
        rows = (np.maximum(pixels, 1) for pixels in rows)
    for pixels in rows:
        request = inference_pb.ModelInferRequest(
            model_name=wanted.model, model_version=wanted.version
        )
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        values = pixels / 255 if datatype == "FP32" else pixels
        request.raw_input_contents.append(values.astype(kind).tobytes())
        requests.append(request)
    reply = await line.call(V2, "ModelInfer", requests[0], inference_pb.ModelInferResponse)
    if batched or not reply.outputs:
        first = reply.outputs[0].shape if reply.outputs else ()
        _check_rows(line, wanted.rows, first[0] if first else 0)
    return Questions(f"/{V2}/ModelInfer", [each.SerializeToString() for each in requests])


def _digits(rows: int, row_bytes: int) -> Iterator[np.ndarray]:
    """Real digits, uint8 [rows x row_bytes], DIFFERENT times, as far as such rows can hold them."""
    pool = np.ascontiguousarray(data.load("embedded").test_images).reshape(-1)
    for index in range(DIFFERENT):
        yield np.resize(np.roll(pool, -index * IMAGE_BYTES), rows * row_bytes)


def _words(rows: int, steps: int, bands: int) -> Iterator[np.ndarray]:
    """Rows of speech, uint8 [rows, steps, bands], DIFFERENT times: as long as spoken digits are.

    What they hold is chance, as it costs the network the same.
    """
    rng = np.random.default_rng(0)
    for _ in range(DIFFERENT):
        words = rng.integers(1, 256, (rows, steps, bands), np.uint8)
        lengths = rng.integers(steps // 4, max(2, 5 * steps // 8), rows)  # 0.25 to 0.6 s of 1
        words[np.arange(steps) >= lengths[:, None]] = 0
        yield words


def _input(tensors: Sequence[Any], wanted: Wanted, target: str) -> Any:
    """The input to send digits to."""
    for tensor in tensors:
        named = tensor.name == wanted.input
        if (tensor.datatype in KINDS and not wanted.input) or (
            named and (wanted.datatype or tensor.datatype) in KINDS
        ):
            return tensor
    found = ", ".join(f"{tensor.name} ({tensor.datatype})" for tensor in tensors) or "none"
    raise ConfigError(
        f"the model {wanted.model!r} at {target} has the inputs {found}: expected "
        f"{wanted.input or 'one'} of UINT8 or FP32"
    )


def _shape(shape: list[int], rows: int, name: str) -> list[int]:
    """A shape of the metadata, for so many rows."""
    if shape[:1] == [-1]:
        shape = [rows, *shape[1:]]
    elif rows != 1:
        raise ConfigError(
            f"input {name} has shape {shape}, which holds no batch: ask for 1 row, or give a shape"
        )
    if name == "features":
        shape = [STEPS if size == -1 else size for size in shape]
    if not shape or min(shape) < 1:
        raise ConfigError(f"input {name} has shape {shape}: give the shape of one image")
    return shape


def _check_rows(line: Line, expected: int, found: int) -> None:
    if found != expected:
        raise ServiceError(
            f"the server at {line.target} answered {found} rows for {expected}: "
            "is it a server of this API, and the right model?",
            "DATA_LOSS",
        )
