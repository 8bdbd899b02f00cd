"""`jaxnn sweep` as people use it, and recipes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnn import checkpoint, cli, data, metrics, models
from jaxnn.commands.sweep import Sweep
from jaxnn.recipes import RECIPES

FAST = ["--epochs", "2", "--sizes", "784", "6", "10"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two rates and two seeds."""
    folder = tmp_path_factory.mktemp("sweeps") / "one"
    words = ["--learning-rate", "0.1,3", "--seeds", "2", "--seed", "5"]
    assert cli.main(["sweep", *FAST, *words, "--out", str(folder)]) == 0
    return folder


def test_every_network_is_in_the_json_and_settings_come_best_first(swept: Path) -> None:
    result = json.loads((swept / "sweep.json").read_text())
    found = [(one["setting"]["learning_rate"], one["seed"]) for one in result["networks"]]
    assert found == [(0.1, 5), (0.1, 6), (3.0, 5), (3.0, 6)]
    scores = [one["score"] for one in result["networks"]]
    assert result["best"] == int(np.argmax(scores))
    assert [one["learning_rate"] for one in result["settings"]] == [3.0, 0.1]
    for setting in result["settings"]:
        own = [scores[k] for k in setting["networks"]]
        assert setting["mean_score"] == pytest.approx(np.mean(own))


def test_a_sixth_of_the_training_images_chooses(swept: Path) -> None:
    result = json.loads((swept / "sweep.json").read_text())
    assert result["chosen_by"] == "validation accuracy"
    assert result["config"]["validation"] == 8000 // 6


def test_the_best_network_is_saved_with_its_own_command(swept: Path) -> None:
    file = checkpoint.load(swept / "model.safetensors")
    result = json.loads((swept / "sweep.json").read_text())
    best = result["networks"][result["best"]]
    digits = data.load("embedded")
    again = metrics.evaluate(
        file.params, digits.test_images, digits.test_labels, model=models.build(file.spec)
    )
    assert file.metrics["test_accuracy"] == best["test_accuracy"] == again.accuracy
    assert file.training["seed"] == best["seed"]
    assert file.training["learning_rate"] == 3.0
    assert "--shuffle-seed 0" in file.training["command"]


def test_that_command_gives_that_network(swept: Path, tmp_path: Path) -> None:
    file = checkpoint.load(swept / "model.safetensors")
    words = file.training["command"].split()
    assert cli.main([*words[1:], "--out", str(tmp_path / "again")]) == 0
    again = checkpoint.load(tmp_path / "again" / "model.safetensors")
    assert again.training == file.training
    assert again.metrics["test_accuracy"] == pytest.approx(file.metrics["test_accuracy"], abs=2e-3)
    np.testing.assert_allclose(again.params[0].weights, file.params[0].weights, atol=1e-3)


def test_the_seeds_of_the_best_setting_are_saved_as_an_ensemble(swept: Path) -> None:
    file = checkpoint.load(swept / "ensemble.safetensors")
    assert file.spec.members == 2
    result = json.loads((swept / "sweep.json").read_text())
    assert file.metrics["test_accuracy"] == result["ensemble"]["test_accuracy"]
    assert cli.main(["eval", str(swept / "ensemble.safetensors"), "--data", "embedded"]) == 0


def test_the_table_says_how_it_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--hidden", "3,6", "--momentum", "0,0.5", "--seeds", "1", "--validation", "0"]
    out = tmp_path / "out"
    assert cli.main(["sweep", *FAST, "--learning-rate", "1", *words, "--out", str(out)]) == 0
    table = capsys.readouterr().out
    for word in ("784-3-10", "784-6-10", "0.5", "minus training cost", "4 networks"):
        assert word in table
    assert not (out / "ensemble.safetensors").exists()


def test_json_to_standard_output_is_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--learning-rate", "1", "--seeds", "1", "--json", "-", "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *FAST, *words]) == 0
    assert len(json.loads(capsys.readouterr().out)["networks"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--learning-rate", "1,-1"], "learning_rate is -1"),
        (["--optimizer", "adam", "--momentum", "0.5"], "takes no momentum"),
        (["--hidden", "0"], "each at least 1"),
        (["--out", "."], "is there already"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", *FAST, *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_word_that_is_no_number_is_refused_by_the_parser(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", "--learning-rate", "1,fast"])
    assert end.value.code == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_a_recipe_is_changed_by_the_flags_that_are_given(
    tmp_path: Path, standard_promotion: None
) -> None:
    words = ["train", "--recipe", "best", "--epochs", "1", "--sizes", "784", "6", "10"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    found = checkpoint.load(tmp_path / "run" / "model.safetensors").training
    expected = dataclasses.replace(RECIPES["best"], epochs=1, sizes=(784, 6, 10))
    for name, value in dataclasses.asdict(expected).items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value)


def test_a_sweep_takes_a_recipe_too() -> None:
    words = ["sweep", "--recipe", "best", "--learning-rate", "1,2", "--seeds", "3"]
    from jaxnn.commands.sweep import with_recipe

    swept = with_recipe("best", words)
    assert isinstance(cli.parse(words), Sweep)
    (first, second) = swept.settings(600)
    assert (first.learning_rate, second.learning_rate) == (1.0, 2.0)
    assert first.cost == RECIPES["best"].cost
    assert first.validation == 100
    assert swept.seeds == 3


def test_classic_is_the_one_that_people_know() -> None:
    classic = RECIPES["classic"]
    assert (classic.learning_rate, classic.batch_size, classic.cost, classic.optimizer) == (
        3.0,
        100,
        "quadratic",
        "sgd",
    )


def test_event_files_hold_every_epoch(tmp_path: Path) -> None:
    words = ["train", *FAST, "--tensorboard", str(tmp_path / "events")]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    (path,) = (tmp_path / "events").iterdir()
    from tensorboardX.proto.event_pb2 import Event

    blob, values = path.read_bytes(), []
    while blob:  # a record: its length in 8 bytes, a checksum in 4, the event, a checksum in 4
        length = int.from_bytes(blob[:8], "little")
        event = Event.FromString(blob[12 : 12 + length])
        values += [(event.step, one.tag, one.simple_value) for one in event.summary.value]
        blob = blob[16 + length :]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    found = {(step, tag): value for step, tag, value in values}
    for line in log:
        assert found[line["epoch"], "cost/train"] == pytest.approx(line["cost"])
        assert found[line["epoch"], "accuracy/held_out"] == pytest.approx(line["held_out_accuracy"])
    assert len(log) == 2


def test_a_sweep_is_drawn_from_its_folder(swept: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep.png"
    assert cli.main(["plot", "sweep", str(swept), "--out", str(out)]) == 0
    with Image.open(out) as drawn:
        assert drawn.size == (750, 244)  # two settings


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": [{}]}', '{"settings": 3}'])
def test_a_file_that_is_no_sweep_is_one_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.json").write_text(text)
    assert cli.main(["plot", "sweep", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    (tmp_path / "sweep.json").unlink()
    assert cli.main(["plot", "sweep", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert "could not be read" in capsys.readouterr().err
