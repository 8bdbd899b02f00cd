"""`jaxnn listen`: spoken digits of a recording, from the file to the line and the JSON."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from voices import hummed, spoken, with_pauses

from jaxnn import checkpoint, cli, mlp
from jaxnn.data import features, wav
from jaxnn.models import Spec

PAUSES = [0.5, 0.4, 0.9, 0.35, 0.6]
TRUTH = (7, 0, 3, 3)


def model_of(path, speaks):
    """A linear network, fitted by least squares to each digit begun a little earlier or later."""
    words = [speaks(digit) for digit in range(10)]
    moved = [np.pad(word, 400)[at:] for word in words for at in range(0, 800, 100)]
    seen = np.stack([features.row(features.features(word)) for word in moved]) / 255
    wanted = 12.0 * (np.repeat(np.arange(10), 8)[:, None] == np.arange(10))
    weights = seen.T @ np.linalg.solve(seen @ seen.T + np.eye(len(seen)), wanted)
    layer = mlp.Layer(jnp.asarray(weights.T, jnp.float32), jnp.zeros(10, jnp.float32))
    spec = Spec(sizes=(features.SIZE, 10), output="softmax", cost="cross_entropy")
    checkpoint.save(path, (layer,), spec)
    return str(path)


@pytest.fixture(scope="module")
def chords(tmp_path_factory):
    return model_of(tmp_path_factory.mktemp("models") / "chords.safetensors", hummed)


@pytest.fixture
def recording(tmp_path):
    """A file of four chords among pauses and noise; and where they lie."""
    sound, times = with_pauses([hummed(digit) for digit in TRUTH], PAUSES)
    noise = np.random.default_rng(0).standard_normal(len(sound))
    path = tmp_path / "digits.wav"
    path.write_bytes(wav.encode(sound + 0.001 * noise))
    return str(path), times


def test_people_read_the_digits_and_when_they_were_spoken(chords, recording, capsys):
    path, times = recording
    assert cli.main(["listen", path, "--model", chords]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{path}: 7 0 3 3"
    assert len(lines) == 4
    for line, digit, (start, end) in zip(lines, TRUTH, times, strict=True):
        words = line.split()
        assert (words[1], words[3], words[4], words[6]) == ("to", "s", str(digit), "%")
        assert float(words[0]) == pytest.approx(start, abs=0.15)
        assert float(words[2]) == pytest.approx(end, abs=0.15)
        assert 10 < int(words[5]) <= 100


def test_programs_read_json(chords, recording, tmp_path, capsys):
    path, times = recording
    assert cli.main(["listen", path, "--model", chords, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["text"]) == (path, "7 0 3 3")
    assert [word["digit"] for word in found["words"]] == list(TRUTH)
    spans = [(word["start_s"], word["end_s"]) for word in found["words"]]
    np.testing.assert_allclose(spans, times, atol=0.15)
    assert all(0.1 < word["confidence"] <= 1 and not word["rejected"] for word in found["words"])
    target = tmp_path / "out.json"
    assert cli.main(["listen", path, "--model", chords, "--json", str(target)]) == 0
    assert json.loads(target.read_text()) == found
    assert "7 0 3 3" in capsys.readouterr().out


def test_a_voice_is_understood(tmp_path):
    model = model_of(tmp_path / "voice.safetensors", spoken)
    for digits in ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)):
        sound, _ = with_pauses([spoken(digit) for digit in digits], [0.4] * 6)
        (tmp_path / "voice.wav").write_bytes(wav.encode(sound))
        out = tmp_path / "out.json"
        words = ["listen", str(tmp_path / "voice.wav"), "--model", model, "--json", str(out)]
        assert cli.main(words) == 0
        assert json.loads(out.read_text())["text"] == " ".join(map(str, digits))


def test_what_cannot_be_heard_is_told_in_a_sentence(chords, recording, tmp_path, capsys):
    blank, other = tmp_path / "blank.wav", tmp_path / "other.wav"
    blank.write_bytes(wav.encode(np.zeros(8000)))
    other.write_bytes(b"no sound")
    for path, model, sentence in (
        (blank, chords, "holds no words: nothing in it stands out"),
        (other, chords, "is not a WAV file"),
        (tmp_path / "none.wav", chords, "could not be read"),
        (recording[0], checkpoint.SHIPPED, "takes 784 numbers, but a spoken digit has 40 steps"),
        (recording[0], tmp_path / "none.safetensors", "none.safetensors"),
    ):
        assert cli.main(["listen", str(path), "--model", str(model)]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert sentence in err
        assert len(err.splitlines()) == 1
