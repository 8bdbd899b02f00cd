"""One's own labelled pictures: what is found in a folder or CSV, `eval --images`, `train --images`.

The pictures are digits of MNIST as PNG files, so that what must come out is known without them.
"""

import json
import os
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from PIL import Image

from jaxnn import calibration, checkpoint, cli, data, metrics, models, novelty
from jaxnn.commands import evaluate, inputs, training_data
from jaxnn.commands.train import Train
from jaxnn.data import Dataset, picture_files, pictures
from jaxnn.data.picture_files import labelled
from jaxnn.data.preprocess import prepare
from jaxnn.errors import DataError

TINY = ["--sizes", "784", "4", "10", "--batch-size", "10", "--epochs", "1"]
EACH = 6  # pictures of a digit; the last is held out


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [60, 28, 28], six of each digit in order, and labels [60]."""
    found = data.load("embedded")
    at = np.concatenate([np.flatnonzero(found.test_labels == d)[:EACH] for d in range(10)])
    return found.test_images[at], found.test_labels[at]


@pytest.fixture(scope="module")
def prepared(digits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.stack([prepare(image) for image in digits[0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> Path:
    """The digits as LABEL/0.png to LABEL/5.png; to be left as it is."""
    top = tmp_path_factory.mktemp("own") / "my digits"
    for index, (image, label) in enumerate(zip(*digits, strict=True)):
        file = top / str(label) / f"{index % EACH}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return top


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A run on the pictures alone."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert cli.main(["train", *TINY, "--images", str(folder), "--out", str(out)]) == 0
    return out


def copied(folder: Path, to: Path, digit: str = "7", count: int = 3) -> Path:
    """Some pictures of one digit, to be added to."""
    (to / digit).mkdir(parents=True)
    for file in sorted((folder / digit).iterdir())[:count]:
        (to / digit / file.name).write_bytes(file.read_bytes())
    return to


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """Standard output, and the lines on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    return out, err.splitlines()


def test_a_folder_gives_its_pictures_by_label_and_name(
    folder: Path, digits: tuple[np.ndarray, np.ndarray], prepared: np.ndarray
) -> None:
    found = pictures.load(folder)
    assert found.images.dtype == found.labels.dtype == np.uint8
    assert np.array_equal(found.images, prepared)
    assert np.array_equal(found.labels, digits[1])
    assert found.files[7] == str(folder / "1" / "1.png")
    assert (found.unread, found.left_out) == ((), "")


def test_what_counts_as_a_picture(folder: Path, tmp_path: Path) -> None:
    top = copied(folder, tmp_path / "own", count=1)
    image = Image.open(top / "7" / "0.png")
    for name in ("b.PNG", "c.jpg", "d.JPEG", "e.webp", "f.bmp", "g.tif", "h.TIFF", "i.gif"):
        image.save(top / "7" / name)
    for name in ("Thumbs.db", ".DS_Store", "._b.png", "notes.txt", "png", "x.png.bak"):
        (top / "7" / name).write_bytes(b"no picture")
    (top / "7" / "empty").mkdir()
    (top / ".hidden").mkdir()
    (top / ".hidden" / "a.png").write_bytes(b"no picture")
    (top / "3").write_bytes(b"a file, no label")
    (top / "labels.csv").write_bytes(b"no picture either")
    found = pictures.load(top)
    assert [Path(file).name[0] for file in found.files] == list("0bcdefghi")
    assert (set(found.labels), found.unread) == ({7}, ())


@pytest.mark.parametrize("head", ["", "\ufeff", "file,label\n", "\ufeffPath,Digit\r\n\r\n"])
def test_a_csv_with_and_without_a_header(
    head: str, folder: Path, tmp_path: Path, prepared: np.ndarray
) -> None:
    copied(folder, tmp_path)
    (tmp_path / "7" / "1.png").rename(tmp_path / 'a "7", mine.png')
    (tmp_path / "7" / "2.png").rename(tmp_path / "without a suffix")
    rows = f'without a suffix, 3 \n\n"a ""7"", mine.png",7\n{folder}/0/0.png,0\n'
    (tmp_path / "own.CSV").write_text(head + rows, encoding="utf-8", newline="")
    found = pictures.load(tmp_path / "own.CSV")
    assert found.labels.tolist() == [3, 7, 0]
    assert np.array_equal(found.images, prepared[[7 * EACH + 2, 7 * EACH + 1, 0]])
    assert found.files[1] == str(tmp_path / 'a "7", mine.png')


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (b"0.png,7\n\n1.png,12\n", "own.csv, line 3 has the label '12', expected a digit from 0"),
        (b"0.png,cat\n", "line 1 has the label 'cat'"),
        (b"head,label\nhead,label\n", "line 2 has the label 'label'"),
        (b"file,label\n0.png;7\n", "line 2 has 1 values, expected 2"),
        (b"0.png,7\na,b.png,7\n", "line 2 has 3 values"),
        (b"0.png,7\n1.png,7\n./0.png,3\n", "line 3 names ./0.png again, as line 1 did"),
        (b'0.png,7\n"1.png,7\n', "line 2 is no CSV"),
        (b"0.png,7\n" + b"x" * 200_000 + b",7\n", "line 2 is no CSV"),
        (b"\xff\xfe0.png,7\n", "is not UTF-8 text"),
        (b"0.png,\x1b[2J\n", r"has the label '\x1b[2J'"),
        (b"file,label\n", "names no pictures"),
        (b"", "names no pictures"),
    ],
)
def test_a_csv_that_is_refused(rows: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(rows)
    with pytest.raises(DataError) as caught:
        labelled(tmp_path / "own.csv")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cat/0.png", "own/cat/0.png has no label: put every picture right into a folder named"),
        ("12/0.png", "own/12/0.png has no label"),
        ("٣/0.png", "own/٣/0.png has no label"),
        ("0.png", "own/0.png has no label"),
        ("7/more/0.png", "own/7/more/0.png has no label"),
        ("7/0.txt", "own holds no pictures: expected some in folders named 0 to 9"),
        (".7/0.png", "own holds no pictures"),
    ],
)
def test_a_folder_that_is_refused(name: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / name
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(DataError) as caught:
        labelled(tmp_path / "own")
    assert sentence in str(caught.value)


def test_neither_folder_nor_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no does not exist: expected a folder laid out as"):
        labelled(tmp_path / "no")
    with pytest.raises(DataError, match=r"no\.csv could not be read: No such file"):
        labelled(tmp_path / "no.csv")
    with pytest.raises(DataError, match=r"x{500}.* could not be read: File name too long"):
        labelled(tmp_path / ("x" * 500))
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.png is neither a folder"):
        labelled(tmp_path / "a.png")


def test_not_more_pictures_than_fit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.csv").write_text("".join(f"{n}.png,7\n" for n in range(10)))
    for limit, refused in ((15, folder), (9, tmp_path / "own.csv"), (5, folder / "7")):
        monkeypatch.setattr(picture_files, "MAX_EXAMPLES", limit)
        with pytest.raises(DataError, match=f"holds more than {limit} pictures"):
            labelled(refused)


def test_what_cannot_be_used_is_left_out_with_a_sentence_each(folder: Path, tmp_path: Path) -> None:
    top = copied(folder, tmp_path / "own", count=1)
    Image.new("L", (40, 40), 255).save(top / "7" / "1 blank.png")
    (top / "7" / "2 cut.png").write_bytes((top / "7" / "0.png").read_bytes()[:90])
    os.mkfifo(top / "7" / "3 pipe.png")  # it would never end
    (top / "7" / "4 folder.png").mkdir()
    (top / "7" / "5 gone.png").symlink_to(tmp_path / "gone")
    (top / "7" / "6\n\udcff.png").write_bytes(b"text")
    found = pictures.load(top)
    assert [Path(file).name for file in found.files] == ["0.png"]
    sentences = ["", "is blank", "not a whole PNG", "is no file", "is no file", "No such file", ""]
    for number, sentence in enumerate(found.unread, 1):
        assert sentence.startswith(f"{top}/7/{number}")
        assert sentences[number] in sentence
    assert number == 6
    assert r"6\n\udcff.png" in sentence
    assert found.left_out == "6 of 7 pictures could not be used and were left out"
    assert found._replace(unread=("x",)).left_out.endswith(
        "1 of 2 pictures could not be used and was left out"
    )


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert picture_files.read_file(tmp_path / "a") == b"x" * 10
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(DataError, match="more than 10 bytes"):
        picture_files.read_file(tmp_path / "a")
    with pytest.raises(DataError, match="no file has such a name"):
        picture_files.read_file(tmp_path / "a\0")


def test_every_group_lies_evenly_over_the_whole() -> None:
    groups = np.repeat([5, 2, 9], [3, 30, 60])
    order = pictures.spread(groups)
    assert sorted(order) == list(range(93))
    for group, count in ((5, 1), (2, 10), (9, 20)):
        for third in np.split(groups[order], 3):
            assert (third == group).sum() == count
        assert np.all(np.diff(order[groups[order] == group]) > 0)


def test_the_last_fifth_of_each_digit_is_held_out(folder: Path, prepared: np.ndarray) -> None:
    own = pictures.split(pictures.load(folder))
    last = np.arange(60) % EACH == EACH - 1
    assert np.array_equal(own.test_images, prepared[last])
    assert own.test_labels.tolist() == list(range(10))
    # Digits take turns, so that any end of them can be a validation part.
    assert own.train_labels.tolist() == list(range(10)) * (EACH - 1)
    back = np.argsort(own.train_labels, kind="stable")
    assert np.array_equal(own.train_images[back], prepared[~last])


def test_mixed_sets_keep_own_test_images_at_the_end(folder: Path) -> None:
    base, own = folders.make(train=200, test=7), pictures.split(pictures.load(folder))
    both = pictures.mixed(base, own)
    assert np.array_equal(both.test_images, np.concatenate([base.test_images, own.test_images]))
    assert np.array_equal(both.test_labels, np.concatenate([base.test_labels, own.test_labels]))
    pairs = {(image.tobytes(), label) for image, label in zip(*both[:2], strict=True)}
    for dataset in (base, own):
        assert pairs >= {(i.tobytes(), label) for i, label in zip(*dataset[:2], strict=True)}
    assert len(both.train_images) == 250
    ours = {image.tobytes() for image in own.train_images}
    for fifth in np.split(both.train_images, 5):  # a validation part has some of both
        assert sum(image.tobytes() in ours for image in fifth) == 10


def test_eval_measures_all_pictures_and_lists_the_wrong_ones(
    folder: Path,
    run: Path,
    tmp_path: Path,
    digits: tuple[np.ndarray, np.ndarray],
    prepared: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "eval",
        str(run / "model.safetensors"),
        "--images",
        str(folder),
        "--json",
        str(tmp_path / "e"),
    ]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert "the model was trained on these pictures too" in err.splitlines()[-1]
    found, file = (
        json.loads((tmp_path / "e").read_text()),
        checkpoint.load(run / "model.safetensors"),
    )
    scores = metrics.scores(file.params, prepared, model=models.build(file.spec))
    chances = calibration.probabilities(scores, "sigmoid", file.temperature)
    wrong = np.flatnonzero(scores.argmax(1) != digits[1])
    assert found["test_accuracy"] == pytest.approx(1 - len(wrong) / 60)
    assert (found["test_images"], found["left_out"], found["unread"]) == (60, 0, [])
    assert np.sum(found["confusion"]) == 60
    assert sorted(one["confidence"] for one in found["wrong"]) == sorted(chances[wrong].max(1))
    assert {one["file"]: (one["label"], one["read_as"]) for one in found["wrong"]} == {
        str(folder / str(i // EACH) / f"{i % EACH}.png"): (i // EACH, scores[i].argmax())
        for i in wrong
    }
    first = found["wrong"][0]
    lines = out.splitlines()
    at = lines.index("wrong:")
    assert lines[at + 1] == (
        f"{first['file']}: {first['label']}, read as {first['read_as']}, "
        f"confidence {first['confidence']:.3f}{', rejected' if first['rejected'] else ''}"
    )
    assert len(lines) == at + evaluate.MOST_SHOWN + 2
    assert lines[-1] == f"... and {len(wrong) - evaluate.MOST_SHOWN} more"


@pytest.mark.parametrize("part", [0.4, 0])
def test_eval_tells_what_is_accepted_and_how_right_it_is_on_that(
    part: float,
    folder: Path,
    run: Path,
    tmp_path: Path,
    digits: tuple[np.ndarray, np.ndarray],
    prepared: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = checkpoint.load(run / "model.safetensors")
    scores = metrics.scores(file.params, prepared, model=models.build(file.spec))
    chances = calibration.probabilities(scores, "sigmoid", file.temperature)
    familiar = novelty.fit(prepared, digits[1], chances)
    far = novelty.novelty(prepared, chances, familiar)
    limit = float(np.quantile(far, part)) if part else 1e-6
    model = tmp_path / "familiar.safetensors"
    familiar = familiar._replace(limit=limit)
    temperature = file.temperature
    checkpoint.save(model, file.params, file.spec, temperature=temperature, familiar=familiar)
    words = ["eval", str(model), "--images", str(folder), "--json", str(tmp_path / "e")]
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "e").read_text())
    right, accepted = scores.argmax(1) == digits[1], far <= limit
    assert 0 < right.sum() < 60
    assert found["accepted"] == accepted.mean() == pytest.approx(part, abs=0.02)
    said = f"accepts {accepted.mean():.2%} of the images as digits"
    if part:
        assert found["accuracy_where_accepted"] == right[accepted].mean()
        said += f", {right[accepted].mean():.2%} right on them"
    else:
        assert found["accuracy_where_accepted"] is None
    assert said in capsys.readouterr().out.splitlines()
    expected = [
        (str(folder / str(i // EACH) / f"{i % EACH}.png"), not accepted[i])
        for i in sorted(np.flatnonzero(~right), key=lambda i: (~accepted[i], -chances[i].max()))
    ]
    assert [(one["file"], one["rejected"]) for one in found["wrong"]] == expected
    checkpoint.save(model, file.params, file.spec)  # as a file of old: nothing is familiar
    assert cli.main(words) == 0
    assert not any("accept" in name for name in json.loads((tmp_path / "e").read_text()))
    assert "accepts" not in capsys.readouterr().out


def test_eval_goes_on_without_broken_pictures_and_exits_with_2(
    folder: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(inputs, "MOST_TOLD", 2)
    rows = "".join(f"{folder}/{d}/0.png,{d}\n" for d in range(10))
    (tmp_path / "own.csv").write_text(rows + "gone 1.png,1\ngone 2.png,2\ngone 3.png,3\n")
    words = [
        "eval",
        str(run / "model.safetensors"),
        "--images",
        str(tmp_path / "own.csv"),
        "--json",
    ]
    out, err = told([*words, str(tmp_path / "e")], capsys)
    assert out.startswith("test accuracy ")
    assert "on 10 images" in out
    assert err == [
        f"jaxnn: {tmp_path}/gone 1.png could not be read: No such file or directory",
        f"jaxnn: {tmp_path}/gone 2.png could not be read: No such file or directory",
        "jaxnn: ... and 1 more",
        "jaxnn: 3 of 13 pictures could not be used and were left out",
    ]
    found = json.loads((tmp_path / "e").read_text())
    assert (found["left_out"], len(found["unread"])) == (3, 3)
    (tmp_path / "own.csv").write_text("gone 1.png,1\ngone 2.png,2\n")
    out, err = told([*words, "-"], capsys)
    assert out == ""
    assert len(err) == 1
    assert "none of the 2 pictures of" in err[0]
    assert "gone 1.png could not be read" in err[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["eval", "--images", "NO"], "no does not exist"),
        (["train", "--images", "NO"], "no does not exist"),
        (["eval", "--images", "NO", "--data", "embedded"], "exclude each other"),
        (["train", "--images", "NO", "--data", "X", "--stream"], "--stream reads one data set"),
    ],
)
def test_flags_that_cannot_be(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = told([str(tmp_path / "no") if word == "NO" else word for word in words], capsys)
    assert len(err) == 1
    assert sentence in err[0]


def header(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    file = checkpoint.load(folder / "model.safetensors")
    return file.training, file.data, file.metrics


def test_train_on_own_pictures_alone(run: Path, folder: Path) -> None:
    training, about, measured = header(run)
    dataset = pictures.split(pictures.load(folder))
    assert (
        training["command"]
        == "jaxnn train --images DIR --sizes 784 4 10 --epochs 1 --batch-size 10"
    )
    assert about == {
        "name": "other",
        "checksum": data.checksum(dataset),
        "own_pictures": data.checksum(dataset),
        "train_images": 50,
        "test_images": 10,
    }
    file = checkpoint.load(run / "model.safetensors")
    result = metrics.evaluate(file.params, *dataset[2:], model=models.build(file.spec))
    assert measured == {
        "test_accuracy": result.accuracy,
        "test_cost": pytest.approx(result.cost),
    }
    for name in ("model", "state"):  # a file that is given away names no folders
        assert b"my digits" not in (run / f"{name}.safetensors").read_bytes()


def test_resumed_on_the_same_pictures_only(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    halves.mkdir()
    for file in run.iterdir():
        (halves / file.name).write_bytes(file.read_bytes())
    again = ["train", "--resume", "--out", str(halves), "--epochs", "2"]
    for other in ([], ["--data", "embedded", "--images", str(folder)]):
        _, err = told([*again, *other], capsys)
        assert "made with other data (50 training images" in err[-1]
        assert err[-1].endswith("name the same --data and --images")
    assert cli.main([*again, "--images", str(folder)]) == 0
    words = ["train", *TINY[:-1], "2", "--images", str(folder), "--out", str(whole)]
    assert cli.main(words) == 0
    for name in ("model.safetensors", "state.safetensors"):
        assert (halves / name).read_bytes() == (whole / name).read_bytes()


def test_an_interrupted_run_says_how_to_go_on(run: Path, folder: Path) -> None:
    from jaxnn.commands.run_folder import RunFolder

    said = str(Train(images=folder).interrupted(RunFolder(run)))
    assert said.endswith(f"--resume --out {run} --images '{folder}'`")


def test_train_on_both_without_the_broken_ones(
    folder: Path, tmp_path: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = folders.write(tmp_path / "data", blobs), tmp_path / "run"
    ours = copied(folder, tmp_path / "own", count=EACH)
    (ours / "7" / "a.png").write_bytes(b"no picture")
    words = ["train", *TINY, "--data", str(base), "--images", str(ours), "--out", str(out)]
    said, err = told([*words, "--json", str(tmp_path / "t")], capsys)
    assert "a.png is not a whole PNG" in err[0]
    assert err[-1] == "jaxnn: 1 of 7 pictures could not be used and was left out"
    training, about, measured = header(out)
    own = pictures.split(pictures.load(ours))
    both = pictures.mixed(blobs, own)
    assert training["command"] == (
        "jaxnn train --data DIR --images DIR --sizes 784 4 10 --epochs 1 --batch-size 10"
    )
    assert about["checksum"] == data.checksum(both)
    assert about["own_pictures"] == data.checksum(own)
    assert (about["name"], about["train_images"], about["test_images"]) == ("other", 235, 51)
    file = checkpoint.load(out / "model.safetensors")
    scores = metrics.scores(file.params, both.test_images, model=models.build(file.spec))
    right = scores.argmax(1) == both.test_labels
    assert measured["own_test_accuracy"] == right[50]
    assert measured["other_test_accuracy"] == pytest.approx(right[:50].mean())
    assert measured["test_accuracy"] == pytest.approx(right.mean())
    found = json.loads((tmp_path / "t").read_text())
    assert {name: found[name] for name in measured} == measured
    assert (
        f"your own pictures: {right[50]:.2%} of 1; the others: {right[:50].mean():.2%} of 50\n"
    ) in said


def test_too_few_to_hold_any_out(
    folder: Path, tmp_path: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    few, out = copied(folder, tmp_path / "few", count=2), tmp_path / "run"
    _, err = told(["train", *TINY, "--images", str(few), "--out", str(out)], capsys)
    assert len(err) == 1
    assert "has no more than 2 pictures of any digit, and none is left to test on" in err[0]
    assert not out.exists()
    source = training_data.with_pictures(few, blobs)
    assert source.train_images == 232
    apart = training_data.measured_apart(source, np.zeros((50, 10)))
    assert apart == {}
    assert "your own pictures: all trained on" in training_data.apart_text(source, apart)


def test_the_command_names_the_set_that_everybody_has(folder: Path) -> None:
    source = training_data.with_pictures(folder, data.load("embedded"))
    assert source.flags == ("--data", "embedded", "--images", "DIR")


def test_own_pictures_and_the_others_are_measured_apart(folder: Path, blobs: Dataset) -> None:
    source = training_data.with_pictures(folder, blobs)
    scores = np.eye(10)[source.test_labels]
    for wrong in (slice(0, 5), slice(57, 60)):  # of the 50 others, of 10 own ones
        scores[wrong] = 1 - scores[wrong]
    assert training_data.measured_apart(source, scores) == {
        "own_test_accuracy": pytest.approx(0.7),
        "own_test_images": 10,
        "other_test_accuracy": pytest.approx(0.9),
    }
    alone = training_data.with_pictures(folder, None)
    assert training_data.measured_apart(alone, scores[-10:]) == {}
