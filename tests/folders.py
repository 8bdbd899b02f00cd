"""Small folders of IDX files, for the tests of loading."""

import numpy as np

from jaxnn import data
from jaxnn.data import idx

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def make(seed=0, train=5, test=3):
    rng = np.random.default_rng(seed)
    return data.Dataset(
        rng.integers(0, 256, (train, 28, 28), np.uint8),
        rng.integers(0, 10, train, np.uint8),
        rng.integers(0, 256, (test, 28, 28), np.uint8),
        rng.integers(0, 10, test, np.uint8),
    )


def write(directory, dataset, rename=str, pack=bytes):
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, dataset, strict=True):
        (directory / rename(name)).write_bytes(pack(idx.encode(array)))
    return directory
