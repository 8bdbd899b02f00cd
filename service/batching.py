"""The micro-batcher: which rows of which requests are computed together, and when.

A state machine that knows neither a network, a clock, threads nor what is computed. All calls
come from one thread; between `take` and `complete` a batch may be computed anywhere, and several
may be under way at once. `now` is in seconds of one monotonic clock.

Keys take turns by batch. What decides within a key is in `service.queues`: a more urgent level
goes first, so a lower one waits, without a bound, while the higher one fills every batch; callers
of one level take turns by rows; and one caller's jobs are first come first served.
"""

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from jaxnn.errors import ConfigError, JaxnnError
from service.errors import Expired, InvalidRequest
from service.queues import Job, Queue

TURNS_PER_BATCH = 16  # fewer: longer waits behind many callers; more: more steps a batch


class QueueFull(JaxnnError, RuntimeError):  # noqa: N818 - a state, not a mistake
    """The queue has no room for a request: its caller may send it again later."""

    exit_code = 1

    def __init__(self, rows: int, free: int, limit: int) -> None:
        """Keep the rows of the request, the rows free and the rows that the queue can hold."""
        remedy = "send it again later" if rows <= limit else "send fewer rows at once"
        super().__init__(
            f"the request has {rows} rows and the queue room for {free} of its {limit}: {remedy}"
        )
        self.rows, self.free, self.limit = rows, free, limit


class Batch(NamedTuple):
    """Rows to compute together."""

    key: Any
    parts: list[tuple[Job, int, int]]  # job, start, stop; each job once
    rows: int
    reason: str  # of its release: "full", "idle", "delay" or "deadline"
    oldest_wait: float  # seconds

    def images(self) -> np.ndarray:
        """The rows [rows, ...] in order: a view where one job has them all, else a copy."""
        pieces = [job.images[start:stop] for job, start, stop in self.parts]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def split(self) -> list["Batch"]:
        """One batch for each job, to be computed in its place: one of the jobs made it fail."""
        return [self._replace(parts=[part], rows=part[2] - part[1]) for part in self.parts]


class Batcher:
    """Jobs in, batches out, results back to their jobs."""

    def __init__(
        self, max_batch_size: int, max_queue_size: int, max_queue_delay: float, levels: int = 2
    ) -> None:
        """Start empty.

        Args:
          max_batch_size: rows.
          max_queue_size: rows that may wait; those that are being computed do not count.
          max_queue_delay: seconds that a job may wait for others to fill its batch.
          levels: how many priorities there are.

        Raises:
          ConfigError: one of them is too small, or the delay has no end.
        """
        if min(max_batch_size, max_queue_size, levels) < 1 or not 0 <= max_queue_delay < math.inf:
            raise ConfigError(
                f"batches of {max_batch_size} rows, a queue of {max_queue_size} rows, a delay of "
                f"{max_queue_delay} s and {levels} levels: expected at least 1, 1, 0 and 1"
            )
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self.max_queue_delay = max_queue_delay
        self.levels = levels
        self.rows = 0  # queued, not yet taken
        self._turn = max(1, max_batch_size // TURNS_PER_BATCH)  # rows
        self._queues: OrderedDict[Any, Queue] = OrderedDict()  # next turn first; none empty
        self._closed: BaseException | None = None

    def submit(self, job: Job, now: float) -> None:
        """Queue a new job; one whose deadline has passed fails at once with Expired.

        Raises:
          QueueFull: its rows do not fit.
          InvalidRequest: it has no rows, or no such priority.
        """
        if job.rows < 1 or not 0 <= job.priority < self.levels:
            raise InvalidRequest(
                f"the request has {job.rows} rows and priority {job.priority}, expected at least "
                f"1 row and a priority of 0 to {self.levels - 1}"
            )
        job.submitted_at = now
        if self._closed is not None:
            job.end(self._closed)
            return
        if job.deadline <= now:
            job.end(_expired(job, now))
            return
        if self.rows + job.rows > self.max_queue_size:
            self.expire(now)  # may make room
            if self.rows + job.rows > self.max_queue_size:
                raise QueueFull(job.rows, self.max_queue_size - self.rows, self.max_queue_size)
        queue = self._queues.get(job.key)
        if queue is None:
            queue = self._queues[job.key] = Queue(self.levels, self._turn)
        queue.put(job)
        self.rows += job.rows

    def take(self, now: float, idle: bool = True) -> Batch | None:
        """The next batch for a device, or None where it should wait for more rows.

        A key's rows are released when they fill a batch ("full"); or else at once where there is
        no `max_queue_delay` ("idle"), when the oldest job has waited that long ("delay"), or that
        long before a deadline, lest a job expire beside an idle device ("deadline"). Of the keys
        that are ready, the one with the most urgent job is next.

        First, jobs whose deadline has passed fail with Expired.

        Args:
          now: the time.
          idle: whether the device has nothing to do; else only a full batch is worth taking ahead.
        """
        self.expire(now)
        chosen = None
        for queue in self._queues.values():
            since, why = self._release(queue)
            if not idle and why != "full":
                continue
            if since <= now and (chosen is None or queue.level() < chosen.level()):
                chosen, reason = queue, why
        if chosen is None:
            return None
        before, oldest = chosen.rows, now
        parts = chosen.fill(self.max_batch_size)
        rows = before - chosen.rows
        for job, start, _ in parts:
            if start == 0:
                job.started_at = now
                job.largest_batch = rows  # only a full one cuts a job, so later ones are no larger
            job.batches += 1
            if job.submitted_at < oldest:
                oldest = job.submitted_at
        self.rows -= rows
        key = job.key
        if chosen.jobs:
            self._queues.move_to_end(key)
        else:
            del self._queues[key]
        return Batch(key, parts, rows, reason, now - oldest)

    def wake_at(self) -> float | None:
        """From when on `take` gives something if nothing else happens; None for an empty queue."""
        return min((self._release(queue)[0] for queue in self._queues.values()), default=None)

    def expire(self, now: float) -> None:
        """Fail the queued jobs whose deadline has passed; what is being computed goes on.

        `take` begins with it: call it only while a device is busy for long.
        """
        for queue in list(self._queues.values()):  # a copy, since on_done may submit
            while (job := queue.pressing()) is not None and job.deadline <= now:
                self._withdraw(job)
                job.end(_expired(job, now))

    def drop(self, job: Job) -> None:
        """Forget a job whose caller is gone: it ends without `on_done`.

        Its queued rows leave the queue, and what is being computed of it goes nowhere.
        """
        self._withdraw(job)
        job.over = True

    def complete(self, batch: Batch, results: np.ndarray) -> None:
        """Hand out a batch's results [rows, ...]: each batch is to be completed or failed once.

        A job that lies in one batch gets a view of them.

        Raises:
          ValueError: there is not one result for each row; the batch is then not completed.
        """
        if len(results) != batch.rows:
            raise ValueError(f"{len(results)} results came for a batch of {batch.rows} rows")
        offset = 0
        for job, start, stop in batch.parts:
            piece = results[offset : offset + stop - start]
            offset += stop - start
            if job.over:
                continue
            if len(piece) == job.rows:
                job.result = piece
            else:
                if job.result is None:
                    job.result = np.empty((job.rows, *results.shape[1:]), results.dtype)
                job.result[start:stop] = piece
            job.answered += stop - start
            if job.answered == job.rows:
                job.end()

    def fail(self, batch: Batch, error: BaseException) -> None:
        """End every job that has rows in the batch with the error, its queued rows too."""
        for job, _, _ in batch.parts:
            self._withdraw(job)
            job.end(error)

    def close(self, error: BaseException) -> None:
        """Fail with the error whatever is queued or comes later; what is being computed goes on."""
        self._closed = error
        for job in [job for queue in self._queues.values() for job in queue.jobs]:
            self._withdraw(job)
            job.end(error)

    def _release(self, queue: Queue) -> tuple[float, str]:
        """From when on the rows of a queue are to be computed, and why."""
        delay = self.max_queue_delay
        if queue.rows >= self.max_batch_size:
            return queue.oldest(), "full"
        if not delay:
            return queue.oldest(), "idle"
        pressing = queue.pressing()
        deadline = math.inf if pressing is None else pressing.deadline
        return min((queue.oldest() + delay, "delay"), (deadline - delay, "deadline"))

    def _withdraw(self, job: Job) -> None:
        """Take a job's rows out of the queue, if any are there."""
        queue = self._queues.get(job.key)
        if queue is None or job not in queue.jobs:
            return
        self.rows -= job.rows - job.taken
        queue.remove(job)
        if not queue.jobs:
            del self._queues[job.key]


def _expired(job: Job, now: float) -> Expired:
    return Expired(
        f"the deadline passed {now - job.deadline:.3f} s ago with {job.rows - job.taken} of "
        f"{job.rows} rows still queued: allow more time, or send less at once"
    )
