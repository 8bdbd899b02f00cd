"""Where the time of a fresh `jaxnn train` goes; benchmarks.cold_start runs it.

    python -m benchmarks.dissect STARTED FILE TRAIN-FLAGS ...

STARTED is time.time() just before this process was started. Writes {part: seconds} as JSON to
FILE. A moment counts for the part that began last among those that are under way, so that the
parts add up to the whole. Watching costs little: imports, a few functions, JAX's own events.
"""

import builtins
import functools
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class Span(NamedTuple):
    """A part that was under way; seconds of time.time()."""

    start: float
    end: float
    part: str


def shares(spans: list[Span]) -> dict[str, float]:
    """Seconds of each part: every moment goes to the span under way that began last.

    Of two that began together, the shorter one has it.
    """
    moments = sorted({moment for span in spans for moment in span[:2]})
    found: dict[str, float] = {}
    for start, end in itertools.pairwise(moments):
        under_way = [span for span in spans if span.start <= start and span.end >= end]
        if under_way:
            part = max(under_way, key=lambda span: (span.start, -span.end)).part
            found[part] = found.get(part, 0.0) + end - start
    return found


def watched(spans: list[Span], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a span for each call."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.time()
        try:
            return function(*args, **kwargs)
        finally:
            spans.append(Span(started, time.time(), part))

    return call


def watch_imports(spans: list[Span]) -> None:
    """A span for each import that is not within another one of the same thread."""
    original = builtins.__import__
    depth = threading.local()

    def importing(*args: Any, **kwargs: Any) -> Any:
        if getattr(depth, "value", 0):
            return original(*args, **kwargs)
        depth.value = 1
        started = time.time()
        try:
            return original(*args, **kwargs)
        finally:
            depth.value = 0
            if (ended := time.time()) - started > 1e-4:
                spans.append(Span(started, ended, "imports"))

    builtins.__import__ = importing


def main() -> None:
    """Runs `jaxnn train` and writes the shares."""
    entered = time.time()
    started, result, flags = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    spans = [Span(started, entered, "Python's start")]
    watch_imports(spans)
    from jaxnn import cli
    from jaxnn.commands import settings

    # Before JAX is loaded, just below.
    settings.choose_threads(settings.largest_product(cli.parse(["train", *flags]).config))
    switch_on_the_cache(flags)

    import jax

    from jaxnn import data, metrics, train
    from jaxnn.commands.run_folder import RunFolder

    def compiled(event: str, duration_secs: float, **_: Any) -> None:
        if event in COMPILING:
            now = time.time()
            spans.append(Span(now - duration_secs, now, "tracing and compiling"))

    jax.monitoring.register_event_duration_secs_listener(compiled)
    for module, name, part in (
        (data, "load", "reading the data"),
        (data, "checksum", "checksum of the data"),
        (metrics, "evaluate", "evaluation"),
        (train, "fit", "training"),
        (RunFolder, "save", "saving"),
        (RunFolder, "save_model", "saving"),
    ):
        setattr(module, name, watched(spans, part, getattr(module, name)))
    code = cli.main(["train", *flags])
    ended = time.time()
    spans.append(Span(started, ended, "the rest"))
    result.write_text(json.dumps(shares(spans)))
    sys.exit(code)


def switch_on_the_cache(flags: list[str]) -> None:
    """As `jaxnn train` does itself, but here JAX is loaded before it can."""
    from jaxnn import compile_cache

    if "--no-cache" not in flags:
        compile_cache.enable()


if __name__ == "__main__":
    main()
