"""What a network hears: log-mel steps of a word, as bytes.

A word is looked at through frames of 32 ms, one every 24 ms. The power of a frame's spectrum is
gathered into 40 bands, evenly spaced on the mel scale as the ear is, and told in decibels below
the loudest band of the whole word, which makes it independent of the level. 60 dB fill the bytes 1
to 255; a byte of 0 says "no such step", so that words of different length lie in equal rows.

A microphone, a room and a voice have a tone of their own, bands that are louder than others all
along the word. Half of that is taken back: all of it would also take the vowel of a short word.
"""

from functools import lru_cache

import numpy as np

from jaxnn.data.wav import RATE
from jaxnn.errors import ShapeError

FRAME = 256  # samples: 32 ms at 8 kHz
HOP = 192  # samples: 24 ms
BANDS = 40
STEPS = 40  # of a row: 0.97 s; of a longer word the loudest such part is kept
RANGE = 60.0  # dB between the bytes 1 and 255
SIZE = STEPS * BANDS  # bytes of a row

_FFT = 512  # points: the narrowest band, 72 Hz wide, still holds 4 of them
_PIECE = 4096  # frames at once: a long recording needs little more memory than a word
_LOWEST, _HIGHEST = 60.0, 4000.0  # Hz
_EVEN = 0.5  # part of the difference between the bands' means that is taken back
_EMPHASIS = 0.97  # speech falls by some 6 dB an octave, which this takes back


def features(samples: np.ndarray, *, hop: int = HOP) -> np.ndarray:
    """The steps of a word.

    Args:
      samples: float [n] at `RATE`, n at least 1, finite.
      hop: samples from a frame to the next; another one makes the word faster or slower without
        making it higher or lower.

    Returns:
      uint8 [T, BANDS], 1 to 255, with T = 1 + ceil((n - FRAME) / hop), at least 1.

    Raises:
      ShapeError: the samples are not a line of at least one number.
    """
    power = spectrum(samples, hop)
    loudest = power.max()
    if loudest <= 0:  # digital silence
        return np.ones(power.shape, np.uint8)
    decibels = np.maximum(10 * np.log10(np.maximum(power / loudest, 1e-12)), -RANGE)  # to 0
    decibels -= _EVEN * (decibels.mean(axis=0) - decibels.mean())
    return np.round(255 + np.clip(decibels, -RANGE, 0) * (254 / RANGE)).astype(np.uint8)


def spectrum(samples: np.ndarray, hop: int) -> np.ndarray:
    """Power of each frame in each band, float64 [T, BANDS]; see `features`."""
    if samples.ndim != 1 or not len(samples):
        raise ShapeError(
            f"samples have shape {samples.shape}, expected [n]: one channel of at least 1 sample"
        )
    steps = 1 + max(0, -(-(len(samples) - FRAME) // hop))
    line = np.zeros((steps - 1) * hop + FRAME)
    line[: len(samples)] = samples
    line[1 : len(samples)] -= _EMPHASIS * samples[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(line, FRAME)[::hop]
    power = np.empty((steps, BANDS))
    for at in range(0, steps, _PIECE):
        bins = np.fft.rfft(frames[at : at + _PIECE] * np.hanning(FRAME), _FFT)
        power[at : at + _PIECE] = np.abs(bins) ** 2 @ _filters().T
    return power


def row(steps: np.ndarray) -> np.ndarray:
    """Steps uint8 [T, BANDS] as one row uint8 [SIZE], filled up with zeros: see `STEPS`."""
    if len(steps) > STEPS:
        sums = np.concatenate([[0], np.cumsum(steps.sum(axis=1, dtype=np.int64))])
        first = int(np.argmax(sums[STEPS:] - sums[:-STEPS]))
        steps = steps[first : first + STEPS]
    padded = np.zeros((STEPS, BANDS), np.uint8)
    padded[: len(steps)] = steps
    return padded.ravel()


@lru_cache
def _filters() -> np.ndarray:
    """Triangles float64 [BANDS, _FFT / 2 + 1], each from its neighbours' peaks to its own, 1.

    Mel of a frequency f in Hz is 2595 log10(1 + f / 700): O'Shaughnessy, Speech Communication,
    1987.
    """
    top = 2595 * np.log10(1 + np.array([_LOWEST, _HIGHEST]) / 700)
    peaks = 700 * (10 ** (np.linspace(top[0], top[1], BANDS + 2) / 2595) - 1)
    bins = np.arange(_FFT // 2 + 1) * RATE / _FFT
    left, middle, right = (peaks[k : k + BANDS, None] for k in range(3))
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling))
