"""Cutting recordings at their silences: words of NumPy and of espeak-ng, in noises and levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import hummed, spoken, with_pauses

from jaxnn.data import silences, wav

PAUSES = [0.5, 0.3, 1.0, 0.25, 0.7]
LEVELS = [1.0, 0.3, 0.6, 0.4]


def noises(count):
    """Noises of the same power, each float [count]."""
    rng = np.random.default_rng(2)
    white = rng.standard_normal(count)
    bins = np.fft.rfft(rng.standard_normal(count))
    pink = np.fft.irfft(bins / np.sqrt(np.maximum(1, np.arange(len(bins)))), count)
    hum = np.sign(np.sin(2 * np.pi * 100 * np.arange(count) / wav.RATE)) + 0.03 * white
    return {name: v / v.std() for name, v in (("white", white), ("pink", pink), ("hum", hum))}


def check(found, truth):
    """Each word found once, its middle half at least, and with no more than 0.15 s around it."""
    assert len(found) == len(truth)
    for (start, end), (first, last) in zip(found, truth, strict=True):
        quarter = (last - first) / 4
        assert first - 0.15 < start < first + quarter
        assert last - quarter < end < last + 0.15
    ends = [0.0, *(end for word in found for end in word)]
    assert ends == sorted(ends)


@pytest.mark.parametrize("decibels", [None, 30, 15])
@pytest.mark.parametrize("speaks", [hummed, spoken])
def test_words_among_pauses(speaks, decibels):
    words = [level * speaks(digit) for level, digit in zip(LEVELS, (7, 0, 3, 1), strict=True)]
    words = [word[np.flatnonzero(np.abs(word) > 0.001)[0] :] for word in words]
    words = [word[: np.flatnonzero(np.abs(word) > 0.001)[-1]] for word in words]
    clean, truth = with_pauses(words, PAUSES)
    power = np.concatenate(words).std()
    for noise in noises(len(clean)).values():
        amount = 0 if decibels is None else power * 10 ** (-decibels / 20)
        check(silences.words(clean + amount * noise), truth)
        check(silences.words(1e-4 * (clean + amount * noise)), truth)


def test_a_pause_within_a_word_does_not_cut_it():
    short, truth = with_pauses([hummed(3), hummed(3)], [0.5, 0.05, 0.5])
    check(silences.words(short), [(truth[0][0], truth[1][1])])


def test_clicks_are_no_words():
    clean, truth = with_pauses([hummed(3), hummed(8)], [0.6, 0.8, 0.6])
    for at in (800, 10_000, len(clean) - 800):
        clean[at : at + 40] = 0.8
    check(silences.words(clean), truth)


@pytest.mark.parametrize("sound", [np.zeros(9000), np.zeros(1), np.ones(9000)])
def test_silence_has_no_words(sound):
    assert silences.words(sound) == []


def test_steady_noise_has_no_words():
    for noise in noises(5 * wav.RATE).values():
        assert silences.words(0.1 * noise) == []


@settings(max_examples=30)
@given(st.integers(1, 6000), st.integers(0, 2**32 - 1))
def test_spans_lie_in_the_recording_in_order(count, seed):
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(count) * np.repeat(rng.random(-(-count // 400)) > 0.5, 400)[:count]
    ends = [end for word in silences.words(sound) for end in word]
    assert ends == sorted(ends)
    assert all(0 <= end <= count / wav.RATE for end in ends)
    assert 1 <= len(silences.trimmed(sound)) <= count


def test_a_single_word_loses_its_silent_ends_only():
    word, noise = hummed(5), noises(16_000)["white"]
    around, [(first, last)] = with_pauses([word], [0.6, 0.9])
    kept = silences.trimmed(around + 1e-4 * noise[: len(around)])
    seconds = len(kept) / wav.RATE
    assert last - first - 0.05 < seconds < last - first + 0.15
    assert np.abs(kept).max() == pytest.approx(np.abs(word).max(), abs=1e-3)
    assert len(silences.trimmed(word)) > 0.9 * len(word)
    assert len(silences.trimmed(noise)) == len(noise)  # nothing in it is silence
    assert len(silences.trimmed(np.zeros(500))) >= 1
