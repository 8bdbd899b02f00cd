"""What a command trains on: a data set, one's own pictures, or files read as they are needed."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn import data as datasets
from jaxnn import feed
from jaxnn.commands import hearing, inputs
from jaxnn.config import TrainConfig
from jaxnn.data import NAMES, Dataset, checksum, pictures, speech, stream
from jaxnn.data.picture_files import shown
from jaxnn.errors import ConfigError, DataError
from jaxnn.feed import Feed


class Own(NamedTuple):
    """What is known of one's own pictures among the data."""

    checksum: str  # of them, as `pictures.split` divides them
    mixed_in: bool  # there are others beside them
    test_images: int  # of them: the last ones of all test images
    left_out: str  # a sentence, where some could not be used


class TrainingData(NamedTuple):
    """Training images, and the test images that the result is reported on."""

    about: dict[str, Any]  # what a file's header says of them
    train_images: int
    test_images: np.ndarray  # uint8 [M, ...]
    test_labels: np.ndarray  # uint8 [M]
    feed: Callable[[TrainConfig], Feed]  # checks the settings, too
    streamed: bool  # read in chunks, which shuffles in another way
    flags: tuple[str, ...]  # of the command line that names such data; a folder is DIR
    own: Own | None = None
    things: str = "images"  # what to call the test images: recordings are none


def in_memory(dataset: Dataset) -> TrainingData:
    """A whole data set."""
    count = len(dataset.train_images)
    about = describe(checksum(dataset), count, len(dataset.test_images))
    name = _name(about)
    return TrainingData(
        about,
        count,
        dataset.test_images,
        dataset.test_labels,
        lambda config: feed.from_memory(config, dataset),
        streamed=False,
        flags=() if name == "embedded" else ("--data", name),
    )


def with_pictures(path: Path, base: Dataset | None) -> TrainingData:
    """One's own pictures, alone or mixed into a data set; those left out are told on stderr.

    Mixed, the test images of both are kept apart (`measured_apart`): among thousands of others
    the few of one's own would hardly show.

    Raises:
      DataError: pictures that cannot be used, or, alone, too few to keep any for testing.
    """
    found = inputs.own_pictures(path)
    own = pictures.split(found)
    tested = len(own.test_images)
    if base is None and not tested:
        raise DataError(
            f"{shown(path)} has no more than 2 pictures of any digit, and none is left to test "
            "on: give 3 of a digit or more, or mix them into other digits, as by "
            "--data embedded"
        )
    source = in_memory(own if base is None else pictures.mixed(base, own))
    flags = () if base is None else ("--data", _name(in_memory(base).about))
    return source._replace(
        flags=(*flags, "--images", "DIR"),
        own=Own(checksum(own), base is not None, tested, found.left_out),
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
        flags=("--stream", "--data", "DIR"),
    )


def load(name: str | None, streamed: bool, images: Path | None = None) -> TrainingData:
    """The data that a command line names.

    Args:
      name: of a data set; None is the default one, or none at all beside one's own pictures.
      streamed: whether its training images are read in chunks.
      images: one's own pictures.
    """
    if images is None:
        return on_disk(name) if streamed else in_memory(datasets.load(name))
    if streamed:
        raise ConfigError(
            "--stream reads one data set in chunks, and --images are kept in memory: leave one out"
        )
    return with_pictures(images, None if name is None else datasets.load(name))


def spoken(
    source: str | None, config: TrainConfig, speaker: str | None, copies: int
) -> TrainingData:
    """Spoken digits, with varied copies of those to train on.

    Args:
      source: a folder or zip of recordings; "fsdd" or None is the downloaded public set.
      config: how many recordings are for validation; and the seed, which decides the copies.
      speaker: whose recordings are for testing; None leaves the indices 0 to 4 for that.
      copies: of each recording, beside itself.

    Raises:
      ConfigError: no recordings are named, the speaker is unknown, or the numbers cannot be.
      DataError: files that cannot be used.
    """
    recordings, name = hearing.recordings(source)
    dataset = speech.dataset(
        *speech.split(recordings, speaker),
        validation=config.validation,
        copies=copies,
        seed=config.seed,
    )
    data = "fsdd" if source in (None, "fsdd") else "DIR"
    flags = ["--task", "speech", "--data", data, "--copies", str(copies)]
    flags += ["--speaker", shown(speaker)] if speaker else []
    found = in_memory(dataset)
    held_out = f"speaker {shown(speaker)}" if speaker else "indices 0 to 4"
    return found._replace(
        about={**found.about, "name": f"{name}, {held_out} for testing"},
        flags=tuple(flags),
        things="recordings",
    )


def describe(found: str, train_images: int, test_images: int) -> dict[str, Any]:
    """What a file's header says of its data."""
    return {
        "name": NAMES.get(found, "other"),
        "checksum": found,
        "train_images": train_images,
        "test_images": test_images,
    }


def measured_apart(source: TrainingData, scores: np.ndarray) -> dict[str, float]:
    """Accuracy on one's own test images and on the others, where both are mixed.

    Args:
      source: the data.
      scores: [M, n_out] of all its test images.
    """
    if not (source.own and source.own.mixed_in and source.own.test_images):
        return {}
    right = scores.argmax(axis=1) == source.test_labels
    own = source.own.test_images
    return {
        "own_test_accuracy": float(right[-own:].mean()),
        "own_test_images": own,
        "other_test_accuracy": float(right[:-own].mean()),
    }


def apart_text(source: TrainingData, apart: dict[str, float]) -> str:
    """The same as a sentence."""
    if not apart:
        return "your own pictures: all trained on, since of 1 or 2 of a digit none is held out"
    others = len(source.test_labels) - int(apart["own_test_images"])
    return (
        f"your own pictures: {apart['own_test_accuracy']:.2%} of {apart['own_test_images']:,}; "
        f"the others: {apart['other_test_accuracy']:.2%} of {others:,}"
    )


def _name(about: dict[str, Any]) -> str:
    """What --data calls a data set."""
    names = {"MNIST, embedded part": "embedded", "MNIST, whole": "mnist"}
    return names.get(about["name"], "DIR")
