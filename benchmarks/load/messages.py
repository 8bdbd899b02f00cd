"""Requests and replies of both APIs as bytes: a few lines instead of generated code.

Written by hand so that no benchmark depends on how a server reads or writes its messages.
"""

from collections.abc import Iterator

import numpy as np

V1, V2 = "v1", "v2"  # jaxnn.v1, and the Open Inference Protocol with images as UINT8
V2_BYTES = "v2-bytes"  # the same with an element of BYTES an image
# Labels, scores and confidence, as peers give; and whether it is a digit at all besides.
WHOLE = {V1: "v1-whole", V2: "v2-whole"}
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CLASSIFY = "/jaxnn.v1.DigitClassifier/Classify"
METHODS = {
    V1: _CLASSIFY,
    V2: _INFER,
    V2_BYTES: _INFER,
    WHOLE[V1]: _CLASSIFY,
    WHOLE[V2]: _INFER,
}
MODEL, INPUT, LABELS = "digits", "images", "labels"  # names in V2
OUTPUTS = (LABELS, "scores", "confidence")
PIXELS, FEATURES = 1, 9  # fields of ClassifyRequest: images, and speech
_SKIP_REJECTION = bytes([7 << 3, 1])  # ClassifyRequest.skip_rejection = true
_RAW = {"UINT8": "<u1", "INT32": "<i4", "UINT32": "<u4", "INT64": "<i8", "UINT64": "<u8"}


def request(api: str, images: np.ndarray, at: int = PIXELS) -> bytes:
    """The request with images uint8 [N, 784], raw; or in V1 with rows of another field."""
    if api in (V1, WHOLE[V1]):
        pixels = field(at, images.tobytes())
        return pixels + _SKIP_REJECTION if api == V1 else pixels
    if api in (V2, WHOLE[V2]):
        datatype, shape, raw = b"UINT8", images.shape, images.tobytes()
    else:
        size = images.shape[1].to_bytes(4, "little")  # before each element
        datatype, shape = b"BYTES", images.shape[:1]
        raw = b"".join(size + image.tobytes() for image in images)
    sizes = field(3, b"".join(map(_varint, shape)))
    tensor = field(1, INPUT.encode()) + field(2, datatype) + sizes
    wanted = [field(6, field(1, name.encode())) for name in OUTPUTS if api == V2]
    return field(1, MODEL.encode()) + field(5, tensor) + b"".join(wanted) + field(7, raw)


def labels(api: str, reply: bytes) -> list[int]:
    """The labels [N] in a reply.

    Raises:
      ValueError: it holds none.
    """
    if api in (V1, WHOLE[V1]):
        return [label for at, run in _fields(reply) if at == 1 for label in _varints(run)]
    outputs = [dict(_fields(value)) for at, value in _fields(reply) if at == 5]
    raw = [value for at, value in _fields(reply) if at == 6]
    for index, output in enumerate(outputs):
        if output.get(1) == LABELS.encode():
            if raw:
                return np.frombuffer(raw[index], _RAW[output[2].decode()]).tolist()
            return [label for _, run in _fields(output[5]) for label in _varints(run)]
    raise ValueError(f"the reply has no output named {LABELS}")


def field(number: int, data: bytes) -> bytes:
    """A field that has bytes: number, length and the bytes."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def _read(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return number, at


def _varints(run: bytes) -> Iterator[int]:
    at = 0
    while at < len(run):
        number, at = _read(run, at)
        yield number


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of the fields that have bytes; plain numbers are passed over."""
    at = 0
    while at < len(data):
        tag, at = _read(data, at)
        size, at = _read(data, at)  # or the plain number itself
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + size]
            at += size
