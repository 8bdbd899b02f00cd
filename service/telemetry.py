"""Metrics: what is counted, in plain lists, as calls end.

The end of a call is counted once, and cheaply, in the finest parts that anybody asks for; all that
is told is added up from these when it is asked for: a snapshot for Prometheus, lists that can be
sent as JSON (`service.metrics_page` adds up those of several workers and makes them text), and
the statistics of a model (`service.statistics`).
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from service.rpc import Call

SECONDS = (
    *(5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
ROWS = tuple(float(2**power) for power in range(14))  # 1 to 8192
MAX_SERIES = 2000  # of one metric: versions come and go for as long as a server runs
OTHERS = "(others)"  # the label of what comes after that

Labels = tuple[str, ...]
Numbers = list[float]  # of a histogram: a count a bucket, the last for what is above, and the sum


class Described(NamedTuple):
    """One metric: what it is called and what it says."""

    name: str  # without the prefix jaxnn_
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    sentence: str
    bounds: tuple[float, ...] = ()  # of a histogram: the upper end of each bucket
    merge: Literal["sum", "min", "max"] = "sum"  # of a gauge: over the workers


_BY_CALL = ("api", "method", "model")
_BY_VERSION = ("model", "version")
METRICS = (
    Described("requests", "counter", ("api", "method", "model", "version", "code"), "Calls ended."),
    Described("images", "counter", ("api", "model", "version"), "Images answered for."),
    Described("request_seconds", "histogram", _BY_CALL, "A call from arrival to end.", SECONDS),
    Described("prepare_seconds", "histogram", _BY_CALL, "Decoding a call's files.", SECONDS),
    Described("queue_seconds", "histogram", _BY_CALL, "A call's wait for its turn.", SECONDS),
    Described("assembly_seconds", "histogram", _BY_CALL, "Putting its batch together.", SECONDS),
    Described("compute_seconds", "histogram", _BY_CALL, "Computing its batch.", SECONDS),
    Described("encode_seconds", "histogram", _BY_CALL, "Writing its answer.", SECONDS),
    Described("batch_rows", "histogram", _BY_VERSION, "Images computed together.", ROWS),
    Described(
        "batches", "counter", (*_BY_VERSION, "released"), "Batches, by why each was started."
    ),
    Described(
        "batch_stage_seconds",
        "counter",
        (*_BY_VERSION, "stage"),
        "Time spent on batches: their assembly, and their compute.",
    ),
    Described("refused", "counter", ("reason",), "Calls turned away for want of room or rate."),
    Described("expired", "counter", (), "Calls whose deadline passed before they were computed."),
    Described("cancelled", "counter", (), "Calls whose caller left before they were computed."),
    Described("compiles", "counter", (), "Programs compiled: still once the server is ready."),
    Described("model_loads", "counter", ("model", "result"), "Loads and reloads: ok or failed."),
    Described("queue_rows", "gauge", (), "Images that wait for a turn."),
    Described("in_flight", "gauge", (), "Calls begun and not ended."),
    Described("models_ready", "gauge", (), "Versions of models that answer.", merge="min"),
    Described(
        "certificate_end_seconds",
        "gauge",
        (),
        "When the TLS certificate ends, in seconds since 1970.",
        merge="min",
    ),
    Described("workers", "gauge", (), "Processes that serve."),
)
BY_NAME = {metric.name: metric for metric in METRICS}
_STAGES = ("request", "prepare", "queue", "assembly", "compute", "encode")
_Series = tuple[str, Labels]  # a metric and the values of its labels


class Calls:
    """What calls of one API, method, model, version and code add to, found by one look-up."""

    __slots__ = ("at_once", "images", *_STAGES)

    def __init__(self) -> None:
        """None yet."""
        self.images = 0  # answered for
        self.at_once = 0  # computed without a wait and without putting a batch together
        self.request, self.prepare, self.queue, self.assembly, self.compute, self.encode = (
            [0] * (len(SECONDS) + 1) + [0.0] for _ in _STAGES
        )

    @property
    def count(self) -> int:
        """How many calls have ended."""
        return int(sum(self.request[:-1]))

    def numbers(self, stage: str) -> Numbers:
        """The histogram of a stage's seconds."""
        numbers: Numbers = list(getattr(self, stage))
        if stage in ("queue", "assembly"):
            numbers[0] += self.at_once
        return numbers

    def spent(self, *stages: str) -> float:
        """Seconds in all."""
        return sum(getattr(self, stage)[-1] for stage in stages)


class Batches:
    """What batches of one model, version, reason and number of images add to."""

    __slots__ = ("assembly", "compute", "count", "last")

    def __init__(self) -> None:
        """None yet."""
        self.count = 0
        self.assembly = self.compute = 0.0  # seconds in all
        self.last = 0.0  # when the last one ended, in seconds since 1970


class Telemetry:
    """Everything that one process counts; written to by one thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at nothing; `clock` is that of `Call.arrived`."""
        self._clock = clock
        self.calls: dict[Labels, Calls] = {}  # by API, method, model, version, code
        # By model, version and why they were started; then by the number of images, of which
        # there are no more than the largest batch holds.
        self.batches: dict[Labels, dict[int, Batches]] = {}
        self._counters: dict[_Series, float] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        for metric in METRICS:
            if metric.kind == "counter" and not metric.labels:
                self._counters[metric.name, ()] = 0  # there from the start, so that 0 can be seen

    def finished(self, call: Call, code: str) -> None:
        """Counts a call that has ended; `code` is the status's name, such as "OK"."""
        key = call.api, call.method, call.model, call.version, code
        series = self.calls.get(key) or self._new_calls(key)
        _add(series.request, self._clock() - call.arrived)
        if call.batch_rows:  # it has been computed
            series.images += call.rows
            _add(series.compute, call.compute)
            _add(series.encode, call.encode)
            if call.queue or call.assembly:
                _add(series.queue, call.queue)
                _add(series.assembly, call.assembly)
            else:
                series.at_once += 1
        if call.prepare:
            _add(series.prepare, call.prepare)

    def batch(
        self, model: str, version: str, rows: int, released: str, assembly: float, compute: float
    ) -> None:
        """Counts a batch that has been computed; times in seconds."""
        key = model, version, released
        series = (self.batches.get(key) or self._new_batches(key))[rows]
        series.count += 1
        series.assembly += assembly
        series.compute += compute
        series.last = time.time()

    def count(self, name: str, *labels: str, amount: float = 1) -> None:
        """Adds to a counter of METRICS; `labels` are the values of its labels, in order."""
        key = name, labels
        if key not in self._counters:
            metric = BY_NAME[name]
            if len(labels) != len(metric.labels) or metric.kind != "counter":
                raise TypeError(f"{name} takes the labels {metric.labels}, not {labels}")
            key = name, _bounded(self._counters, labels)
        self._counters[key] = self._counters.get(key, 0) + amount

    def gauge(self, name: str, value: Callable[[], float]) -> None:
        """Says where a gauge of METRICS is read; `value` is called from any thread."""
        if BY_NAME[name].kind != "gauge":
            raise TypeError(f"{name} is a {BY_NAME[name].kind}, expected a gauge")
        self._gauges[name] = value

    def snapshot(self) -> dict[str, Any]:
        """All that has been counted, as lists that JSON can hold."""
        counters = defaultdict(float, self._counters)
        histograms: dict[_Series, Numbers] = {}
        for labels, calls in list(self.calls.items()):
            api, method, model, version, _ = labels
            counters["requests", labels] = calls.count
            if calls.images:
                counters["images", (api, model, version)] += calls.images
            for stage in _STAGES:
                series = f"{stage}_seconds", (api, method, model)
                _merge(histograms, series, calls.numbers(stage))
        for (model, version, released), sizes in list(self.batches.items()):
            for rows, batches in list(sizes.items()):
                counters["batches", (model, version, released)] += batches.count
                for stage in ("assembly", "compute"):
                    spent = getattr(batches, stage)
                    counters["batch_stage_seconds", (model, version, stage)] += spent
                numbers: Numbers = [0] * (len(ROWS) + 2)
                numbers[bisect_left(ROWS, rows)] = batches.count
                numbers[-1] = rows * batches.count
                _merge(histograms, ("batch_rows", (model, version)), numbers)
        return {
            "counters": [[name, list(labels), value] for (name, labels), value in counters.items()],
            "histograms": [[name, list(labels), n] for (name, labels), n in histograms.items()],
            "gauges": {name: value() for name, value in list(self._gauges.items())},
        }

    def _new_calls(self, key: Labels) -> Calls:
        if len(self.calls) >= MAX_SERIES:
            api, method, _, _, code = key
            key = api, method, OTHERS, "", code
        return self.calls.setdefault(key, Calls())

    def _new_batches(self, key: Labels) -> dict[int, Batches]:
        return self.batches.setdefault(_bounded(self.batches, key), defaultdict(Batches))


def _add(numbers: Numbers, seconds: float) -> None:
    """Once more in a histogram of SECONDS."""
    numbers[bisect_left(SECONDS, seconds)] += 1
    numbers[-1] += seconds


def _merge(table: dict[_Series, Numbers], key: _Series, numbers: Numbers) -> None:
    """Adds a histogram to what is there of its series, if anything was counted in it."""
    if any(numbers):
        before = table.get(key, [0] * len(numbers))
        table[key] = [a + b for a, b in zip(before, numbers, strict=True)]


def _bounded(table: Mapping[Any, Any], labels: Labels) -> Labels:
    """The labels of a new series, or those of the last one where there is room for no more."""
    return labels if len(table) < MAX_SERIES else (OTHERS,) * len(labels)


def names_table() -> str:
    """Every metric with its labels and sentence, as a Markdown table."""
    lines = ["| Metric | Kind | Labels | What it says |", "|---|---|---|---|"]
    for metric in METRICS:
        name = f"jaxnn_{metric.name}" + "_total" * (metric.kind == "counter")
        labels = ", ".join(metric.labels)
        lines.append(f"| `{name}` | {metric.kind} | {labels} | {metric.sentence} |")
    return "\n".join(lines) + "\n"
