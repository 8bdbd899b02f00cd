"""What a training step of the other families costs as networks and examples grow.

    python -m benchmarks growth_families [--full] [--print]

A step of plain SGD by the explicit gradient, batch 100, float32: of an LSTM against its width, its
layers and the steps of its sequences; of a convolutional network against its maps, its
convolutions and the side of its pictures. Rows and pictures are the digits, repeated or cut to
size. All on one thread, so that a curve has no place where a second one begins. Beside the time
stand the multiplications that a step's matrix products and convolutions need, counted by hand,
and how many of them went through in a second. The slopes are exponents, as in benchmarks/growth.py:
1 where twice as much takes twice as long. Quick: two points of each curve.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.epoch import digits
from benchmarks.growth import slope
from benchmarks.report import markdown
from benchmarks.timing import Contestant
from jaxnn.config import TrainConfig

BATCH = 100
STEPS = 2  # timed together
REPEATS = {True: 5, False: 15}  # quick or not
BUDGET = {True: 0.4, False: 6.0}  # seconds a point may use up, beyond two repeats
FEATURES = 28  # numbers a step of the architecture "rows"
CLASSES = 10
WHAT = ("median", "multiplications")  # has slopes and ratios


@dataclass(frozen=True)  # a tuple would equal the other family's of the same numbers
class Lstm:
    """A point of the LSTM's curves."""

    width: int = 64  # hidden units of each layer
    layers: int = 1
    steps: int = 28

    def config(self) -> TrainConfig:
        """The settings to train it."""
        sizes = (FEATURES * self.steps, *self.layers * (self.width,), CLASSES)
        return _config("lstm", "rows", sizes, "tanh")

    def multiplications(self) -> int:
        """Of a training step: a product with each matrix, and two on the way back.

        One gives the matrix's gradient, the other what goes to those below; which the features of
        the first layer do not need.
        """
        seen = (FEATURES, *(self.layers - 1) * (self.width,))
        recurrent = self.layers * 4 * self.width * self.width
        from_below = sum(4 * self.width * n for n in seen)
        each = 3 * recurrent + 3 * from_below - 4 * self.width * FEATURES
        return BATCH * (self.steps * each + 3 * self.width * CLASSES)


@dataclass(frozen=True)
class Cnn:
    """A point of the convolutional network's curves: maps of one size, all kernels 3 x 3."""

    maps: int = 16
    convolutions: int = 2
    side: int = 28  # of the picture, in pixels

    @property
    def name(self) -> str:
        """In the table of architectures."""
        return f"growth {self.maps} x {self.convolutions}"

    def architecture(self) -> tuple[Any, ...]:
        """Convolutions that keep the side, then each map's average by quarters."""
        from jaxnn.cnn_convolve import Convolve
        from jaxnn.cnn_layers import Activate, Pool

        one = (Convolve(self.maps, 3, padding=1), Activate())
        return (*self.convolutions * one, Pool("average", self.side // 2))

    def config(self) -> TrainConfig:
        """The settings to train it, while `known` has its architecture in the table."""
        return _config("cnn", self.name, (self.side**2, CLASSES), "relu")

    def multiplications(self) -> int:
        """As of the LSTM: three for each layer, but two for the one that sees the picture.

        As if the picture went on beyond its edges: zeros there are counted as well.
        """
        places = 9 * self.side**2
        first = places * self.maps
        later = (self.convolutions - 1) * places * self.maps**2
        return BATCH * (2 * first + 3 * later + 3 * 4 * self.maps * CLASSES)


Point = Lstm | Cnn


def _config(family: Any, architecture: str, sizes: tuple[int, ...], activation: Any) -> TrainConfig:
    return TrainConfig(
        family=family,
        architecture=architecture,
        sizes=sizes,
        activation=activation,
        batch_size=BATCH,
        learning_rate=0.01,
        gradient="backprop",
    )


class Axis(NamedTuple):
    """What grows, and the points of its curve."""

    name: str
    field: str  # of a point
    points: tuple[Point, ...]


def axes(quick: bool) -> tuple[Axis, ...]:
    """All curves; quick: of each only the point where all of a family meet, and the next."""
    found = (
        Axis("lstm: hidden units", "width", tuple(Lstm(width=n) for n in (32, 64, 128, 256))),
        Axis("lstm: layers", "layers", tuple(Lstm(layers=n) for n in (1, 2, 3))),
        Axis("lstm: steps", "steps", tuple(Lstm(steps=n) for n in (7, 14, 28, 56, 112))),
        Axis("cnn: maps", "maps", tuple(Cnn(maps=n) for n in (8, 16, 32, 64))),
        Axis("cnn: convolutions", "convolutions", tuple(Cnn(convolutions=n) for n in (1, 2, 4))),
        Axis("cnn: side of the picture", "side", tuple(Cnn(side=n) for n in (14, 28, 56))),
    )
    if not quick:
        return found
    return tuple(one._replace(points=_two(one.points)) for one in found)


def _two(points: tuple[Point, ...]) -> tuple[Point, ...]:
    meeting = points.index(type(points[0])())
    return points[meeting : meeting + 2]


@contextmanager
def known(point: Point) -> Iterator[None]:
    """The table of architectures has a convolutional point's as long as this is open."""
    from jaxnn.cnn_network import ARCHITECTURES

    if isinstance(point, Lstm):
        yield
        return
    ARCHITECTURES[point.name] = point.architecture()
    try:
        yield
    finally:
        del ARCHITECTURES[point.name]


def examples(n_in: int) -> tuple[np.ndarray, np.ndarray]:
    """STEPS batches of digits uint8 [N, n_in], repeated or cut to that length, and labels [N]."""
    images, labels = digits(STEPS * BATCH)
    return np.tile(images, (1, -(-n_in // images.shape[1])))[:, :n_in], labels


def steps(point: Point) -> Callable[[], list[np.ndarray]]:
    """STEPS training steps by jaxnn, as `train.fit` runs them; gives the parameters."""
    import jax

    from jaxnn import epoch, train

    config = point.config()
    images, labels = jax.device_put(examples(config.sizes[0]))
    order = epoch.shuffled_batches(0, 0, STEPS * BATCH, BATCH)
    key = epoch.changes_key(config, 0)

    def run() -> list[np.ndarray]:
        carry = jax.tree.map(jax.numpy.array, (state.params, state.opt_state))  # copies: donated
        carry, cost = program(carry, images, labels, order, key)
        float(cost)  # waits for the steps
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    with known(point):
        program = epoch.program(config, STEPS)
        state = train.initial_state(config, STEPS * BATCH)
        run()  # is compiled while the table has it
    return run


def run(quick: bool, curves: tuple[Axis, ...] | None = None) -> dict[str, Any]:
    """Times the points of all curves in turn; a point of two curves once."""
    curves = axes(quick) if curves is None else curves
    points = list(dict.fromkeys(point for axis in curves for point in axis.points))
    entered = {point: Contestant(partial(steps, point), 1, "jaxnn") for point in points}
    outcomes = timing.interleaved(entered, REPEATS[quick], BUDGET[quick])
    for point, outcome in outcomes.items():
        assert all(np.all(np.isfinite(leaf)) for leaf in outcome.result), f"{point}: not finite"
    found = {
        axis.name: [
            {
                "at": getattr(point, axis.field),
                "multiplications": point.multiplications(),
                **{part: s / STEPS for part, s in outcomes[point].times._asdict().items()},
            }
            for point in axis.points
        ]
        for axis in curves
    }
    return {"batch": BATCH, "repeats": REPEATS[quick], "axes": found}


def table(result: dict[str, Any]) -> str:
    """The slopes over all points and of the last step; then each point beside the one before."""
    slopes: list[list[str]] = []
    rows: list[list[str]] = []
    for name, points in result["axes"].items():
        span = f"{name}, {points[0]['at']:,} to {points[-1]['at']:,}"
        parts = [(what, some) for what in WHAT for some in (points, points[-2:])]
        slopes.append([span, *(f"{slope(some, what):.2f}" for what, some in parts)])
        ratios = [""] + [_ratios(one, two) for one, two in pairwise(points)]
        rows += [
            [
                f"{name}: {one['at']:,}",
                f"{1e3 * one['median']:,.2f}",
                f"{1e3 * one['low']:,.2f} to {1e3 * one['high']:,.2f}",
                f"{one['multiplications'] / 1e6:,.0f}",
                f"{one['multiplications'] / one['median'] / 1e9:,.0f}",
                ratio,
            ]
            for one, ratio in zip(points, ratios, strict=True)
        ]
    heads = ["slopes", "time", "its last step", "multiplications", "their last step"]
    head = ["a training step", "median ms", "quartiles", "million multiplications"]
    head += ["billions a second", "time (multiplications) of the row above"]
    return f"{markdown(heads, slopes)}\n\n{markdown(head, rows)}"


def _ratios(one: dict[str, Any], two: dict[str, Any]) -> str:
    """How many times as much the second point is."""
    time, count = (two[what] / one[what] for what in WHAT)
    return f"{time:.2f} ({count:.2f})"


if __name__ == "__main__":
    from benchmarks import growth_families, report

    report.main("growth_families", growth_families)
