"""What a command trains on: a data set in memory, or files that are read as they are needed."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn import data as datasets
from jaxnn import feed
from jaxnn.config import TrainConfig
from jaxnn.data import NAMES, Dataset, checksum, stream
from jaxnn.errors import ConfigError
from jaxnn.feed import Feed


class TrainingData(NamedTuple):
    """Training images, and the test images that the result is reported on."""

    about: dict[str, Any]  # what a file's header says of them
    train_images: int
    test_images: np.ndarray  # uint8 [M, ...]
    test_labels: np.ndarray  # uint8 [M]
    feed: Callable[[TrainConfig], Feed]  # checks the settings, too
    streamed: bool  # read in chunks, which shuffles in another way


def in_memory(dataset: Dataset) -> TrainingData:
    """A whole data set."""
    count = len(dataset.train_images)
    about = describe(checksum(dataset), count, len(dataset.test_images))
    return TrainingData(
        about,
        count,
        dataset.test_images,
        dataset.test_labels,
        lambda config: feed.from_memory(config, dataset),
        streamed=False,
    )


def on_disk(folder: str | None) -> TrainingData:
    """The training images of a folder, never all in memory; the test images are.

    Raises:
      ConfigError: no folder is named.
      DataError: it does not hold files that can be read in parts.
    """
    folder = folder or os.environ.get("JAXNN_DATA")
    if not folder or folder in ("embedded", "mnist"):
        raise ConfigError("--stream needs --data DIR, a folder of unpacked IDX or .npy files")
    train, test = (stream.open_stream(Path(folder), part) for part in ("train", "t10k"))
    about = describe(stream.checksum(train, test), train.examples, test.examples)
    images, labels = stream.read(test, 0, test.examples)
    return TrainingData(
        about,
        train.examples,
        images,
        labels,
        partial(feed.from_disk, train=train, test=test),
        streamed=True,
    )


def load(name: str | None, streamed: bool) -> TrainingData:
    """The data that a command line names."""
    return on_disk(name) if streamed else in_memory(datasets.load(name))


def describe(found: str, train_images: int, test_images: int) -> dict[str, Any]:
    """What a file's header says of its data."""
    return {
        "name": NAMES.get(found, "other"),
        "checksum": found,
        "train_images": train_images,
        "test_images": test_images,
    }
