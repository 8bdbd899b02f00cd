"""Variations of a word: each kind alone does what it says, and a seed decides all of it."""

import numpy as np
import pytest
from voices import hummed

from jaxnn.data import features, wav
from jaxnn.data.variations import Strength, varied, varied_features

WORD = hummed(5, 0.5)
NONE = Strength(voice=0, tempo=0, shift=0, noise=(200, 200), tilt=0, level=(0, 0))


def draws(strength, count=30):
    rng = np.random.default_rng(3)
    return [varied(WORD, rng, strength) for _ in range(count)]


def pitch(sound):
    """The frequency of the strongest tone below 700 Hz."""
    return np.abs(np.fft.rfft(sound, 2**16))[: 700 * 2**16 // wav.RATE].argmax() * wav.RATE / 2**16


def test_nothing_varied_is_the_word_itself():
    found = varied(WORD, np.random.default_rng(0), NONE)
    np.testing.assert_allclose(found, WORD / np.abs(WORD).max(), atol=1e-6)
    assert found.dtype == np.float32


def test_a_seed_decides_everything():
    one, same, other = (varied_features(WORD, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()


def test_the_voice_moves_pitch_and_length_together():
    found = draws(NONE._replace(voice=3))
    ratios = np.array([len(sound) / len(WORD) for sound in found])
    assert ratios.min() == pytest.approx(17 / 20, abs=0.001)
    assert ratios.max() == pytest.approx(23 / 20, abs=0.001)
    pitches = np.array([pitch(sound) for sound in found])
    np.testing.assert_allclose(pitches * ratios, pitch(WORD), rtol=0.02)


def test_tempo_leaves_the_pitch():
    rng = np.random.default_rng(0)
    found = [varied_features(WORD, rng, NONE._replace(tempo=0.2)) for _ in range(20)]
    usual = features.features(WORD)
    lengths = [len(steps) for steps in found]
    assert min(lengths) < 0.9 * len(usual)
    assert max(lengths) > 1.1 * len(usual)
    for steps in found:
        middle = steps[len(steps) // 2].astype(int)
        assert np.abs(middle - usual[len(usual) // 2]).mean() < 12


def test_shifts_put_silence_around_or_cut_a_little():
    lengths = np.array([len(sound) - len(WORD) for sound in draws(NONE._replace(shift=0.1), 200)])
    assert -0.05 * wav.RATE < lengths.min() < -0.01 * wav.RATE
    assert 0.15 * wav.RATE < lengths.max() <= 0.2 * wav.RATE


@pytest.mark.parametrize("decibels", [10, 30])
def test_noise_is_as_loud_as_it_should_be(decibels):
    for found in draws(NONE._replace(noise=(decibels, decibels)), 5):
        clean = WORD * (found @ WORD / (WORD @ WORD))
        ratio = 20 * np.log10(clean.std() / (found - clean).std())
        assert ratio == pytest.approx(decibels, abs=0.5)


def test_the_level_is_set_and_may_clip():
    peaks = [np.abs(sound).max() for sound in draws(NONE._replace(level=(-20, -20)), 3)]
    np.testing.assert_allclose(peaks, 0.1, atol=1e-4)
    loud = draws(NONE._replace(level=(6, 6)), 1)[0]
    assert np.mean(np.abs(loud) == 1) > 0.01


def test_a_tilt_changes_high_against_low():
    rng = np.random.default_rng(1)
    impulse = np.zeros(2000)
    impulse[1000] = 1

    def slope(sound):
        power = 20 * np.log10(np.abs(np.fft.rfft(sound)))
        return power[500] - power[250]  # 2 kHz against 1 kHz: one octave

    found = [slope(varied(impulse, rng, NONE._replace(tilt=6))) for _ in range(40)]
    assert -3.05 < min(found) < -2  # a microphone's tone tilts by half of a noise's
    assert 2 < max(found) < 3.05


@pytest.mark.parametrize("count", [1, 2, 100])
def test_the_shortest_and_the_silent_survive(count):
    rng = np.random.default_rng(0)
    for sound in (np.zeros(count, np.float32), np.ones(count, np.float32)):
        for _ in range(10):
            found = varied_features(sound, rng)
            assert found.min() >= 1
            assert found.shape[1] == features.BANDS
