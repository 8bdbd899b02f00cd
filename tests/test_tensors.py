"""Input tensors and parameters of the Open Inference Protocol; every one that is refused."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import tensors
from service.errors import InvalidRequest
from service.inputs import IMAGES
from service.outputs import packed as as_bytes
from service.parameters import Parameters, parameters, shown
from service.pb import open_inference_grpc_pb2 as pb

LIMIT = 5  # images
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (3, 784), np.uint8)
FILES = [b"first file", b"", b"the third\0"]


def request(
    shape: list[int],
    raw: bytes | None = None,
    kind: str = "UINT8",
    name: str = "images",
    **typed: Any,
) -> pb.ModelInferRequest:
    """A request with one input."""
    message = pb.ModelInferRequest()
    tensor = message.inputs.add(name=name, datatype=kind, shape=shape)
    for field, values in typed.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


class Read(NamedTuple):
    """What came of an input of images: rows, or pictures."""

    images: np.ndarray | None
    pictures: list[bytes]


def read(message: pb.ModelInferRequest, raw: Sequence[tensors.Raw] | None = None) -> Read:
    raw = message.raw_input_contents if raw is None else raw
    found = tensors.inputs(message, raw, LIMIT, IMAGES)
    if isinstance(found, np.ndarray):
        return Read(found, [])
    assert found.size == sum(map(len, found.parts)) and found.what == "picture"
    return Read(None, list(found.parts))


def refused(message: pb.ModelInferRequest, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read(message)


@pytest.mark.parametrize("shape", [[3, 784], [3, 28, 28], [3, 28, 28, 1]])
def test_raw_bytes_are_viewed_in_every_shape(shape: list[int]) -> None:
    images, pictures = read(request(shape, PIXELS.tobytes()))
    assert images is not None and images.dtype == np.uint8 and not images.flags.owndata
    np.testing.assert_array_equal(images, PIXELS)
    assert pictures == []


def test_a_view_of_a_message_will_do_for_raw_bytes() -> None:
    data = bytearray(b"before" + PIXELS.tobytes())
    images = read(request([3, 784]), [memoryview(data)[6:]]).images
    assert images is not None and np.shares_memory(images, np.frombuffer(data, np.uint8))
    np.testing.assert_array_equal(images, PIXELS)
    files = memoryview(b"x" + as_bytes(FILES))[1:]
    pictures = read(request([3], kind="BYTES", name="pictures"), [files]).pictures
    assert pictures == FILES and {type(file) for file in pictures} == {bytes}


def test_typed_pixels_are_the_same_as_raw_ones() -> None:
    images, _ = read(request([3, 784], uint_contents=PIXELS.ravel().tolist()))
    assert images is not None and images.dtype == np.uint8
    np.testing.assert_array_equal(images, PIXELS)


@pytest.mark.parametrize("typed", [False, True])
def test_every_grey_value_survives_as_fp32(typed: bool) -> None:
    values = (PIXELS / 255).astype("<f4")  # as most people scale: in float64, then rounded
    message = (
        request([3, 784], kind="FP32", fp32_contents=values.ravel().tolist())
        if typed
        else request([3, 784], values.tobytes(), "FP32")
    )
    images, _ = read(message)
    assert images is not None and images.dtype == np.uint8
    np.testing.assert_array_equal(images, PIXELS)


def test_fp32_between_two_grey_values_goes_to_the_nearest() -> None:
    values = np.zeros((1, 784), "<f4")
    values[0, :4] = [0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0]
    images = read(request([1, 784], values.tobytes(), "FP32")).images
    assert images is not None and images[0, :4].tolist() == [0, 1, 254, 255]


@pytest.mark.parametrize("wrong", [np.nan, -1e-6, 1.0001, np.inf, -np.inf, 255.0])
@pytest.mark.filterwarnings("error")
def test_fp32_outside_0_to_1_is_refused(wrong: float) -> None:
    values = np.zeros((2, 784), "<f4")
    values[1, 700] = wrong
    refused(request([2, 784], values.tobytes(), "FP32"), "expected 0 to 1: divide")


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("typed", [False, True])
def test_pictures_come_as_bytes(shape: list[int], typed: bool) -> None:
    message = (
        request(shape, kind="BYTES", name="pictures", bytes_contents=FILES)
        if typed
        else request(shape, as_bytes(FILES), "BYTES", "pictures")
    )
    assert read(message) == (None, FILES)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=LIMIT), st.data())
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_cut_grown_or_changed_are_refused_or_read(
    files: list[bytes], data: st.DataObject
) -> None:
    packed = as_bytes(files)
    assert packed == b"".join(struct.pack("<I", len(file)) + file for file in files)
    message = request([len(files)], packed, "BYTES", "pictures")
    assert read(message).pictures == files
    cut = data.draw(st.integers(0, len(packed) - 1))
    refused(request([len(files)], packed[:cut], "BYTES", "pictures"), "BYTES|raw|inputs? ")
    refused(request([len(files)], packed + b"\0", "BYTES", "pictures"), "1 bytes more")
    changed = bytearray(packed)
    changed[cut] ^= data.draw(st.integers(1, 255))
    try:
        found = read(request([len(files)], bytes(changed), "BYTES", "pictures"))
    except InvalidRequest:
        return
    assert sum(map(len, found.pictures)) == sum(map(len, files))


BIG = 2**63 - 1
WRONG_SHAPES = [
    ([], "has the shape"),
    ([784], "has the shape"),
    ([28, 28], "has the shape"),
    ([1, 783], "has the shape"),
    ([1, 28, 28, 3], "has the shape"),
    ([1, 1, 28, 28], "has the shape"),
    ([0, 784], "one row or more"),
    ([-1, 784], "one row or more"),
    ([-BIG - 1, 784], "one row or more"),
    ([BIG, 784], "over this server's limit of 5"),
    ([6, 784], "over this server's limit of 5"),
    ([2**61, 28, 28], "over this server's limit of 5"),
    ([1] * 100_000, "has the shape"),
]


@pytest.mark.parametrize(("shape", "words"), WRONG_SHAPES)
def test_shapes_that_lie_are_refused(shape: list[int], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        read(request(shape, bytes(784)))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("shape", [[BIG], [6], [2, 2], [], [0]])
def test_so_are_those_of_pictures(shape: list[int]) -> None:
    refused(request(shape, as_bytes(FILES), "BYTES", "pictures"), "shape|limit")


def both() -> pb.ModelInferRequest:
    message = request([1, 784], bytes(784))
    message.inputs[0].contents.uint_contents.extend([0] * 784)
    return message


def two(what: str) -> pb.ModelInferRequest:
    message = request([1, 784], bytes(784))
    if what == "inputs":
        message.inputs.add().CopyFrom(message.inputs[0])
    else:
        message.raw_input_contents.append(bytes(784))
    return message


def in_shared_memory() -> pb.ModelInferRequest:
    message = request([1, 784])
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


WRONG = {
    "no input": (pb.ModelInferRequest(), "has 0 inputs, expected one"),
    "two inputs": (two("inputs"), "has 2 inputs, expected one"),
    "two raw": (two("raw"), "2 raw_input_contents"),
    "both forms": (both(), "send one of them"),
    "no contents": (request([1, 784]), "no contents: send uint_contents"),
    "shared memory": (in_shared_memory(), "shared memory is not served"),
    "other name": (request([1, 784], bytes(784), name="x" * 999), "'x{60}...' of datatype"),
    "other type": (request([1, 784], bytes(784), "INT8"), "of datatype 'INT8'"),
    "pixels as BYTES": (request([1], b"", "BYTES"), "is 'images' of datatype 'BYTES'"),
    "pictures as pixels": (request([1, 784], b"", name="pictures"), "is 'pictures' of datatype"),
    "short": (request([2, 784], bytes(1567)), "1567 raw bytes, and its shape asks for 1568"),
    "empty": (request([2, 784], b""), "0 raw bytes"),
    "FP32 as bytes": (request([1, 784], bytes(784), "FP32"), "asks for 3136 as FP32"),
    "few typed": (request([1, 784], uint_contents=[1]), "has 1 elements"),
    "wrong field": (request([1, 784], int_contents=[1] * 784), "has int_contents: send uint_cont"),
    "two fields": (
        request([1, 784], uint_contents=[1] * 784, bool_contents=[True]),
        "has bool_contents and uint_contents",
    ),
    "too large": (request([1, 784], uint_contents=[256] * 784), "holds 256, expected 0 to 255"),
    "cut": (request([1], b"\3\0\0\0ab", "BYTES", "pictures"), "3 bytes, 1 more than there are"),
    "length": (request([1], struct.pack("<I", 2**32 - 1), "BYTES", "pictures"), "4294967295 bytes"),
}


@pytest.mark.parametrize("message, words", WRONG.values(), ids=WRONG)
def test_inputs_that_make_no_sense_are_refused(message: pb.ModelInferRequest, words: str) -> None:
    refused(message, words)


def given_parameters(**values: Any) -> Any:
    message = pb.ModelInferRequest()
    for name, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
        setattr(message.parameters[name], kind[type(value)], value)
    return message.parameters


def test_parameters_are_read() -> None:
    assert parameters(given_parameters()) == Parameters(0, None, False)
    unsigned = pb.ModelInferRequest()
    unsigned.parameters["priority"].uint64_param = 1
    assert parameters(unsigned.parameters) == Parameters(1, None, False)
    # 2 is the middle of three levels, which the data plane calls 0, and 3 its last, 2.
    assert parameters(given_parameters(priority=2)).priority == 0
    assert parameters(given_parameters(priority=3)).priority == 2
    assert parameters(given_parameters(timeout=1500)).timeout == 0.0015
    assert parameters(given_parameters(timeout=0)).timeout is None
    assert parameters(given_parameters(report=True)) == Parameters(0, None, True)
    assert parameters(given_parameters(report=False)) == Parameters()
    others = given_parameters(
        sequence_id=3, sequence_start=True, triton_enable_empty_final_response=True, mine="x"
    )
    assert parameters(others) == Parameters()
    assert "report" not in others, "reading must not write"


def test_parameters_out_of_range_are_refused() -> None:
    for values, words in [
        ({"priority": 4}, "priority is 4, expected 0 to 3"),
        ({"priority": -1}, "priority is -1"),
        ({"priority": True}, "no whole number"),
        ({"priority": 1.0}, "no whole number"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": "1"}, "no whole number"),
        ({"report": 1}, "send bool_param"),
        ({"triton_x": 1}, "'triton_x' is not served"),
        ({f"p{i}": 1 for i in range(65)}, "65 parameters, over the limit of 64"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            parameters(given_parameters(**values))
    empty = pb.ModelInferRequest()
    empty.parameters["timeout"].SetInParent()
    with pytest.raises(InvalidRequest, match="no whole number"):
        parameters(empty.parameters)


def test_a_callers_text_is_cut_for_sentences() -> None:
    assert shown("model\n") == "'model\\n'"
    assert len(shown("\0" * 10**6)) < 300
