"""An ensemble as a model like any other: on disk, for the commands, on a server."""

import json
from pathlib import Path
from typing import Any

import grpc
import jax
import numpy as np
import pytest
from folders import write
from PIL import Image
from serving import LIMIT_S, serve_sync
from trees import same_bytes

from jaxnn import calibration, checkpoint, cli, metrics, mlp, models
from jaxnn.commands import inputs
from jaxnn.commands.plot_inputs import looked_into
from jaxnn.data import Dataset
from jaxnn.errors import CheckpointError, ConfigError
from jaxnn.models import Spec
from service.pb import digits_pb2, digits_pb2_grpc
from service.repository import load_model

MEMBERS = 3
ONE = Spec(sizes=(784, 8, 10))
SPEC = ONE._replace(members=MEMBERS)
COUNT = MEMBERS * (784 * 8 + 8 + 8 * 10 + 10)
# Louder than usual and without biases, so that members disagree and images get many labels.
LOUD = [
    tuple(mlp.Layer(2 * layer.weights, 0 * layer.biases) for layer in one)
    for one in (mlp.init(jax.random.key(seed), ONE.sizes) for seed in range(MEMBERS))
]
PARAMS = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(LOUD))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "three.safetensors"
    checkpoint.save(file, PARAMS, SPEC, training={"seeds": [0, 1, 2]})
    return file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], np.ndarray]:
    """Files that show finished digits, as images uint8 [6, 28, 28] that no preparing changes."""
    folder = tmp_path_factory.mktemp("pictures")
    coarse = np.random.default_rng(3).integers(0, 2, (6, 5, 5)).repeat(4, 1).repeat(4, 2) * 255
    coarse[:, [0, -1]] = 255  # the ink reaches every edge of its 20 x 20 box
    coarse[:, :, [0, -1]] = 255
    images = np.pad(coarse, ((0, 0), (4, 4), (4, 4))).astype(np.uint8)
    names = [str(folder / f"{index}.png") for index in range(6)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
    return names, images


def numpy_scores(images: np.ndarray) -> np.ndarray:
    """Scores [K, N, 10] of every member by itself, in float64."""
    a = images.reshape(len(images), 784) / 255

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    return np.stack([sigmoid(sigmoid(a @ w1.T) @ w2.T) for (w1, _), (w2, _) in LOUD])


def test_what_is_saved_is_loaded(path: Path) -> None:
    file = checkpoint.load(path)
    assert file.spec == SPEC
    assert same_bytes(file.params, PARAMS)
    assert file.params[0].weights.shape == (MEMBERS, 8, 784)


def test_files_from_before_there_were_ensembles_hold_single_networks(tmp_path: Path) -> None:
    old = {name: value for name, value in ONE._asdict().items() if name != "members"}
    sections: dict[str, Any] = {"training": {}, "data": {}, "metrics": {}}
    checkpoint.write(tmp_path / "old", "model", LOUD[0], {"spec": old, **sections})
    file = checkpoint.load(tmp_path / "old")
    assert file.spec == ONE
    assert same_bytes(file.params, jax.device_get(LOUD[0]))
    assert checkpoint.load(checkpoint.SHIPPED).spec.members == 1


@pytest.mark.parametrize(
    "members", [0, -1, 1025, 10**30, 2.0, 3.0, float("inf"), True, "3", [3], {"3": 3}, None]
)
def test_a_number_of_members_that_cannot_be_is_refused(
    path: Path, tmp_path: Path, members: object
) -> None:
    rewritten(path, tmp_path / "model", members)
    with pytest.raises(CheckpointError, match="cannot build"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("members", [1, 2, 1024])
def test_arrays_of_another_number_of_members_are_refused(
    path: Path, tmp_path: Path, members: int
) -> None:
    rewritten(path, tmp_path / "model", members)
    with pytest.raises(CheckpointError, match=r"is float32 \(3, .*, expected float32"):
        checkpoint.load(tmp_path / "model")
    with pytest.raises(CheckpointError, match="expected float32"):
        checkpoint.save(tmp_path / "model", PARAMS, SPEC._replace(members=members))


def rewritten(path: Path, other: Path, members: object) -> None:
    """The same arrays with another number of members in the header, and a right checksum."""
    contents = checkpoint.read(path, "model")
    sections = {name: contents.header[name] for name in ("training", "data", "metrics")}
    spec = {**contents.header["spec"], "members": members}
    checkpoint.write(other, "model", contents.tensors, {"spec": spec, **sections})


def test_info_counts_the_parameters_of_all_members(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["members", "3"] in lines
    assert ["parameters", f"{COUNT:,}"] in lines
    assert ["sizes", "784-8-10"] in lines


def test_classify_says_how_many_members_agree(
    path: Path, pictures: tuple[list[str], np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    names, images = pictures
    each = numpy_scores(images)
    mean = each.mean(axis=0)
    votes = np.sum(each.argmax(axis=2) == mean.argmax(axis=1), axis=0)
    assert len(set(votes.tolist())) > 1
    chances = calibration.probabilities(mean, SPEC.output, checkpoint.load(path).temperature)
    assert cli.main(["classify", *names, "--raw", "--model", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: {scores.argmax()}  (confidence {int(100 * sure)}%, {vote} of 3 members agree)"
        for name, scores, sure, vote in zip(names, mean, chances.max(axis=1), votes, strict=True)
    ]
    assert cli.main(["classify", *names, "--raw", "--model", str(path), "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    np.testing.assert_allclose([result["agreement"] for result in results], votes / 3, rtol=1e-6)
    np.testing.assert_allclose([result["scores"] for result in results], mean, rtol=1e-5)


def test_classify_with_a_single_network_says_nothing_of_members(
    tmp_path: Path, pictures: tuple[list[str], np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    single = tmp_path / "single.safetensors"
    checkpoint.save(single, LOUD[0], ONE)
    words = ["classify", pictures[0][0], "--model", str(single), "--json"]
    assert cli.main([*words, str(tmp_path / "json")]) == 0
    assert "agree" not in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "json").read_text())["results"]
    assert "agreement" not in result


def test_eval_measures_the_mean_of_the_members(path: Path, tmp_path: Path, blobs: Dataset) -> None:
    words = ["eval", str(path), "--data", str(write(tmp_path, blobs))]
    assert cli.main([*words, "--json", str(tmp_path / "json")]) == 0
    each = numpy_scores(blobs.test_images)
    expected = np.mean(each.mean(axis=0).argmax(axis=1) == blobs.test_labels)
    assert json.loads((tmp_path / "json").read_text())["test_accuracy"] == expected


@pytest.mark.parametrize("words", [["digit", "--index", "0"], ["batch"]])
def test_commands_that_look_into_layers_want_a_single_network(
    words: list[str],
    path: Path,
    tmp_path: Path,
    blobs: Dataset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(write(tmp_path, blobs))
    assert cli.main(["explain", *words, "--model", str(path), "--data", folder]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence == (
        f"jaxnn: {path} is an ensemble of 3 networks, but this looks into the layers of one: "
        "name the model file of a single network"
    )


def test_a_model_is_loaded_as_it_is_needed(path: Path) -> None:
    assert inputs.load_model(path).spec.members == 3
    assert looked_into(None, "mlp").spec.members == 1
    with pytest.raises(ConfigError, match="ensemble of 3"):
        looked_into(path, "mlp")


def test_a_server_answers_as_the_ensemble_does_here(
    path: Path, pictures: tuple[list[str], np.ndarray], tmp_path: Path, blobs: Dataset
) -> None:
    images = blobs.test_images
    offline = metrics.scores(PARAMS, images, model=models.build(SPEC))

    def scenario(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            model = stub.GetModel(digits_pb2.GetModelRequest(), timeout=LIMIT_S)
            request = digits_pb2.ClassifyRequest(pixels=images.tobytes())
            answer = stub.Classify(request, timeout=LIMIT_S)
        assert (model.family, list(model.layer_sizes)) == ("mlp", [784, 8, 10])
        assert (model.parameter_count, model.classes) == (COUNT, 10)
        assert model.version == checkpoint.load(path).digest[:12]
        # Batches of other sizes sum in another order.
        scores = np.reshape(answer.scores, (len(images), 10))
        np.testing.assert_allclose(scores, offline, rtol=1e-5)
        np.testing.assert_allclose(scores, numpy_scores(images).mean(axis=0), rtol=1e-5)
        assert list(answer.labels) == offline.argmax(axis=1).tolist()
        words = ["classify", *pictures[0], "--raw", "--server", target, "--json"]
        assert cli.main([*words, str(tmp_path / "json")]) == 0

    serve_sync(load_model(path, "digits", buckets=(16,)), scenario)
    results = json.loads((tmp_path / "json").read_text())["results"]
    expected = numpy_scores(pictures[1]).mean(axis=0)
    np.testing.assert_allclose([result["scores"] for result in results], expected, rtol=1e-5)
    assert not any("agreement" in result for result in results)
