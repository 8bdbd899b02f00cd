"""Jobs, and the queue of those that may share a batch: levels, and turns between callers.

A batch is filled from the most urgent level down. Within a level the callers stand in a ring and
take turns; within its turn a caller's jobs are served first come first served, and a job is cut
only by the end of the batch.

Turns are deficit round robin, with debt: a turn lets a caller begin jobs until it has had its
rows; what the last job takes above them is paid for by sitting out turns. So as long as two
callers of a level have rows queued, neither gets more than the other by two batches and two turns
of rows. One that has none is forgotten, with its debt.

Source of the turns: Shreedhar and Varghese, Efficient Fair Queuing Using Deficit Round-Robin,
1996; with debt in place of credit they are known as surplus round robin.
"""

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np


class Job:
    """Rows of one request, what became of them, and facts for statistics."""

    __slots__ = (  # one is made for every request
        *("key", "images", "rows", "deadline", "priority", "caller", "on_done"),
        *("result", "error", "submitted_at", "started_at", "batches", "largest_batch"),
        *("report", "taken", "answered", "over"),
    )

    def __init__(
        self,
        key: Any,
        images: np.ndarray,
        deadline: float = math.inf,
        priority: int = 0,
        caller: Hashable = None,
        on_done: Callable[["Job"], None] = lambda job: None,
    ) -> None:
        """Describe a job; `service.batching.Batcher.submit` queues it.

        Args:
          key: hashable; only jobs of equal keys share a batch.
          images: [N, ...] with N of 1 or more.
          deadline: seconds; from then on none of its rows is taken.
          priority: 0 is the most urgent level.
          caller: whose job it is.
          on_done: called once with the job when `result` or `error` is there, but not after
            `Batcher.drop`. It may call the batcher, and must not raise.
        """
        self.key = key
        self.images = images
        self.rows = len(images)
        self.deadline = deadline
        self.priority = priority
        self.caller = caller
        self.on_done = on_done
        self.result: np.ndarray | None = None  # [N, ...]
        self.error: BaseException | None = None
        self.submitted_at = math.nan  # seconds
        self.started_at = math.nan  # seconds; when its first rows were taken
        self.batches = 0  # that its rows were spread over
        self.largest_batch = 0  # rows of the largest of them, others' included
        self.report: Any = None  # of whoever computes to whoever waits; not looked at here
        self.taken = 0  # rows that have left the queue for a batch
        self.answered = 0  # rows whose results are here
        self.over = False  # done, failed or dropped

    def end(self, error: BaseException | None = None) -> None:
        """Call `on_done`, unless the job is over already."""
        if self.over:
            return
        self.over = True
        if error is not None:
            self.error, self.result = error, None
        self.on_done(self)


class Queue:
    """The jobs of one key that have rows to be taken; each costs O(log jobs)."""

    __slots__ = ("_deadlines", "_rings", "_turn", "jobs", "rows")
    _numbers = itertools.count()  # settle equal deadlines, since jobs have no order

    def __init__(self, levels: int, turn: int) -> None:
        """Start empty, with so many levels and rows a turn."""
        self.rows = 0  # not yet taken
        self.jobs: OrderedDict[Job, None] = OrderedDict()  # by arrival
        self._turn = turn
        self._rings: list[OrderedDict[Hashable, _Line]] = [OrderedDict() for _ in range(levels)]
        self._deadlines: list[tuple[float, int, Job]] = []  # heap; some jobs may have left

    def put(self, job: Job) -> None:
        """Add a job to the end of its caller's line."""
        ring = self._rings[job.priority]
        line = ring.get(job.caller)
        if line is None:
            line = ring[job.caller] = _Line(self._turn)
        line.jobs[job] = self.jobs[job] = None
        self.rows += job.rows
        if job.deadline < math.inf:
            heapq.heappush(self._deadlines, (job.deadline, next(self._numbers), job))

    def remove(self, job: Job) -> None:
        """Take a job out, with the rows that it still has here."""
        self.rows -= job.rows - job.taken
        del self.jobs[job]
        ring = self._rings[job.priority]
        line = ring[job.caller]
        del line.jobs[job]
        if not line.jobs and line.balance > 0:  # a debt is not forgotten because a line is empty
            del ring[job.caller]
        if len(self._deadlines) > 2 * len(self.jobs):  # lest it grow with jobs that have left
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.jobs]
            heapq.heapify(self._deadlines)

    def fill(self, room: int) -> list[tuple[Job, int, int]]:
        """Take up to so many rows: (job, start, stop) of each job that has a part in them."""
        parts = []
        for ring in self._rings:
            while room and ring:
                caller, line = next(iter(ring.items()))
                if line.balance <= 0:
                    line.balance += self._turn
                    ring.move_to_end(caller)
                    continue
                if not line.jobs:
                    del ring[caller]
                    continue
                job = next(iter(line.jobs))
                start = job.taken
                stop = min(job.rows, start + room)
                parts.append((job, start, stop))
                job.taken = stop
                self.rows -= stop - start
                room -= stop - start
                line.balance -= stop - start
                if stop == job.rows:
                    self.remove(job)
        return parts

    def level(self) -> int:
        """The most urgent level that has jobs; the queue is not empty."""
        levels = enumerate(self._rings)
        return next(level for level, ring in levels if any(line.jobs for line in ring.values()))

    def oldest(self) -> float:
        """When the oldest job came, in seconds; the queue is not empty."""
        return next(iter(self.jobs)).submitted_at

    def pressing(self) -> Job | None:
        """The job whose deadline is the first, or None where no job has one."""
        while self._deadlines:
            job = self._deadlines[0][2]
            if job in self.jobs:
                return job
            heapq.heappop(self._deadlines)
        return None


class _Line:
    """What one caller has queued in one level."""

    __slots__ = ("balance", "jobs")

    def __init__(self, balance: int) -> None:
        self.balance = balance  # rows left of its turn; below 0 a debt
        self.jobs: OrderedDict[Job, None] = OrderedDict()  # by arrival
