"""Spoken words for tests: by espeak-ng where it is installed, and stand-ins made by NumPy."""

import shutil
import subprocess

import numpy as np
import pytest

from jaxnn.data import wav

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def spoken(digit: int, *options: str) -> np.ndarray:
    """A digit said by espeak-ng, float32 [n] at `wav.RATE`; the test is skipped without it."""
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng, which speaks the digits, is not installed")
    done = subprocess.run(
        [program, "--stdout", *options, WORDS[digit]], capture_output=True, check=True, timeout=20
    )
    return wav.decode(done.stdout, "espeak-ng")


def hummed(digit: int, seconds: float = 0.4, speaker: int = 0) -> np.ndarray:
    """A sound that stands for a digit: a chord of its own that swells and fades, float32 [n]."""
    time = np.arange(round(seconds * wav.RATE)) / wav.RATE
    first = 200 + 40 * digit + 5 * speaker
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (first, 3 * first, 5 * first))
    return (0.2 * chord * np.sin(np.pi * time / seconds)).astype(np.float32)


def with_pauses(
    words: list[np.ndarray], pauses: list[float]
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Words among pauses in seconds, one more than words; and where each word lies, in seconds."""
    parts, truth, at = [np.zeros(round(pauses[0] * wav.RATE), np.float32)], [], pauses[0]
    for word, pause in zip(words, pauses[1:], strict=True):
        truth.append((at, at + len(word) / wav.RATE))
        parts += [word, np.zeros(round(pause * wav.RATE), np.float32)]
        at = truth[-1][1] + pause
    return np.concatenate(parts), truth
