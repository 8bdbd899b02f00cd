"""A bytes field taken out of a message: what remains means the same."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fields import MAX_FIELDS, split
from service.pb import digits_pb2
from service.pb import open_inference_grpc_pb2 as pb

RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


def request(*raw: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="digits", id="x" * 300, raw_input_contents=raw)
    message.parameters["timeout"].int64_param = -1
    message.inputs.add(name="images", shape=[2**63 - 1, -1])
    return message


@pytest.mark.parametrize("raw", [[], [b""], [b"a" * 127], [b"b" * 128], [b"c" * 70_000, b"d"]])
def test_a_field_is_taken_out_as_views(raw: list[bytes]) -> None:
    data = request(*raw).SerializeToString()
    rest, found = split(data, RAW)
    assert [bytes(view) for view in found] == raw
    assert all(view.obj is data for view in found)
    assert pb.ModelInferRequest.FromString(rest) == request()


def test_it_may_be_first_and_between_fields() -> None:
    message = digits_pb2.ClassifyRequest(pixels=b"p" * 1000, id="mine", priority=2, report=True)
    rest, (found,) = split(message.SerializeToString(), 1)
    assert found == b"p" * 1000
    assert digits_pb2.ClassifyRequest.FromString(rest) == digits_pb2.ClassifyRequest(
        id="mine", priority=2, report=True
    )
    # Fixed-width fields, unknown here, are stepped over: field 20 of 8 bytes, field 21 of 4.
    odd = b"\xa1\x01" + bytes(8) + b"\xad\x01" + bytes(4)
    assert split(odd + b"\x3a\x01z" + odd, RAW) == (odd + odd, [memoryview(b"z")])


def test_a_number_in_the_fields_place_is_left() -> None:
    assert split(b"\x38\x05\x3a\x01z", RAW) == (b"\x38\x05", [memoryview(b"z")])


def test_a_message_of_many_fields_is_left_to_protobuf() -> None:
    few = b"\x3a\x00" * (MAX_FIELDS - 1)
    assert split(few, RAW)[0] == b""
    many = b"\x3a\x00" * 10**6
    assert split(many, RAW) == (many, [])


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",  # no length
        b"\x3a\x05abcd",  # shorter than it says
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1 bytes
        b"\x3a" + b"\xff" * 20,  # a number without an end
        b"\x3b\x3c",  # a group
        b"\x3f",  # no such wire type
        b"\x08" + b"\xff" * 5,
    ],
)
def test_what_is_no_message_comes_back_whole(data: bytes) -> None:
    assert split(data, RAW) == (data, [])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_changed_messages_mean_what_protobuf_says(data: st.DataObject) -> None:
    raw = data.draw(st.lists(st.binary(max_size=200), max_size=3))
    mutated = bytearray(request(*raw).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(mutated[: data.draw(st.integers(1, len(mutated)))])
    rest, found = split(message, RAW)
    try:
        whole = pb.ModelInferRequest.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.ModelInferRequest.FromString(rest)
        return
    parsed = pb.ModelInferRequest.FromString(rest)
    if found:
        assert not parsed.raw_input_contents
        parsed.raw_input_contents.extend(map(bytes, found))
    assert parsed == whole


def test_large_images_are_not_copied() -> None:
    images = np.random.default_rng(0).integers(0, 256, 784 * 100, np.uint8).tobytes()
    data = request(images).SerializeToString()
    _, (view,) = split(data, RAW)
    assert np.shares_memory(np.frombuffer(view, np.uint8), np.frombuffer(data, np.uint8))
