"""The peer of the cold start: what a person would write in PyTorch, run in a fresh process.

    python benchmarks/torch_script.py FOLDER EPOCHS THREADS

784-16-16-10, sigmoids, quadratic cost, SGD with rate 3 in mini-batches of 100: as `jaxnn train`.
It reads the same four gzipped IDX files, keeps the images as bytes, saves nothing, and looks at
the test images once, at the end. Prints the test accuracy.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

folder, epochs, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)


def read(name: str, header: int) -> torch.Tensor:
    """The bytes of one file after its header."""
    with gzip.open(folder / f"{name}-ubyte.gz") as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


images = read("train-images-idx3", 16).reshape(-1, 784)
labels = read("train-labels-idx1", 8).long()
test_images = read("t10k-images-idx3", 16).reshape(-1, 784)
test_labels = read("t10k-labels-idx1", 8).long()

network = nn.Sequential(
    nn.Linear(784, 16),
    nn.Sigmoid(),
    nn.Linear(16, 16),
    nn.Sigmoid(),
    nn.Linear(16, 10),
    nn.Sigmoid(),
)
optimizer = torch.optim.SGD(network.parameters(), lr=3.0)
targets = torch.eye(10)[labels]
for _ in range(epochs):
    for batch in torch.randperm(len(images)).split(100):
        scores = network(images[batch].float() / 255)
        cost = ((scores - targets[batch]) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()

with torch.no_grad():
    found = network(test_images.float() / 255).argmax(dim=1)
print(f"test accuracy {(found == test_labels).float().mean().item():.4f}")
