"""An epoch of training, beside the same epoch in batched NumPy and in PyTorch.

    python -m benchmarks.epoch [--batch-size 100] [--repeats 15] [--json FILE]

60,000 images, 784-16-16-10, sigmoids, quadratic cost, SGD with rate 3: the same first parameters,
the same shuffles, the same arithmetic in float32. Where JAXNN_DATA does not name the whole of
MNIST, the embedded digits are repeated up to 60,000: the speed does not depend on what they show.
PyTorch takes part where it is installed (`pip install torch==2.13.0`).
"""

import argparse
import dataclasses
import importlib.metadata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks import timing
from benchmarks.timing import Contestant
from jaxnn import data, train
from jaxnn.train import TrainConfig

EXAMPLES = 60_000
OURS = "jaxnn, autodiff, 1 thread"  # as `jaxnn train` runs a network of this size


def digits() -> tuple[np.ndarray, np.ndarray]:
    """60,000 images uint8 [N, 784] and labels uint8 [N]."""
    dataset = data.load()
    repeats = -(-EXAMPLES // len(dataset.train_images))
    images = np.tile(dataset.train_images.reshape(-1, 784), (repeats, 1))[:EXAMPLES]
    return images, np.tile(dataset.train_labels, repeats)[:EXAMPLES]


def ours(config: TrainConfig) -> Callable[[], list]:
    """An epoch by jaxnn.train, as `fit` runs it."""
    model = train.models.build(train.spec_of(config))
    optimizer = train.optimizer_of(config, EXAMPLES // config.batch_size)
    train_epoch = train.epoch_function(model, optimizer, config.gradient, config.shift)
    key = jax.random.key(0)
    state = train.initial_state(config, EXAMPLES)
    on_device = jax.device_put(digits())

    def run() -> list:
        carry = jax.tree.map(jax.numpy.array, (state.params, state.opt_state))
        order = train.shuffled_batches(0, 0, EXAMPLES, config.batch_size)
        carry, _ = jax.block_until_ready(train_epoch(carry, *on_device, order, key))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(carry[0])]

    return run


def first_params(config: TrainConfig) -> list[list[np.ndarray]]:
    """What every contestant starts from."""
    params = train.initial_state(config, EXAMPLES).params
    return [[np.array(layer.weights), np.array(layer.biases)] for layer in params]


def in_numpy(config: TrainConfig) -> Callable[[], list]:
    """The same epoch in batched NumPy; images are kept as uint8, which is the faster way."""
    images, labels = digits()
    rate = np.float32(config.learning_rate)
    targets = np.eye(10, dtype=np.float32)
    scale = np.float32(1 / 255)

    def run() -> list:
        params = first_params(config)
        for batch in train.shuffled_batches(0, 0, EXAMPLES, config.batch_size):
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


def in_torch(config: TrainConfig, threads: int) -> Callable[[], list]:
    """The usual PyTorch loop over shuffled batches, images as uint8 as well."""
    import torch

    torch.set_num_threads(threads)
    images, labels = digits()
    pixels = torch.from_numpy(images.copy())
    targets = torch.eye(10)[torch.from_numpy(labels.astype(np.int64))]

    def run() -> list:
        layers: list = []
        for w, b in first_params(config):
            linear = torch.nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.Sigmoid()]
        network = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate)
        order = train.shuffled_batches(0, 0, EXAMPLES, config.batch_size)
        for batch in torch.from_numpy(order.astype(np.int64)):
            a = network(pixels[batch].float() / 255)
            cost = ((a - targets[batch]) ** 2).sum(dim=1).mean()
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        return [leaf.detach().numpy() for leaf in network.parameters()]

    return run


def main() -> None:
    """Checks that all end at the same parameters, times them, prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    config = TrainConfig(batch_size=options.batch_size)
    by_hand = dataclasses.replace(config, gradient="backprop")
    contestants = {
        OURS: Contestant(partial(ours, config), 1),
        "jaxnn, backprop, 1 thread": Contestant(partial(ours, by_hand), 1),
        "jaxnn, autodiff, 2 threads": Contestant(partial(ours, config), 2),
        "NumPy, 1 thread": Contestant(partial(in_numpy, config), 1),
        "NumPy, 2 threads": Contestant(partial(in_numpy, config), 2),
    }
    try:
        version = importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        print("PyTorch is not here and takes no part: pip install torch==2.13.0")
    else:
        for threads in (1, 2):
            name = f"PyTorch {version}, {threads} thread{'s' * (threads > 1)}"
            contestants[name] = Contestant(partial(in_torch, config, threads), threads)

    outcomes = timing.interleaved(contestants, options.repeats)
    for name, outcome in outcomes.items():
        pairs = zip(outcome.result, outcomes["NumPy, 1 thread"].result, strict=True)
        for found, truth in pairs:
            # 600 float32 steps, each rounding differently.
            np.testing.assert_allclose(found, truth, rtol=0.02, atol=2e-3, err_msg=name)
    print(f"one epoch of {EXAMPLES:,} images, batch {options.batch_size}, 784-16-16-10")
    print(timing.table(outcomes, OURS))
    timing.write(
        options.json,
        {
            "batch_size": options.batch_size,
            "seconds": {name: one.times._asdict() for name, one in outcomes.items()},
        },
    )


if __name__ == "__main__":
    main()
