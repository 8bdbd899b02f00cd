"""Training from the disk against training from memory."""

import dataclasses
from contextlib import closing
from pathlib import Path

import folders
import numpy as np
import pytest
from trees import relative_difference, same_bytes

from jaxnn import cli, feed, train
from jaxnn.config import TrainConfig
from jaxnn.data import Dataset, stream
from jaxnn.errors import ConfigError, DataError

CONFIG = TrainConfig(sizes=(784, 8, 10), epochs=2, batch_size=20, learning_rate=1.0)


@pytest.fixture
def files(tmp_path: Path, blobs: Dataset) -> Path:
    return folders.write(tmp_path / "data", blobs)


def from_files(config: TrainConfig, files: Path) -> feed.Feed:
    train_files, test_files = (stream.open_stream(files, part) for part in ("train", "t10k"))
    return feed.from_disk(config, train_files, test_files)


def test_a_streamed_epoch_takes_the_same_steps_as_one_in_memory(
    files: Path, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that the stream chose, given to the program of an epoch in memory."""
    monkeypatch.setattr(feed, "CHUNK_IMAGES", 60)
    config = dataclasses.replace(CONFIG, epochs=1)
    found = train.fit(config, from_files(config, files))
    with closing(from_files(config, files).chunks(0)) as chunks:
        parts = [(images.copy(), labels.copy(), order) for images, labels, order in chunks]
    assert len(parts) == 4  # 11 steps in chunks of 3

    def in_memory(epoch: int) -> feed.Chunks:
        yield from parts

    whole = feed.from_memory(config, blobs)._replace(chunks=in_memory)
    assert same_bytes(found, train.fit(config, whole))
    # The same steps as one program over all of them, rounding aside.
    first = np.cumsum([0] + [len(images) for images, _, _ in parts])
    together = (
        np.concatenate([images for images, _, _ in parts]),
        np.concatenate([labels for _, labels, _ in parts]),
        np.concatenate([order + at for (_, _, order), at in zip(parts, first, strict=False)]),
    )
    at_once = whole._replace(chunks=lambda epoch: (one for one in [together]))
    costs: list[float] = []
    for streamed in (True, False):
        state = train.fit(
            config,
            from_files(config, files) if streamed else at_once,
            on_epoch=lambda _, report: costs.append(report.cost),
        )
        assert relative_difference(found.params, state.params) < 1e-5
    assert costs[0] == pytest.approx(costs[1], rel=1e-5)


def test_the_shuffle_seed_decides_the_blocks(files: Path) -> None:
    def first(**changes: int) -> np.ndarray:
        config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
        with closing(from_files(config, files).chunks(0)) as chunks:
            images, _, order = next(chunks)
            return images[order[0]]

    np.testing.assert_array_equal(first(seed=5), first(seed=0, shuffle_seed=5))
    assert (first(seed=5) != first(seed=5, shuffle_seed=6)).any()


def test_a_chunk_is_bounded_by_images_not_by_steps(files: Path) -> None:
    for batch_size, steps in ((20, [11]), (100, [2]), (230, [1])):
        config = dataclasses.replace(CONFIG, batch_size=batch_size)
        with closing(from_files(config, files).chunks(0)) as chunks:
            assert [len(order) for _, _, order in chunks] == steps


def test_the_test_images_are_checked_too(files: Path, blobs: Dataset) -> None:
    narrow = blobs._replace(test_images=blobs.test_images[:, :5])
    other = folders.write(files.parent / "narrow", narrow)
    with pytest.raises(ConfigError, match="an image has 140 pixels"):
        from_files(CONFIG, other)
    more = blobs._replace(test_labels=blobs.test_labels + 3)
    other = folders.write(files.parent / "more", more)
    with pytest.raises(ConfigError, match="labels go up to 12"):
        from_files(CONFIG, other)


def test_streamed_training_is_resumed_exactly(files: Path) -> None:
    halfway = train.fit(dataclasses.replace(CONFIG, epochs=1), from_files(CONFIG, files))
    at_once = train.fit(CONFIG, from_files(CONFIG, files))
    assert same_bytes(train.fit(CONFIG, from_files(CONFIG, files), state=halfway), at_once)


def test_the_parts_for_measuring_are_those_in_memory(files: Path, blobs: Dataset) -> None:
    for validation in (0, 50):
        config = dataclasses.replace(CONFIG, validation=validation)
        streamed, whole = from_files(config, files), feed.from_memory(config, blobs)
        assert streamed.examples == whole.examples == 230 - validation
        for name in ("held_out_images", "held_out_labels"):
            np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))
        for name in ("calibration_images", "calibration_labels"):
            np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))


def test_the_validation_part_is_not_trained_on(files: Path, blobs: Dataset) -> None:
    config = dataclasses.replace(CONFIG, validation=50)
    with closing(from_files(config, files).chunks(0)) as chunks:
        seen = {image.tobytes() for images, _, _ in chunks for image in images}
    kept = {image.tobytes() for image in blobs.train_images[180:]}
    assert not seen & kept
    assert len(seen) >= 175


def test_settings_are_checked_against_the_files(files: Path) -> None:
    for changes, sentence in (
        ({"sizes": (783, 10)}, "an image has 784 pixels"),
        ({"sizes": (784, 9)}, "labels go up to 9"),
        ({"batch_size": 231}, "expected 1 to 230"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            from_files(dataclasses.replace(CONFIG, **changes), files)  # type: ignore[arg-type]


def test_a_file_that_vanishes_is_one_sentence(files: Path) -> None:
    going = from_files(CONFIG, files)
    (files / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        train.fit(CONFIG, going)


def test_the_command_streams_and_resumes(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["train", "--stream", "--sizes", "784", "8", "10", "--batch-size", "20"]
    where = ["--data", str(files), "--out", str(tmp_path / "run")]
    assert cli.main([*run, *where, "--epochs", "1"]) == 0
    assert cli.main(["train", "--stream", "--resume", *where, "--epochs", "2"]) == 0
    assert "2 epochs" not in capsys.readouterr().err
    monkeypatch.delenv("JAXNN_DATA", raising=False)
    assert cli.main([*run, "--epochs", "1", "--out", str(tmp_path / "other")]) == 2
    assert "--stream needs --data DIR" in capsys.readouterr().err
