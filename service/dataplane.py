"""The one way from images to an answer, the same for every API and transport.

A request that finds nothing waiting and is not large is computed at once, on the event loop's own
thread: handing it to another takes longer than most computing. All others go through the
micro-batcher and one compute thread; while that computes one batch, the next gathers.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np

from service import predictor
from service.batching import Batch, Batcher, Job, QueueFull
from service.config import ServiceConfig
from service.errors import Expired, Overloaded
from service.preparing import Unprepared
from service.registry import Registry
from service.repository import ServedModel
from service.rpc import Call
from service.telemetry import Telemetry

# Batches that the compute thread has at once: the second, a full one, so that the thread need not
# wait for the event loop, which may be busy with a large message.
AHEAD = 2
REJECTION_WORK = 8  # images without the test for non-digits take as long as one with it
RETRY_AFTER = 0.01, 5.0  # seconds: least and most that a refused caller is told to wait
_LEVELS = (1, 0, 2)  # of the queue, by a request's priority: none, high, low

_Key = tuple[ServedModel, bool]  # with rejection or not: what may share a batch


class Answer(NamedTuple):
    """What a model says about N images, and which model it was."""

    labels: np.ndarray  # int64 [N] the class of the largest score, the lowest among equals
    scores: np.ndarray  # float32 [N, C] in [0, 1]
    confidences: np.ndarray  # float32 [N] the calibrated chance that the label is right, 0 to 1
    rejected: np.ndarray  # bool [N]: too unlike the digits of training to be trusted
    model: ServedModel


class DataPlane:
    """Answers requests on its event loop; owns the queue and decides what runs when."""

    def __init__(
        self,
        registry: Registry,
        config: ServiceConfig,
        telemetry: Telemetry,
        compute: Executor,
        decode: Executor,
    ) -> None:
        """Hold what every request needs; each executor has one thread and belongs to the caller."""
        self.registry = registry
        self.telemetry = telemetry
        telemetry.gauge("queue_rows", lambda: self._batcher.rows)
        self._delay = config.max_queue_delay_ms / 1000
        self._batcher = Batcher(
            config.max_batch_size, config.max_queue_size, self._delay, len(_LEVELS)
        )
        self._inline, self._most = config.inline_images, config.max_batch_size
        self._compute, self._decode = compute, decode
        self._running = 0  # batches that the compute thread has
        self._again = deque[Batch]()  # parts of one that failed
        self._report = 0, "", 0.0, 0.0  # of the last batch: images, why, assembly and compute
        self._timer: asyncio.TimerHandle | None = None
        self._seconds_per_image = 1e-6  # of late
        self._pictures_free = config.max_picture_bytes

    async def classify(
        self,
        call: Call,
        images: np.ndarray,
        model: ServedModel,
        *,
        rejection: bool = True,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Answer:
        """Labels and scores of images uint8 [N, n_in], and how far they can be trusted.

        Args:
          call: which this is part of; its rows, model and timings are written down.
          images: N from 1, or as many rows of speech; kept until the answer is there.
          model: the one to answer, of `registry.choose`.
          rejection: whether to find out if the images are digits at all.
          priority: 0 for the caller's default, 1 to go first, 2 to go last.
          timeout: seconds to wait in the queue at most; the caller's deadline holds besides.

        Raises:
          Overloaded: there is no room in the queue.
          Expired: its time was over before its turn came; nothing was computed.
        """
        call.model, call.version, call.rows = model.name, model.version, len(images)
        if call.charge:
            call.charge(len(images))
        rejection = rejection and model.file.familiar is not None
        deadline, now = call.deadline(), time.monotonic()
        if timeout is not None:
            deadline = min(deadline, now + timeout)
        work = len(images) * (model.weight - 1 + (REJECTION_WORK if rejection else 1))
        if work <= self._inline and not (self._running or self._batcher.rows or self._delay):
            if deadline <= now:
                self.telemetry.count("expired")
                raise Expired("the request's time was over when it came: give it more")
            found = self._at_once(call, model, images, rejection)
        else:
            found = await self._queued((model, rejection), images, deadline, priority, call)
        return Answer(
            predictor.labels(found),
            predictor.scores(found),
            predictor.confidence(found),
            predictor.rejected(found),
            model,
        )

    async def prepared(self, call: Call, given: Unprepared) -> np.ndarray:
        """Rows uint8 [N, n_in] from files or sounds, N at least 1.

        Args:
          call: which this is part of; the time is written down.
          given: what is to be prepared, and how.

        Raises:
          InvalidRequest: a file cannot be read, or holds no digit.
          Overloaded: too many bytes of files wait already.
        """
        size, began = given.size, time.monotonic()
        if size > self._pictures_free:
            self.telemetry.count("refused", "pictures")
            raise Overloaded(
                f"pictures or recordings of {size} bytes, but {self._pictures_free} bytes are free "
                "for those that wait: send them again a little later",
                1.0,
            )
        self._pictures_free -= size
        run, decode = asyncio.get_running_loop().run_in_executor, self._decode
        try:
            # One at a time, so that calls take turns and a cancelled one stops early.
            rows = [
                await run(decode, given.prepare, part, f"{given.what} {index}")
                for index, part in enumerate(given.parts)
            ]
        finally:
            self._pictures_free += size
        call.prepare = time.monotonic() - began
        return np.stack(rows)

    def _at_once(
        self, call: Call, model: ServedModel, images: np.ndarray, rejection: bool
    ) -> np.ndarray:
        """The answer to images [N, n_in], float32 [N, C + 3], computed here and now."""
        found, then = [], time.monotonic()
        for start in range(0, len(images), self._most):
            part = images[start : start + self._most]
            found.append(model.predictor(part, rejection))
            began, then = then, time.monotonic()
            call.compute, call.batch_rows, call.released = then - began, len(part), "idle"
            self.telemetry.batch(model.name, model.version, len(part), "idle", 0.0, call.compute)
        return found[0] if len(found) == 1 else np.concatenate(found)

    async def _queued(
        self, key: _Key, images: np.ndarray, deadline: float, priority: int, call: Call
    ) -> np.ndarray:
        """The answer to images [N, n_in], float32 [N, C + 3], when their turn has come."""
        future = asyncio.get_running_loop().create_future()

        def done(job: Job) -> None:
            if not job.error:  # else it was not computed, or not to its end
                call.batch_rows, call.released, call.assembly, call.compute = self._report
            if not future.done():
                future.set_result(None)

        job = Job(
            key,
            images,
            on_done=done,
            deadline=deadline,
            priority=_LEVELS[priority or call.priority],
            caller=call.caller or call.wire.peer(),
        )
        try:
            self._batcher.submit(job, time.monotonic())
        except QueueFull as full:
            seconds = self._batcher.rows * self._seconds_per_image
            self.telemetry.count("refused", "queue full")
            raise Overloaded(str(full), min(max(seconds, RETRY_AFTER[0]), RETRY_AFTER[1])) from None
        self._pump()
        try:
            await future
        except asyncio.CancelledError:  # the caller is gone
            self._batcher.drop(job)
            self.telemetry.count("cancelled")
            call.batch_rows = 0  # it may have been computed just now, and answers nobody
            raise
        if job.error:
            if isinstance(job.error, Expired):
                self.telemetry.count("expired")
            raise job.error
        call.queue = job.started_at - job.submitted_at
        assert job.result is not None  # noqa: S101 - for the type checker
        return job.result

    def _pump(self) -> None:
        """Gives the compute thread what it can have; else sees to it that it comes."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        loop, now = asyncio.get_running_loop(), time.monotonic()
        while self._running < AHEAD:
            batch = self._next(now)
            if batch is None:
                break
            self._running += 1
            running = loop.run_in_executor(self._compute, _computed, batch)
            running.add_done_callback(partial(self._finish, batch))
        if not self._running and (wake := self._batcher.wake_at()) is not None:
            self._timer = loop.call_later(max(0.0, wake - now), self._pump)

    def _next(self, now: float) -> Batch | None:
        return self._again.popleft() if self._again else self._batcher.take(now, not self._running)

    def _finish(
        self, batch: Batch, done: "asyncio.Future[tuple[np.ndarray, float, float]]"
    ) -> None:
        """Hands a batch's results to those who wait for them, and starts the next."""
        self._running -= 1
        model, _ = batch.key
        error = done.exception()
        if error and len(batch.parts) > 1:
            self._again.extend(batch.split())  # each alone: what is wrong with one harms no other
        elif error:
            self._batcher.fail(batch, error)
        else:
            results, assembly, compute = done.result()
            self._seconds_per_image += (compute / batch.rows - self._seconds_per_image) / 8
            self._report = batch.rows, batch.reason, assembly, compute
            self._batcher.complete(batch, results)
            self.telemetry.batch(model.name, model.version, *self._report)
        self._pump()


def _computed(batch: Batch) -> tuple[np.ndarray, float, float]:
    """A batch's results, and the seconds that putting it together and computing it took."""
    began = time.monotonic()
    images = batch.images()
    ready = time.monotonic()
    model, rejection = batch.key
    results = model.predictor(images, rejection)
    return results, ready - began, time.monotonic() - ready
