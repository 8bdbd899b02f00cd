"""Spoken digits: files {digit}_{speaker}_{index}.wav of a folder or a zip, as the public set has.

That set is the Free Spoken Digit Dataset; its own rule is kept: the indices 0 to 4 of every
speaker are for testing. One speaker may be held out instead, to see how well a stranger is
heard.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data.features import SIZE, features, row
from jaxnn.data.picture_files import shown
from jaxnn.data.pictures import spread
from jaxnn.data.recording_files import FORM, MAX_BYTES, wav_files
from jaxnn.data.silences import trimmed
from jaxnn.data.sources import MAX_EXAMPLES, Dataset
from jaxnn.data.variations import USUAL, Strength, varied_features
from jaxnn.data.wav import RATE, decode
from jaxnn.errors import ConfigError, DataError

TEST_INDICES = 5  # of every speaker and digit: 0 to 4
MAX_SECONDS = 10.0  # of one recording
MAX_TOTAL = 6 * 3600.0  # s of all of them
MAX_COPIES = 100

_NAME = re.compile(r"([0-9])_([^_\s]{1,40})_([0-9]{1,6})\.wav", re.IGNORECASE | re.ASCII)


class Recording(NamedTuple):
    """One digit, spoken once."""

    digit: int  # 0 to 9
    speaker: str
    take: int  # 0 and up, the index in the file's name
    samples: np.ndarray  # float32 [n] at wav.RATE, silence at both ends cut off


def load(path: Path) -> list[Recording]:
    """All recordings of a folder, of its folder `recordings`, or of a zip, at any depth of it.

    Files with other suffixes, and hidden ones, are passed over.

    Returns:
      By digit, speaker and index.

    Raises:
      DataError: nothing there, a file that cannot be used, two of one name, or too many.
    """
    found: dict[tuple[int, str, int], Recording] = {}
    seconds = 0.0
    for name, blob in wav_files(path):
        what = f"{shown(path)}: {shown(name)}"
        key = _parsed(name, what)
        if key in found:
            raise DataError(f"{what} is there twice: leave one of them out")
        if len(blob) > MAX_BYTES:
            raise DataError(f"{what} has more than {MAX_BYTES:,} bytes: one digit needs far fewer")
        samples = decode(blob, what, MAX_SECONDS)
        seconds += len(samples) / RATE
        if seconds > MAX_TOTAL:
            raise DataError(
                f"{shown(path)} holds more than {MAX_TOTAL / 3600:g} hours of sound: give a part"
            )
        found[key] = Recording(*key, trimmed(samples).copy())
    if not found:
        raise DataError(f"{shown(path)} holds no recordings: expected files named {FORM}")
    return [found[key] for key in sorted(found)]


def prepare(samples: np.ndarray) -> np.ndarray:
    """One word float [n] at `wav.RATE` as a row uint8 [features.SIZE], its silent ends cut off."""
    return row(features(trimmed(samples)))


def split(
    recordings: Sequence[Recording], speaker: str | None = None
) -> tuple[list[Recording], list[Recording]]:
    """Recordings to train on and those to test on.

    Args:
      recordings: all of them.
      speaker: whose recordings, all of them, are for testing; where None, the indices 0 to 4 of
        every speaker are.

    Raises:
      ConfigError: the speaker is unknown.
      DataError: one of the parts would be empty.
    """
    speakers = sorted({each.speaker for each in recordings})
    if speaker is not None and speaker not in speakers:
        raise ConfigError(
            f"speaker {shown(speaker[:40])!r} is unknown: choose one of "
            f"{', '.join(map(shown, speakers[:20]))}"
        )
    tested = [
        each.take < TEST_INDICES if speaker is None else each.speaker == speaker
        for each in recordings
    ]
    train = [each for each, is_test in zip(recordings, tested, strict=True) if not is_test]
    test = [each for each, is_test in zip(recordings, tested, strict=True) if is_test]
    if not (train and test):
        lacks = "to test on" if train else "to train on"
        rule = "indices 0 to 4 are for testing" if speaker is None else f"{speaker} is held out"
        raise DataError(f"of {len(recordings):,} recordings none is left {lacks}: {rule}")
    return train, test


def dataset(
    train: Sequence[Recording],
    test: Sequence[Recording],
    *,
    validation: int = 0,
    copies: int = 0,
    seed: int = 0,
    strength: Strength = USUAL,
) -> Dataset:
    """Recordings as rows of features, with varied copies of those to train on.

    The last `validation` training rows are recordings, spread evenly over digits and speakers, of
    which there is no copy: so a network can be measured on them. All before them lie in an order
    of chance.

    Args:
      train: recordings to learn from.
      test: recordings held out.
      validation: how many training rows are for validation.
      copies: variations of each recording, beside itself, 0 to 100.
      seed: decides the variations and the order.
      strength: how far variations go.

    Returns:
      "Images" uint8 [N, features.SIZE] and their labels.

    Raises:
      ConfigError: no such number of copies, too many rows, or validation leaves nothing to train
        on.
    """
    if not 0 <= copies <= MAX_COPIES:
        raise ConfigError(f"copies is {copies}: give 0 to {MAX_COPIES}")
    if not 0 <= validation < len(train):
        raise ConfigError(
            f"validation is {validation:,} of {len(train):,} recordings: leave some to train on"
        )
    learned = len(train) - validation
    count = learned * (1 + copies)
    if count > MAX_EXAMPLES:
        raise ConfigError(
            f"{learned:,} recordings and {copies} copies of each make {count:,} rows, expected at "
            f"most {MAX_EXAMPLES:,}: make fewer copies"
        )
    groups = np.unique([f"{each.digit} {each.speaker}" for each in train], return_inverse=True)[1]
    ordered = [train[at] for at in spread(groups)]
    rng = np.random.default_rng(seed)
    images = np.empty((count + validation, SIZE), np.uint8)
    labels = np.empty(count + validation, np.uint8)
    for at, place in enumerate(rng.permutation(count)):
        copy, which = divmod(at, learned)
        word = ordered[which]
        images[place] = (
            row(varied_features(word.samples, rng, strength)) if copy else prepare(word.samples)
        )
        labels[place] = word.digit
    images[count:], labels[count:] = rows(ordered[learned:])
    return Dataset(images, labels, *rows(test))


def rows(recordings: Sequence[Recording]) -> tuple[np.ndarray, np.ndarray]:
    """Recordings as they are: uint8 [N, features.SIZE], and their digits, uint8 [N]."""
    images = np.array([prepare(each.samples) for each in recordings], np.uint8)
    return images.reshape(-1, SIZE), np.array([each.digit for each in recordings], np.uint8)


def _parsed(name: str, what: str) -> tuple[int, str, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{what} is no name of a spoken digit: expected {FORM}")
    return int(match[1]), match[2], int(match[3])
