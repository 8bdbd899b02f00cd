"""Log-mel steps, held against a slow and plain computation; and rows of them."""

import itertools

import numpy as np
import pytest

from jaxnn.data import features as module
from jaxnn.data.features import BANDS, FRAME, HOP, SIZE, STEPS, features, row
from jaxnn.errors import ShapeError

rng = np.random.default_rng(5)
NOISE = rng.standard_normal(3000) * np.linspace(0.01, 1, 3000)


def plain(samples):
    """The same by its definition: one frame, one band, one bin at a time."""
    emphasised = [samples[0]] + [b - 0.97 * a for a, b in itertools.pairwise(samples)]
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    peaks = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(mel(60), mel(4000), BANDS + 2)]
    steps = []
    for start in range(0, max(1, len(samples) - FRAME + HOP), HOP):
        frame = np.zeros(FRAME)
        part = emphasised[start : start + FRAME]
        frame[: len(part)] = part
        spectrum = np.fft.fft(frame * np.hanning(FRAME), 512)
        power = np.zeros(BANDS)
        for k in range(257):
            hertz = k * 8000 / 512
            for band in range(BANDS):
                weight = np.interp(hertz, peaks[band : band + 3], [0, 1, 0], left=0, right=0)
                power[band] += weight * abs(spectrum[k]) ** 2
        steps.append(power)
    decibels = np.clip(10 * np.log10(np.maximum(steps, 1e-12) / np.max(steps)), -60, 0)
    whole = np.mean(decibels)
    for band in range(BANDS):  # half of a band's own tone is taken back
        decibels[:, band] -= (np.mean(decibels[:, band]) - whole) / 2
    return np.clip(255 + decibels * 254 / 60, 1, 255)


@pytest.mark.parametrize("length", [2, 255, 256, 257, 384, 385, 3000])
def test_they_are_what_the_definition_says(length):
    samples = NOISE[-length:]
    found = features(samples)
    assert found.shape == (1 + max(0, -(-(length - FRAME) // HOP)), BANDS)
    np.testing.assert_allclose(found, plain(samples), atol=0.501)  # rounding to a byte


def test_a_tone_is_loudest_in_its_band():
    time = np.arange(4000) / 8000
    mel = np.linspace(*(2595 * np.log10(1 + np.array([60, 4000]) / 700)), BANDS + 2)
    for band in (3, 20, 38):
        hertz = 700 * (10 ** (mel[band + 1] / 2595) - 1)
        tone = np.sin(2 * np.pi * hertz * time) * (time > 0.25)  # half of it is silence
        found = features(tone)[-8:-2]
        assert (found.argmax(axis=1) == band).all()
        assert found.max() >= 190  # of the band's mean, half is taken back


def test_half_of_a_microphones_tone_is_taken_back():
    """A slope of 6 dB an octave, over words within the range, is left as one of 3."""
    spectrum = np.fft.rfft(NOISE)
    hertz = np.maximum(np.fft.rfftfreq(len(NOISE), 1 / 8000), 50)
    duller = np.fft.irfft(spectrum * np.sqrt(1000 / hertz) ** 2, len(NOISE))
    some = slice(8, None), slice(10, 38)  # steps and bands that nothing cuts off
    lower = features(NOISE)[some].mean(axis=0) - features(duller)[some].mean(axis=0)
    peaks = 700 * (10 ** (np.linspace(np.log10(1 + 60 / 700), np.log10(1 + 4000 / 700), 42)) - 1)
    octaves = np.log2(peaks[1:-1][some[1]] / 1000)
    slope = np.polyfit(octaves, lower * 60 / 254, 1)[0]  # dB an octave
    assert 2 < slope < 4.5


def test_the_level_does_not_matter():
    np.testing.assert_array_equal(features(NOISE * 2.0**-9), features(NOISE))
    np.testing.assert_array_equal(features(NOISE * 2.0**20), features(NOISE))


def test_no_byte_of_a_step_is_0():
    assert features(NOISE).min() >= 1
    assert 200 < features(NOISE).max() <= 255
    assert (features(np.ones(1)) == 1).all()  # a frame begins with nothing
    silence = features(np.zeros(1000))
    assert silence.shape == (5, BANDS)
    assert (silence == 1).all()


def test_another_hop_is_another_tempo():
    time = np.arange(16_000) / 8000
    sweep = np.sin(2 * np.pi * (300 + 200 * time) * time)
    slow, usual = features(sweep, hop=HOP // 2), features(sweep)
    # The loudest band of all, against which the rest is told, may be of a frame between.
    np.testing.assert_allclose(slow[: 2 * len(usual) : 2], usual, atol=1)


def test_long_sounds_are_worked_off_in_pieces(monkeypatch):
    whole = module.spectrum(NOISE, 10)
    monkeypatch.setattr(module, "_PIECE", 7)
    np.testing.assert_allclose(module.spectrum(NOISE, 10), whole, rtol=1e-13)


def test_a_row_is_filled_up_with_no_steps():
    steps = features(NOISE)
    found = row(steps).reshape(STEPS, BANDS)
    np.testing.assert_array_equal(found[: len(steps)], steps)
    assert not found[len(steps) :].any()
    assert row(steps).dtype == np.uint8
    assert row(steps).shape == (SIZE,)


def test_of_a_long_word_the_loudest_part_is_kept():
    steps = np.ones((200, BANDS), np.uint8)
    steps[90:120] = 200
    kept = row(steps).reshape(STEPS, BANDS)
    assert (kept == 200).all(axis=1).sum() == 30
    assert kept.min() == 1


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 900)), np.float64(1)])
def test_no_line_of_samples_is_refused(samples):
    with pytest.raises(ShapeError, match=r"expected \[n\]: one channel"):
        features(samples)
