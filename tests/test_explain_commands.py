"""`jaxnn explain` as people use it: text, JSON, one-line errors, and what its figures draw."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from folders import write
from PIL import Image

from jaxnn import checkpoint, cli, data, models
from jaxnn.data import Dataset
from jaxnn.explain import batch, chain, digit
from jaxnn.models import Spec

pytest.importorskip("matplotlib", reason="the figures are an extra")

from jaxnn.plots import explain_batch, explain_chain, explain_digit, style

Explained = digit.DigitExplanation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network as a file."""
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    checkpoint.save(path, jax.device_get(models.build().init(jax.random.key(0))))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> Path:
    return write(tmp_path_factory.mktemp("data"), blobs)


@pytest.fixture(scope="module")
def found(model: Path, blobs: Dataset) -> Explained:
    file = checkpoint.load(model)
    return digit.explain(file.params, file.spec, blobs.test_images[4], 4)


def explained(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    assert cli.main(["explain", *map(str, words), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def sentence(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a refused command says."""
    assert cli.main(["explain", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxnn: .+\n", err)
    return err


# Text and JSON


def test_chain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = explained(capsys, "chain", "--weights", 1, -2, 0.5, "--x", 0.3, "--nudge", -0.1)
    expected = chain.explain((1.0, -2.0, 0.5), (-1.0, 1.0, -0.5), 0.3, 1.0)
    assert result["weights"] == [1.0, -2.0, 0.5]
    assert result["z"] == list(expected.z)
    assert result["cost"] == expected.cost
    products = {derivative["name"]: derivative["product"] for derivative in result["derivatives"]}
    assert products == {d.name: d.product for d in expected.derivatives}
    assert result["derivatives"][0]["factors"]["dz3/dw3"] == expected.a[2]
    assert [stops[0]["name"] for stops in result["travels"]] == ["w3", "w1"]
    assert result["travels"][1][0]["after"] == 0.9


def test_digit_as_json_with_and_without_its_name(
    capsys: pytest.CaptureFixture[str], model: Path, folder: Path, found: Explained
) -> None:
    words = ("--index", 4, "--data", folder, "--model", model)
    result = explained(capsys, *words)
    assert result == explained(capsys, "digit", *words)
    assert (result["label"], result["answer"]) == (4, found.answer)
    assert result["cost"] == found.cost == pytest.approx(sum(result["terms"]), rel=1e-6)
    for layer, expected in zip(result["layers"], found.layers, strict=True):
        for name, values in expected._asdict().items():
            assert np.array_equal(np.array(layer[name], np.float32), values)


def test_a_picture_file_and_another_label(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = data.load("embedded").test_images[0]
    path = tmp_path / "digit.png"
    Image.fromarray(image).save(path)
    from_file = explained(capsys, path, "--label", 2)
    assert from_file == explained(capsys, "--label", 2)  # the shipped model, held-out image 0
    assert from_file["label"] == 2
    assert np.argmax(from_file["layers"][-1]["wishes"]) == 2
    assert from_file["cost"] > explained(capsys)["cost"]  # it is no 2


def test_batch_as_json(
    capsys: pytest.CaptureFixture[str], model: Path, folder: Path, blobs: Dataset
) -> None:
    result = explained(capsys, "batch", "--model", model, "--data", folder)
    assert result["network"] == "untrained.safetensors"
    assert result["labels"] == [3, 2, 9]
    assert [row["name"] for row in result["parameters"][:2]] == ["b[0]", "b[1]"]
    for row in result["parameters"]:
        assert row["average"] == pytest.approx(np.mean(row["nudges"]), rel=1e-5, abs=1e-9)
    proof = result["mean_of_nudges"]
    assert proof["examples"] == 230
    assert 0 <= proof["difference"] < 1e-5 * proof["largest"]
    assert [row["size"] for row in result["batches"]] == [1, 10, 100, 230]
    assert result["batches"][0]["cosine"] == pytest.approx(
        np.median(result["batches"][0]["cosines"])
    )


def test_batch_trains_a_network_of_its_own(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert explained(capsys, "batch", "--data", folder)["network"] == "a network after one epoch"


@pytest.mark.parametrize("topic", [["chain"], ["digit", "--index", "4"], ["batch"]])
def test_text_fits_80_columns(
    topic: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    folder: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # wide, so that nothing is wrapped to fit
    monkeypatch.setenv("NO_COLOR", "1")
    rest = [] if topic == ["chain"] else ["--model", str(model), "--data", str(folder)]
    assert cli.main(["explain", *topic, *rest]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_chain_text_has_product_and_trial_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "chain"]) == 0
    names = ("w3", "b3", "a2", "w2", "b2", "a1", "w1", "b1", "x")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(r" *dC/d\w+ +-?\d", line)]
    assert [row[0] for row in rows] == [f"dC/d{name}" for name in names]
    for row in rows:
        factors, product, trial = map(float, row[1:4]), float(row[4]), float(row[5])
        assert np.prod(list(factors)) == pytest.approx(product, abs=2e-4)  # four digits each
        assert trial == pytest.approx(product, abs=2e-8)


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chain", "--weights", "1", "2"], "2 weights and 3 biases"),
        (["chain", "--y", "nan"], "nan is given"),
        (["chain", "--nudge", "0"], "the nudge is 0"),
        (["--label", "10"], "expected a digit from 0 to 9"),
        (["--index", "2000"], "numbered 0 to 1999"),
        (["--index", "-1"], "--index is -1"),
        (["missing.png", "--label", "2"], "missing.png could not be read"),
        (["missing.png"], "as in --label 2"),
        (["missing.png", "--label", "2", "--index", "1"], "choose one"),
        (["chain", "--plot", "figure.gif"], ".png or .svg"),
        (["batch", "--model", "missing"], "missing does not exist"),
        (["batch", "--epochs", "-1"], "epochs is -1"),
    ],
)
def test_refusals(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in sentence(capsys, *words)


def test_a_model_for_other_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, spec = tmp_path / "small.safetensors", Spec(sizes=(100, 10))
    checkpoint.save(path, jax.device_get(models.build(spec).init(jax.random.key(0))), spec)
    said = "sees 100 numbers, but a picture has 784 pixels"
    for topic in ("digit", "batch"):
        assert said in sentence(capsys, topic, "--model", path)


def test_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'jaxnn[plots]'" in sentence(capsys, "chain", "--plot", "chain.png")


# Figures: what they draw is what was computed


def titled(figure: "style.Figure", title: str) -> list:
    return [ax for ax in figure.axes if title in ax.get_title() or title in ax.get_xlabel()]


def test_chain_figure_puts_every_mark_where_the_number_is() -> None:
    found = chain.explain((1.5, -2.0, 3.0), (-1.0, 1.0, -0.5), 1.0, 1.0)
    travels = [chain.travel(found, layer, 0.5) for layer in (3, 1)]
    figure = explain_chain.chain(found, travels)
    lines = [ax for ax in figure.axes if ax.get_ylabel()]
    for ax, stop in zip(lines, [*travels[0], *travels[1]], strict=True):
        assert ax.get_ylabel() == stop.name
        before, predicted = ax.get_lines()
        assert before.get_xdata()[0] == stop.before
        assert predicted.get_xdata()[0] == stop.predicted
        (arrow,) = ax.texts
        assert (arrow.xyann[0], arrow.xy[0]) == (stop.before, stop.after)
        left, right = ax.get_xlim()
        assert left <= min(stop.before, stop.after) <= max(stop.before, stop.after) <= right


def test_digit_figure_draws_the_nudges(found: Explained) -> None:
    figure = explain_digit.digit(found)
    for title, values in (
        ("activation a", [layer.activations for layer in found.layers]),
        ("wish, -dC/da", [layer.wishes for layer in found.layers]),
        ("nudge to bias, -dC/db", [layer.biases for layer in found.layers]),
    ):
        for ax, expected in zip(titled(figure, title), values[::-1], strict=True):
            bars = np.array([bar.get_width() for bar in ax.patches])
            assert np.array_equal(bars.astype(np.float32), expected)
    (terms,) = titled(figure, "its cost")
    heights = np.array([bar.get_height() for bar in terms.patches])
    assert np.array_equal(heights.astype(np.float32), found.terms)
    matrices = titled(figure, "nudges to weights")
    for ax, index in zip(matrices, (2, 1), strict=True):
        weights, before = ax.images
        assert np.array_equal(weights.get_array(), found.layers[index].weights)
        assert np.array_equal(before.get_array()[0], found.layers[index - 1].activations)
    (tiles,) = titled(figure, "nudges to the 784 weights of each neuron")
    canvas = tiles.images[0].get_array().filled(0)  # NaN between the pictures is masked
    assert canvas.sum() == pytest.approx(found.layers[0].weights.sum(), rel=1e-4)
    assert np.array_equal(canvas[8:36, 36:64], found.layers[0].weights[1].reshape(28, 28))


def test_digit_figure_of_a_wide_and_shallow_network(blobs: Dataset) -> None:
    for sizes in ((784, 10), (784, 40, 10)):
        spec = Spec(sizes=sizes)
        params = jax.device_get(models.build(spec).init(jax.random.key(0)))
        figure = explain_digit.digit(digit.explain(params, spec, blobs.test_images[0], 0))
        assert len(titled(figure, "wish, -dC/da")) == len(sizes) - 1


def test_batch_figure_draws_nudges_angles_and_times(model: Path, blobs: Dataset) -> None:
    file, network = checkpoint.load(model), models.build()
    examples = blobs.train_images, blobs.train_labels
    shown, proof = batch.disagreement(file.params, *examples, network)
    agreements = batch.agreement(file.params, *examples, network)
    figure = explain_batch.batch(shown, proof, agreements, "a network")
    tables = [titled(figure, "biases, -dC/db")[0], titled(figure, "before them, -dC/dw")[0]]
    for ax, rows in zip(tables, (slice(0, 10), slice(10, 20)), strict=True):
        drawn = ax.images[0].get_array()
        assert np.array_equal(drawn[:, :3], shown.nudges[rows])
        assert np.array_equal(drawn[:, 3], shown.average[rows])
        assert np.array_equal(drawn[:, 4], shown.everyone[rows])
        assert ax.texts[0].get_text() == f"{shown.nudges[rows][0, 0]:+.3f}"
    (angles,), (times,) = titled(figure, "angle to"), titled(figure, "time of")
    for line, one in zip(angles.get_lines(), agreements, strict=False):
        assert np.array_equal(line.get_ydata(), one.angles)
    medians = angles.get_lines()[len(agreements)]
    assert list(medians.get_xdata()) == [one.size for one in agreements]
    assert list(medians.get_ydata()) == [np.median(one.angles) for one in agreements]
    assert list(times.get_lines()[0].get_ydata()) == [1000 * one.seconds for one in agreements]


def test_figures_are_written(tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        assert cli.main(["explain", "chain", "--plot", str(tmp_path / f"chain.{kind}")]) == 0
    with Image.open(tmp_path / "chain.png") as image:
        assert image.width == 1000
    assert b"<svg" in (tmp_path / "chain.svg").read_bytes()


@pytest.mark.parametrize("topic", ["digit", "batch"])
def test_each_topic_draws_its_own_figure(
    topic: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    folder: Path,
) -> None:
    drawn = []
    module = {"digit": explain_digit, "batch": explain_batch}[topic]
    monkeypatch.setattr(module, topic, lambda *results: drawn.append(results))
    monkeypatch.setattr(style, "save", lambda figure, path: drawn.append(path))
    path = tmp_path / "figure.png"
    words = ["--model", str(model), "--data", str(folder), "--plot", str(path)]
    assert cli.main(["explain", topic, *words]) == 0
    assert drawn[1] == path
