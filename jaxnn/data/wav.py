"""WAV files as one channel of sound at `RATE`, whatever their own rate, channels and depth.

SciPy takes the container apart. It reads no more than there is, whatever a header declares; what
it makes of damaged files, a zero among the sizes for one, is turned into one sentence here.
"""

import io
import struct
import warnings
from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
from scipy.io import wavfile
from scipy.signal import firwin, resample_poly

from jaxnn.errors import DataError

RATE = 8000  # samples a second: a telephone's, and that of the Free Spoken Digit Dataset
RATES = (4000, 384_000)  # of a file, lowest and highest
MAX_SECONDS = 600.0
MAX_CHUNKS = 100  # of a file; those of recorders have fewer than ten
# The resampling filter grows with the fraction between two rates; 441 is what 11,025, 22,050 and
# 44,100 samples a second need.
_FINEST = 441
_READS = 3  # of SciPy for a chunk: its name, its size and what is in it


def decode(blob: bytes, what: str, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """The sound of a WAV file: integers of 8 to 64 bits, or floats, of any number of channels.

    Args:
      blob: the file's bytes, as many as the caller wants to allow.
      what: names the file in errors.
      max_seconds: how long it may last.

    Returns:
      float32 [n], n at least 1: the mean of the channels at `RATE`, -1 to 1 (a little over where
      a loud sound was resampled).

    Raises:
      DataError: no WAV file, a damaged, empty or too long one, or one with numbers that are none.
    """
    rate, samples = _read(blob, what)
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(
            f"{what} has {rate:,} samples a second, expected {RATES[0]:,} to {RATES[1]:,}: "
            "record it at 8,000 or more"
        )
    if not samples.size:
        raise DataError(f"{what} holds no sound: its length is zero")
    if len(samples) > max_seconds * rate:
        raise DataError(
            f"{what} lasts {len(samples) / rate:,.1f} s, expected at most {max_seconds:g} s: "
            "cut it into parts"
        )
    return resampled(_mono(samples, what), rate)


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Sound float32 [n] of some rate, brought to `RATE` behind a filter against aliasing.

    The ratio is rounded to a fraction over 441 at most: not at all for usual rates, by not much
    more than a thousandth of itself for others.
    """
    up, down = Fraction(RATE, rate).limit_denominator(_FINEST).as_integer_ratio()
    if up == down:
        return samples
    return resample_poly(samples, up, down, window=_filter(max(up, down))).astype(np.float32)


def encode(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file of 16 bits for sound float [n]; what lies beyond -1 to 1 is cut off."""
    out = io.BytesIO()
    wavfile.write(out, rate, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))
    return out.getvalue()


def _read(blob: bytes, what: str) -> tuple[int, np.ndarray]:
    """The rate as it is declared, and samples [n] or [n, channels] of some number type."""
    if blob[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        raise DataError(f"{what} is not a WAV file: give one, as ffmpeg or sox make from any sound")
    try:
        with warnings.catch_warnings():  # about chunks that hold no sound
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            return wavfile.read(_Chunks(blob))
    # In turn: sizes that do not fit, a format unknown to it, a size of 0, an end within a number,
    # and no sound at all, where it returns a variable that was never set.
    except (ValueError, TypeError, ArithmeticError, struct.error, UnboundLocalError) as error:
        cause = "no sound in it" if isinstance(error, UnboundLocalError) else _in_short(error)
        raise DataError(
            f"{what} is damaged, or no WAV file of plain samples ({cause}): save it as WAV, 16-bit "
            "PCM"
        ) from None


class _Chunks(io.BytesIO):
    """A file of which no more than `MAX_CHUNKS` chunks are read, and one each of format and sound.

    Counted while SciPy reads, as it takes the time: a walk of our own over the chunks could be led
    another way than its walk.
    """

    def __init__(self, blob: bytes) -> None:
        super().__init__(blob)
        self._reads, self._names = 0, Counter[bytes]()

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self._reads += 1
        if self._reads > _READS * MAX_CHUNKS:
            raise ValueError(f"it has over {MAX_CHUNKS} chunks")
        if found in (b"fmt ", b"data"):
            self._names[found] += 1
            if self._names[found] > 1:
                raise ValueError(f"it has two chunks named {found.decode().strip()!r}")
        return found


@cache
def _filter(longer: int) -> np.ndarray:
    """The filter that `resample_poly` would design anew for each sound: float32 [20 longer + 1].

    All are kept: the rates there are need 785 of them, of 25 MB; each takes a millisecond or so,
    and a request may hold thousands of sounds whose rates take turns.

    Args:
      longer: the larger number of the fraction between the rates.
    """
    taps = firwin(20 * longer + 1, 1 / longer, window=("kaiser", 5.0)).astype(np.float32)
    taps.setflags(write=False)
    return taps


def _mono(samples: np.ndarray, what: str) -> np.ndarray:
    """float32 [n], -1 to 1: the mean of the channels."""
    if samples.dtype.kind == "f":
        peak = max(abs(float(samples.max())), abs(float(samples.min())))
        if not np.isfinite(peak):  # NaN is the largest and the smallest, too
            raise DataError(
                f"{what} holds numbers that are infinite or none at all: record it again"
            )
        samples = samples / max(peak, 1.0)  # before the mean: its sum could be too large a number
        zero, scale = 0.0, 1.0
    else:
        bits = 8 * samples.dtype.itemsize
        zero, scale = (128.0 if samples.dtype.kind == "u" else 0.0), 2.0 ** (bits - 1)
    mono = samples.mean(axis=1, dtype=np.float64) if samples.ndim == 2 else samples
    return ((mono - zero) / scale).astype(np.float32)


def _in_short(error: Exception) -> str:
    """The first sentence of what SciPy says."""
    said = str(error).splitlines() or [type(error).__name__]
    return said[0].split(". ")[0].rstrip(".")
