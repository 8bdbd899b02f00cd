"""An epoch of training, beside the same epoch in batched NumPy and in PyTorch.

    python -m benchmarks.epoch [--quick] [--publish]

60,000 images, sigmoids, quadratic cost, SGD: the same first parameters, the same shuffles, the
same arithmetic in float32; the parameters at the end are compared. Where JAXNN_DATA does not name
the whole of MNIST, the embedded digits are repeated up to 60,000: the speed does not depend on
what they show. PyTorch takes part where it is installed (`pip install torch==2.13.0`).

The floor is less than any training can do: each step's two products with the images alone, the
first layer's forward and its gradient, by OpenBLAS on float32 batches that lie ready in memory.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome
from jaxnn import data
from jaxnn.commands.settings import THREADS_PAY_FROM, largest_product
from jaxnn.config import TrainConfig

OURS = "jaxnn"
THREADS = (1, 2)
REPEATS = {True: 9, False: 25}  # quick or not
REPEATS_BESIDE = {True: 3, False: 9}  # of the settings after the first
BUDGET = {True: 3.0, False: 20.0}  # seconds a contestant may use up, beyond two repeats
TOLERANCES = (0.02, 2e-3)  # relative, absolute: hundreds of float32 steps, each rounding its way


class Setting(NamedTuple):
    """What to train, and on how many images."""

    sizes: tuple[int, ...] = (784, 16, 16, 10)
    batch_size: int = 100
    learning_rate: float = 3.0
    examples: int = 60_000

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch_size:,}"

    def config(self, gradient: Any = "autodiff") -> TrainConfig:
        """The same for jaxnn."""
        return TrainConfig(
            sizes=self.sizes,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            gradient=gradient,
        )


SETTINGS = (
    Setting(),
    Setting(batch_size=10, learning_rate=0.3),
    Setting(batch_size=1000),
    Setting(sizes=(784, 30, 10)),
    Setting(sizes=(784, 100, 10)),
)


@lru_cache
def digits(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """That many images uint8 [N, 784] and labels uint8 [N]."""
    dataset = data.load()
    repeats = -(-examples // len(dataset.train_images))
    images = np.tile(dataset.train_images.reshape(-1, 784), (repeats, 1))[:examples]
    return images, np.tile(dataset.train_labels, repeats)[:examples]


class Start(NamedTuple):
    """What the peers are given, so that they need not load JAX."""

    params: list[list[np.ndarray]]  # weights [n_out, n_in] and biases [n_out] of each layer
    order: np.ndarray  # int32 [steps, B]


def ours(setting: Any, gradient: str = "autodiff") -> Callable[[], list[np.ndarray]]:
    """An epoch by jaxnn, as `train.fit` runs it. Nothing else here knows of jaxnn's training.

    Args:
      setting: of this benchmark, or of another with a `config` of its own.
      gradient: as `TrainConfig.gradient` has it.
    """
    import jax

    from jaxnn import epoch, train
    from jaxnn.spread import everywhere

    config = setting.config(gradient)
    train_epoch = epoch.program(config, setting.examples // setting.batch_size)
    state = train.initial_state(config, setting.examples)
    images, labels = jax.device_put(digits(setting.examples))
    key = epoch.changes_key(config, 0)

    def run() -> list[np.ndarray]:
        copies = jax.tree.map(jax.numpy.array, (state.params, state.opt_state))
        carry = everywhere(copies, config.devices)
        order = epoch.shuffled_batches(0, 0, setting.examples, setting.batch_size)
        carry, cost = train_epoch(carry, images, labels, order, key)
        float(cost)  # waits for the epoch
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    return run


def start(setting: Setting) -> Start:
    """The parameters and the shuffle that jaxnn begins with."""
    from jaxnn import epoch, train

    params = train.initial_state(setting.config(), setting.examples).params
    order = epoch.shuffled_batches(0, 0, setting.examples, setting.batch_size)
    return Start([[np.array(w), np.array(b)] for w, b in params], order)


def in_numpy(setting: Setting, start: Start) -> Callable[[], list[np.ndarray]]:
    """The same epoch in batched NumPy; images are kept as uint8, which is the faster way."""
    images, labels = digits(setting.examples)
    rate = np.float32(setting.learning_rate)
    targets = np.eye(10, dtype=np.float32)
    scale = np.float32(1 / 255)

    def run() -> list[np.ndarray]:
        params = [[array.copy() for array in layer] for layer in start.params]
        for batch in start.order:
            a = [images[batch] * scale]
            for w, b in params:
                a.append(1 / (1 + np.exp(-(a[-1] @ w.T + b))))
            delta = 2 * (a[-1] - targets[labels[batch]]) * a[-1] * (1 - a[-1])
            for layer in range(len(params) - 1, -1, -1):
                w, b = params[layer]
                gradient = delta.T @ a[layer] / np.float32(len(batch))
                slope = delta.mean(axis=0)
                if layer:
                    delta = (delta @ w) * a[layer] * (1 - a[layer])
                w -= rate * gradient
                b -= rate * slope
        return [leaf for layer in params for leaf in layer]

    return run


def in_torch(setting: Setting, start: Start) -> Callable[[], list[np.ndarray]]:
    """The usual PyTorch loop over shuffled batches, images as uint8 as well."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as benchmarks.timing asks
    images, labels = digits(setting.examples)
    pixels = torch.from_numpy(images)
    targets = torch.eye(10)[torch.from_numpy(labels.astype(np.int64))]
    order = torch.from_numpy(start.order.astype(np.int64))

    def run() -> list[np.ndarray]:
        layers: list = []
        for w, b in start.params:
            linear = torch.nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.Sigmoid()]
        network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(network.parameters(), lr=setting.learning_rate)
        for batch in order:
            a = network(pixels[batch].float() / 255)
            cost = ((a - targets[batch]) ** 2).sum(dim=1).mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        return [leaf.detach().numpy() for leaf in network.parameters()]

    return run


@lru_cache(maxsize=1)
def ready(examples: int) -> np.ndarray:
    """The images as float32 [N, 784] intensities, in order."""
    return digits(examples)[0] * np.float32(1 / 255)


def floor(setting: Setting) -> Callable[[], None]:
    """The two large matrix products of each step, and nothing else."""
    x = ready(setting.examples)
    x = x[: len(x) // setting.batch_size * setting.batch_size]
    x = x.reshape(-1, setting.batch_size, x.shape[1])  # [steps, B, n_in]
    rng = np.random.default_rng(0)
    hidden = setting.sizes[1]
    weights = rng.normal(size=(hidden, x.shape[2])).astype(np.float32)
    delta = rng.normal(size=(setting.batch_size, hidden)).astype(np.float32)

    def run() -> None:
        for batch in x:
            batch @ weights.T
            delta.T @ batch

    return run


def contestants(settings: tuple[Setting, ...], quick: bool) -> dict[tuple, Contestant]:
    """Everyone, by setting and name; the first setting has some variants of ours as well."""
    found: dict[tuple, Contestant] = {}
    for setting in settings:
        as_train = 2 if largest_product(setting.config()) >= THREADS_PAY_FROM else 1
        entries: list[tuple[str, Any, int, str]] = [(OURS, ours, as_train, "jaxnn")]
        if setting is settings[0]:
            explicit = partial(ours, gradient="backprop")
            entries.append(("jaxnn, explicit gradient", explicit, as_train, "jaxnn"))
            other = 3 - as_train
            entries.append((f"jaxnn, {_threads(other)}", ours, other, "jaxnn"))
        begin = start(setting)
        peers: dict[str, Any] = {"NumPy": partial(in_numpy, start=begin), "floor": floor}
        if importlib.util.find_spec("torch"):
            peers["PyTorch"] = partial(in_torch, start=begin)
        for peer, prepare in peers.items():
            library = "NumPy" if peer == "floor" else peer
            entries += [(f"{peer}, {_threads(n)}", prepare, n, library) for n in THREADS]
        repeats = (REPEATS if setting is settings[0] else REPEATS_BESIDE)[quick]
        for name, prepare, threads, library in entries:
            found[setting, name] = Contestant(partial(prepare, setting), threads, library, repeats)
    return found


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def check(outcomes: dict[tuple, Outcome]) -> None:
    """Raises AssertionError where a contestant does not end at NumPy's parameters."""
    for (setting, name), outcome in outcomes.items():
        if outcome.result is None:  # the floor trains nothing
            continue
        truth = outcomes[setting, "NumPy, 1 thread"].result
        for found, expected in zip(outcome.result, truth, strict=True):
            rtol, atol = TOLERANCES
            np.testing.assert_allclose(
                found, expected, rtol=rtol, atol=atol, err_msg=f"{setting}: {name}"
            )


def run(quick: bool, settings: tuple[Setting, ...] = SETTINGS) -> dict[str, Any]:
    """Times all settings in one go; checks that all contestants end at the same parameters."""
    outcomes = timing.interleaved(contestants(settings, quick), REPEATS[quick], BUDGET[quick])
    check(outcomes)
    found = []
    for setting in settings:
        seconds = {
            name: one.times._asdict() for (at, name), one in outcomes.items() if at == setting
        }
        found.append({**setting._asdict(), "title": str(setting), "seconds": seconds})
    return {"repeats": [REPEATS[quick], REPEATS_BESIDE[quick]], "settings": found}


def table(result: dict[str, Any]) -> str:
    """All contestants of the first setting, then ratios to the best run of each peer."""
    first, *_ = result["settings"]
    ours = first["seconds"][OURS]["median"]
    rows = []
    for name, times in first["seconds"].items():
        spread = f"{1e3 * times['low']:.1f} to {1e3 * times['high']:.1f}"
        ratio = "" if name == OURS else f"{ours / times['median']:.2f} of it"
        rows.append([name, f"{1e3 * times['median']:.1f}", spread, ratio])
    head = [f"{first['title']}: an epoch", "median ms", "quartiles", "jaxnn takes"]
    ratios = []
    for setting in result["settings"]:
        times = setting["seconds"]
        mine = times[OURS]["median"]
        peers = [best(times, peer) for peer in ("NumPy", "PyTorch", "floor")]
        cells = ["" if peer is None else f"{mine / peer:.2f}" for peer in peers]
        ratios.append([setting["title"], f"{1e3 * mine:.1f}", *cells])
    heads = ["jaxnn against the better of 1 and 2 threads", "ms", "NumPy", "PyTorch", "floor"]
    return f"{markdown(head, rows)}\n\n{markdown(heads, ratios)}"


def best(seconds: dict[str, dict[str, float]], peer: str) -> float | None:
    """The least median of a peer's contestants; None where it took no part."""
    medians = [times["median"] for name, times in seconds.items() if name.startswith(f"{peer},")]
    return min(medians, default=None)


if __name__ == "__main__":
    from benchmarks import epoch, report

    report.main("epoch", epoch)
