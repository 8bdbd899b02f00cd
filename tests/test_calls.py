"""What the clients decide, without a connection: limits, retries, groups, distrust."""

import math
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.errors import JaxnnError
from service.calling import parts, steps
from service.calling.calls import Caller
from service.calling.parts import Limits
from service.calling.steps import Call, Sleep
from service.config import FRAME_BYTES
from service.errors import InvalidRequest, ServiceError
from service.pb import digits_pb2

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


class Failed(grpc.RpcError):
    """An error as gRPC hands it out."""

    def __init__(self, code: grpc.StatusCode, hint: str | bytes | None = None) -> None:
        super().__init__()
        self._code = code
        self._hint = hint

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "why"

    def trailing_metadata(self) -> Any:
        more = ("grpc-retry-pushback-ms", self._hint)
        return None if self._hint is None else (("other", "1"), more)


def images_of(labels: Any) -> np.ndarray:
    images = np.zeros((len(labels), 784), np.uint8)
    images[:, 0] = labels
    return images


def drive(steps: Generator[Any, Any, Any], results: list[Any]) -> tuple[list[Any], Any]:
    """Performs calls by handing out the results in turn; the steps taken and what was returned."""
    taken, result = [], None
    try:
        while True:
            taken.append(steps.send(result))
            result = results.pop(0) if isinstance(taken[-1], Call) else None
    except StopIteration as end:
        return taken, end.value


def refused(error: Failed, timeout: float) -> list[Any]:
    """The steps of a call that fails in the same way for ever."""
    taken: list[Any] = []
    walk = Caller("here:1", 10_000).model("", "", timeout)
    result = None
    with pytest.raises(JaxnnError):
        while True:
            taken.append(walk.send(result))
            result = error if isinstance(taken[-1], Call) else None
    return taken


def test_retries_back_off_with_jitter_and_end() -> None:
    taken = refused(Failed(UNAVAILABLE), math.inf)
    delays = [step.seconds for step in taken if isinstance(step, Sleep)]
    assert [type(step) for step in taken] == [Call, Sleep] * (steps.ATTEMPTS - 1) + [Call]
    for attempt, delay in enumerate(delays):
        full = min(steps.LONGEST_DELAY_S, steps.FIRST_DELAY_S * 2**attempt)
        assert full / 2 <= delay <= full
    assert len({delay / steps.FIRST_DELAY_S / 2**i for i, delay in enumerate(delays[:4])}) == 4
    assert taken[0].timeout is None  # no limit

    (only,) = refused(Failed(UNAVAILABLE), 0.01)  # no time for a second try
    assert 0 < only.timeout <= 0.01


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED])
@pytest.mark.parametrize("hint", ["700", b"700", "0"])
def test_the_hint_is_the_least_that_is_waited(code: grpc.StatusCode, hint: str | bytes) -> None:
    delays = [step.seconds for step in refused(Failed(code, hint), 60)[1::2]]
    assert len(delays) == steps.ATTEMPTS - 1
    least = int(hint) / 1000
    assert all(least < delay <= least + steps.LONGEST_DELAY_S for delay in delays)
    assert len(set(delays)) == len(delays)  # not all clients at once
    assert len(refused(Failed(code, "60000"), 60)) == 1  # not beyond the deadline


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED])
@pytest.mark.parametrize("hint", ["-1", "", "soon", "1.5", "+3", "\u0663", "1" * 5000, b"\xff"])
def test_any_other_hint_is_a_no(code: grpc.StatusCode, hint: str | bytes) -> None:
    assert len(refused(Failed(code, hint), math.inf)) == 1


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (UNAVAILABLE, grpc.StatusCode.OK)]
)
def test_no_other_code_is_retried(code: grpc.StatusCode) -> None:
    assert len(refused(Failed(code), 1)) == 1
    if code is not EXHAUSTED:
        assert len(refused(Failed(code, "1"), 1)) == 1


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
        taken, found = drive(caller.classify(images_of(labels), {}, 1, in_flight=1), results)
        assert found.scores.shape == (len(labels), 10)
        methods.append([step.method for step in taken])
    assert methods == [["Classify"], ["GetModel", "Classify", "Classify"], ["Classify"]]


def test_a_server_of_old_does_not_know_how_sure_it_is() -> None:
    model = digits_pb2.GetModelResponse(max_images_per_request=2, max_message_bytes=2**20)
    replies = [model, reply(2, 20, 10, 2, 2), reply(1, 10)]  # replaced by an old one on the way
    _, found = drive(
        Caller("here:1", 2**20).classify(images_of([1, 2, 3]), {}, 1, in_flight=1), replies
    )
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
        drive(Caller("here:1", 10_000).classify(images_of([1]), {}, 1), [wrong])


@given(st.lists(st.integers(0, 92), min_size=1, max_size=20), st.integers(1, 6))
def test_files_are_grouped_in_order_under_both_limits(sizes: list[int], most: int) -> None:
    files = [bytes([index] * size) for index, size in enumerate(sizes)]
    limits = Limits(most, FRAME_BYTES + 100)
    groups = list(parts.grouped(files, limits, "picture"))
    assert [file for group in groups for file in group] == files
    for group in groups:
        assert 1 <= len(group) <= most
        assert sum(map(len, group)) <= 100
        request = digits_pb2.ClassifyRequest(encoded=digits_pb2.EncodedImages(images=group))
        assert request.ByteSize() <= limits.message_bytes
    with pytest.raises(InvalidRequest, match=f"picture {len(files)} has 101 bytes"):
        list(parts.grouped([*files, bytes(101)], limits, "picture"))


def test_a_memory_mapped_array_is_read_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((20_000, 28, 28), np.uint8))
    images = np.load(path, mmap_mode="r")
    model = digits_pb2.GetModelResponse(max_images_per_request=1000, max_message_bytes=2**20)
    replies = [model, *[reply(1000, 10_000)] * 20]
    tracemalloc.start()
    walk = Caller("here:1", 2**20).classify(images, {}, 10, in_flight=1)
    sizes, result = [], None
    try:
        while True:
            step = walk.send(result)
            sizes.append(len(step.request.pixels) if step.method == "Classify" else 0)
            result = replies.pop(0)
    except StopIteration as end:
        assert len(end.value.labels) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [0] + [784_000] * 20
    assert peak < 5 * 2**20  # of 15 MiB; the answers take 1
