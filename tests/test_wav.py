"""WAV files of every kind as one channel of sound; and files that are none, or lie."""

import io
import struct
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.io import wavfile
from scipy.signal import resample_poly

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


def test_the_mean_of_channels_as_loud_as_can_be_is_a_number():
    found = wav.decode(written(np.full((800, 2), 1.7e308)), "a")
    np.testing.assert_allclose(found, 1, atol=1e-6)


@pytest.mark.parametrize("rate", [6000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_a_filter_that_is_kept_gives_what_a_new_one_does(rate):
    sound = np.random.default_rng(1).normal(size=3000).astype(np.float32)
    ratio = Fraction(8000, rate)
    expected = resample_poly(sound, ratio.numerator, ratio.denominator)
    wav._filter.cache_clear()
    for _ in range(2):  # SciPy changes a copy only
        assert np.array_equal(wav.resampled(sound, rate), expected)
    assert wav._filter.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize("rate", [7993, 7351, 44_101])
def test_an_odd_rate_needs_no_long_filter_and_a_thousand_sounds_need_one(rate):
    sound = np.zeros(1, np.float32)
    wav._filter.cache_clear()
    for _ in range(1000):
        wav.resampled(sound, rate)
    assert wav._filter.cache_info().misses <= 1
    ratio = Fraction(8000, rate).limit_denominator(wav._FINEST)
    assert max(ratio.as_integer_ratio()) < 1000
    assert abs(float(ratio) * rate / 8000 - 1) < 0.0012


def test_sounds_whose_rates_take_turns_need_no_more_filters_than_there_are_rates():
    wav._filter.cache_clear()
    for rate in 2 * list(range(11_000, 11_100)):
        wav.resampled(np.zeros(1, np.float32), rate)
    assert 50 < wav._filter.cache_info().misses <= 100


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


EMPTY = {kind: kind + struct.pack("<I", 2) + b"ab" for kind in (b"data", b"abcd")}
FORMAT = GOOD[12:36]
REFUSED |= {
    "two formats": (riff(b"ab", before=FORMAT), "damaged.*two chunks named 'fmt'"),
    "two sounds": (GOOD[:36] + EMPTY[b"data"] + GOOD[36:], "damaged.*two chunks named 'data'"),
    "a thousand chunks": (riff(b"ab", before=1000 * EMPTY[b"abcd"]), "damaged.*over 100 chunks"),
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


@pytest.mark.parametrize("chunk", [*EMPTY.values(), FORMAT], ids=["data", "other", "fmt"])
@pytest.mark.parametrize("kind", [b"RIFF", b"RIFX", b"RF64"])
def test_a_file_of_nothing_but_chunks_is_given_up_at_once(chunk, kind):
    order = ">" if kind == b"RIFX" else "<"
    size, about = struct.pack(order + "I", 2**24), FORMAT
    if kind == b"RIFX":
        chunk = chunk[:4] + chunk[4:8][::-1] + chunk[8:]
        chunk = _swapped(chunk) if chunk[:4] == b"fmt " else chunk
        about = _swapped(FORMAT[:4] + FORMAT[4:8][::-1] + FORMAT[8:])
    head = kind + size + b"WAVE"
    if kind == b"RF64":
        head += b"ds64" + struct.pack("<IQQQI", 28, 2**24, 2, 1, 0)
    blob = head + about + 2**21 // len(chunk) * chunk
    with pytest.raises(DataError, match=r"over 100 chunks|two chunks named"):
        wav.decode(blob, "a")


def _swapped(chunk):
    """A chunk of the format, its numbers the other way round."""
    return chunk[:8] + struct.pack(">HHIIHH", *struct.unpack("<HHIIHH", chunk[8:]))


def test_a_recording_may_have_the_chunks_of_recorders():
    before = b"".join(
        name + struct.pack("<I", 3) + b"abc\0" for name in (b"LIST", b"bext", b"JUNK")
    )
    many = riff(GOOD[44:], before=30 * before)
    assert np.array_equal(wav.decode(many, "a"), wav.decode(GOOD, "a"))


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
