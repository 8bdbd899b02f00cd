"""What a GPU gives: epochs by batch size, networks at once until it is full, forward passes.

    python -m benchmarks gpu [--full] [--print]

One process, on JAX's first device. The fraction of the peak counts the multiplications and the
additions of the matrix products alone. A forward pass has to read its images, 784 bytes each, so
that the memory's bandwidth bounds it; what is compared with it are these bytes by the time.

The peaks come from the makers' data sheets, by the device's name; JAXNN_PEAK_TFLOPS and
JAXNN_PEAK_GBPS name them for a device that is not in the table, or go before it.
"""

import itertools
import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.ensemble import many
from benchmarks.epoch import Setting, digits, ours
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome

REPEATS = {True: 9, False: 25}  # quick or not
BUDGET = {True: 5.0, False: 20.0}  # seconds a contestant may use up, beyond two repeats

# By a part of the device's name: 10^12 operations a second in products of float32 as JAX computes
# them by default (TF32 where there are tensor cores for it, dense), 10^9 bytes a second of memory.
PEAKS = {
    "H200": (494.7, 4800.0),
    "H100 80GB HBM3": (494.7, 3350.0),
    "H100 PCIe": (378.0, 2000.0),
    "A100-SXM4-80GB": (156.0, 2039.0),
    "A100-SXM4-40GB": (156.0, 1555.0),
    "L40S": (183.0, 864.0),
    "NVIDIA L4": (60.0, 300.0),
    "V100-SXM2": (15.7, 900.0),
    "Tesla T4": (8.1, 320.0),
}


class Work(NamedTuple):
    """How much of everything."""

    examples: int = 60_000  # in an epoch
    batch_sizes: tuple[int, ...] = (100, 1000, 10_000)
    networks: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    images: int = 2**20  # resident, 822 MB: more than a cache holds
    image_batches: tuple[int, ...] = (2**10, 2**14, 2**17, 2**20)  # divide images
    passes: int = 4  # over the images in a repeat


class Device(NamedTuple):
    """Where JAX computes."""

    backend: str  # "cpu", "gpu"
    kind: str  # the device's name


def device() -> Device:
    """JAX's first device, asked in another process: one that asks takes most of a GPU's memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_device).result()


def _device() -> Device:
    import jax

    return Device(jax.default_backend(), jax.devices()[0].device_kind)


def peaks(kind: str) -> tuple[float | None, float | None]:
    """Operations and bytes a second that a device can do at most; None where not known."""
    known = next((found for part, found in PEAKS.items() if part in kind), (None, None))
    named = (os.environ.get("JAXNN_PEAK_TFLOPS"), os.environ.get("JAXNN_PEAK_GBPS"))
    tera, giga = (float(n) if n else k for n, k in zip(named, known, strict=True))
    return tera and 1e12 * tera, giga and 1e9 * giga


def multiplications(sizes: tuple[int, ...]) -> int:
    """In the products of one example's training step: forward, gradients, and deltas back.

    No delta goes back to the pixels, so that the first layer has two products, the others three.
    """
    layers = list(map(math.prod, itertools.pairwise(sizes)))
    return 2 * layers[0] + 3 * sum(layers[1:])


def forward(images: int, batch: int, passes: int) -> Callable[[], np.ndarray]:
    """Answers to resident uint8 images, a call a batch; gives the first batch's, int [batch]."""
    import jax

    from jaxnn import metrics, models

    model = models.build()
    params = jax.jit(model.init)(jax.random.key(0))
    pixels = digits(images)[0]
    resident = [jax.device_put(pixels[at : at + batch]) for at in range(0, images, batch)]

    def of_one(params: Any, image: Any) -> Any:
        return jax.numpy.argmax(model.forward(params, metrics.pixels_to_input(image)))

    answers = jax.jit(jax.vmap(of_one, in_axes=(None, 0)))

    def run() -> np.ndarray:
        for _ in range(passes):
            found = [answers(params, some) for some in resident]
            jax.block_until_ready(found)
        return np.asarray(found[0])

    return run


def contestants(work: Work) -> dict[tuple[str, int], Contestant]:
    """All of them in one process, in turn."""
    classic = Setting(examples=work.examples)
    prepares: dict[tuple[str, int], timing.Prepare] = {}
    for size in work.batch_sizes:
        prepares["epoch", size] = partial(ours, classic._replace(batch_size=size))
    for count in work.networks:
        prepares["networks", count] = partial(many, classic, count)
    for batch in work.image_batches:
        prepares["forward", batch] = partial(forward, work.images, batch, work.passes)
    cores = os.cpu_count() or 1
    return {name: Contestant(prepare, cores, "jaxnn") for name, prepare in prepares.items()}


def run(
    quick: bool,
    work: Work = Work(),  # noqa: B008 - a tuple
    anywhere: bool = False,
) -> dict[str, Any]:
    """Times all in turn; left out where JAX has the CPU only, unless `anywhere` asks for it."""
    where = device()
    if where.backend == "cpu" and not anywhere:
        return {
            "left_out": "JAX sees no GPU here: run it on a machine that has one, with "
            "`pip install 'jaxnn[cuda]'`"
        }
    outcomes = timing.interleaved(contestants(work), REPEATS[quick], BUDGET[quick])
    return {"repeats": REPEATS[quick], **figures(work, where, outcomes)}


def figures(work: Work, where: Device, outcomes: dict[tuple[str, int], Outcome]) -> dict[str, Any]:
    """Rates and fractions of the peaks, by the medians; None where a peak is not known."""
    operations, bandwidth = peaks(where.kind)
    found: dict[str, list] = {"epoch": [], "networks": [], "forward": []}
    for (question, at), outcome in outcomes.items():
        one = {"at": at, **outcome.times._asdict()}
        seconds = outcome.times.median
        if question == "networks":
            # A multiplication comes with an addition.
            done = 2 * multiplications(Setting().sizes) * work.examples * at / seconds
            one |= {"network_epochs": at / seconds, "operations": done}
            one["of_peak"] = operations and done / operations
        if question == "forward":
            rate = work.images * work.passes / seconds
            one |= {"images": rate, "bytes": 784 * rate}
            one["of_peak"] = bandwidth and 784 * rate / bandwidth
        found[question].append(one)
    peak = {"operations": operations, "bandwidth": bandwidth}
    return {"device": where._asdict(), "work": work._asdict(), "peak": peak, **found}


def table(result: dict[str, Any]) -> str:
    """The device, and a table for each of the three."""
    peak = result["peak"]
    units = (("operations", 1e12, "TFLOP/s"), ("bandwidth", 1e9, "GB/s"))
    known = [f"{peak[name] / unit:,.1f} {word}" for name, unit, word in units if peak[name]]
    said = f"whose peak is taken to be {' and '.join(known)}" if known else "of unknown peak"
    epochs = [
        [f"batch {one['at']:,}", *_times(one), f"{result['work']['examples'] / one['median']:,.0f}"]
        for one in result["epoch"]
    ]
    networks = [
        [
            f"{one['at']:,}",
            *_times(one),
            f"{one['network_epochs']:,.1f}",
            f"{one['operations'] / 1e12:.3f}",
            _part(one),
        ]
        for one in result["networks"]
    ]
    forwards = [
        [
            f"batches of {one['at']:,}",
            *_times(one),
            f"{one['images'] / 1e6:,.1f}",
            f"{one['bytes'] / 1e9:,.1f}",
            _part(one),
        ]
        for one in result["forward"]
    ]
    many_images = result["work"]["images"] * result["work"]["passes"]
    head = ["median ms", "quartiles"]
    return "\n\n".join(
        (
            f"On JAX's device {result['device']['kind']}, {said}.",
            markdown(["an epoch", *head, "images/s"], epochs),
            markdown(["networks at once", *head, "epochs/s", "TFLOP/s", "of the peak"], networks),
            markdown(
                [f"forward, {many_images:,} images", *head, "M images/s", "GB/s", "of the peak"],
                forwards,
            ),
        )
    )


def _times(one: dict[str, Any]) -> list[str]:
    return [f"{1e3 * one['median']:.2f}", f"{1e3 * one['low']:.2f} to {1e3 * one['high']:.2f}"]


def _part(one: dict[str, Any]) -> str:
    return "" if one["of_peak"] is None else f"{one['of_peak']:.1%}"
