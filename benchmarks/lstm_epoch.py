"""An epoch of training of an LSTM that reads images row by row, beside the same one in PyTorch.

    python -m benchmarks.lstm_epoch [--quick]

28 steps of 28 pixels, 128 hidden units, the last state to 10 sigmoids, quadratic cost, SGD: the
same first parameters, the same shuffles, float32; the parameters at the end are compared. 60,000
images as in benchmarks/epoch.py, which says what they are; quick: 12,000, a fifth of an epoch.
PyTorch (torch.nn.LSTM and torch.nn.Linear) takes part where it is installed. Its LSTM has two
biases for each gate, which are added: one is 0 and stays so, or it would learn twice as fast.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.epoch import best, digits, ours
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome
from jaxnn.config import TrainConfig

OURS = "jaxnn"
THREADS = (1, 2)
EXAMPLES = {True: 12_000, False: 60_000}  # quick or not
REPEATS = {True: 3, False: 5}
BUDGET = {True: 10.0, False: 90.0}  # seconds a contestant may use up, beyond two repeats
TOLERANCES = (0.02, 2e-3)  # relative, absolute: hundreds of float32 steps, each rounding its way


class Setting(NamedTuple):
    """What to train, and on how many images."""

    hidden: int = 128
    batch_size: int = 100
    learning_rate: float = 0.1
    examples: int = 60_000
    devices: int = 0

    def config(self, gradient: Any) -> TrainConfig:
        """The same for jaxnn."""
        return TrainConfig(
            family="lstm",
            devices=self.devices,
            architecture="rows",
            sizes=(784, self.hidden, 10),
            activation="tanh",
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            gradient=gradient,
        )


class Start(NamedTuple):
    """What PyTorch is given, so that it need not load JAX."""

    params: list[np.ndarray]  # weights, recurrent, biases of the cell; weights, biases
    order: np.ndarray  # int32 [steps, B]


def start(setting: Setting) -> Start:
    """The parameters and the shuffle that jaxnn begins with."""
    import jax

    from jaxnn import epoch, train

    params = train.initial_state(setting.config("backprop"), setting.examples).params
    order = epoch.shuffled_batches(0, 0, setting.examples, setting.batch_size)
    return Start([np.array(leaf) for leaf in jax.tree.leaves(params)], order)


def in_torch(setting: Setting, start: Start) -> Callable[[], list[np.ndarray]]:
    """The usual PyTorch loop over shuffled batches, images kept as uint8."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as benchmarks.timing asks
    images, labels = digits(setting.examples)
    pixels = torch.from_numpy(images)
    targets = torch.eye(10)[torch.from_numpy(labels.astype(np.int64))]
    order = torch.from_numpy(start.order.astype(np.int64))

    def run() -> list[np.ndarray]:
        lstm = torch.nn.LSTM(28, setting.hidden, batch_first=True)
        linear = torch.nn.Linear(setting.hidden, 10)
        learnt = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, *linear.parameters()]
        with torch.no_grad():
            lstm.bias_hh_l0.zero_()
            for leaf, first in zip(learnt, start.params, strict=True):
                leaf.copy_(torch.from_numpy(first))
        optimizer = torch.optim.SGD(learnt, lr=setting.learning_rate)
        for batch in order:
            h, _ = lstm((pixels[batch].float() / 255).view(-1, 28, 28))
            a = torch.sigmoid(linear(h[:, -1]))
            cost = ((a - targets[batch]) ** 2).sum(dim=1).mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        return [leaf.detach().numpy() for leaf in learnt]

    return run


def on_devices(setting: Setting, count: int) -> Callable[[], list[np.ndarray]]:
    """Ours on a processor that JAX looks at as several devices, each with a part of every batch."""
    import jax

    jax.config.update("jax_num_cpu_devices", count)  # as JAX_NUM_CPU_DEVICES does
    return ours(setting._replace(devices=count), "backprop")


def contestants(setting: Setting) -> dict[str, Contestant]:
    """Both gradients of ours, and PyTorch, each with one thread and with two."""
    begin = start(setting)
    found = {}
    for n in THREADS:
        threads = f"{n} thread{'s' * (n > 1)}"
        found[f"{OURS}, {threads}"] = Contestant(partial(ours, setting, "backprop"), n, "jaxnn")
        if importlib.util.find_spec("torch"):
            peer = partial(in_torch, setting, begin)
            found[f"PyTorch, {threads}"] = Contestant(peer, n, "PyTorch")
    autodiff = partial(ours, setting, "autodiff")
    found["jaxnn by jax.grad, 2 threads"] = Contestant(autodiff, 2, "jaxnn")
    halves = partial(on_devices, setting, max(THREADS))
    found[f"{OURS}, 2 devices of 1 thread"] = Contestant(halves, 1, "jaxnn on devices")
    return found


def check(outcomes: dict[str, Outcome]) -> None:
    """Raises AssertionError where a contestant does not end at the parameters of ours."""
    rtol, atol = TOLERANCES
    for name, outcome in outcomes.items():
        truth = outcomes[f"{OURS}, 1 thread"].result
        for found, expected in zip(outcome.result, truth, strict=True):
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def run(quick: bool, setting: Setting | None = None) -> dict[str, Any]:
    """Times all in turn; checks that all end at the same parameters."""
    setting = setting or Setting(examples=EXAMPLES[quick])
    outcomes = timing.interleaved(contestants(setting), REPEATS[quick], BUDGET[quick])
    check(outcomes)
    seconds = {name: outcome.times._asdict() for name, outcome in outcomes.items()}
    return {**setting._asdict(), "repeats": REPEATS[quick], "seconds": seconds}


def table(result: dict[str, Any]) -> str:
    """All contestants, and how the best of ours stands to the best of PyTorch."""
    rows = []
    peer = best(result["seconds"], "PyTorch")
    for name, times in result["seconds"].items():
        spread = f"{times['low']:.2f} to {times['high']:.2f}"
        ratio = "" if peer is None else f"{times['median'] / peer:.2f}"
        rows.append([name, f"{times['median']:.2f}", spread, ratio])
    what = (
        f"28 rows of 28, {result['hidden']} hidden, batch {result['batch_size']}, "
        f"{result['examples']:,} images"
    )
    return markdown([what, "median s", "quartiles", "of PyTorch's best"], rows)


if __name__ == "__main__":
    from benchmarks import lstm_epoch, report

    report.main("lstm_epoch", lstm_epoch)
