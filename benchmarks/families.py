"""An epoch of training a convolutional network, beside the same network in PyTorch.

    python -m benchmarks.families [--quick] [--publish]

`cnn` lenet, 6,000 images, batch 100, softmax and cross-entropy, Adam: the same first parameters and
shuffles, in float32; the parameters after one epoch of plain SGD are compared, since Adam magnifies
rounding. PyTorch takes part where it is installed, in both of its layouts: channels first, its own
default, and channels last.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.epoch import digits
from benchmarks.report import markdown
from benchmarks.timing import Contestant, Outcome

OURS = "jaxnn"  # two cores as two devices, as `jaxnn train` has them
THREADS = (1, 2)
REPEATS = {True: 5, False: 15}  # quick or not
BUDGET = {True: 20.0, False: 90.0}  # seconds a contestant may use up, beyond two repeats
EXAMPLES = 6_000
WHOLE = 60_000  # images of an epoch that times are given for
TOLERANCES = (0.02, 2e-3)  # relative, absolute: some ten float32 steps of sums of thousands


class Start(NamedTuple):
    """What PyTorch is given, so that it need not load JAX."""

    params: list[list[np.ndarray]]  # weights and biases of each layer that has any
    order: np.ndarray  # int32 [steps, B]


def config(optimizer: str = "adam") -> Any:
    """Settings of jaxnn."""
    from dataclasses import replace

    from jaxnn.recipes import STARTS

    rate = 0.002 if optimizer == "adam" else 0.01
    return replace(STARTS["cnn"], optimizer=optimizer, learning_rate=rate, schedule="constant")


def ours(
    optimizer: str, gradient: str = "backprop", devices: int = 1
) -> Callable[[], list[np.ndarray]]:
    """An epoch by jaxnn, as `train.fit` runs it."""
    from dataclasses import replace

    import jax

    if devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)  # as JAX_NUM_CPU_DEVICES does
    from jaxnn import epoch, train
    from jaxnn.spread import everywhere

    settings = replace(config(optimizer), gradient=gradient, devices=devices)
    train_epoch = epoch.program(settings, EXAMPLES // settings.batch_size)
    state = train.initial_state(settings, EXAMPLES)
    images, labels = jax.device_put(digits(EXAMPLES))
    key = epoch.changes_key(settings, 0)

    def run() -> list[np.ndarray]:
        carry = everywhere(jax.tree.map(jax.numpy.array, (state.params, state.opt_state)), devices)
        order = epoch.shuffled_batches(0, 0, EXAMPLES, settings.batch_size)
        carry, cost = train_epoch(carry, images, labels, order, key)
        float(cost)  # waits for the epoch
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    return run


def start() -> Start:
    """The parameters and the shuffle that jaxnn begins with."""
    from jaxnn import epoch, train

    settings = config()
    params = train.initial_state(settings, EXAMPLES).params
    order = epoch.shuffled_batches(0, 0, EXAMPLES, settings.batch_size)
    return Start([[np.array(leaf) for leaf in layer] for layer in params if layer], order)


def in_torch(
    optimizer: str, begin: Start, channels_last: bool = False
) -> Callable[[], list[np.ndarray]]:
    """The usual PyTorch loop; parameters come back in jaxnn's layout."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as benchmarks.timing asks
    images, labels = digits(EXAMPLES)
    pixels = torch.from_numpy(images)
    targets = torch.from_numpy(labels.astype(np.int64))
    order = torch.from_numpy(begin.order.astype(np.int64))
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def run() -> list[np.ndarray]:
        layers: list[Any] = []
        maps = 0  # that come out of the layer before, where it has any
        for weights, biases in begin.params:
            if weights.ndim == 4:  # [F, K, K, C] -> [F, C, K, K]
                layer: Any = torch.nn.Conv2d(weights.shape[3], len(biases), weights.shape[1])
                values = weights.transpose(0, 3, 1, 2)
                layers += [layer, torch.nn.MaxPool2d(2), torch.nn.ReLU()]
            else:
                layer = torch.nn.Linear(weights.shape[1], len(biases))
                values = turned(weights, maps, first=True)
                layers += [torch.nn.Flatten()] * (maps > 0) + [layer, torch.nn.ReLU()]
            maps = len(biases) if weights.ndim == 4 else 0
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(values)))
                layer.bias.copy_(torch.from_numpy(biases))
        layers.pop()  # the last layer's outputs go to the cost
        network = torch.nn.Sequential(*layers).to(memory_format=layout)
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        steps = kind(network.parameters(), lr=config(optimizer).learning_rate)
        objective = torch.nn.CrossEntropyLoss()
        for batch in order:
            pictures = (pixels[batch].float() / 255).reshape(-1, 1, 28, 28)
            cost = objective(network(pictures.to(memory_format=layout)), targets[batch])
            steps.zero_grad()
            cost.backward()
            steps.step()
        found, maps = [], 0
        for layer in (one for one in network if hasattr(one, "weight")):
            values = layer.weight.detach().numpy()
            values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else turned(values, maps)
            maps = len(values) if values.ndim == 4 else 0
            found += [np.ascontiguousarray(values), layer.bias.detach().numpy()]
        return found

    return run


def turned(weights: np.ndarray, maps: int, first: bool = False) -> np.ndarray:
    """Weights [n, places * maps], maps last, with maps first, or back; as they are for 0 maps."""
    if not maps:
        return weights
    whole = (
        weights.reshape(len(weights), -1, maps)
        if first
        else weights.reshape(len(weights), maps, -1)
    )
    return whole.transpose(0, 2, 1).reshape(weights.shape)


def contestants(optimizer: str = "adam") -> dict[str, Contestant]:
    """Everyone, by name."""
    on_both = partial(ours, optimizer, devices=2)
    found = {OURS: Contestant(on_both, 1, "jaxnn on two devices")}
    for n in THREADS:
        found[f"jaxnn, {_threads(n)}"] = Contestant(partial(ours, optimizer), n, "jaxnn")
    by_autodiff = partial(ours, optimizer, "autodiff")
    found["jaxnn, jax.grad, 2 threads"] = Contestant(by_autodiff, 2, "jaxnn")
    if importlib.util.find_spec("torch"):
        begin = start()
        for last in (False, True):
            name = f"PyTorch, channels {'last' if last else 'first'}"
            prepare = partial(in_torch, optimizer, begin, last)
            for n in THREADS:
                found[f"{name}, {_threads(n)}"] = Contestant(prepare, n, "PyTorch")
    return found


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def check(outcomes: dict[Any, Outcome]) -> None:
    """Raises AssertionError where a contestant does not end at jaxnn's parameters."""
    truth = outcomes[OURS].result
    for name, outcome in outcomes.items():
        for found, expected in zip(outcome.result, truth, strict=True):
            rtol, atol = TOLERANCES
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def run(quick: bool) -> dict[str, Any]:
    """Checks that plain SGD ends at the same parameters, then times all of them with Adam."""
    check(timing.interleaved(contestants("sgd"), 2, 0.0))
    outcomes = timing.interleaved(contestants(), REPEATS[quick], BUDGET[quick])
    return {
        "repeats": REPEATS[quick],
        "examples": EXAMPLES,
        "seconds": {name: one.times._asdict() for name, one in outcomes.items()},
    }


def table(result: dict[str, Any]) -> str:
    """A line each, as seconds of an epoch of 60,000 images."""
    scale = WHOLE / result["examples"]
    mine = result["seconds"][OURS]["median"]
    rows = []
    for name, times in result["seconds"].items():
        spread = f"{scale * times['low']:.1f} to {scale * times['high']:.1f}"
        ratio = "" if name == OURS else f"{mine / times['median']:.2f} of it"
        rows.append([name, f"{scale * times['median']:.1f}", spread, ratio])
    head = ["cnn lenet: an epoch of 60,000", "median s", "quartiles", "jaxnn takes"]
    return markdown(head, rows)


if __name__ == "__main__":
    from benchmarks import families, report

    report.main("families", families)
