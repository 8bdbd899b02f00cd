"""A teacher: its targets by hand, training on them against NumPy, and what is refused."""

import dataclasses
import re
import shutil
from pathlib import Path

import folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from trees import relative_difference, same_bytes

from jaxnn import checkpoint, cli, epoch, models, teacher, train
from jaxnn.costs import OBJECTIVES
from jaxnn.data import Dataset
from jaxnn.errors import ConfigError
from jaxnn.feed import from_memory
from jaxnn.models import Spec
from jaxnn.train import TrainConfig

SPEC = Spec(sizes=(784, 6, 10), output="softmax", cost="cross_entropy")
CONFIG = TrainConfig(
    sizes=(784, 4, 10),
    epochs=2,
    batch_size=20,
    learning_rate=1.0,
    validation=50,
    teacher_weight=0.7,
    teacher_temperature=3.0,
)
FLAGS = [
    "--sizes",
    "784",
    "4",
    "10",
    "--batch-size",
    "20",
    "--learning-rate",
    "1",
    "--validation",
    "50",
]
TAUGHT = ["--teacher-weight", "0.7", "--teacher-temperature", "3"]
SOFT = np.array([0.6, 0.25, 0.1, 0.05])


def write_teacher(path: Path, seed: int, spec: Spec = SPEC) -> Path:
    """A network with opinions of its own, though it has learned nothing."""
    params = jax.jit(models.build(spec).init)(jax.random.key(seed))
    checkpoint.save(path, jax.tree.map(lambda leaf: np.asarray(leaf) * 4, params), spec)
    return path


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> dict[str, Path]:
    """A teacher, images, and a run of two epochs with both."""
    top = tmp_path_factory.mktemp("taught")
    found = {
        "teacher": write_teacher(top / "old.safetensors", 1),
        "data": folders.write(top / "data", blobs),
        "run": top / "run",
    }
    words = ["train", *FLAGS, *TAUGHT, "--data", str(found["data"]), "--epochs", "2"]
    words += ["--teacher", str(found["teacher"]), "--out", str(found["run"])]
    assert cli.main(words) == 0
    return found


@pytest.fixture(scope="module")
def config(taught: dict[str, Path]) -> TrainConfig:
    """The settings of that run."""
    digest = checkpoint.load(taught["teacher"]).digest
    return dataclasses.replace(CONFIG, teacher=str(taught["teacher"]), teacher_checksum=digest)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_targets_by_hand(output: str) -> None:
    z = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    scores = scipy.special.softmax(z, axis=1) if output == "softmax" else scipy.special.expit(z)
    y = teacher.targets(scores, np.array([2, 1], np.uint8), output, 0.7, 3.0)
    expected = 0.7 * scipy.special.softmax(z / 3, axis=1) + 0.3 * np.eye(3)[[2, 1]]
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    alone = teacher.targets(scores, np.array([2, 1], np.uint8), output, 0.0, 3.0)
    np.testing.assert_array_equal(alone, np.eye(3, dtype=np.float32)[[2, 1]])


def test_every_cost_and_its_delta_are_right_for_soft_targets(x64: None) -> None:
    """Each cost is least where the answers are the targets.

    Of competing, whose two parts want different z, only the order of the answers is asked.
    """

    @jax.jit
    def found(z: jax.Array, y: jax.Array) -> dict:
        def of(pair: tuple[str, str]) -> tuple:
            output, cost, delta = OBJECTIVES[pair]
            least = jnp.log(y) if pair[0] == "softmax" else jnp.log(y) - jnp.log(1 - y)
            if pair[1] == "competing":
                least = jax.lax.fori_loop(0, 3000, lambda _, z: z - delta(z, y), least)
            return delta(z, y), jax.grad(cost)(z, y), output(least), delta(least, y)

        return {pair: of(pair) for pair in OBJECTIVES}

    assert SOFT.sum() == pytest.approx(1, rel=1e-15)
    for pair, each in found(jnp.array([0.5, -3.0, 2.0, 0.1]), jnp.asarray(SOFT)).items():
        delta, slope, answers, rest = map(np.asarray, each)
        np.testing.assert_allclose(delta, slope, rtol=1e-12, atol=1e-15, err_msg=str(pair))
        np.testing.assert_allclose(rest, 0, atol=1e-12, err_msg=str(pair))
        if pair[1] == "competing":
            assert np.all(np.diff(answers) < 0)  # as SOFT
        else:
            np.testing.assert_allclose(answers, SOFT, rtol=1e-12, err_msg=str(pair))


def test_training_equals_sgd_on_soft_targets_in_numpy(config: TrainConfig, blobs: Dataset) -> None:
    images, labels = blobs.train_images[:180].reshape(-1, 784) / 255, blobs.train_labels[:180]
    (v, c), (u, d) = checkpoint.load(config.teacher).params
    z = scipy.special.expit(images @ v.T.astype(float) + c) @ u.T.astype(float) + d
    targets = 0.7 * scipy.special.softmax(z / 3, axis=1) + 0.3 * np.eye(10)[labels]
    first = train.initial_state(config, len(images)).params
    (w1, b1), (w2, b2) = [[np.asarray(leaf, np.float64) for leaf in layer] for layer in first]
    for number in range(config.epochs):
        for batch in epoch.shuffled_batches(config.seed, number, len(images), config.batch_size):
            hidden = scipy.special.expit(images[batch] @ w1.T + b1)
            a = scipy.special.expit(hidden @ w2.T + b2)
            above = 2 * (a - targets[batch]) * a * (1 - a) / len(batch)
            below = above @ w2 * hidden * (1 - hidden)
            w2, b2 = w2 - above.T @ hidden, b2 - above.sum(axis=0)
            w1, b1 = w1 - below.T @ images[batch], b1 - below.sum(axis=0)
    found = [list(layer) for layer in train.fit(config, blobs).params]
    # 18 steps in float32 beside float64: rounding of 1e-7 a step, amplified a little.
    assert relative_difference(found, [[w1, b1], [w2, b2]]) < 1e-4


def test_a_model_says_who_taught_it_and_not_where_that_lay(taught: dict[str, Path]) -> None:
    training = checkpoint.load(taught["run"] / "model.safetensors").training
    digest = checkpoint.load(taught["teacher"]).digest
    assert (training["teacher"], training["teacher_checksum"]) == ("old.safetensors", digest)
    assert training["teacher_weight"] == 0.7
    assert (
        "--teacher old.safetensors --teacher-weight 0.7 "
        f"--teacher-temperature 3.0 --teacher-checksum {digest}" in training["command"]
    )
    assert str(taught["teacher"].parent) not in str(training)


def test_a_resumed_run_is_exact_and_needs_the_same_teacher(
    taught: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = taught["teacher"], tmp_path / "kept"
    words = ["train", *FLAGS, "--data", str(taught["data"]), "--out", str(tmp_path / "run")]
    assert cli.main([*words, *TAUGHT, "--teacher", str(path), "--epochs", "1"]) == 0
    resume = [*words, "--resume", "--epochs", "2"]
    path.rename(kept)
    refused(resume, "the teacher .* does not exist", capsys)
    write_teacher(path, 2)
    refused(resume, "has the checksum .* expected .* the file that the run began with", capsys)
    kept.replace(path)
    refused([*resume, "--teacher", "cnn"], "the teacher cnn has the checksum", capsys)
    moved = shutil.copy(path, tmp_path / path.name)
    assert cli.main([*resume, "--teacher", str(moved)]) == 0
    found, expected = (
        checkpoint.load(run / "model.safetensors") for run in (tmp_path / "run", taught["run"])
    )
    assert same_bytes(found.params, expected.params)
    assert found.digest == expected.digest


def refused(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and exit code 2."""
    capsys.readouterr()
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(why, line), line


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--teacher", "nobody"], "the teacher nobody does not exist: name a model file"),
        (
            ["--teacher", "speech"],
            "speech has 1600 inputs and 10 classes, but sizes begin with 784",
        ),
        (["--teacher", "cnn", "--sizes", "784", "4", "11"], "10 classes, but .* end with 11"),
        (["--teacher", "cnn", "--teacher-weight", "1.1"], "teacher_weight is 1.1, expected 0 to 1"),
        (["--teacher", "cnn", "--teacher-weight", "nan"], "teacher_weight is nan, expected 0 to 1"),
        (["--teacher", "cnn", "--teacher-temperature", "0"], "is 0.0, expected a positive number"),
        (["--teacher", "cnn", "--teacher-temperature", "inf"], "expected a positive number"),
        (["--teacher-weight", "0.9"], "teacher_weight is 0.9, but no teacher is named"),
        (["--teacher", "cnn", "--stream"], "--stream reads them anew .*: leave one out"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    flags: list[str], why: str, taught: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["train", *FLAGS, "--data", str(taught["data"]), *flags], why, capsys)


def test_students_side_by_side_share_the_teacher(
    config: TrainConfig,
    taught: dict[str, Path],
    blobs: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["sweep", *FLAGS, *TAUGHT, "--epochs", "2", "--data", str(taught["data"])]
    words += ["--teacher", str(taught["teacher"]), "--seeds", "2"]
    refused([*words, "--teacher-checksum", "ab"], "has the checksum .* expected ab", capsys)
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    file = checkpoint.load(tmp_path / "model.safetensors")
    assert file.training["teacher_checksum"] == config.teacher_checksum
    alone = dataclasses.replace(config, seed=file.training["seed"], shuffle_seed=0)
    # The same steps, in another order of sums.
    assert relative_difference(file.params, train.fit(alone, blobs).best_params) < 1e-4


def test_without_a_teacher_labels_stay_labels(config: TrainConfig, blobs: Dataset) -> None:
    """Whole numbers go into the epoch, so that its program is the one of a run without any."""
    plain = TrainConfig(sizes=(784, 4, 10), batch_size=20)
    _, labels, _ = next(from_memory(plain, blobs).chunks(0))
    assert (labels.shape, labels.dtype) == ((230,), np.uint8)
    _, targets, _ = next(from_memory(config, blobs).chunks(0))
    assert (targets.shape, targets.dtype) == ((180, 10), np.float32)
    assert teacher.checksum(plain) == ""
    with pytest.raises(ConfigError, match="teacher_checksum is ab, but no teacher is named"):
        from_memory(dataclasses.replace(plain, teacher_checksum="ab"), blobs)
