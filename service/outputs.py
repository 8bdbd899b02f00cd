"""Output tensors of the Open Inference Protocol: which are wanted, and answers written as such."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from service.contents import LENGTH, SHARED_MEMORY
from service.dataplane import Answer
from service.errors import InvalidRequest
from service.parameters import shown, whole
from service.pb import open_inference_grpc_pb2 as pb

DATATYPES = {"labels": "INT64", "scores": "FP32", "confidence": "FP32", "rejected": "BOOL"}
_CONTENTS = {"INT64": "int64_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}
_RAW = {"labels": "<i8", "scores": "<f4", "confidence": "<f4", "rejected": "?"}


class Output(NamedTuple):
    """What a request asks for."""

    name: str
    top: int = 0  # the classification parameter: how many classes; 0 for the tensor itself


ALL = tuple(Output(name) for name in DATATYPES)


def outputs(request: pb.ModelInferRequest) -> tuple[Output, ...]:
    """The outputs that a request asks for, in its order; all where it names none.

    Raises:
      InvalidRequest: an output is unknown or named twice, or its parameters cannot be followed.
    """
    if not request.outputs:
        return ALL
    found: dict[str, Output] = {}
    for wanted in request.outputs:
        name = wanted.name
        if name not in DATATYPES:
            raise InvalidRequest(
                f"there is no output {shown(name)}: ask for some of {', '.join(DATATYPES)}"
            )
        if name in found:
            raise InvalidRequest(f"output {name} is asked for twice: ask once")
        if SHARED_MEMORY in wanted.parameters:
            raise InvalidRequest(f"shared memory is not served: ask for {name} without it")
        top = whole(wanted.parameters, "classification", 2**31 - 1) if wanted.parameters else 0
        if top and name != "scores":
            raise InvalidRequest(
                f"classification is asked of output {name}: it can be asked of scores only"
            )
        found[name] = Output(name, top)
    return tuple(found.values())


def written(answer: Answer, wanted: Sequence[Output], raw: bool) -> pb.ModelInferResponse:
    """An answer as output tensors.

    Args:
      answer: of N images.
      wanted: its outputs, in order.
      raw: whether as raw bytes or as typed contents.
    """
    count, classes = answer.scores.shape
    response = pb.ModelInferResponse.FromString(_described(tuple(wanted), count, classes))
    response.model_name, response.model_version = answer.model.name, answer.model.version
    for place, (name, top) in enumerate(wanted):
        if top:
            elements = classified(answer.scores, top)
            if raw:
                response.raw_output_contents.append(packed(elements))
            else:
                response.outputs[place].contents.bytes_contents.extend(elements)
            continue
        values = _values(answer, name).astype(_RAW[name], copy=False)
        if raw:
            response.raw_output_contents.append(values.tobytes())
        else:
            contents = response.outputs[place].contents
            getattr(contents, _CONTENTS[DATATYPES[name]]).extend(values.ravel().tolist())
    return response


def classified(scores: np.ndarray, top: int) -> list[bytes]:
    """The largest scores of each row as "value:index:label", row by row.

    Args:
      scores: float32 [N, C].
      top: how many of each row, the largest first and the lower class first among equals; all C
        where it is more.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]  # [N, k]
    values = np.take_along_axis(scores, order, axis=1)
    return [
        f"{value:.6f}:{index}:{index}".encode()  # a digit is its own label
        for value, index in zip(values.ravel().tolist(), order.ravel().tolist(), strict=True)
    ]


def packed(elements: Iterable[bytes]) -> bytes:
    """The elements of a BYTES tensor as raw contents: each its length, then itself."""
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)


@lru_cache(maxsize=256)
def _described(wanted: tuple[Output, ...], count: int, classes: int) -> bytes:
    """A response with the outputs' names, types and shapes: parsing it is faster than making it."""
    response = pb.ModelInferResponse()
    for name, top in wanted:
        kind = "BYTES" if top else DATATYPES[name]
        width = [min(top, classes) if top else classes] if name == "scores" else []
        response.outputs.add(name=name, datatype=kind, shape=[count, *width])
    return response.SerializeToString()


def _values(answer: Answer, output: str) -> np.ndarray:
    return answer.confidences if output == "confidence" else getattr(answer, output)
