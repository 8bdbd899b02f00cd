"""`jaxnn sweep` as people use it, and recipes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from PIL import Image

from jaxnn import calibration, checkpoint, cli, data, ensemble, metrics, models
from jaxnn.commands import sweep_results
from jaxnn.commands.sweep import Sweep
from jaxnn.data import Dataset
from jaxnn.recipes import RECIPES

FAST = ["--epochs", "2", "--sizes", "784", "6", "10"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two rates and two seeds."""
    folder = tmp_path_factory.mktemp("sweeps") / "one"
    words = ["--learning-rate", "0.1,3", "--seeds", "2", "--seed", "5"]
    assert cli.main(["sweep", *FAST, *words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> list[str]:
    """Flags of tiny networks on few images."""
    folder = folders.write(tmp_path_factory.mktemp("few") / "data", blobs)
    sizes = ["--sizes", "784", "4", "10", "--batch-size", "20", "--validation", "50"]
    return [*sizes, "--epochs", "2", "--data", str(folder)]


def strict(text: str) -> Any:
    """JSON as the standard has it: NaN and infinity are none."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


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
        assert (setting["lowest_score"], setting["highest_score"]) == (min(own), max(own))


def test_the_test_images_are_read_for_the_best_setting_only(swept: Path) -> None:
    result = json.loads((swept / "sweep.json").read_text())
    found = [one["test_accuracy"] for one in result["networks"]]
    assert found[:2] == [None, None]
    assert result["mean_test_accuracy"] == pytest.approx(np.mean(found[2:]))
    assert result["lowest_test_accuracy"] == min(found[2:])
    assert result["highest_test_accuracy"] == max(found[2:])
    lines = sweep_results.table(result).splitlines()
    mean, lowest, highest = np.mean(found[2:]), min(found[2:]), max(found[2:])
    assert lines[-3] == (
        f"best setting, its 2 networks read the test images: mean {mean:.2%}, "
        f"lowest {lowest:.2%}, highest {highest:.2%}"
    )
    assert not any("%" in line for line in lines[:-3])


def test_every_epoch_is_a_line_of_the_log(swept: Path) -> None:
    lines = [strict(line) for line in (swept / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    networks = json.loads((swept / "sweep.json").read_text())["networks"]
    for k, network in enumerate(networks):
        accuracies = [line["held_out_accuracies"][k] for line in lines]
        assert max(accuracies) == pytest.approx(network["score"])
        assert lines[0]["costs"][k] > lines[1]["costs"][k] > 0
        assert lines[0]["held_out_costs"][k] > 0


@pytest.mark.parametrize("name", ["model", "ensemble"])
def test_the_temperature_comes_from_the_validation_part(swept: Path, name: str) -> None:
    file, digits = checkpoint.load(swept / f"{name}.safetensors"), data.load("embedded")
    found = []
    for images, labels in (
        (digits.train_images[-1333:], digits.train_labels[-1333:]),
        (digits.test_images, digits.test_labels),
        (digits.train_images, digits.train_labels),
    ):
        scores = metrics.scores(file.params, images, model=models.build(file.spec))
        found.append(calibration.fit_temperature(scores, labels, "sigmoid"))
    assert file.temperature == pytest.approx(found[0], rel=1e-6)
    assert len({round(value, 4) for value in found}) == 3


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


@pytest.mark.parametrize(
    "flags", [["--shuffle-seed", "2"], ["--own-shuffles", "--validation", "0"]]
)
def test_the_commands_of_a_sweep_make_its_models_again(
    flags: list[str], few: list[str], tmp_path: Path
) -> None:
    words = [*few, *flags, "--learning-rate", "1,3", "--seeds", "3", "--seed", "5"]
    assert cli.main(["sweep", *words, "--out", str(tmp_path / "first")]) == 0
    for name in ("ensemble", "model"):
        file = checkpoint.load(tmp_path / "first" / f"{name}.safetensors")
        command = file.training["command"].replace("DIR", few[-1]).split()
        assert command[:2] == ["jaxnn", "sweep" if name == "ensemble" else "train"]
        assert cli.main([*command[1:], "--out", str(tmp_path / name)]) == 0
        again = checkpoint.load(tmp_path / name / f"{name}.safetensors")
        assert again.training == file.training
        # Only the order of sums differs; other seeds or shuffles are 0.01 and more apart.
        for found, expected in zip(again.params, file.params, strict=True):
            np.testing.assert_allclose(found.weights, expected.weights, atol=1e-3)
    file = checkpoint.load(tmp_path / "first" / "ensemble.safetensors")
    assert file.training["seeds"] == [5, 6, 7]
    assert file.training["shuffle_seed"] == (2 if "--shuffle-seed" in flags else None)


def test_an_ensemble_takes_the_best_where_there_are_too_many(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "MAX_MEMBERS", 2)
    words = ["--seeds", "5", "--validation", "0", "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *few, *words]) == 0
    assert "ensemble of the best 2 of them" in capsys.readouterr().out
    result = strict((tmp_path / "out" / "sweep.json").read_text())
    scores = [one["score"] for one in result["networks"]]
    which = result["ensemble"]["networks"]
    rest = set(range(5)) - set(which)
    assert which != [0, 1]
    assert min(scores[k] for k in which) >= max(scores[k] for k in rest)
    training = checkpoint.load(tmp_path / "out" / "ensemble.safetensors").training
    assert training["seeds"] == which
    assert "--seeds 5" in training["command"]


def test_figures_are_kept_whatever_happens_to_the_models(
    few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(sweep_results, "write_model", full)
    assert cli.main(["sweep", *few, "--seeds", "2", "--out", str(tmp_path / "out")]) == 1
    assert len(strict((tmp_path / "out" / "sweep.json").read_text())["networks"]) == 2


RELU = ["--activation", "relu", "--output", "softmax", "--cost", "cross_entropy"]


def test_networks_that_diverge_harm_no_others(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--learning-rate", "1e30,0.1", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *few, *RELU, *words]) == 0
    out, err = capsys.readouterr()
    assert "nan" not in err  # the display shows a network that is alive
    assert out.splitlines()[3].endswith("all diverged")
    result = strict((tmp_path / "out" / "sweep.json").read_text())
    assert [one["mean_score"] is None for one in result["settings"]] == [False, True]
    assert [one["diverged"] for one in result["settings"]] == [0, 2]
    assert [one["score"] is None for one in result["networks"]] == [True, True, False, False]
    assert result["best"] in (2, 3)
    for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines():
        costs = strict(line)["costs"]
        assert [cost is None for cost in costs] == [True, True, False, False]
    drawn = str(tmp_path / "sweep.png")
    assert cli.main(["plot", "sweep", str(tmp_path / "out"), "--out", drawn]) == 0


def test_a_mean_is_over_networks_that_did_not_diverge() -> None:
    def one(seed: int, rate: float, score: float, diverged: bool, epoch: int = 1) -> Any:
        config = dataclasses.replace(RECIPES["classic"], seed=seed, learning_rate=rate)
        return ensemble.Trained(config, None, None, epoch, score, diverged)

    trained = [one(0, 1.0, -0.5, False), one(1, 1.0, -0.1, True), one(2, 1.0, -0.4, False)]
    trained += [one(k, 2.0, -np.inf, True, 0) for k in range(3)]
    result = sweep_results.compared(trained)
    assert result["settings"][0]["mean_score"] == pytest.approx(-0.45)
    assert [one["diverged"] for one in result["settings"]] == [1, 3]
    assert result["best"] == 2
    assert sweep_results.alive(result["networks"], result["settings"][0]) == [0, 2]


def test_all_diverged_is_one_sentence(
    few: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--learning-rate", "1e30", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert cli.main(["sweep", *few, *RELU, *words]) == 1
    assert "jaxnn: every network diverged: try lower" in capsys.readouterr().err.splitlines()[-1]


def test_the_display_shows_the_network_that_is_ahead() -> None:
    costs, accuracies = np.array([0.3, 0.1, np.nan]), np.array([0.5, 0.4, 0.9])
    progress = ensemble.Progress(1, costs, np.array([0.31, 0.11, 0.9]), accuracies, 1.0, 10.0)
    assert sweep_results.shown(progress, True) == (1, 0.3, 0.31, 0.5, 10.0)
    assert sweep_results.shown(progress, False) == (1, 0.1, 0.11, 0.4, 10.0)


def interrupting(epochs: int) -> Callable[..., Any]:
    """An ensemble.fit that Ctrl-C ends after some epochs."""

    def fit(configs: Any, dataset: Any, *, on_epoch: Callable[..., None]) -> None:
        for epoch in range(epochs):
            figures = np.full(len(configs), 0.5)
            on_epoch(ensemble.Progress(epoch + 1, figures, figures, figures, 1.0, 10.0))
        raise KeyboardInterrupt

    return fit


def test_ctrl_c_keeps_the_log(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ensemble, "fit", interrupting(1))
    assert cli.main(["sweep", *few, "--out", str(tmp_path / "out")]) == 1
    assert f"so far are in {tmp_path / 'out' / 'log.jsonl'}" in capsys.readouterr().err
    assert strict((tmp_path / "out" / "log.jsonl").read_text())["costs"] == [0.5] * 4


def test_an_empty_folder_goes_again_if_it_was_made(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ensemble, "fit", interrupting(0))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", *few]) == 1
    assert "no epoch was done" in capsys.readouterr().err
    assert list((tmp_path / "sweeps").iterdir()) == []
    (tmp_path / "own").mkdir()
    assert cli.main(["sweep", *few, "--out", "own"]) == 1
    assert (tmp_path / "own").is_dir()


def test_a_folder_that_cannot_be_is_refused_before_training(
    few: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(ensemble, "fit", never)
    (tmp_path / "file").write_text("")
    assert cli.main(["sweep", *few, "--out", str(tmp_path / "file" / "under")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be made: Not a directory" in line


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
        (["--epochs", "0"], "epochs is 0: a sweep needs 1"),
        (["--learning-rate", "1,1.0"], "--learning-rate is 1.0,1.0: name each value once"),
        (["--momentum", "0,0"], "--momentum is 0.0,0.0: name each value once"),
        (["--hidden", "5,6,5"], "--hidden is 5,6,5: name each value once"),
        (["--sizes", "784", "10", "--hidden", "4,8"], "sizes are (784, 10): give --sizes three"),
        (["--sizes", "784", "--hidden", "5"], "sizes are (784,): give --sizes three"),
        (["--own-shuffles", "--shuffle-seed", "3"], "--shuffle-seed 3 exclude each other"),
        (["--half"], "--half is for one network"),
        (["--devices", "2"], "--devices is for one network"),
        (
            ["--seeds", "9000", "--hidden", "1,2,3,4", "--momentum", "0,0.1,0.2"],
            "108,000 networks (1 of learning_rate x 3 of momentum x 4 of hidden x 9,000 of seeds)",
        ),
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
    from jaxnn.commands.sweep import beginning_with

    swept = beginning_with(RECIPES["best"], words)
    assert isinstance(cli.parse(words), Sweep)
    (first, second) = swept.settings(600)
    assert (first.learning_rate, second.learning_rate) == (1.0, 2.0)
    assert first.cost == RECIPES["best"].cost
    assert first.validation == 100
    assert swept.seeds == 3


def test_a_sweep_of_a_recipe_trains_with_its_settings(
    few: list[str], tmp_path: Path, standard_promotion: None
) -> None:
    words = ["--recipe", "best", *few, "--learning-rate", "0.01,0.02", "--seeds", "1"]
    assert cli.main(["sweep", *words, "--out", str(tmp_path / "out")]) == 0
    found = checkpoint.load(tmp_path / "out" / "model.safetensors").training
    changed = {"sizes": [784, 4, 10], "epochs": 2, "batch_size": 20, "validation": 50}
    changed |= {"learning_rate": found["learning_rate"], "shuffle_seed": 0}
    assert found["learning_rate"] in (0.01, 0.02)
    for name, value in (dataclasses.asdict(RECIPES["best"]) | changed).items():
        assert found[name] == value, name


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


NAN = """{"best": 0, "chosen_by": "validation accuracy", "networks": [{"score": NaN}], "settings":
[{"learning_rate": 1, "momentum": null, "sizes": [2, 3], "networks": [0]}]}"""


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": [{}]}', '{"settings": 3}', NAN])
def test_a_file_that_is_no_sweep_is_one_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.json").write_text(text)
    assert cli.main(["plot", "sweep", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    (tmp_path / "sweep.json").unlink()
    assert cli.main(["plot", "sweep", str(tmp_path), "--out", str(tmp_path / "a.png")]) == 2
    assert "could not be read" in capsys.readouterr().err
