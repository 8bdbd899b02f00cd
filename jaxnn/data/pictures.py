"""One's own labelled pictures: a folder laid out as LABEL/*.png, or a CSV of file,label.

Pictures are read one after the other, and of each only the prepared digit is kept: a thousand
photos need no more memory than the largest of them. Names and contents are not believed: whatever
is no whole picture of a digit is left out, with a sentence that says why.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data.picture_files import labelled, read_file, shown
from jaxnn.data.preprocess import SIDE, decode, prepare
from jaxnn.data.sources import Dataset, held_out
from jaxnn.errors import DataError


class Pictures(NamedTuple):
    """Prepared digits, and what could not be made one."""

    files: tuple[str, ...]  # [N] where each picture lies
    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # uint8 [N], 0 to 9
    unread: tuple[str, ...]  # a sentence for each picture that was left out

    @property
    def left_out(self) -> str:
        """How many pictures were left out, as a sentence; empty where none was."""
        count = len(self.unread)
        if not count:
            return ""
        return (
            f"{count:,} of {count + len(self.files):,} pictures could not be used and "
            f"{'was' if count == 1 else 'were'} left out"
        )


def load(path: Path) -> Pictures:
    """All pictures of a folder or of a CSV, each prepared as `preprocess.prepare` does.

    Args:
      path: the folder or CSV: see `picture_files.labelled`.

    Returns:
      The pictures by label and name, or in the order of the CSV.

    Raises:
      DataError: what `labelled` refuses, or no picture that can be used.
    """
    listed = labelled(path)
    images = np.empty((len(listed), SIDE, SIDE), np.uint8)
    files: list[str] = []
    labels: list[int] = []
    unread: list[str] = []
    for file, label in listed:
        try:
            images[len(files)] = _prepared(file)
        except DataError as error:
            unread.append(str(error))
            continue
        files.append(str(file))
        labels.append(label)
    if not files:
        raise DataError(
            f"none of the {len(listed):,} pictures of {shown(path)} could be used: {unread[0]}"
        )
    return Pictures(tuple(files), images[: len(files)], np.array(labels, np.uint8), tuple(unread))


def split(pictures: Pictures) -> Dataset:
    """Pictures to train on, and those that are kept for testing: see `sources.held_out`.

    The last fifth of each digit in their order, always the same: where a camera has numbered
    them, the two parts are then not of the same minute. Of one or two pictures of a digit none is
    kept.
    """
    test = held_out(pictures.labels)
    images, labels = pictures.images[~test], pictures.labels[~test]
    order = spread(labels)
    return Dataset(images[order], labels[order], pictures.images[test], pictures.labels[test])


def mixed(base: Dataset, own: Dataset) -> Dataset:
    """Both sets: the training images spread among each other, own test images at the end."""
    order = spread(np.repeat((0, 1), (len(base.train_labels), len(own.train_labels))))
    return Dataset(
        np.concatenate([base.train_images, own.train_images])[order],
        np.concatenate([base.train_labels, own.train_labels])[order],
        np.concatenate([base.test_images, own.test_images]),
        np.concatenate([base.test_labels, own.test_labels]),
    )


def spread(groups: np.ndarray) -> np.ndarray:
    """An order in which every group lies evenly over the whole, and ascends.

    A validation part is the end of the training images: so it has something of every group.

    Args:
      groups: int [N], the group of each.

    Returns:
      int [N], indices.
    """
    place = np.empty(len(groups))
    for group in np.unique(groups):
        at = np.flatnonzero(groups == group)
        place[at] = (np.arange(len(at)) + 0.5) / len(at)
    return np.argsort(place, kind="stable")


def _prepared(file: Path) -> np.ndarray:
    """uint8 [28, 28]; the errors name the file."""
    picture = decode(read_file(file), shown(file))
    try:
        return prepare(picture)
    except DataError as error:
        raise DataError(f"{shown(file)}: {error}") from error
