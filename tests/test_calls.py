"""What the clients decide, without a connection: limits, retries, groups, distrust."""

import math
from collections.abc import Generator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import images_of

from service import calls
from service.calls import Call, Caller, Limits, Sleep
from service.config import FRAME_BYTES
from service.errors import InvalidRequest, ServiceError
from service.pb import digits_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Failed(grpc.RpcError):
    """An error as gRPC hands it out."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "why"


def drive(steps: Generator[Any, Any, Any], results: list[Any]) -> tuple[list[Any], Any]:
    """Performs calls by handing out the results in turn; the steps taken and what was returned."""
    taken, result = [], None
    try:
        while True:
            taken.append(steps.send(result))
            result = results.pop(0) if isinstance(taken[-1], Call) else None
    except StopIteration as end:
        return taken, end.value


def test_retries_back_off_with_jitter_and_end() -> None:
    taken: list[Any] = []

    def recorded(steps: Generator[Any, Any, Any]) -> None:
        result = None
        while True:
            taken.append(steps.send(result))
            result = Failed(UNAVAILABLE) if isinstance(taken[-1], Call) else None

    with pytest.raises(ServiceError, match="no server answers"):
        recorded(Caller("here:1", 10_000).model(math.inf))
    delays = [step.seconds for step in taken if isinstance(step, Sleep)]
    assert len([step for step in taken if isinstance(step, Call)]) == calls.ATTEMPTS
    assert len(delays) == calls.ATTEMPTS - 1
    for attempt, delay in enumerate(delays):
        full = min(calls.LONGEST_DELAY_S, calls.FIRST_DELAY_S * 2**attempt)
        assert full / 2 <= delay <= full
    assert taken[0].timeout is None  # no limit

    taken.clear()
    with pytest.raises(ServiceError, match="no server answers"):
        recorded(Caller("here:1", 10_000).model(0.01))  # no time for a second try
    assert len(taken) == 1 and 0 < taken[0].timeout <= 0.01


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (UNAVAILABLE, grpc.StatusCode.OK)]
)
def test_no_other_code_is_retried(code: grpc.StatusCode) -> None:
    with pytest.raises((ServiceError, InvalidRequest)) as failed:
        drive(Caller("here:1", 10_000).model(1), [Failed(code)])
    assert isinstance(failed.value, InvalidRequest) == (code.name == "INVALID_ARGUMENT")


def reply(
    labels: int, scores: int, classes: int = 10, confidences: int = 0, rejected: int = 0
) -> digits_pb2.ClassifyResponse:
    return digits_pb2.ClassifyResponse(
        labels=[0] * labels,
        scores=[0] * scores,
        classes=classes,
        confidences=[0.5] * confidences,
        rejected=[True] * rejected,
    )


def test_limits_are_asked_once_and_only_for_several_images() -> None:
    caller = Caller("here:1", 2**20)
    model = digits_pb2.GetModelResponse(max_images_per_request=2, max_message_bytes=2**20)
    methods = []
    for labels, results in (
        ([1], [reply(1, 10)]),
        ([1, 2, 3], [model, reply(2, 20), reply(1, 10)]),
        ([1, 2], [reply(2, 20)]),
    ):
        taken, found = drive(caller.classify(images_of(labels), 1), results)
        assert found.scores.shape == (len(labels), 10)
        methods.append([step.method for step in taken])
    assert methods == [["Classify"], ["GetModel", "Classify", "Classify"], ["Classify"]]


def test_a_server_of_old_does_not_know_how_sure_it_is() -> None:
    model = digits_pb2.GetModelResponse(max_images_per_request=2, max_message_bytes=2**20)
    parts = [model, reply(2, 20, 10, 2, 2), reply(1, 10)]  # replaced by an old one on the way
    _, found = drive(Caller("here:1", 2**20).classify(images_of([1, 2, 3]), 1), parts)
    assert found.confidences.dtype == np.float32 and found.rejected.dtype == bool
    np.testing.assert_array_equal(found.confidences, [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(found.rejected, [True, True, False])


@pytest.mark.parametrize(
    "wrong",
    [
        reply(2, 10),
        reply(1, 9),
        reply(0, 0),
        reply(1, 10, 5),
        reply(1, 10, 10, 1, 0),
        reply(1, 10, 10, 0, 1),
        reply(1, 10, 10, 2, 2),
    ],
)
def test_a_reply_of_the_wrong_size_is_not_believed(wrong: digits_pb2.ClassifyResponse) -> None:
    with pytest.raises(ServiceError, match="for 1 images: is it a jaxnn server"):
        drive(Caller("here:1", 10_000).classify(images_of([1]), 1), [wrong])


@given(st.lists(st.integers(0, 92), min_size=1, max_size=20), st.integers(1, 6))
def test_files_are_grouped_in_order_under_both_limits(sizes: list[int], most: int) -> None:
    files = [bytes([index] * size) for index, size in enumerate(sizes)]
    limits = Limits(most, FRAME_BYTES + 100)
    groups = list(calls.grouped(files, limits))
    assert [file for group in groups for file in group] == files
    for group in groups:
        assert 1 <= len(group) <= most
        assert sum(map(len, group)) <= 100
        request = digits_pb2.ClassifyRequest(encoded=digits_pb2.EncodedImages(images=group))
        assert request.ByteSize() <= limits.message_bytes
    with pytest.raises(InvalidRequest, match=f"picture {len(files)} has 101 bytes"):
        list(calls.grouped([*files, bytes(101)], limits))
