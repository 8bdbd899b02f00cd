"""The micro-batcher: every rule alone, then all of them under random calls against a plain model.

No test waits: time is a number that the tests hand in. Set JAXNN_SOAK for a long random run.
"""

import os
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jaxnn.errors import ConfigError
from service.batching import Batch, Batcher, Job, QueueFull
from service.errors import Expired, InvalidRequest, Stopping


def rows(first: int, count: int) -> np.ndarray:
    """Images [count, 2] that say which they are."""
    return np.stack([np.arange(first, first + count), np.zeros(count, int)], axis=1)


def answers(images: np.ndarray) -> np.ndarray:
    """What stands for computing: float32 [N, 3], another for every image."""
    return (images[:, :1] * 10 + np.arange(3)).astype(np.float32)


class Office:
    """A batcher, its jobs by name, and the order in which they were done."""

    def __init__(self, size: int = 8, queue: int = 100_000, delay: float = 0, levels: int = 2):
        self.batcher = Batcher(size, queue, delay, levels)
        self.jobs: dict[str, Job] = {}
        self.done: list[str] = []
        self._rows = 0

    def submit(self, name: str, count: int = 1, now: float = 0, key: str = "key", **about: Any):
        about.setdefault("caller", name)
        job = Job(key, rows(self._rows, count), on_done=lambda _: self.done.append(name), **about)
        self._rows += count
        self.jobs[name] = job
        self.batcher.submit(job, now)
        return job

    def take(self, now: float = 0) -> Batch:
        batch = self.batcher.take(now)
        assert batch is not None
        return batch

    def names(self, batch: Batch | None) -> list[tuple[str, int]]:
        """Whose rows a batch holds, and how many."""
        known = {job: name for name, job in self.jobs.items()}
        return [(known[job], stop - start) for job, start, stop in batch.parts] if batch else []

    def run(self, now: float = 0) -> list[list[tuple[str, int]]]:
        """Computes until nothing is released; the batches, as `names` has them."""
        found = []
        while batch := self.batcher.take(now):
            found.append(self.names(batch))
            self.batcher.complete(batch, answers(batch.images()))
        return found


def right(job: Job) -> bool:
    """Whether each row has its own answer, and the job is done."""
    return job.error is None and job.over and np.array_equal(job.result, answers(job.images))


# One job


def test_a_job_that_comes_alone_is_computed_at_once_and_never_copied():
    office = Office()
    job = office.submit("a", 3, now=5.0)
    assert office.batcher.rows == 3 and office.batcher.wake_at() <= 5.0
    batch = office.take(5.5)
    assert (batch.key, batch.rows, batch.reason, batch.oldest_wait) == ("key", 3, "idle", 0.5)
    assert np.shares_memory(batch.images(), job.images) and len(batch.images()) == 3
    assert office.batcher.rows == 0 and office.batcher.wake_at() is None
    assert office.batcher.take(5.5) is None and not office.done
    results = answers(batch.images())
    office.batcher.complete(batch, results)
    assert office.done == ["a"] and right(job) and np.shares_memory(job.result, results)
    assert (job.submitted_at, job.started_at, job.batches, job.largest_batch) == (5.0, 5.5, 1, 3)


def test_jobs_that_wait_together_share_a_batch_and_get_their_own_rows():
    office = Office(size=8)
    jobs = [office.submit(name, count) for name, count in (("a", 2), ("b", 1), ("c", 3))]
    batch = office.take()
    assert office.names(batch) == [("a", 2), ("b", 1), ("c", 3)]
    assert np.array_equal(batch.images(), rows(0, 6))
    office.batcher.complete(batch, answers(batch.images()))
    assert all(right(job) and job.largest_batch == 6 for job in jobs)
    assert office.done == ["a", "b", "c"]


@pytest.mark.parametrize("last_first", [False, True])
def test_a_job_larger_than_a_batch_is_cut_and_joined_in_any_order(last_first):
    office = Office(size=8)
    job = office.submit("a", 20)
    batches = [office.take(now) for now in (1.0, 2.0, 3.0)]
    assert [(b.rows, b.reason) for b in batches] == [(8, "full"), (8, "full"), (4, "idle")]
    for batch in batches[:: -1 if last_first else 1]:
        assert not office.done and np.shares_memory(batch.images(), job.images)
        office.batcher.complete(batch, answers(batch.images()))
    assert right(job) and job.result.dtype == np.float32
    assert (job.batches, job.largest_batch, job.started_at) == (3, 8, 1.0)


# When a batch is released


def test_with_a_delay_a_batch_waits_until_it_is_full():
    office = Office(size=4, delay=10)
    office.submit("a", 1, now=1)
    office.submit("b", 2, now=2)
    assert office.batcher.take(10.9) is None and office.batcher.wake_at() == 11
    office.submit("c", 1, now=3)
    assert office.batcher.wake_at() <= 3
    batch = office.take(3)
    assert (batch.rows, batch.reason, batch.oldest_wait) == (4, "full", 2)


def test_with_a_delay_a_batch_waits_no_longer_than_the_oldest_job_may():
    office = Office(size=4, delay=10)
    office.submit("a", 1, now=1)
    office.submit("b", 2, now=2, priority=0)
    office.submit("c", 7, now=4, key="other")
    assert office.take(4).rows == 4  # the other key is full
    assert office.batcher.wake_at() == 11
    batch = office.take(11)
    assert (batch.rows, batch.reason, batch.oldest_wait) == (3, "delay", 10)
    assert office.batcher.wake_at() == 14 and office.batcher.take(13.9) is None
    assert office.names(office.take(14)) == [("c", 3)]


def test_a_job_is_not_held_back_until_its_deadline_is_near():
    office = Office(size=4, delay=10)
    office.submit("a", 1, now=0)
    job = office.submit("b", 1, now=2, deadline=15)
    office.submit("c", 1, now=3, deadline=100)
    assert office.batcher.wake_at() == 5 and office.batcher.take(4.9) is None
    batch = office.take(5)
    assert (batch.rows, batch.reason, batch.oldest_wait) == (3, "deadline", 5)
    office.batcher.complete(batch, answers(batch.images()))
    assert right(job)
    office.submit("d", 1, now=6, deadline=10)  # less than the delay away: at once
    assert office.batcher.wake_at() <= 6 and office.take(6).reason == "deadline"


def test_a_key_that_still_waits_does_not_hold_up_one_that_is_ready():
    office = Office(size=4, delay=10)
    office.submit("a", 1, now=0, key="first")
    office.submit("b", 4, now=1, key="second", priority=1)
    assert office.names(office.take(1)) == [("b", 4)] and office.batcher.take(1) is None


# How much waits


def test_the_queue_is_bounded_in_rows_and_refuses_exactly_the_surplus():
    office = Office(size=4, queue=10)
    for name in "abc":
        office.submit(name, 3)
    with pytest.raises(QueueFull, match="2 rows and the queue room for 1 of its 10: send it again"):
        office.submit("d", 2)
    office.submit("e", 1)
    with pytest.raises(QueueFull, match="room for 0") as caught:
        office.submit("f", 1)
    assert (caught.value.rows, caught.value.free, caught.value.limit) == (1, 0, 10)
    batch = office.take()
    assert office.batcher.rows == 6  # what is being computed does not count
    office.submit("g", 4)
    office.batcher.complete(batch, answers(batch.images()))
    office.run()
    assert sorted(office.done) == list("abceg") and office.batcher.rows == 0
    with pytest.raises(QueueFull, match="send fewer rows at once"):
        office.submit("h", 11)


@pytest.mark.parametrize(
    "about", [{"count": 0}, {"priority": 2}, {"priority": -1}, {"count": 0, "deadline": -1}]
)
def test_a_job_that_makes_no_sense_is_refused(about):
    office = Office()
    with pytest.raises(InvalidRequest, match="expected at least 1 row and a priority of 0 to 1"):
        office.submit("a", **about)
    assert office.batcher.rows == 0 and office.batcher.take(0) is None and not office.done


@pytest.mark.parametrize(
    "sizes", [(0, 1, 0, 1), (1, 0, 0, 1), (1, 1, -1, 1), (1, 1, 0, 0), (1, 1, float("inf"), 1)]
)
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ConfigError, match="expected at least 1, 1, 0 and 1"):
        Batcher(*sizes)


def test_a_caller_that_submits_and_leaves_for_ever_leaves_nothing_behind():
    office = Office(size=1)
    office.submit("stays", 1, deadline=1e9)
    images = []
    for number in range(500):
        job = Job("key", rows(number, 1), 1e6 + number, caller=number)
        images.append(weakref.ref(job.images))
        office.batcher.submit(job, 0)
        office.batcher.drop(job)
    del job
    assert sum(kept() is not None for kept in images) <= 2 and office.batcher.rows == 1
    assert office.run() == [[("stays", 1)]]


# Deadlines


def test_a_job_that_comes_too_late_fails_at_once():
    office = Office(queue=1)
    office.submit("a", 1)
    job = office.submit("b", 1, now=7, deadline=7)  # not QueueFull: there is no use in trying again
    assert isinstance(job.error, Expired) and office.done == ["b"] and office.batcher.rows == 1


def test_expired_jobs_are_never_computed_and_make_room():
    office = Office(size=2, queue=6)
    early = office.submit("early", 2, deadline=5)
    office.submit("late", 2, deadline=6)
    office.submit("never", 2)
    office.submit("new", 2, now=5)  # there is room, for one is over
    assert office.done == ["early"] and office.batcher.rows == 6
    with pytest.raises(QueueFull):
        office.submit("newer", 2, now=5.9)
    assert office.run(now=6) == [[("never", 2)], [("new", 2)]]
    assert office.done == ["early", "late", "never", "new"]
    assert isinstance(early.error, Expired) and early.batches == 0 and early.result is None
    assert "0.000 s ago with 2 of 2 rows still queued" in str(early.error)


@pytest.mark.parametrize("kept", [1, 5])
def test_deadlines_hold_in_any_order_also_after_most_jobs_have_left(kept):
    office = Office()
    for number in range(100):
        office.submit(str(number), 1, deadline=1 + number * 37 % 100)
    for number in range(100):
        if number % kept:
            office.batcher.drop(office.jobs[str(number)])
    for now in range(1, 101):
        office.batcher.expire(now)
        left = [n for n in range(0, 100, kept) if 1 + n * 37 % 100 > now]
        assert office.batcher.rows == len(left) == 100 // kept - len(office.done)


def test_a_job_that_expires_half_computed_gives_up_its_other_rows():
    office = Office(size=4)
    job = office.submit("a", 10, deadline=5)
    office.submit("b", 1, deadline=5.5)
    batch = office.take(1)
    office.batcher.expire(4.9)
    assert office.batcher.rows == 7 and not office.done
    office.batcher.expire(5)
    assert office.batcher.rows == 1 and office.done == ["a"]
    office.batcher.complete(batch, answers(batch.images()))
    assert office.done == ["a"] and isinstance(job.error, Expired) and job.result is None
    assert office.run(now=5) == [[("b", 1)]]


def test_a_job_that_is_being_computed_does_not_expire():
    office = Office()
    job = office.submit("a", 1, deadline=5)
    batch = office.take(4)
    office.batcher.expire(6)
    office.batcher.complete(batch, answers(batch.images()))
    assert right(job)


# Callers that leave, and batches that fail


def test_a_caller_that_leaves_frees_its_rows_and_harms_no_neighbour():
    office = Office(size=4)
    for name, count in (("a", 1), ("b", 6), ("c", 1)):
        office.submit(name, count)
    batch = office.take()  # a, and three of b
    for name in "bab":
        office.batcher.drop(office.jobs[name])
    assert office.batcher.rows == 1 and office.jobs["b"].over
    office.batcher.complete(batch, answers(batch.images()))
    assert office.run() == [[("c", 1)]]
    assert office.done == ["c"] and right(office.jobs["c"]) and office.batcher.rows == 0
    office.batcher.drop(office.jobs["c"])
    assert right(office.jobs["c"])  # too late to matter
    office.batcher.drop(Job("key", rows(0, 1)))  # never submitted
    assert office.batcher.rows == 0


def test_a_batch_that_fails_ends_its_jobs_and_no_others():
    office = Office(size=4)
    for name, count in (("a", 1), ("b", 6), ("c", 1)):
        office.submit(name, count)
    one, two = office.take(), office.take()
    assert office.names(one) == [("a", 1), ("b", 3)]
    assert office.names(two) == [("c", 1), ("b", 3)]  # b has had more than its turn
    office.submit("d", 1)
    error = ValueError("the device is on fire")
    office.batcher.fail(one, error)
    assert office.done == ["a", "b"] and office.jobs["b"].error is error
    office.batcher.complete(two, answers(two.images()))
    office.run()
    assert office.done == ["a", "b", "c", "d"] and office.jobs["b"].result is None
    assert office.batcher.rows == 0 and right(office.jobs["c"]) and right(office.jobs["d"])


def test_a_failed_batch_can_be_split_so_that_one_bad_job_harms_only_itself():
    office = Office(size=8)
    for name, count in (("a", 3), ("bad", 2), ("c", 4)):
        office.submit(name, count)
    batch = office.take()
    for part in batch.split():
        assert part.rows == len(part.images()) and part[0::3] == batch[0::3]
        if office.names(part) == [("bad", 2)]:
            office.batcher.fail(part, ValueError("bad"))
        else:
            office.batcher.complete(part, answers(part.images()))
    office.run()
    assert right(office.jobs["a"]) and right(office.jobs["c"]) and office.jobs["bad"].error
    assert sorted(office.done) == ["a", "bad", "c"]


def test_results_for_another_number_of_rows_are_refused():
    office = Office()
    job = office.submit("a", 2)
    batch = office.take()
    with pytest.raises(ValueError, match="3 results came for a batch of 2 rows"):
        office.batcher.complete(batch, answers(rows(0, 3)))
    assert not office.done
    office.batcher.complete(batch, answers(batch.images()))
    assert right(job)


def test_closing_fails_whatever_is_queued_or_comes_later():
    office = Office(size=4)
    for name, count, key in (("a", 2, "one"), ("b", 4, "one"), ("c", 1, "two"), ("d", 1, "two")):
        office.submit(name, count, key=key)
    batch = office.take()  # a, and two of b
    error = Stopping("the server is stopping")
    office.batcher.close(error)
    assert sorted(office.done) == ["b", "c", "d"] and office.batcher.rows == 0
    office.submit("e", 1)
    assert office.jobs["e"].error is office.jobs["b"].error is error
    assert office.batcher.take(0) is None and office.batcher.wake_at() is None
    office.batcher.complete(batch, answers(batch.images()))
    assert right(office.jobs["a"]) and office.done[3:] == ["e", "a"]


@pytest.mark.parametrize("event", ["complete", "fail", "expire", "close"])
def test_on_done_may_call_the_batcher(event):
    """Each job that ends drops its neighbour and submits another."""
    batcher = Batcher(8, 100, 0)
    ended = []

    def done(job: Job) -> None:
        ended.append(job)
        batcher.drop(jobs[1 - jobs.index(job)])
        batcher.submit(Job("key", rows(0, 1)), 0)

    jobs = [Job("key", rows(0, 1), 5, on_done=done) for _ in range(2)]
    for job in jobs:
        batcher.submit(job, 0)
    if event in ("complete", "fail"):
        batch = batcher.take(0)
    steps: dict[str, Callable[[], None]] = {
        "complete": lambda: batcher.complete(batch, answers(batch.images())),
        "fail": lambda: batcher.fail(batch, ValueError("no")),
        "expire": lambda: batcher.expire(5),
        "close": lambda: batcher.close(ValueError("no")),
    }
    steps[event]()
    assert ended == jobs[:1] and batcher.rows == (event != "close")


# Who is next


def test_the_more_urgent_job_goes_first_and_the_other_fills_what_is_left():
    office = Office(size=4, levels=3)
    office.submit("low", 4, priority=2)
    office.submit("middle", 3, priority=1)
    office.submit("high", 2, priority=0)
    assert office.run() == [[("high", 2), ("middle", 2)], [("middle", 1), ("low", 3)], [("low", 1)]]


def test_the_key_with_the_most_urgent_job_is_next():
    office = Office(size=4)
    office.submit("a", 8, key="one", priority=1)
    office.submit("b", 1, key="two", priority=0)
    office.submit("c", 1, key="one", priority=1)
    assert office.run()[0] == [("b", 1)]


def test_keys_take_turns_and_never_mix():
    office = Office(size=4)
    for name, key in (("a", "one"), ("b", "two"), ("c", "three")):
        office.submit(name, 8, key=key)
    assert [names for ((names, _),) in office.run()] == list("abcabc")


def test_one_caller_is_served_first_come_first_served():
    office = Office(size=16)
    for number, count in enumerate((3, 20, 1, 1, 9, 2)):
        office.submit(str(number), count, caller="x")
    assert [name for batch in office.run() for name, _ in batch] == list("01123445")


@pytest.mark.parametrize("jobs", [1, 10_000])
def test_ten_thousand_rows_of_one_caller_hold_up_a_single_row_by_one_batch_at_most(jobs):
    office = Office(size=64)
    for number in range(jobs):
        office.submit(f"many {number}", 10_000 // jobs, caller="many")
    for moment in range(20):
        office.submit(f"single {moment}", 1)
        batches = [office.names(office.take()) for _ in range(2)]
        assert (f"single {moment}", 1) in batches[0] + batches[1]
        assert sum(count for batch in batches for _, count in batch) == 128  # none goes in part


def test_callers_share_by_rows_not_by_jobs():
    """Since they began to wait, they differ by a batch and two turns at most, here 64 + 8."""
    office = Office(size=64)
    for caller, count in (("large", 50), ("small", 1), ("huge", 1000), ("uneven", 7)):
        for number in range(1000 // count):
            office.submit(f"{caller} {number}", count, caller=caller)
    had: Counter[str] = Counter()
    for _ in range(40):
        for name, count in office.names(office.take()):
            had[name.split()[0]] += count
        assert max(had.values()) - min(had[c] for c in ("large", "small", "huge", "uneven")) <= 72


def test_turns_do_not_cut_jobs():
    """Each batch is one whole job, so that nothing is copied."""
    office = Office(size=64)
    for caller in "abcd":
        for number in range(3):
            office.submit(f"{caller}{number}", 64, caller=caller)
    found = [name for ((name, _),) in office.run()]
    assert sorted(found[:4]) == ["a0", "b0", "c0", "d0"] and len(found) == 12


# Everything at once


class Checked(RuleBasedStateMachine):
    """Random calls; whatever comes back is held against lists of what was sent in."""

    @initialize(
        size=st.integers(1, 40), queue=st.integers(1, 120), delay=st.sampled_from([0, 0, 1, 8])
    )
    def start(self, size: int, queue: int, delay: int) -> None:
        self.size, self.limit, self.delay = size, queue, delay
        self.batcher = Batcher(size, queue, delay)
        self.now, self.next_row = 0, 0
        self.left: dict[Job, list[int]] = {}  # jobs with rows to be taken, by arrival
        self.under_way: list[Batch] = []
        self.ended: list[Job] = []  # by on_done
        self.dropped: set[Job] = set()
        self.accepted: list[Job] = []
        # By caller: rows that each other of its level had, less its own, while both waited.
        self.ahead: dict[Any, Counter[Any]] = defaultdict(Counter)
        self.passed: set[tuple[str, str]] = set()  # (key that waits, key that had its turn since)

    # What the lists say

    def queued(self, key: str | None = None) -> list[Job]:
        return [job for job in self.left if key in (None, job.key)]

    def count(self, key: str | None = None) -> int:
        return sum(len(self.left[job]) for job in self.queued(key))

    def level(self, key: str) -> int:
        return min(job.priority for job in self.queued(key))

    def reason(self, key: str) -> str | None:
        """Why a key's rows should be computed now; None: they should wait."""
        jobs = self.queued(key)
        if self.count(key) >= self.size:
            return "full"
        if self.delay == 0:
            return "idle"
        waited = min(job.submitted_at for job in jobs) + self.delay, "delay"
        pressing = min(job.deadline for job in jobs) - self.delay, "deadline"
        since, why = min(waited, pressing)
        return why if since <= self.now else None

    def gone(self, jobs: list[Job]) -> None:
        """Forgets jobs, and the waits of callers and keys that have nothing left."""
        for job in jobs:
            self.left.pop(job, None)
        lines = {(job.key, job.priority, job.caller) for job in self.left}
        for line in set(self.ahead) - lines:
            del self.ahead[line]
        for others in self.ahead.values():
            for line in set(others) - lines:
                del others[line]
        keys = {job.key for job in self.left}
        self.passed = {(waits, had) for waits, had in self.passed if waits in keys}

    def expect_expired(self, before: int) -> None:
        """Exactly those whose deadline has passed, and they only, ended since."""
        expired = [job for job in self.left if job.deadline <= self.now]
        assert set(self.ended[before:]) == set(expired)
        assert all(isinstance(job.error, Expired) for job in expired)
        self.gone(expired)

    # What may happen

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(
        count=st.one_of(st.integers(1, 5), st.integers(1, 130)),
        key=st.sampled_from("ABC"),
        caller=st.sampled_from("xyz"),
        priority=st.integers(0, 1),
        patience=st.one_of(st.none(), st.integers(0, 20)),
        jobs=st.integers(1, 3),
    )
    def submit(self, count, key, caller, priority, patience, jobs) -> None:
        for _ in range(jobs):
            deadline = float("inf") if patience is None else self.now + patience
            images = rows(self.next_row, count)
            job = Job(key, images, deadline, priority, caller, self.ended.append)
            before = len(self.ended)
            if patience == 0:
                self.batcher.submit(job, self.now)
                assert self.ended[before:] == [job] and isinstance(job.error, Expired)
                self.accepted.append(job)
                continue
            if self.count() + count <= self.limit:
                self.batcher.submit(job, self.now)
                assert len(self.ended) == before
            else:
                alive = [job for job in self.left if job.deadline > self.now]
                free = self.limit - sum(len(self.left[job]) for job in alive)
                if count > free:
                    with pytest.raises(QueueFull) as caught:
                        self.batcher.submit(job, self.now)
                    full = caught.value
                    assert (full.rows, full.free, full.limit) == (count, free, self.limit)
                else:
                    self.batcher.submit(job, self.now)
                self.expect_expired(before)
                if count > free:
                    continue
            self.accepted.append(job)
            self.left[job] = list(range(self.next_row, self.next_row + count))
            self.ahead[key, priority, caller]  # waits from here on, if it did not
            self.next_row += count

    @rule()
    def take(self) -> None:
        before = len(self.ended)
        batch = self.batcher.take(self.now)
        self.expect_expired(before)
        reasons = {key: self.reason(key) for key in {job.key for job in self.left}}
        ready = [key for key, why in reasons.items() if why]
        if batch is None:
            assert not ready
            return
        key = batch.key
        assert batch.reason == reasons[key] is not None
        assert batch.rows == min(self.size, self.count(key)) == len(batch.images())
        assert self.level(key) == min(map(self.level, ready))
        for other in ready:  # of those equally urgent, none twice while another waits
            assert self.level(other) > self.level(key) or (other, key) not in self.passed
        assert batch.oldest_wait == self.now - min(job.submitted_at for job, *_ in batch.parts)

        wanted: list[int] = []
        for job, start, stop in batch.parts:
            assert job.key == key and job.deadline > self.now
            first = next(  # of its caller's, the first to have come
                it
                for it in self.queued(key)
                if (it.priority, it.caller) == (job.priority, job.caller)
            )
            assert job is first
            left = self.left[job]
            assert start == job.rows - len(left) and stop <= job.rows
            wanted += left[: stop - start]
            del left[: stop - start]
            line = (key, job.priority, job.caller)
            for other, had in self.ahead.items():
                if other[:2] == line[:2] and other != line:
                    had[line] += stop - start
            for other in self.ahead[line]:
                self.ahead[line][other] -= stop - start
            if not left:
                self.gone([job])
        assert batch.images()[:, 0].tolist() == wanted
        lowest = max(job.priority for job, *_ in batch.parts)
        assert all(job.priority >= lowest for job in self.queued(key))
        turn = max(1, self.size // 16)
        for others in self.ahead.values():
            assert max(others.values(), default=0) <= 2 * self.size + 2 * turn - 2

        self.passed = {(waits, had) for waits, had in self.passed if waits != key}
        self.passed |= {(job.key, key) for job in self.left if job.key != key}
        self.under_way.append(batch)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def complete(self, data) -> None:
        batch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if data.draw(st.booleans()):
            pieces = batch.split()
            assert [piece.parts for piece in pieces] == [[part] for part in batch.parts]
            self.under_way += pieces
        else:
            self.batcher.complete(batch, answers(batch.images()))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail(self, data) -> None:
        batch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        error = ValueError("the device is on fire")
        hit = [job for job, *_ in batch.parts if not job.over]
        before = len(self.ended)
        self.batcher.fail(batch, error)
        assert self.ended[before:] == hit and all(job.error is error for job in hit)
        self.gone([job for job, *_ in batch.parts])

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def drop(self, data) -> None:
        job = data.draw(st.sampled_from(self.accepted))
        if job not in self.ended:
            self.dropped.add(job)
        before = len(self.ended)
        self.batcher.drop(job)
        assert len(self.ended) == before
        self.gone([job])

    # What always holds

    @invariant()
    def the_count_of_rows_is_exact(self) -> None:
        assert self.batcher.rows == self.count() <= self.limit

    @invariant()
    def the_next_batch_is_announced(self) -> None:
        wake = self.batcher.wake_at()
        assert (wake is None) == (not self.left)
        if wake is not None:
            keys = {job.key for job in self.left}
            assert (wake <= self.now) == any(map(self.reason, keys))

    @invariant()
    def each_job_ends_once(self) -> None:
        assert max(Counter(self.ended).values(), default=1) == 1
        assert not self.dropped & set(self.ended)
        for job in self.ended:
            assert job.over and (right(job) if job.error is None else job.result is None)

    def teardown(self) -> None:
        """In the end every job that was accepted has been answered, has failed, or was dropped."""
        if not hasattr(self, "batcher"):
            return
        self.now += self.delay
        while self.left:
            self.take()
        while self.under_way:
            batch = self.under_way.pop()
            self.batcher.complete(batch, answers(batch.images()))
        self.each_job_ends_once()
        assert set(self.accepted) == set(self.ended) | self.dropped
        assert self.batcher.take(self.now) is None and self.batcher.rows == 0


def test_the_batcher_keeps_its_word_whatever_happens():
    many = 100 if os.environ.get("JAXNN_SOAK") else 1
    run_state_machine_as_test(
        Checked, settings=settings(max_examples=80 * many, stateful_step_count=40, deadline=None)
    )
