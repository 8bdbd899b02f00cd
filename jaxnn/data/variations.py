"""Variations of a spoken word: other voices, rooms and microphones, roughly.

Everything comes from one NumPy Generator, so that a seed decides what comes out.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import resample_poly

from jaxnn.data.features import HOP, features
from jaxnn.data.wav import RATE

_GRAIN = 20  # voices are moved by twentieths: such fractions are quick to resample


class Strength(NamedTuple):
    """How far a word may be moved; every amount is drawn evenly between its bounds."""

    voice: int = 5  # twentieths that it is played faster or slower, which moves its pitch too
    tempo: float = 0.25  # part by which it is spoken faster or slower at the same pitch
    shift: float = 0.12  # s of silence put before, or cut off; and the same after
    noise: tuple[float, float] = (5.0, 45.0)  # dB that the word stands above a noise
    tilt: float = 14.0  # dB an octave that a noise or microphone may fall or rise
    level: tuple[float, float] = (-20.0, 3.0)  # dB of the peak against full scale: over 0 it clips


USUAL = Strength()


def varied(samples: np.ndarray, rng: np.random.Generator, strength: Strength = USUAL) -> np.ndarray:
    """Another way in which a word might have been recorded.

    In turn: the voice is moved, silence is put before and after it or some of it cut off there,
    the microphone's tone and a noise are added, and the level is set.

    Args:
      samples: float32 [n] at `RATE`, one word.
      rng: where chance comes from.
      strength: how far it goes.

    Returns:
      float32 [m], -1 to 1.
    """
    up = int(rng.integers(-strength.voice, strength.voice + 1)) + _GRAIN
    word = resample_poly(samples, up, _GRAIN) if up != _GRAIN else samples
    word = _moved(_moved(word, rng, strength.shift)[::-1], rng, strength.shift)[::-1]
    word = _tilted(word, rng.uniform(-strength.tilt, strength.tilt) / 2)
    noise = _tilted(rng.standard_normal(len(word)), rng.uniform(-strength.tilt, strength.tilt))
    loudness = np.sqrt(np.mean(np.square(word)))
    ratio = 10 ** (-rng.uniform(*strength.noise) / 20)
    word = word + noise * (ratio * loudness / max(float(np.sqrt(np.mean(noise**2))), 1e-9))
    peak = 10 ** (rng.uniform(*strength.level) / 20)
    return np.clip(word * (peak / max(float(np.abs(word).max()), 1e-9)), -1, 1).astype(np.float32)


def varied_features(
    samples: np.ndarray, rng: np.random.Generator, strength: Strength = USUAL
) -> np.ndarray:
    """Steps uint8 [T, BANDS] of a variation, at another tempo; see `varied`."""
    word = varied(samples, rng, strength)
    hop = round(HOP * rng.uniform(1 - strength.tempo, 1 + strength.tempo))
    return features(word, hop=hop)


def _moved(word: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """The word with silence before it; or without its beginning, by a quarter as much at most."""
    by = round(rng.uniform(-most / 4, most) * RATE)
    return np.pad(word, (by, 0)) if by >= 0 else word[min(-by, len(word) // 4) :]


def _tilted(word: np.ndarray, slope: float) -> np.ndarray:
    """The same with its spectrum changed by a slope in dB an octave, nothing at 1 kHz."""
    size = next_fast_len(2 * len(word), real=True)  # the rest is room for what wraps around
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 50.0)
    gain = 10 ** (slope * np.log2(hertz / 1000) / 20)
    return np.fft.irfft(np.fft.rfft(word, size) * gain, size)[: len(word)]
