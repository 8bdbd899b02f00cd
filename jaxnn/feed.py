"""Where an epoch's images come from: memory, all at once, or the disk, chunk by chunk."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import teacher
from jaxnn.checks import check, check_settings
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset
from jaxnn.data.stream import Stream, chunks, read
from jaxnn.epoch import CHUNK, shuffle_seed, shuffled_batches
from jaxnn.errors import ConfigError

CHUNK_IMAGES = 10_000  # about, that are read from disk together
CALIBRATION_IMAGES = 10_000  # of a set on disk, to fit a temperature on

Chunks = Generator[tuple[Any, Any, np.ndarray], None, None]


class Feed(NamedTuple):
    """What training sees, and what it is measured on."""

    examples: int  # training images in an epoch
    held_out_images: np.ndarray  # uint8 [M, n_in]: the validation part, or else the test images
    held_out_labels: np.ndarray  # uint8 [M]
    calibration_images: np.ndarray  # uint8 [L, n_in]: the validation part, or training images
    calibration_labels: np.ndarray  # uint8 [L]
    # epoch -> images uint8, labels or a teacher's targets float32 [N, n_out], order int [steps, B]
    chunks: Callable[[int], Chunks]


def from_memory(config: TrainConfig, data: Dataset) -> Feed:
    """All training images on the device, an epoch in one chunk.

    Raises:
      ConfigError: a setting that cannot be, or that does not fit the data; another teacher.
      CheckpointError: a teacher that cannot be read.
      ShapeError: data that cannot be.
    """
    check(config, data)
    cut = len(data.train_images) - config.validation
    rows = data.train_images.reshape(len(data.train_images), -1)
    images = jax.device_put(rows[:cut])  # uint8 [N, n_in]
    answers = data.train_labels[:cut]
    if config.teacher:
        answers = teacher.lessons(config, rows[:cut], answers)
    labels = jax.device_put(answers)

    def of_epoch(epoch: int) -> Chunks:
        yield images, labels, shuffled_batches(shuffle_seed(config), epoch, cut, config.batch_size)

    validation = (rows[cut:], data.train_labels[cut:])
    test = (data.test_images.reshape(len(data.test_images), -1), data.test_labels)
    known = validation if config.validation else (rows, data.train_labels)
    return Feed(cut, *(validation if config.validation else test), *known, of_epoch)


def from_disk(config: TrainConfig, train: Stream, test: Stream) -> Feed:
    """Training images read as they are needed; the validation part and the test stay in memory.

    The shuffle is another one than `from_memory`'s: blocks of neighbouring images, then the
    images of a chunk. Memory for the training images is bounded by four chunks.

    Raises:
      ConfigError: a setting that cannot be, or that does not fit the data.
      DataError: a file that cannot be read.
    """
    if config.teacher:
        raise ConfigError(
            f"--teacher {config.teacher} looks once at images that stay in memory, and --stream "
            "reads them anew in each epoch: leave one out"
        )
    count = train.examples
    largest = max(train.largest_label, test.largest_label)
    check_settings(config, count, train.images.width, largest)
    check_settings(config, count, test.images.width, largest)
    cut = count - config.validation
    part = train._replace(examples=cut)
    steps = max(1, CHUNK_IMAGES // config.batch_size)
    if steps > CHUNK:
        steps -= steps % CHUNK  # of which a program gathers the images at once

    def of_epoch(epoch: int) -> Chunks:
        some = chunks(
            part,
            seed=shuffle_seed(config),
            epoch=epoch,
            batch_size=config.batch_size,
            chunk_images=steps * config.batch_size,
        )
        with closing(some):
            yield from some

    held_out = read(train, cut, count) if config.validation else read(test, 0, test.examples)
    known = held_out if config.validation else read(train, 0, min(count, CALIBRATION_IMAGES))
    return Feed(cut, *held_out, *known, of_epoch)
