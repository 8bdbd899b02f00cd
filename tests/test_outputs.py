"""Output tensors of the Open Inference Protocol: which are wanted, and answers as tensors."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.dataplane import Answer
from service.errors import InvalidRequest
from service.outputs import ALL, DATATYPES, Output, classified, outputs, packed, written
from service.pb import open_inference_grpc_pb2 as pb

RNG = np.random.default_rng(3)
FOUND = RNG.random((3, 13), np.float32)  # as the data plane has it: no column is contiguous
FOUND[:, 10] = [7, 0, 9]
MODEL: Any = SimpleNamespace(name="digits", version="7")
ANSWER = Answer(FOUND[:, 10], FOUND[:, :10], FOUND[:, 11], FOUND[:, 12] > 0.5, MODEL)
VALUES = {
    "labels": (ANSWER.labels, "<i8", "int64_contents"),
    "scores": (ANSWER.scores, "<f4", "fp32_contents"),
    "confidence": (ANSWER.confidences, "<f4", "fp32_contents"),
    "rejected": (ANSWER.rejected, "?", "bool_contents"),
}


def wanting(*names: str, **kinds: Any) -> pb.ModelInferRequest:
    """A request for outputs; `kinds` is the parameter classification of the first."""
    message = pb.ModelInferRequest(
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
    )
    for name, value in kinds.items():
        setattr(message.outputs[0].parameters["classification"], name, value)
    return message


def test_outputs_are_those_asked_for_in_their_order() -> None:
    assert outputs(wanting()) == ALL
    assert [output.name for output in ALL] == ["labels", "scores", "confidence", "rejected"]
    assert outputs(wanting("rejected", "labels")) == (Output("rejected"), Output("labels"))
    assert outputs(wanting("scores", int64_param=3)) == (Output("scores", 3),)
    assert outputs(wanting("scores", int64_param=0)) == (Output("scores"),)
    assert outputs(wanting("scores", uint64_param=4)) == (Output("scores", 4),)


def test_outputs_that_cannot_be_given_are_refused() -> None:
    shared = wanting("labels")
    shared.outputs[0].parameters["shared_memory_region"].string_param = "region"
    for message, words in [
        (wanting("score"), "no output 'score'"),
        (wanting("x" * 999), "x{60}[.]{3}'"),
        (wanting("labels", "labels"), "labels is asked for twice"),
        (wanting(*["labels"] * 1000), "labels is asked for twice"),
        (wanting("labels", int64_param=2), "of scores only"),
        (wanting("scores", int64_param=-1), "-1, expected 0"),
        (wanting("scores", string_param="2"), "no whole number"),
        (shared, "shared memory"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            outputs(message)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("names", [[*VALUES], ["rejected", "labels"], ["scores"]])
def test_answers_are_written_raw_and_typed(names: list[str], raw: bool) -> None:
    response = written(ANSWER, [Output(name) for name in names], raw)
    assert (response.model_name, response.model_version) == ("digits", "7")
    assert [output.name for output in response.outputs] == names
    assert len(response.raw_output_contents) == (len(names) if raw else 0)
    for place, output in enumerate(response.outputs):
        values, dtype, field = VALUES[output.name]
        assert output.datatype == DATATYPES[output.name]
        assert list(output.shape) == list(values.shape)
        assert output.HasField("contents") is not raw
        if raw:
            found = np.frombuffer(response.raw_output_contents[place], dtype)
        else:
            ((descriptor, contents),) = output.contents.ListFields()
            assert descriptor.name == field
            found = np.array(contents)
        np.testing.assert_array_equal(found.reshape(values.shape), values)


def test_one_answer_does_not_show_in_the_next() -> None:
    first = written(ANSWER, ALL, True)
    first.id = "mine"
    assert written(ANSWER, ALL, True).id == ""
    few = Answer(*(values[:1] for values in ANSWER[:4]), MODEL)
    assert [list(output.shape) for output in written(few, ALL, True).outputs] == [
        [1],
        [1, 10],
        [1],
        [1],
    ]


@pytest.mark.parametrize("raw", [True, False])
def test_classes_are_told_from_the_largest_down(raw: bool) -> None:
    scores = np.array([[0.25, 0.5, 0.5], [1.0, 0.0, 0.125]], np.float32)
    answer = Answer(scores[:, 0], scores, scores[:, 0], scores[:, 0] > 1, MODEL)
    response = written(answer, [Output("labels"), Output("scores", 2)], raw)
    _, tensor = response.outputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("scores", "BYTES", [2, 2])
    expected = [b"0.500000:1:1", b"0.500000:2:2", b"1.000000:0:0", b"0.125000:2:2"]
    if raw:
        assert response.raw_output_contents[1] == packed(expected)
    else:
        assert list(tensor.contents.bytes_contents) == expected
    more = written(answer, [Output("scores", 100)], raw)
    assert list(more.outputs[0].shape) == [2, 3] and len(classified(scores, 100)) == 6


def test_the_lower_class_goes_first_among_many_equals() -> None:
    scores = (np.arange(100, dtype=np.float32) % 3)[None]
    order = [int(element.split(b":")[1]) for element in classified(scores, 100)]
    assert order == sorted(range(100), key=lambda index: (-(index % 3), index))


def test_bytes_are_packed_as_length_and_element() -> None:
    assert packed([b"ab", b""]) == b"\x02\0\0\0ab\0\0\0\0"
