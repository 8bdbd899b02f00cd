"""WAV files of every kind as one channel of sound; and files that are none, or lie."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.io import wavfile

from jaxnn.data import wav
from jaxnn.errors import DataError

TIME = np.arange(4000) / 8000
TONE = 0.5 * np.sin(2 * np.pi * 440 * TIME)


def written(samples, rate=8000):
    out = io.BytesIO()
    wavfile.write(out, rate, samples)
    return out.getvalue()


def in_24_bits(samples):
    """SciPy reads 24 bits, but writes none."""
    whole = np.round(samples * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return riff(whole, bits=24)


def riff(body, *, form=1, channels=1, rate=8000, bits=16, declared=None, before=b""):
    """A WAV file as its header would have it, which need not be true."""
    align = channels * bits // 8
    per_second = rate * align % 2**32
    fmt = struct.pack("<HHIIHH", form, channels, rate, per_second, align, bits)
    size = len(body) if declared is None else declared
    chunks = before + b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size)
    return (
        b"RIFF"
        + struct.pack("<I", min(2**32 - 1, 4 + len(chunks) + size))
        + b"WAVE"
        + chunks
        + body
    )


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (written((TONE * 127 + 128).round().astype(np.uint8)), 1 / 127),
        (written((TONE * 2**15).astype(np.int16)), 1 / 2**15),
        (in_24_bits(TONE), 1 / 2**23),
        (written((TONE * 2**31).astype(np.int32)), 1e-6),
        (written(TONE.astype(np.float32)), 1e-6),
        (written(TONE), 1e-6),
        (written((np.stack([TONE, 0 * TONE, TONE / 2], 1) * 2**15).astype(np.int16)), None),
        (written(TONE.astype(np.float32)).replace(b"data", b"LIST\x04\0\0\0abcddata"), 1e-6),
    ],
    ids=["8 bits", "16", "24", "32", "float", "double", "three channels", "another chunk"],
)
def test_every_depth_gives_the_same_sound(blob, error):
    found = wav.decode(blob, "a.wav")
    assert found.dtype == np.float32
    if error is None:
        np.testing.assert_allclose(found, TONE / 2, atol=1e-4)  # the mean of 1, 0 and a half
    else:
        np.testing.assert_allclose(found, TONE, atol=error)


@pytest.mark.parametrize("rate", [6000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_001])
def test_every_rate_gives_the_same_tone(rate):
    time = np.arange(rate) / rate
    found = wav.decode(
        written((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), rate), "a"
    )
    assert abs(len(found) - 8000) <= 1
    # Away from the ends, where the filter sees nothing: 0.5 % is what its ripple may leave; for an
    # odd rate, the rounded ratio is wrong by a 12th of a sample after a second.
    truth = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(
        found[200:7800], truth[200:7800], atol=0.005 if rate % 5 == 0 else 0.02
    )


def test_what_8_khz_cannot_hold_is_filtered_out():
    time = np.arange(48_000) / 48_000
    found = wav.decode(written(np.sin(2 * np.pi * 6000 * time).astype(np.float32), 48_000), "a")
    assert np.abs(found[200:-200]).max() < 0.01  # it would come back as 2 kHz


def test_loud_floats_are_brought_to_full_scale():
    found = wav.decode(written(TONE * 1e30), "a")
    assert np.abs(found).max() == 1
    np.testing.assert_allclose(found, TONE / np.abs(TONE).max(), atol=1e-6)


def test_what_is_encoded_comes_back():
    np.testing.assert_allclose(wav.decode(wav.encode(TONE), "a"), TONE, atol=1 / 2**14)
    assert np.abs(wav.decode(wav.encode(np.array([-9.0, 9.0])), "a")).max() <= 1


GOOD = written((TONE * 2**15).astype(np.int16))
REFUSED = {
    "nothing": (b"", "not a WAV file"),
    "an MP3": (b"ID3\x04" + bytes(50), "not a WAV file: give one"),
    "the first bytes": (GOOD[:20], "damaged"),
    "no sound": (riff(b""), "holds no sound"),
    "no chunk of sound": (GOOD[:36], "damaged"),
    "half a sample": (riff(bytes(101)), "damaged"),
    "no channels": (riff(bytes(100), channels=0), "damaged"),
    "too many channels": (riff(bytes(100), channels=30_000), "damaged|no sound"),
    "packed": (riff(bytes(100), form=7), "MULAW.*save it as WAV, 16-bit PCM"),
    "NaN": (written(np.array([0, np.nan], np.float32)), "infinite or none at all"),
    "infinity": (written(np.array([0, -np.inf])), "infinite or none at all"),
    "too slow": (riff(bytes(100), rate=100), "100 samples a second, expected 4,000 to 384,000"),
    "too fast": (riff(bytes(100), rate=2**27), "samples a second"),
    "too long": (riff(bytes(2 * 8000 * 3)), r"lasts 3.0 s, expected at most 2 s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_told_in_a_sentence(name):
    blob, sentence = REFUSED[name]
    with pytest.raises(DataError, match=sentence) as caught:
        wav.decode(blob, "some.wav", 2.0)
    assert str(caught.value).startswith("some.wav ")
    assert "\n" not in str(caught.value)


def test_a_header_is_not_believed():
    small = riff(bytes(1000), declared=2**32 - 2)
    tracemalloc.start()
    try:
        assert len(wav.decode(small, "a")) == 500
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.data())
@example(data=None)
def test_damage_never_does_more_than_that(data):
    blob = bytearray(GOOD[:400])
    if data is not None:
        for _ in range(data.draw(st.integers(1, 4))):
            blob[data.draw(st.integers(0, 50))] = data.draw(st.integers(0, 255))
        blob = blob[: data.draw(st.integers(0, 400))]
    try:
        found = wav.decode(bytes(blob), "a")
    except DataError:
        return
    assert found.ndim == 1
    assert len(found)
    assert np.isfinite(found).all()
