"""Spoken digits from files to a model and back: train, eval, classify and listen on it."""

import json

import jax
import numpy as np
import pytest
from voices import hummed, with_pauses

from jaxnn import checkpoint, cli
from jaxnn.commands import hearing
from jaxnn.data import features, fsdd, wav

DIGITS = (0, 1, 2)
TINY = ["--sizes", str(features.SIZE), "12", "10", "--epochs", "12", "--batch-size", "9"]
TINY += ["--validation", "3", "--learning-rate", "0.04", "--no-cache"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Recordings by two speakers, the run of a network that was trained on one, and its result."""
    home = tmp_path_factory.mktemp("speech")
    (home / "sounds").mkdir()
    for digit in DIGITS:
        # Three of bert, three for validation, three classified: XLA compiles one number only.
        for number, speaker, take in [(0, "anna", take) for take in range(5, 15)] + [
            (1, "bert", 4)
        ]:
            sound = hummed(digit * 3, 0.1 + 0.02 * take, number)
            path = home / "sounds" / f"{digit}_{speaker}_{take}.wav"
            path.write_bytes(wav.encode(np.pad(sound, 500)))
    words = ["train", "--task", "speech", "--data", str(home / "sounds"), "--speaker", "bert"]
    words += ["--copies", "2", "--out", str(home / "run"), "--json", str(home / "result.json")]
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
        assert cli.main([*words, *TINY]) == 0
    return home


def test_a_speaker_never_heard_is_understood(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["test_accuracy"] == 1  # three chords, a little higher than those of training
    assert result["epochs"] == 12
    config = result["config"]
    assert (config["family"], config["architecture"]) == ("lstm", "speech")
    assert len((trained / "run" / "log.jsonl").read_text().splitlines()) == 12


def test_a_file_says_what_it_was_trained_on(trained):
    file = checkpoint.load(trained / "run" / "model.safetensors")
    assert file.data["name"] == "spoken digits, speaker bert for testing"
    # 30 recordings by anna: 27 of them with 2 copies each, 3 for validation.
    assert (file.data["train_images"], file.data["test_images"]) == (27 * 3 + 3, 3)
    command = file.training["command"]
    assert "--task speech --data DIR --copies 2 --speaker bert" in command
    assert file.familiar is None  # the novelty of pictures says nothing about sounds
    assert file.metrics["test_accuracy"] == 1


def test_it_is_measured_on_either_split(trained, capsys):
    model, out = str(trained / "run" / "model.safetensors"), trained / "eval.json"
    words = ["eval", model, "--data", str(trained / "sounds"), "--json", str(out)]
    assert cli.main([*words, "--speaker", "bert"]) == 0
    result = json.loads((trained / "result.json").read_text())
    found = json.loads(out.read_text())
    assert found["test_images"] == 3
    assert found["test_accuracy"] == result["test_accuracy"]
    assert found["test_cost"] == pytest.approx(result["test_cost"], rel=1e-5)
    assert "on 3 recordings" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert json.loads(out.read_text()) == found  # the indices 0 to 4 are bert's, too


def test_one_word_and_several_are_read_out(trained, tmp_path, capsys):
    model = str(trained / "run" / "model.safetensors")
    words = [str(trained / "sounds" / f"{digit}_anna_7.wav") for digit in DIGITS]
    assert cli.main(["classify", *words, "--model", model]) == 0
    for line, word, digit in zip(capsys.readouterr().out.splitlines(), words, DIGITS, strict=True):
        assert line.startswith(f"{word}: {digit}  (confidence")
    several = tmp_path / "several.wav"
    several.write_bytes(wav.encode(with_pauses([hummed(3), hummed(0), hummed(6)], [0.5] * 4)[0]))
    assert cli.main(["listen", str(several), "--model", model]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{several}: 1 0 2"


def test_what_ships_is_asked_where_no_model_is_named(trained, monkeypatch, capsys):
    monkeypatch.setattr(hearing, "SHIPPED", trained / "run" / "model.safetensors")
    words = [str(trained / "sounds" / f"{digit}_anna_7.wav") for digit in DIGITS]
    assert cli.main(["classify", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert hearing.load_model(None).data["name"].startswith("spoken digits")


def test_what_does_not_go_together_is_told_in_a_sentence(trained, tmp_path, monkeypatch, capsys):
    model, sounds = str(trained / "run" / "model.safetensors"), str(trained / "sounds")
    one, sight = f"{sounds}/2_anna_8.wav", str(checkpoint.SHIPPED)
    picture = tmp_path / "7.png"
    picture.write_bytes(b"\x89PNG")
    monkeypatch.setattr(fsdd, "archive", lambda: tmp_path / "none.zip")
    speech = ["train", "--task", "speech", "--out", str(tmp_path / "run")]
    for words, sentence in (
        (["classify", one, "--model", sight], "is not for speech, but"),
        (["classify", str(picture), "--model", model], "7.png is no WAV file"),
        (["classify", one, str(picture)], "is a recording, others are not"),
        (["classify", one, "--raw", "--model", model], "--raw and --plot are for pictures"),
        (["eval", model, "--images", str(tmp_path)], "hears words, --images are pictures"),
        (["eval", sight, "--speaker", "anna"], "--speaker is for a model that hears"),
        (["eval", model, "--data", sounds, "--speaker", "carl"], "speaker 'carl' is unknown"),
        (["train", "--speaker", "anna"], "--speaker and --copies are for --task speech"),
        ([*speech, "--recipe", "best"], "--recipe, --images and --stream are for pictures"),
        (speech, "run `jaxnn data download fsdd`, or name a folder or zip"),
        ([*speech, "--data", sounds], "validation is 270 of 30 recordings"),
        ([*speech, "--data", sounds, "--copies", "-1"], "copies is -1: give 0 to 100"),
    ):
        assert cli.main(words) == 2, words
        err = capsys.readouterr().err
        assert sentence in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "run" / "model.safetensors").exists()
