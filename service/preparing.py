"""What becomes rows by work: picture files, recordings and sounds. Knows no messages and no JAX."""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.data import preprocess
from jaxnn.errors import DataError
from service.config import IMAGE_BYTES
from service.errors import InvalidRequest

RATE = 8000  # samples a second, where a request does not say
RATES = (4000, 384_000)  # as `jaxnn.data.wav` has them, which is not read before it is needed


class Unprepared(NamedTuple):
    """What a request holds where it is no rows yet: files, or sounds."""

    parts: Sequence[Any]  # one a row, N at least 1
    size: int  # bytes of all of them
    what: str  # how an error names one, before its index from 0
    prepare: Callable[[Any, str], np.ndarray]  # a part, what it is called -> uint8 [n_in]


class Sound(NamedTuple):
    """One channel of sound."""

    samples: np.ndarray  # [n] int16, or float32 of -1 to 1; louder ones are brought to that
    rate: int  # samples a second, within RATES
    padded: bool = False  # whether zeros at its end are none of it


def pictures(files: Sequence[bytes], what: str) -> Unprepared:
    """Picture files, to be decoded; `what` names one in errors."""
    return Unprepared(files, sum(map(len, files)), what, encoded_to_image)


def recordings(files: Sequence[bytes]) -> Unprepared:
    """WAV files of a word each, to be decoded."""
    return Unprepared(files, sum(map(len, files)), "recording", recording_to_row)


def sounds(given: Sequence[Sound], what: str = "sound") -> Unprepared:
    """Sounds of a word each, to be prepared; `what` names one in errors.

    Raises:
      InvalidRequest: a rate that no sound has.
    """
    low, high = RATES
    for index, (_, rate, _) in enumerate(given):
        if not low <= rate <= high:
            raise InvalidRequest(
                f"{what} {index} has {rate} samples a second, expected {low} to {high}: set its "
                "sample_rate"
            )
    return Unprepared(given, sum(one.samples.nbytes for one in given), what, sound_to_row)


def encoded_to_image(blob: bytes, what: str) -> np.ndarray:
    """One picture file, decoded and prepared: uint8 [784].

    Args:
      blob: a PNG, JPEG or other picture file.
      what: how an error names it.

    Raises:
      InvalidRequest: the picture cannot be read, or holds no digit.
    """
    try:
        return preprocess.prepare(preprocess.decode(blob, what)).reshape(IMAGE_BYTES)
    except DataError as error:
        sentence = str(error)
        raise InvalidRequest(sentence if what in sentence else f"{what}: {sentence}") from error


def recording_to_row(blob: bytes, what: str) -> np.ndarray:
    """One WAV file of a word, decoded and prepared as `jaxnn classify` does: uint8 [n_in].

    Raises:
      InvalidRequest: it cannot be read, holds no sound, or lasts too long.
    """
    # Here, since SciPy's filters take most of a second to import, and pictures need none.
    from jaxnn.data import speech, wav

    try:
        return speech.prepare(wav.decode(blob, what, speech.MAX_SECONDS))
    except DataError as error:
        raise InvalidRequest(str(error)) from error


def sound_to_row(sound: Sound, what: str) -> np.ndarray:
    """One sound of a word, prepared: uint8 [n_in]. It becomes a WAV file, to be read as these are.

    Raises:
      InvalidRequest: as `recording_to_row`.
    """
    from scipy.io import wavfile

    samples = sound.samples
    if sound.padded:
        samples = samples[: len(samples) - int((samples[::-1] != 0).argmax())]
    file = io.BytesIO()
    wavfile.write(file, sound.rate, samples)
    return recording_to_row(file.getvalue(), what)
