"""What is computed, when, and what never is."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from serving import LIMIT_S, first_pixel, images_of, stub_model

from service.config import ServiceConfig
from service.dataplane import DataPlane
from service.errors import Expired, InvalidRequest, Overloaded
from service.preparing import pictures
from service.registry import Registry
from service.rpc import Call
from service.telemetry import Telemetry


class Wire:
    """A call from nowhere, with so many seconds left."""

    def __init__(self, left: float | None = None) -> None:
        self.left = left

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def time_remaining(self) -> float | None:
        return self.left

    def peer(self) -> str:
        return "test"


def new_call(left: float | None = None) -> Call:
    return Call("v1", "Classify", Wire(left))


class Device:
    """Labels by the first pixel; remembers its batches, and computes when it may."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.entered, self.free = threading.Semaphore(0), threading.Event()
        self.free.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.free.wait(LIMIT_S)
        self.batches.append(images[:, 0].tolist())
        self.threads.add(threading.current_thread().name)
        if 66 in images[:, 0]:
            raise ZeroDivisionError("a batch that cannot be computed")
        return first_pixel(images)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=LIMIT_S)


def run(
    device: Device, scenario: Callable[[DataPlane, Telemetry], Awaitable[None]], **settings: Any
) -> None:
    async def main() -> None:
        config = ServiceConfig(**{"inline_images": 0, **settings})
        with ThreadPoolExecutor(1, "compute") as compute, ThreadPoolExecutor(1) as decode:
            registry = Registry(config, lambda _: stub_model(device))
            await registry.refresh()
            telemetry = Telemetry()
            plane = DataPlane(registry, config, telemetry, compute, decode)
            async with asyncio.timeout(LIMIT_S):
                await scenario(plane, telemetry)

    asyncio.run(main())


def counted(telemetry: Telemetry, name: str) -> float:
    return sum(value for found, _, value in telemetry.snapshot()["counters"] if found == name)


def ask(plane: DataPlane, *labels: int, left: float | None = None, **options: Any) -> asyncio.Task:
    return asyncio.create_task(
        plane.classify(new_call(left), images_of(labels), plane.registry.choose(""), **options)
    )


def test_small_requests_are_computed_on_the_loop_and_large_ones_in_the_thread() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        call = new_call()
        answer = await plane.classify(call, images_of([3, 4]), plane.registry.choose(""))
        assert answer.labels.tolist() == [3, 4] and answer.model.name == "stub"
        assert device.threads == {"MainThread"}
        assert (call.rows, call.batch_rows, call.released) == (2, 2, "idle")
        assert 0 < call.compute < LIMIT_S and call.queue == 0
        call = new_call()
        assert (
            await plane.classify(call, images_of([1, 2, 3]), plane.registry.choose(""))
        ).labels.tolist() == [1, 2, 3]
        assert device.threads == {"MainThread", "compute_0"}
        assert (call.batch_rows, call.released) == (3, "idle")
        assert counted(telemetry, "batches") == 2
        (sizes,) = telemetry.batches.values()
        assert {rows: of.count for rows, of in sizes.items()} == {2: 1, 3: 1}
        assert (sizes[2].assembly, sizes[3].compute) == (0, call.compute)

    run(device, scenario, inline_images=2)


def test_requests_that_come_while_a_batch_computes_share_the_next() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with device.held():
            first = ask(plane, 1)
            await device.busy()
            others = [ask(plane, label, label) for label in (2, 3, 4)]
            await asyncio.sleep(0)
        assert (await first).labels.tolist() == [1]
        for task, label in zip(others, (2, 3, 4), strict=True):
            assert (await task).labels.tolist() == [label, label]
        assert device.batches == [[1], [2, 2, 3, 3, 4, 4]]

    run(device, scenario)


@pytest.mark.parametrize("inline", [0, 100])
def test_a_large_request_is_cut_and_joined(inline: int) -> None:
    device = Device()
    labels = [n % 10 for n in range(25)]

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        assert (await ask(plane, *labels)).labels.tolist() == labels
        assert [len(batch) for batch in device.batches] == [10, 10, 5]

    run(device, scenario, max_batch_size=10, inline_images=inline)


def test_a_full_queue_refuses_exactly_the_surplus() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with device.held():
            first = ask(plane, 1)
            await device.busy()
            tasks = [ask(plane, 2, 3) for _ in range(10)]
            await asyncio.sleep(0.01)
            assert sum(task.done() for task in tasks) == 6  # room for 8 images, 4 requests
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Overloaded)]
        assert len(refused) == 6 and len(results) == 11
        assert "2 rows and the queue room for 0 of its 8" in str(refused[0])
        assert 0.01 <= refused[0].retry_after <= 5
        assert counted(telemetry, "refused") == 6
        assert sum(map(len, device.batches)) == 9

    run(device, scenario, max_queue_size=8, max_images_per_request=8)


@pytest.mark.parametrize("inline", [0, 4])
def test_expired_requests_never_compute(inline: int) -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with pytest.raises(Expired):
            await ask(plane, 9, left=0.0)
        with device.held():
            first = ask(plane, *[1] * 5)
            await device.busy()
            late = [ask(plane, 7, left=0.05), ask(plane, 8, timeout=0.05), ask(plane, 8, left=-1.0)]
            good = ask(plane, 2, left=LIMIT_S, timeout=LIMIT_S)
            await asyncio.sleep(0.1)
        for task in late:
            with pytest.raises(Expired):
                await task
        await asyncio.gather(first, good)
        assert device.batches == [[1] * 5, [2]]
        assert counted(telemetry, "expired") == 4

    run(device, scenario, inline_images=inline)


def test_cancelled_requests_never_compute_and_leave_room() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with device.held():
            first = ask(plane, 1)
            await device.busy()
            gone = ask(plane, *[7] * 8)
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            good = ask(plane, *[2] * 8)
            await asyncio.sleep(0)
        await asyncio.gather(first, good)
        assert device.batches == [[1], [2] * 8]
        assert counted(telemetry, "cancelled") == 1

    run(device, scenario, max_queue_size=8, max_images_per_request=8)


def test_a_batch_that_fails_harms_no_neighbour() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with device.held():
            first = ask(plane, 1)
            await device.busy()
            bad, good = ask(plane, 66), ask(plane, 2, 3)
            await asyncio.sleep(0)
        await first
        with pytest.raises(ZeroDivisionError):
            await bad
        assert (await good).labels.tolist() == [2, 3]
        assert (await ask(plane, 4)).labels.tolist() == [4]

    run(device, scenario)


def test_urgent_requests_go_first() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with device.held():
            first = ask(plane, 1)
            await device.busy()
            ahead = ask(plane, 9, priority=2)  # a full batch, which the thread has already
            tasks = [ask(plane, 2 * priority, priority=priority) for priority in (2, 0, 1)]
            await asyncio.sleep(0)
        await asyncio.gather(first, ahead, *tasks)
        assert device.batches == [[1], [9], [2], [0], [4]]

    run(device, scenario, max_batch_size=1)


def test_a_delay_gathers_a_batch_and_a_full_one_does_not_wait() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        calls = [new_call(), new_call()]
        tasks = [
            asyncio.create_task(plane.classify(call, images_of([5]), plane.registry.choose("")))
            for call in calls
        ]
        await asyncio.gather(*tasks)
        assert device.batches == [[5, 5]]
        assert [call.released for call in calls] == ["delay", "delay"]
        assert all(call.queue >= 0.05 for call in calls)
        call = new_call()
        await plane.classify(call, images_of([6, 7, 8]), plane.registry.choose(""))
        assert call.released == "full"

    run(device, scenario, max_queue_delay_ms=50, max_batch_size=3, inline_images=9)


def test_a_caller_is_charged_for_its_images_before_they_are_computed() -> None:
    device = Device()

    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        call, charged = new_call(), list[int]()

        def charge(images: int) -> None:
            charged.append(images)
            raise Overloaded("too many", 1.0)

        call.charge = charge
        with pytest.raises(Overloaded):
            await plane.classify(call, images_of([1, 2]), plane.registry.choose(""))
        assert charged == [2] and not device.batches

    run(device, scenario)


def test_pictures_that_wait_are_bounded_in_bytes() -> None:
    async def scenario(plane: DataPlane, telemetry: Telemetry) -> None:
        with pytest.raises(
            Overloaded, match="pictures or recordings of 101 bytes, but 100 bytes are free"
        ):
            await plane.prepared(new_call(), pictures([b"a" * 50, b"b" * 51], "picture"))
        for _ in range(2):  # what was refused has given its room back
            with pytest.raises(InvalidRequest, match="picture 0 is not a whole PNG"):
                await plane.prepared(new_call(), pictures([b"a" * 100], "picture"))

    run(Device(), scenario, max_picture_bytes=100)
