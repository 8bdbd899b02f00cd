"""`jaxnn train`, begun, interrupted and gone on with: what a run keeps, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest

from jaxnn import calibration, checkpoint, cli, compile_cache, data, metrics, models, train
from jaxnn.data import Dataset

TINY = ["--sizes", "784", "4", "10", "--batch-size", "20"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> dict[str, Path]:
    """A run of one epoch on images in memory, one on images read from disk, and the images."""
    top = tmp_path_factory.mktemp("runs")
    found = {"data": folders.write(top / "data", blobs)}
    for name, flags in (("memory", []), ("disk", ["--stream"])):
        found[name] = top / name
        words = ["train", *TINY, *flags, "--epochs", "1", "--data", str(found["data"])]
        assert cli.main([*words, "--validation", "50", "--out", str(found[name])]) == 0
    return found


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """The run on images in memory, to be changed."""
    return Path(shutil.copytree(runs["memory"], tmp_path / "run"))


def error_of(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one sentence that a command ends with."""
    capsys.readouterr()
    assert cli.main(words) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("jaxnn: ")
    assert len(lines) == 1 or code == 1  # a run that was begun shows its epochs, too
    return lines[-1]


@pytest.mark.parametrize(
    ("name", "flags", "do"),
    [("memory", ["--stream"], "leave it out"), ("disk", [], "give it, too")],
)
def test_streamed_and_other_shuffles_are_not_mixed(
    name: str, flags: list[str], do: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--resume", "--out", str(runs[name]), "--data", str(runs["data"])]
    before = (runs[name] / "state.safetensors").read_bytes()
    assert do in error_of([*words, *flags, "--epochs", "2"], capsys)
    assert (runs[name] / "state.safetensors").read_bytes() == before


def test_the_command_says_that_images_were_streamed(runs: dict[str, Path]) -> None:
    for name, streamed in (("memory", False), ("disk", True)):
        training = checkpoint.load(runs[name] / "model.safetensors").training
        assert training["stream"] is streamed
        assert ("--stream --data DIR" in training["command"]) is streamed
        assert "--data DIR" in training["command"]


def odd_headers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Changes of a header, each of one thing."""

    def setting(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda header: header["config"].update({name: value})

    return {
        "no config": lambda header: header.pop("config"),
        "config is a list": lambda header: header.update(config=[]),
        "sizes are a word": setting("sizes", "abc"),
        "sizes hold null": setting("sizes", [784, None, 10]),
        "sizes hold a bool": setting("sizes", [784, True, 10]),
        "optimizer is a number": setting("optimizer", 3),
        "epochs are a word": setting("epochs", "x"),
        "epochs are huge": setting("epochs", 10**400),
        "learning rate is a word": setting("learning_rate", "fast"),
        "weight decay is NaN": setting("l2", float("nan")),
        "another activation": setting("activation", "magic"),
        "a later setting": setting("magic", 1),
        "no checksum": lambda header: header["data"].pop("checksum"),
        "a checksum that is a number": lambda header: header["data"].update(checksum=3),
        "no epoch": lambda header: header["progress"].pop("epoch"),
        "an epoch below 0": lambda header: header["progress"].update(epoch=-1, best_epoch=-1),
        "no stream": lambda header: header.pop("stream"),
        "stream is a word": lambda header: header.update(stream="yes"),
    }


@pytest.mark.parametrize("change", odd_headers())
def test_an_odd_header_is_one_sentence(
    change: str, runs: dict[str, Path], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = checkpoint.read(run / "state.safetensors", "state")
    odd_headers()[change](contents.header)
    header = {k: v for k, v in contents.header.items() if k not in ("format", "kind", "sha256")}
    checkpoint.write(run / "state.safetensors", "state", contents.tensors, header)
    words = ["train", "--resume", "--epochs", "2", "--out", str(run), "--data", str(runs["data"])]
    assert "is not the record of a run" in error_of(words, capsys)


@pytest.mark.parametrize("kind", ["garbage", "empty", "foreign", "folder", "pipe", "flipped bit"])
def test_a_damaged_state_is_one_sentence(
    kind: str, runs: dict[str, Path], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = run / "state.safetensors"
    blob = bytearray(state.read_bytes())
    blob[-1] ^= 1
    state.unlink()
    if kind == "folder":
        state.mkdir()
    elif kind == "pipe":  # it would never end
        os.mkfifo(state)
    elif kind == "foreign":
        from safetensors.numpy import save_file

        save_file({}, state)
    else:
        state.write_bytes({"garbage": b"x" * 99, "empty": b"", "flipped bit": bytes(blob)}[kind])
    words = ["train", "--resume", "--out", str(run), "--data", str(runs["data"])]
    assert "damaged" in error_of(words, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--recipe", "best"], "leave out --recipe"),
        (["--epochs", "0"], "has 1 epochs, --epochs is 0"),
        (["--seed", "3"], "has seed 0, not 3"),
    ],
)
def test_what_cannot_be_gone_on_with(
    words: list[str], sentence: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    known = ["train", "--resume", "--out", str(runs["memory"]), "--data", str(runs["data"])]
    assert sentence in error_of([*known, *words], capsys)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--schedule", "cosine"], "a cosine schedule over 1 epochs"),
        (["--rotate", "5", "--fade", "0.5"], "changes that fade over 1 epochs"),
    ],
)
def test_a_run_whose_length_shapes_it_keeps_its_length(
    flags: list[str],
    sentence: str,
    runs: dict[str, Path],
    tmp_path: Path,
    standard_promotion: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--out", str(tmp_path / "run"), "--data", str(runs["data"])]
    assert cli.main(["train", *TINY, *flags, "--epochs", "1", *words]) == 0
    assert sentence in error_of(["train", "--resume", "--epochs", "2", *words], capsys)


def test_an_old_run_stays_where_event_files_cannot_be_written(
    runs: dict[str, Path],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    words = ["train", *TINY, "--data", str(runs["data"]), "--overwrite", "--out", str(run)]
    events = run.parent / "file"
    events.write_text("no folder")
    assert "file cannot be a folder" in error_of([*words, "--tensorboard", str(events)], capsys)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "needs tensorboardX" in error_of([*words, "--tensorboard", str(run)], capsys)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    monkeypatch.chdir(run.parent)
    assert cli.main([*words[:-3], "--tensorboard", str(run)]) == 2
    assert not (run.parent / "runs").exists()


def test_an_interrupted_run_says_how_to_go_on(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = train.fit

    def interrupted(*args: Any, on_epoch: Callable[..., None], **others: Any) -> None:
        def once(*found: Any) -> None:
            on_epoch(*found)
            os.kill(os.getpid(), signal.SIGINT)

        fit(*args, on_epoch=once, **others)

    monkeypatch.setattr(train, "fit", interrupted)
    out, folder = str(tmp_path / "a run"), str(runs["data"])
    words = ["train", *TINY, "--stream", "--data", folder, "--out", out]
    said = error_of(words, capsys, code=1)
    assert f"`jaxnn train --resume --out '{out}' --data {folder} --stream`" in said
    monkeypatch.undo()
    again = ["train", "--resume", "--out", out, "--data", folder, "--stream", "--epochs", "2"]
    assert cli.main(again) == 0


def test_the_temperature_comes_from_the_validation_part(tmp_path: Path) -> None:
    words = ["train", "--sizes", "784", "6", "10", "--epochs", "2", "--validation", "1000"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    file, digits = checkpoint.load(tmp_path / "run" / "model.safetensors"), data.load("embedded")
    found = {}
    for name, images, labels in (
        ("validation", digits.train_images[7000:], digits.train_labels[7000:]),
        ("test", digits.test_images, digits.test_labels),
        ("training", digits.train_images, digits.train_labels),
    ):
        scores = metrics.scores(file.params, images, model=models.build(file.spec))
        found[name] = calibration.fit_temperature(scores, labels, "sigmoid")
    assert file.temperature == pytest.approx(found["validation"], rel=1e-6)
    assert len({round(value, 4) for value in found.values()}) == 3


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_programs_are_kept_unless_the_flag_says_no(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(compile_cache, "enable", lambda: calls.append(1))
    words = [command, "--data", str(tmp_path / "missing")]  # the cache comes before the data
    error_of([*words, "--no-cache"], capsys)
    assert calls == []
    error_of(words, capsys)
    assert calls == [1]


IMPORTS = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print(os.environ.get("NPROC"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Watch())
from jaxnn import cli
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "threads"),
    [
        (["train"], "1"),
        (["train", "--sizes", "784", "128", "10"], "None"),
        (["train", "--resume", "--out", "SMALL"], "1"),
        (["train", "--resume", "--out", "WIDE"], "None"),  # its own sizes, not the default's
        (["sweep", "--seeds", "1"], "1"),
        (["sweep", "--seeds", "16"], "None"),
        (["sweep", "--seeds", "1", "--hidden", "16,128"], "None"),
    ],
)
def test_small_networks_get_one_thread_before_jax_is_loaded(
    words: list[str], threads: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    wide = shutil.copytree(runs["memory"], tmp_path / "wide")
    contents = checkpoint.read(wide / "state.safetensors", "state")
    header = {k: v for k, v in contents.header.items() if k not in ("format", "kind", "sha256")}
    header["config"] |= {"sizes": [784, 1000, 10]}
    checkpoint.write(wide / "state.safetensors", "state", contents.tensors, header)
    places = {"SMALL": str(runs["memory"]), "WIDE": str(wide)}
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *(places.get(word, word) for word in words)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (threads, "")


def test_out_and_json_are_checked_first(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for command in ("train", "sweep"):
        assert "expected a folder" in error_of([command, "--out", str(file)], capsys)
        assert "expected a file" in error_of([command, "--json", str(tmp_path)], capsys)
    assert file.read_text() == "kept"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    from jaxnn.commands.output import write_json

    write_json("-", {"a": [float("nan"), 1.5], "b": {"c": (-float("inf"), 2)}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": [None, 2]}}
