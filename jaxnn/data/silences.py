"""Where somebody speaks: the words of a longer recording, and the ends of a single one.

A long recording has pauses: the quietest tenth of each band of its spectrum is what the room sounds
like, and words stand out from that in some bands, whatever noise fills the others. A single word
may have none: only what lies far below its loudest part is cut away.
"""

import numpy as np

from jaxnn.data.features import FRAME, spectrum
from jaxnn.data.wav import RATE

_HOP = 80  # samples: 10 ms
_GROUP = 4  # mel bands that are taken together: what is left of 40 is 10
_TOP = 3  # of these that stand out the most tell how far a word does
_ROOM = 10  # percent of all frames that are taken for silence
_QUIETEST = 50.0  # dB below the loudest: what counts as silence where nothing is recorded at all
_EDGE = 5.0  # dB above the room: where a word begins and ends
_CORE = 8.0  # dB above the room: what a word reaches somewhere
_LEAST = 6  # frames above that: shorter sounds are clicks
_PAUSE = 15  # frames: shorter pauses are within a word, as before the x of six
_MARGIN = 5  # frames: kept before and after a word, for its softest sounds
_TRIM = 35.0  # dB below the loudest: silence beside a single word


def words(samples: np.ndarray) -> list[tuple[float, float]]:
    """Cuts a recording at its silences.

    Words that follow each other in less than 150 ms are taken as one. At least a tenth of the
    recording has to be silence, or a steady noise; other people who talk on are neither.

    Args:
      samples: float [n] at `RATE`, n at least 1.

    Returns:
      Start and end of each word in seconds, in order; they do not overlap. Empty where nothing
      stands out from the rest.
    """
    excess = _excess(samples)
    runs = [
        (first, end)
        for first, end in _runs(excess > _EDGE, _PAUSE)
        if np.count_nonzero(excess[first:end] > _CORE) >= _LEAST
    ]
    return [(first / RATE, min(end, len(samples)) / RATE) for first, end in map(_spread, runs)]


def trimmed(samples: np.ndarray) -> np.ndarray:
    """A single word float [n] without the silence before and after it; at least one sample."""
    power = spectrum(samples, _HOP).sum(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-_TRIM / 10))
    first, end = _spread((int(loud[0]), int(loud[-1]) + 1))
    return samples[first:end]


def _excess(samples: np.ndarray) -> np.ndarray:
    """How far each frame stands out from the room, dB float [T]: the mean of its best bands."""
    power = spectrum(samples, _HOP)
    bands = power.reshape(len(power), -1, _GROUP).sum(axis=2)
    beside = np.pad(bands, ((1, 1), (0, 0)), "edge")
    smooth = (beside[:-2] + beside[1:-1] + beside[2:]) / 3
    decibels = 10 * np.log10(np.maximum(smooth, smooth.max() * 10 ** (-_QUIETEST / 10) + 1e-30))
    above = decibels - np.percentile(decibels, _ROOM, axis=0)
    return np.sort(above, axis=1)[:, -_TOP:].mean(axis=1)


def _runs(active: np.ndarray, pause: int) -> list[tuple[int, int]]:
    """First and end of each run of True, runs joined that are less than `pause` apart."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    joined: list[tuple[int, int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        if joined and first - joined[-1][1] < pause:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined


def _spread(run: tuple[int, int]) -> tuple[int, int]:
    """First sample and end of a run of frames: from middle to middle, and the margin."""
    first, end = run
    middle = FRAME // 2
    return (
        max(0, (first - _MARGIN) * _HOP + middle),
        (end - 1 + _MARGIN) * _HOP + middle,
    )
