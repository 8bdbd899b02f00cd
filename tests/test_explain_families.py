"""What looks into convolutions and memories, and at any network: numbers, figures, commands."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from folders import write
from voices import hummed

from jaxnn import checkpoint, cli, lstm, models
from jaxnn.commands import plot_inputs
from jaxnn.data import Dataset, features, wav
from jaxnn.errors import ConfigError, ShapeError
from jaxnn.explain import gates, maps, saliency
from jaxnn.explain.gates import Reading
from jaxnn.models import Spec

pytest.importorskip("matplotlib", reason="the figures are an extra")

from jaxnn.plots import explain_gates, explain_maps, explain_saliency

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(3)
CNN = Spec("cnn", (121, 3), "relu", "softmax", "cross_entropy", architecture="tiny")
ROWS = Spec("lstm", (4 * 28, 5, 3), "tanh", "softmax", "cross_entropy", architecture="rows")
SPEECH = Spec("lstm", (5 * 40, 3, 3), "tanh", "sigmoid", "quadratic", architecture="speech")
PICTURES = RNG.integers(0, 256, (6, 11, 11)).astype(np.uint8)


def drawn(spec: Spec) -> Any:
    """Parameters of which none is zero, float32."""
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(models.build(spec).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


# Saliency


@pytest.mark.parametrize(
    "spec",
    [Spec(sizes=(16, 5, 3)), Spec(sizes=(16, 5, 3), members=2), CNN, ROWS],
    ids=["mlp", "ensemble", "cnn", "lstm"],
)
def test_slopes_are_what_a_little_ink_does(spec: Spec, x64: None) -> None:
    images = RNG.integers(1, 255, (2, spec.sizes[0])).astype(np.uint8)
    params = drawn(spec)
    found = saliency.saliency(params, spec, images)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    scores = jax.jit(jax.vmap(models.build(spec).forward, in_axes=(None, 0)))
    step = 1e-6  # central differences err by its square, and by rounding over it: 1e-10
    for image, answer, each, slopes in zip(
        images, found.answers, found.scores, found.slopes, strict=True
    ):
        moved = image / 255 + step * np.concatenate([np.eye(image.size), -np.eye(image.size)])
        of_answer = np.asarray(scores(exact, moved))[:, answer]
        differences = (of_answer[: image.size] - of_answer[image.size :]) / (2 * step)
        np.testing.assert_allclose(slopes, differences, atol=1e-8)
        assert np.abs(slopes).max() > 1e-4
        assert answer == each.argmax()


def test_a_sure_answer_still_has_slopes() -> None:
    """In float32 the largest score of this one is 1, and nothing moves it."""
    spec = Spec(sizes=(4, 3), output="softmax", cost="cross_entropy")
    (layer,) = drawn(spec)
    sure = (layer._replace(biases=np.array([0, 25, 0], np.float32)),)
    slopes = saliency.saliency(sure, spec, np.full((1, 4), 100, np.uint8)).slopes[0]
    a = softmax(sure[0].weights.astype(float) @ np.full(4, 100 / 255) + sure[0].biases)
    expected = a[1] * (sure[0].weights[1] - a @ sure[0].weights)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4)  # of 1e-10, in spite of rounding


# Filters and maps


def convolved(params: Any, image: np.ndarray) -> np.ndarray:
    """The first layer of `tiny` at every place [6, 6, 2], by its definition."""
    padded = np.pad(image / 255, 1)
    places = [[padded[i : i + 3, j : j + 3] for j in range(0, 11, 2)] for i in range(0, 11, 2)]
    return np.einsum("ijuv,fuv->ijf", places, params[0].kernels[..., 0]) + params[0].biases


def test_the_strongest_patches_are_found() -> None:
    params = drawn(CNN)
    found = maps.filters(params, CNN, PICTURES, count=4)
    responses = np.array([convolved(params, image) for image in PICTURES])  # [N, 6, 6, F]
    np.testing.assert_array_equal(found.kernels, params[0].kernels[..., 0])
    for of_map in range(2):
        largest = responses[..., of_map].reshape(6, -1).max(axis=1)
        order = np.argsort(-largest)[:4]
        np.testing.assert_array_equal(found.indices[of_map], order)
        np.testing.assert_allclose(found.responses[of_map], largest[order], rtol=1e-4)
        for patch, index, corner, response in zip(
            found.patches[of_map], order, found.corners[of_map], largest[order], strict=True
        ):
            row, column = corner + 1  # of the padded picture
            padded = np.pad(PICTURES[index], 1)
            np.testing.assert_array_equal(patch, padded[row : row + 3, column : column + 3])
            said = np.sum(patch / 255 * found.kernels[of_map]) + params[0].biases[of_map]
            assert said == pytest.approx(response, rel=1e-4)


def test_features_are_what_the_next_layers_get() -> None:
    params, image = drawn(CNN), PICTURES[0]
    found = maps.features(params, CNN, image)
    first, second, last = found.stages
    pooled = convolved(params, image).reshape(3, 2, 3, 2, 2).max(axis=(1, 3))
    normal = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5)
    expected = np.maximum(0, params[2].gains * normal + params[2].biases)
    np.testing.assert_allclose(first.maps, expected, rtol=1e-4, atol=1e-5)
    assert first.name == "convolution 3 x 3, max pooling 2 x 2, normalised, relu"
    assert second.maps.shape == (2, 2, 3)
    assert last.name == "average pooling 2 x 2, 4 neurons, relu"
    means = second.maps.mean(axis=(0, 1))
    neurons = np.maximum(0, params[7].weights @ means + params[7].biases)
    np.testing.assert_allclose(last.maps, neurons, rtol=1e-4, atol=1e-5)
    z = params[9].weights @ last.maps + params[9].biases
    np.testing.assert_allclose(found.scores, softmax(z), rtol=1e-4)


# Gates


def test_gates_of_rows_by_the_cells_own_lines() -> None:
    params, row = drawn(ROWS), RNG.integers(0, 256, (4, 28)).astype(np.uint8)
    found = gates.gates(params, ROWS, row)
    (reading,), cell = found.readings, params.layers[0][0]
    h = c = np.zeros(5)
    for t, pixels in enumerate(row / 255):
        z = np.split(cell.weights @ pixels + cell.recurrent @ h + cell.biases, 4)
        i, f, g, o = sigmoid(z[0]), sigmoid(z[1]), np.tanh(z[2]), sigmoid(z[3])
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}.items():
            np.testing.assert_allclose(getattr(reading.steps, name)[t], value, atol=1e-4)
        scores = softmax(params.readout.weights @ h + params.readout.biases)
        np.testing.assert_allclose(reading.scores[t], scores, atol=1e-4)
    np.testing.assert_allclose(reading.scores[-1], found.scores, atol=1e-6)
    np.testing.assert_array_equal(found.sequence, row)


def test_scores_of_speech_develop_from_both_ends() -> None:
    params = drawn(SPEECH)
    word = RNG.integers(1, 256, (3, 40)).astype(np.uint8)
    found = gates.gates(params, SPEECH, np.concatenate([word, np.zeros((2, 40), np.uint8)]))
    np.testing.assert_array_equal(found.sequence, word)
    assert found.readings[1].steps.c.shape == (3, 3)
    forward = jax.jit(models.build(SPEECH).forward)
    for read, way in ((word[:2], 0), (word[1:], 1)):
        expected = forward(params, (read / 255).astype(np.float32).ravel())
        np.testing.assert_allclose(found.readings[way].scores[1], expected, atol=1e-5)
    np.testing.assert_allclose(found.readings[0].scores[-1], found.scores, atol=1e-6)
    np.testing.assert_allclose(found.readings[1].scores[0], found.scores, atol=1e-6)


def test_what_is_not_masked_is_read_off_its_last_step() -> None:
    """What `gates` takes for granted of the architectures."""
    for how in lstm.ARCHITECTURES.values():
        assert how.masked or (how.directions == 1 and not how.mean)


def test_examples_that_do_not_fit_are_refused() -> None:
    silence = np.zeros(200, np.uint8)
    with pytest.raises(ShapeError, match="no step"):
        gates.gates(drawn(SPEECH), SPEECH, silence)
    with pytest.raises(ShapeError, match="112"):
        gates.gates(drawn(ROWS), ROWS, silence)
    with pytest.raises(ShapeError, match="121"):
        maps.features(drawn(CNN), CNN, silence)
    with pytest.raises(ShapeError, match="121"):
        saliency.saliency(drawn(CNN), CNN, silence[None])
    with pytest.raises(ConfigError, match="'cnn'"):
        gates.gates(drawn(CNN), CNN, silence)
    with pytest.raises(ConfigError, match="an ensemble"):
        maps.filters(drawn(CNN), CNN._replace(members=2), PICTURES)


# Figures: what they draw is what was computed


def some(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def pictures_of(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def some_gates(directions: int) -> gates.Gates:
    readings = [
        Reading(lstm.Steps(*(some(7, 5) for _ in lstm.Steps._fields)), some(7, 3))
        for _ in range(directions)
    ]
    return gates.Gates(pictures_of(7, 28), tuple(readings), 1, some(3))


def images(fig: Any) -> list[np.ndarray]:
    return [image.get_array() for ax in fig.axes for image in ax.get_images()]


def words(fig: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in fig.findobj(Text))


def test_the_figure_of_filters() -> None:
    at = np.zeros((2, 4), int)
    found = maps.Filters(some(2, 3, 3), pictures_of(2, 4, 3, 3), at, at, at, 6)
    fig = explain_maps.filters(found)
    kernel, wall, *others = images(fig)[:4]
    np.testing.assert_array_equal(kernel, found.kernels[0])
    np.testing.assert_array_equal(wall[:, 4:7], found.patches[0, 1])
    np.testing.assert_array_equal(others[1][:, 12:15], found.patches[1, 3])
    assert "the 4 patches of 6 pictures" in words(fig)


def test_the_figure_of_features() -> None:
    names = {"many": (3, 3, 2), "fewer": (2, 2, 3), "neurons": (4,)}
    stages = tuple(maps.Stage(name, some(*shape)) for name, shape in names.items())
    found = maps.Features(PICTURES[0], stages, some(3))
    fig = explain_maps.features(found, 2, "a title")
    picture, first, second, last = [each for each in images(fig) if each.shape[1] < 256][:4]
    np.testing.assert_array_equal(picture, PICTURES[0])
    np.testing.assert_array_equal(first[:3, 4:7], found.stages[0].maps[..., 1])
    np.testing.assert_array_equal(second[:2, 6:8], found.stages[1].maps[..., 2])
    np.testing.assert_array_equal(last[0], found.stages[2].maps)
    said = words(fig)
    assert "2 maps of 3 x 3: many" in said
    assert "4 numbers: neurons" in said


def test_the_figures_of_saliency() -> None:
    scores = np.eye(3)[[0, 2, 2]]
    found = saliency.Saliency(PICTURES[:3], scores, scores.argmax(axis=1), some(3, 11, 11))
    fig = explain_saliency.several([("one", found), ("other", found)], [0, 1, 2])
    for drawing, slopes in zip(images(fig), [*found.slopes, *found.slopes], strict=True):
        np.testing.assert_array_equal(drawing, slopes)
    for ax, answer, label in zip(fig.axes, found.answers, range(3), strict=False):
        assert ax.get_title().startswith(f"{answer} (")
        assert (ax.title.get_color() == "#D55E00") == (answer != label)
    blank = found._replace(slopes=0 * found.slopes, images=0 * found.images)
    fig = explain_saliency.one(blank, 1)
    picture, over = images(fig)[:2]
    assert fig.axes[1].get_images()[0].get_clim() == (-1, 1)  # 0 in the middle: white
    assert not picture.any()
    assert not over.any()
    np.testing.assert_array_equal(images(explain_saliency.one(found, 1))[1], found.slopes[0])


@pytest.mark.parametrize("directions", [1, 2], ids=["picture", "sound"])
def test_the_figures_of_gates(directions: int) -> None:
    found = some_gates(directions)
    draw = explain_gates.picture if directions == 1 else explain_gates.sound
    fig = draw(found, "a title")
    assert "a title" in words(fig)
    for way, reading in enumerate(found.readings):
        order = explain_gates._by_time(np.asarray(reading.steps.c))
        for name, title in explain_gates.PANELS.items():
            panels = [ax for ax in fig.axes if ax.get_title()[:8] == title[:8]]
            (image,) = panels[way].get_images()
            values = image.get_array() if directions == 1 else image.get_array().T
            np.testing.assert_array_equal(values, getattr(reading.steps, name)[:, order])
    scores = [ax for ax in fig.axes if ax.get_title() == "its scores so far"]
    for ax, reading in zip(scores, found.readings, strict=True):
        lines = np.array([line.get_data()[directions - 1] for line in ax.get_lines()])
        np.testing.assert_array_equal(lines, reading.scores.T)


def test_units_stand_in_the_order_of_their_time() -> None:
    memory = np.zeros((4, 3))
    memory[3, 0] = memory[0, 1] = memory[1, 2] = -2
    assert explain_gates._by_time(memory).tolist() == [1, 2, 0]


def test_scores_of_which_none_is_likely() -> None:
    found = some_gates(1)
    unsure = found.readings[0]._replace(scores=np.full((7, 10), 0.1, np.float32))
    explain_gates.picture(found._replace(readings=(unsure,)), "unsure")


# Commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> Path:
    """A model file for each family, and a folder of digits."""
    path = tmp_path_factory.mktemp("families")
    write(path / "data", blobs)
    for name, spec in {
        "cnn": CNN._replace(sizes=(784, 10)),
        "rows": ROWS._replace(sizes=(784, 5, 10)),
        "speech": SPEECH._replace(sizes=(features.SIZE, 3, 10)),
        "mlp": Spec(),
        "several": ROWS._replace(sizes=(784, 5, 10), members=2),
    }.items():
        checkpoint.save(path / name, drawn(spec), spec)
    (path / "five.wav").write_bytes(wav.encode(hummed(5)))
    return path


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What commands would have written."""
    saved: list[Any] = []
    monkeypatch.setattr(plot_inputs, "save", lambda fig, path: saved.append((words(fig), path)))
    return saved


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("filters {0}/cnn --data {0}/data", "12 patches of 230 pictures"),
        ("features {0}/cnn --data {0}/data --index 4", "Test image 4: a 4, read as "),
        ("gates {0}/rows --data {0}/data", "Test image 0: a 0, read row by row as "),
        ("gates {0}/speech --recording {0}/five.wav", "five.wav, heard as "),
        ("saliency {0}/mlp {0}/mlp --data {0}/data", "the answer, and its score"),
    ],
)
def test_each_picture_is_drawn(
    line: str, said: str, folder: Path, figures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = line.split()[0]
    seen: list[int] = []

    def read(params: Any, spec: Spec, row: np.ndarray) -> gates.Gates:
        assert row.size == spec.sizes[0]
        seen.append(int(np.count_nonzero(row)))
        return some_gates(2 if row.size == features.SIZE else 1)

    monkeypatch.setattr(gates, "gates", read)
    assert cli.main(["plot", *line.format(folder).split(), "--out", f"{topic}.svg"]) == 0
    ((text, path),) = figures
    assert said in text
    assert path == Path(f"{topic}.svg")
    assert (topic == "gates") == any(seen)


def test_explain_digit_of_a_cnn(
    folder: Path, blobs: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    words = ["explain", "--model", f"{folder}/cnn", "--data", f"{folder}/data", "--index", "4"]
    assert cli.main([*words, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    file = checkpoint.load(folder / "cnn")
    found = saliency.saliency(file.params, file.spec, blobs.test_images[4:5])
    assert (result["family"], result["label"]) == ("cnn", 4)
    assert result["answer"] == found.answers[0]
    np.testing.assert_array_equal(result["slopes"], found.slopes[0])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"A 4, read as {found.answers[0]}: ")
    assert "`jaxnn plot filters`" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    strongest = np.abs(found.slopes[0, 2:26, 2:26]) > np.abs(found.slopes).max() / 2
    pairs = strongest[::2] | strongest[1::2]
    assert text.count("▲") + text.count("▼") - 2 == pairs.sum()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plot weights {0}/cnn", "see `jaxnn plot filters`, `jaxnn plot features` or `jaxnn expl"),
        ("plot activations {0}/rows", "see `jaxnn plot gates` or `jaxnn explain digit` for it"),
        ("plot filters {0}/mlp", "see `jaxnn plot weights`, `jaxnn plot activations` or"),
        ("plot gates {0}/cnn", "of the family cnn, but this looks into networks of the family lst"),
        ("plot gates {0}/several", "an ensemble of 2 networks"),
        ("plot gates {0}/rows --recording {0}/five.wav", "takes 784 numbers, but a spoken digit"),
        ("plot gates {0}/rows --recording {0}/five.wav --index 1", "choose one"),
        ("plot gates {0}/rows --index 50 --data {0}/data", "expected 0 to 49"),
        ("plot features {0}/cnn --index -1 --data {0}/data", "index is -1"),
        ("plot features {0}/speech", f"sees {features.SIZE} numbers"),
        ("plot saliency {0}/speech", f"sees {features.SIZE} numbers"),
        ("explain digit --model {0}/cnn --label 10", "expected a digit from 0 to 9"),
        ("explain batch --model {0}/rows", "see `jaxnn plot gates` or `jaxnn explain digit`"),
    ],
)
def test_refusals(line: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.format(folder).split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxnn: .+\n", err)
    assert said in err


def test_the_commands_of_the_page_are_commands() -> None:
    """They train, and so are not run here; but each names what there is."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/beyond.md").read_text(), re.M | re.S)
    lines = [line.split() for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert {line[2] for line in lines if line[1] == "plot"} == {
        "filters", "features", "gates", "saliency",
    }  # fmt: skip
    for program, *rest in lines:
        assert program == "jaxnn"
        cli.parse(rest)


def test_numbers_need_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (saliency, maps, gates):
        assert "matplotlib" not in Path(str(module.__file__)).read_text()
    assert "matplotlib.pyplot" not in sys.modules
