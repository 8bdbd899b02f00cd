"""The command as people use it: what it prints, its JSON, its exit codes, its one-line errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnn import checkpoint, cli, data
from jaxnn.data import Dataset

FAST = ["--epochs", "2", "--sizes", "784", "8", "10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs on the embedded digits."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert cli.main(["train", *FAST, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("embedded")


def jaxnn(*words: str) -> list[str]:
    return [sys.executable, "-m", "jaxnn", *words]


def logged_epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_help_is_there_for_every_command_and_loads_no_jax() -> None:
    script = (
        "import sys\nfrom jaxnn import cli\n"
        "for command in [[], *([name] for name in cli.COMMANDS)]:\n"
        "    try: cli.main([*command, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'jax', 'optax', 'grpc', 'scipy'} & set(sys.modules), 'slow imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"jaxnn {name}" in done.stdout
    for flag in ("--learning-rate", "--resume", "--port", "--server"):
        assert flag in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxnn ")


def test_train_writes_model_state_and_log(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        "model.safetensors",
        "state.safetensors",
        "log.jsonl",
    }
    file = checkpoint.load(run / "model.safetensors")
    assert file.training["epochs"] == 2
    assert 0 < file.metrics["test_accuracy"] < 1
    assert logged_epochs(run) == [1, 2]


def test_train_json_and_eval_json_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *FAST, "--out", str(out), "--json", "-"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert cli.main(["eval", str(out / "model.safetensors"), "--json", str(tmp_path / "e")]) == 0
    evaluated = json.loads((tmp_path / "e").read_text())
    assert trained["test_accuracy"] == evaluated["test_accuracy"]
    assert evaluated["test_images"] == 2000 == np.sum(evaluated["confusion"])
    assert len(trained["history"]) == 2


def test_half_is_what_the_file_holds_and_what_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *FAST, "--half", "--out", str(out), "--json", "-"]) == 0
    trained = json.loads(capsys.readouterr().out)
    contents = checkpoint.read(out / "model.safetensors", "model")
    assert contents.tensors["0.weights"].dtype == np.float16
    assert re.search(" --half( --|$)", contents.header["training"]["command"])
    assert cli.main(["eval", str(out / "model.safetensors"), "--json", str(tmp_path / "e")]) == 0
    evaluated = json.loads((tmp_path / "e").read_text())
    # float32, in another batch: what rounding to 16 bits changes is larger.
    assert trained["test_cost"] == pytest.approx(evaluated["test_cost"], rel=1e-6)


def test_eval_says_how_far_confidence_can_be_trusted(
    run: Path, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxnn import calibration, metrics, models

    file, cold = checkpoint.load(run / "model.safetensors"), tmp_path / "cold.safetensors"
    checkpoint.save(cold, file.params, file.spec, temperature=0.25)
    scores = metrics.scores(file.params, digits.test_images, model=models.build(file.spec))
    errors = {}
    for path in (run / "model.safetensors", cold):
        assert cli.main(["eval", str(path), "--json", str(tmp_path / "e")]) == 0
        result = json.loads((tmp_path / "e").read_text())
        temperature = checkpoint.load(path).temperature
        chances = calibration.probabilities(scores, "sigmoid", temperature)
        trust = calibration.reliability(chances, digits.test_labels)
        assert result["temperature"] == temperature
        assert result["expected_calibration_error"] == pytest.approx(trust.ece, abs=1e-6)
        bins = result["confidence_bins"]
        assert sum(each["images"] for each in bins) == 2000
        for each in bins:
            assert each["above"] < each["mean_confidence"] <= each["up_to"]
        apart = [each["images"] * (each["mean_confidence"] - each["accuracy"]) for each in bins]
        assert sum(map(abs, apart)) / 2000 == pytest.approx(trust.ece, abs=1e-6)
        said = f"expected calibration error {trust.ece:.4f} at temperature {temperature:.4g}\n"
        assert said in capsys.readouterr().out
        errors[temperature] = trust.ece
    assert len(errors) == 2
    assert np.ptp(list(errors.values())) > 1e-3


def test_the_same_seed_gives_the_same_model_file(run: Path, tmp_path: Path) -> None:
    """In a process of its own, and into another folder."""
    subprocess.run(jaxnn("train", *FAST, "--out", str(tmp_path / "b")), check=True)
    again = (tmp_path / "b" / "model.safetensors").read_bytes()
    assert again == (run / "model.safetensors").read_bytes()


def test_killed_after_two_epochs_and_resumed_equals_four_at_once(tmp_path: Path) -> None:
    sizes = FAST[2:]
    at_once, killed = tmp_path / "at_once", tmp_path / "killed"
    assert cli.main(["train", "--epochs", "4", *sizes, "--out", str(at_once)]) == 0
    words = jaxnn("train", "--epochs", "2000", *sizes, "--out", str(killed))
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        wait_for_epochs(killed / "log.jsonl", 2)
        process.kill()
    state = checkpoint.read(killed / "state.safetensors", "state").header["progress"]["epoch"]
    assert 2 <= state < 2000
    # Two runs cannot be killed at the same epoch, so both now end at the same one.
    end = str(max(state + 2, 4))
    for folder in (at_once, killed):
        assert cli.main(["train", "--resume", "--out", str(folder), "--epochs", end]) == 0
    for name in ("model.safetensors", "state.safetensors"):
        assert (at_once / name).read_bytes() == (killed / name).read_bytes()
    assert logged_epochs(killed) == list(range(1, int(end) + 1))


def test_two_epochs_then_two_more_equal_four(run: Path, tmp_path: Path) -> None:
    sizes = FAST[2:]
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    assert cli.main(["train", "--epochs", "2", *sizes, "--out", str(halves)]) == 0
    assert cli.main(["train", "--resume", "--epochs", "4", "--out", str(halves)]) == 0
    assert cli.main(["train", "--epochs", "4", *sizes, "--out", str(whole)]) == 0
    for name in ("model.safetensors", "state.safetensors"):
        assert (halves / name).read_bytes() == (whole / name).read_bytes()


def test_a_log_that_is_ahead_of_the_state_or_damaged_is_mended_on_resume(tmp_path: Path) -> None:
    """Killed between the log and the state: the epoch is done again, and logged once."""
    words = ["--sizes", "784", "8", "10", "--out", str(tmp_path)]
    assert cli.main(["train", "--epochs", "2", *words]) == 0
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "cost": 0}\ngarbage without an end')
    assert cli.main(["train", "--resume", "--epochs", "4", "--out", str(tmp_path)]) == 0
    assert logged_epochs(tmp_path) == [1, 2, 3, 4]


def wait_for_epochs(log: Path, count: int) -> None:
    for _ in range(600):
        if log.exists() and len(log.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} epochs in a minute")


def test_ctrl_c_keeps_the_best_network_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = jaxnn("train", "--epochs", "100000", *FAST[2:], "--out", str(out))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_for_epochs(out / "log.jsonl", 3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("jaxnn: interrupted: the best network so far is in")
    checkpoint.load(out / "model.safetensors")


def test_classify_reads_the_file_it_is_given(
    run: Path, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(digits.test_images[index]).save(files[-1])
    model = str(run / "model.safetensors")
    words = ["classify", *map(str, files), "--model", model, "--json", "-"]
    assert cli.main(words) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    from jaxnn import metrics, models

    file = checkpoint.load(model)
    expected = metrics.scores(file.params, digits.test_images[:3], model=models.build(file.spec))
    assert [result["label"] for result in results] == expected.argmax(1).tolist()
    np.testing.assert_allclose([result["scores"] for result in results], expected, rtol=1e-6)


def test_one_bad_picture_does_not_stop_the_others(
    run: Path, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(digits.test_images[0]).save(good)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    missing = tmp_path / "missing.png"
    words = ["classify", str(tmp_path / "bad.png"), str(good), str(missing)]
    assert cli.main([*words, "--model", str(run / "model.safetensors")]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: ")
    assert [line.startswith("jaxnn: ") for line in err.splitlines()] == [True, True]


def test_info_names_network_training_and_data(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(run / "model.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "784-8-10" in out
    assert "6,370" in out  # 784 * 8 + 8 + 8 * 10 + 10
    assert "learning_rate" in out


def test_train_numbers_its_folders_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("1", "2"):
        assert cli.main(["train", "--epochs", "1", *FAST[2:]]) == 0
        assert (tmp_path / "runs" / number / "model.safetensors").exists()


def bad_input(tmp_path: Path, run: Path) -> dict[str, tuple[list[str], str]]:
    no = str(tmp_path / "no")
    return {
        "no model": (["info", no], "does not exist"),
        "no data": (["eval", str(run / "model.safetensors"), "--data", no], no),
        "no picture": (["classify", no], "could not be read"),
        "no pictures": (["classify"], "no picture given"),
        "no run to resume": (["train", "--resume", "--out", no], "no state.safetensors"),
        "resume without out": (["train", "--resume"], "--resume needs --out"),
        "run is there already": (["train", "--out", str(run)], "--resume"),
        "other setting on resume": (
            ["train", "--resume", "--out", str(run), "--learning-rate", "1.0"],
            "has learning_rate 3.0, not 1.0",
        ),
        "unknown optimiser": (["train", "--optimizer", "magic", "--out", no], "magic"),
        "sizes": (["train", "--sizes", "10", "10", "--out", no], "784 pixels"),
    }


@pytest.mark.parametrize("case", list(bad_input(Path(), Path())))
def test_bad_input_is_one_sentence_and_exit_code_2(
    case: str, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, part = bad_input(tmp_path, run)[case]
    assert cli.main(words) == 2
    err = capsys.readouterr().err.splitlines()
    assert part in err[-1]
    assert [line.startswith("jaxnn: ") for line in err] == [True]


def damaged_models(model: bytes) -> dict[str, bytes]:
    flipped = bytearray(model)
    flipped[len(model) // 2] ^= 1
    return {"truncated": model[:-100], "flipped bit": bytes(flipped), "foreign": b"GIF89a" * 99}


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "foreign"])
@pytest.mark.parametrize("command", [["info"], ["eval"], ["serve", "--port", "0", "--model"]])
def test_a_damaged_model_is_one_sentence_for_every_command(
    damage: str, command: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(damaged_models((run / "model.safetensors").read_bytes())[damage])
    assert cli.main([*command, str(path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert str(path) in err[0]


def damaged_digits(images: bytes, labels: bytes) -> dict[str, tuple[bytes, bytes]]:
    more = (10).to_bytes(4, "big")
    return {
        "wrong magic": (b"\1" + images[1:], labels),
        "wrong count": (images[:4] + more + images[8:], labels),
        "wrong size": (images[:8] + more + images[12:], labels),
        "truncated": (images[:-1], labels),
        "mismatch": (images, labels[:4] + (49).to_bytes(4, "big") + labels[8:-1]),
    }


@pytest.mark.parametrize(
    "damage", ["wrong magic", "wrong count", "wrong size", "truncated", "mismatch"]
)
def test_damaged_digits_are_one_sentence(
    damage: str, tmp_path: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idx(tmp_path, blobs)
    assert cli.main(["data", "show", str(tmp_path)]) == 0
    images, labels = tmp_path / "t10k-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    broken = damaged_digits(images.read_bytes(), labels.read_bytes())[damage]
    images.write_bytes(broken[0])
    labels.write_bytes(broken[1])
    capsys.readouterr()
    for command in (["data", "show", str(tmp_path)], ["train", "--data", str(tmp_path)]):
        assert cli.main(command) == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 1
        assert "t10k" in err[0]


def write_idx(folder: Path, dataset: Dataset) -> None:
    from jaxnn.data import idx

    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, dataset, strict=True):
        (folder / f"{name}-ubyte").write_bytes(idx.encode(array))


@pytest.mark.parametrize("words", [["--colour"], ["train", "--epochs", "many"], ["dance"]])
def test_flags_that_are_not_there_exit_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2


def test_resume_with_other_data_is_refused(
    run: Path, tmp_path: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idx(tmp_path, blobs)
    assert cli.main(["train", "--resume", "--out", str(run), "--data", str(tmp_path)]) == 2
    assert "made with other data (8,000 training images" in capsys.readouterr().err


def test_the_header_names_a_command_that_makes_the_same_model(run: Path, tmp_path: Path) -> None:
    command = checkpoint.load(run / "model.safetensors").training["command"]
    assert command == "jaxnn train --sizes 784 8 10 --epochs 2"
    assert cli.main([*command.split()[1:], "--out", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (run / "model.safetensors").read_bytes()


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for seed in ("0", "1"):
        words = ["train", "--epochs", "1", *FAST[2:], "--seed", seed, "--out", str(out)]
        assert cli.main([*words, "--overwrite"]) == 0
    assert checkpoint.load(out / "model.safetensors").training["seed"] == 1
    assert len((out / "log.jsonl").read_text().splitlines()) == 1


def test_a_reader_that_stops_early_is_no_error(run: Path) -> None:
    command = " ".join(jaxnn("info", str(run / "model.safetensors")))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.mnist
def test_the_classic_run_on_the_whole_of_mnist(mnist: Path, tmp_path: Path) -> None:
    """The first claim of the README: 0.94 after 12 epochs, within 900 MB."""
    script = (
        "import re, resource, sys\nfrom pathlib import Path\nfrom jaxnn import cli\n"
        "code = cli.main(sys.argv[1:])\n"
        # On Linux ru_maxrss counts what the process that started this one held, VmHWM does not.
        "status = Path('/proc/self/status')\n"
        "own = re.search(r'VmHWM:\\s+(\\d+)', status.read_text()) if status.exists() else None\n"
        "other = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(own[1] if own else other, file=sys.stderr)\nsys.exit(code)"
    )
    words = ["train", "--data", str(mnist), "--epochs", "12", "--learning-rate", "3.0"]
    words += ["--batch-size", "100", "--seed", "0", "--out", str(tmp_path / "r"), "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["test_accuracy"] >= 0.94
    assert int(done.stderr.splitlines()[-1]) < 900_000  # kilobytes
