"""What stands in the figures, not only that there are some; their files; `jaxnn plot`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxnn import calibration, checkpoint, cli, models
from jaxnn.commands import plot_inputs
from jaxnn.errors import ConfigError, DataError, JaxnnError
from jaxnn.expressions import parse
from jaxnn.models import Spec
from jaxnn.plots import calibration as calibration_plots
from jaxnn.plots import network, results, style, surfaces
from jaxnn.surfaces import OPTIMIZERS, descend, too_large_a_step

RNG = np.random.default_rng(5)
FIRST_LAYER = RNG.normal(size=(16, 784)).astype(np.float32)
PICTURES = RNG.integers(0, 256, (8, 28, 28)).astype(np.uint8)
# Eight images of the digits 0 to 7: number 1 and 5 are misread, 5 the more wrongly; 3 is unsure.
LABELS = np.arange(8)
SCORES = np.full((8, 10), 0.1)
SCORES[LABELS, LABELS] = 0.9
SCORES[1, 7] = 0.95
SCORES[5, [2, 5]] = 0.99, 0.01
SCORES[3, 8] = 0.89


@pytest.fixture(autouse=True)
def no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports it fails: it has global state, and windows."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


def pictures(fig: Any) -> list[np.ndarray]:
    """The arrays drawn as images, in order."""
    return [image.get_array() for ax in fig.axes for image in ax.get_images()]


def words(fig: Any) -> str:
    """Everything that is written in a figure, in one string."""
    texts = [text.get_text() for text in fig.findobj(matplotlib.text.Text)]
    return "\n".join(texts)


def bars(ax: Any, size: str) -> tuple[list[float], list[str]]:
    """Lengths and colours of an axis' bars; size is "width" of lying, "height" of standing ones."""
    lengths = [float(getattr(bar, f"get_{size}")()) for bar in ax.patches]
    return lengths, [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]


def some_descent() -> Figure:
    function = parse("x**2 + y**2")
    paths = [descend(function, start, steps=30) for start in ((1.0, 2.0), (2.0, 0.3))]
    rivals = {name: descend(function, (1.0, 2.0), steps=30, optimizer=name) for name in OPTIMIZERS}
    too_large = too_large_a_step(function, (1.0, 2.0), learning_rate=0.1, steps=30)
    return surfaces.descent("x**2 + y**2", function, 0.1, paths, rivals, too_large)


def history(epochs: int) -> dict[str, np.ndarray]:
    count = np.arange(1.0, epochs + 1)
    return {
        "epoch": count,
        "cost": 1 / count,
        "held_out_cost": 1.2 / count,
        "held_out_accuracy": 0.9 - 0.01 * (count - 3) ** 2,
    }


def before_and_after() -> Figure:
    snapshots = [
        results.Snapshot("Untrained", FIRST_LAYER, 0.087, 7.5, SCORES[:4]),
        results.Snapshot("Trained", -FIRST_LAYER, 0.975, 0.25, SCORES[4:]),
    ]
    return results.side_by_side(snapshots, PICTURES[:4], LABELS[:4], 2000, "quadratic")


@pytest.mark.parametrize(
    "draw",
    [lambda: network.weights(FIRST_LAYER), lambda: results.costs(history(7), "a run")],
    ids=["weights", "costs"],
)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_numbers_give_the_same_bytes(
    draw: Callable[[], Figure], ending: str, tmp_path: Path
) -> None:
    """Drawn twice, the second time under another look of the reader's own."""
    style.save(draw(), tmp_path / f"a.{ending}")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "axes.grid": True}):
        style.save(draw(), tmp_path / f"b.{ending}")
    first = (tmp_path / f"a.{ending}").read_bytes()
    assert first == (tmp_path / f"b.{ending}").read_bytes()
    assert b"dc:date" not in first
    assert b"Software" not in first
    assert ending == "png" or first.rstrip().endswith(b"</svg>")


def neurons_in(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pictures [rows * columns, 28, 28] in a wall of them, cut out again."""
    tiles = picture.reshape(rows, picture.shape[0] // rows, columns, -1).swapaxes(1, 2)
    return tiles[:, :, -28:, :28].reshape(-1, 28, 28)


def test_weights_are_the_neurons_on_one_scale_around_zero() -> None:
    fig = network.weights(FIRST_LAYER)
    (wall,) = pictures(fig)
    np.testing.assert_array_equal(neurons_in(wall, 2, 8), FIRST_LAYER.reshape(16, 28, 28))
    low, high = fig.axes[0].get_images()[0].get_clim()
    assert -low == high == pytest.approx(np.quantile(np.abs(FIRST_LAYER), 0.995))
    assert "neuron 15" in words(fig)
    assert "weight of a pixel" in words(fig)


def test_of_very_many_neurons_the_first_are_drawn() -> None:
    many = np.arange(network.MOST + 7)[:, None] * np.ones(784)
    fig = network.weights(many)
    drawn = neurons_in(pictures(fig)[0], 10, 10)
    np.testing.assert_array_equal(drawn[:, 3, 4], np.arange(network.MOST))
    assert f"the first {network.MOST} of {network.MOST + 7} neurons" in words(fig)


def test_weights_that_are_all_zero_are_drawn() -> None:
    drawn = neurons_in(pictures(network.weights(np.zeros((1, 784))))[0], 1, 8)
    np.testing.assert_array_equal(drawn[0], 0)
    assert np.ma.getmaskarray(drawn[1:]).all()  # no neurons there


def test_activations_stand_as_numbers_and_colours() -> None:
    hidden = [np.linspace(0, 1, 16), np.linspace(-2, 2, 45), np.zeros(5000)]
    fig = network.activations([PICTURES[0].ravel() / 255, *hidden, SCORES[5]], 5, "the title")
    digit, first, second, third = pictures(fig)
    np.testing.assert_array_equal(digit, PICTURES[0] / 255)
    np.testing.assert_array_equal(first[:, 0], hidden[0])
    np.testing.assert_array_equal(np.ma.compressed(np.ma.masked_invalid(second.T)), hidden[1])
    assert third.size == network.MOST
    text = words(fig)
    for expected in ("the title", "784 pixels", "16 neurons", "100 of 5,000 neurons", "0.53"):
        assert expected in text
    assert "activation" in text
    drawn = next(ax for ax in fig.axes if "the ten scores" in ax.get_title())
    lengths, colors = bars(drawn, "width")
    assert lengths == SCORES[5].tolist()
    assert (colors[5], colors[2], colors[0]) == (style.UP, style.DOWN, style.FAINT)


def test_colours_of_activations_fit_their_range() -> None:
    assert network.scale_of([np.array([0, 0.5])]) == {
        "cmap": style.SEQUENTIAL, "vmin": 0, "vmax": 1,
    }  # fmt: skip
    assert network.scale_of([np.array([0, 3.5])])["vmax"] == 3.5
    assert network.scale_of([np.array([-0.5, 0.2])]) == {
        "cmap": style.DIVERGING, "vmin": -0.5, "vmax": 0.5,
    }  # fmt: skip


def test_costs_are_the_curves_of_the_run() -> None:
    run = history(7)
    fig = results.costs(run, "the run in runs/1")
    left, right = fig.axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), np.c_[run["epoch"], run["cost"]])
    np.testing.assert_array_equal(left.lines[1].get_ydata(), run["held_out_cost"])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), 100 * run["held_out_accuracy"])
    assert "best 90.00%, epoch 3" in right.get_title()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["training", "held out"]
    assert {ax.get_xlabel() for ax in fig.axes} == {"epoch"}


def test_confusion_shades_mistakes_by_their_share() -> None:
    counts = np.array([[90, 10, 0], [0, 0, 0], [1, 3, 0]])
    fig = results.confusion(counts)
    drawn = np.ma.filled(pictures(fig)[0].astype(float), np.nan)
    expected = [[np.nan, 10, 0], [0, np.nan, 0], [25, 75, np.nan]]
    np.testing.assert_array_equal(drawn, expected)
    ax = fig.axes[0]
    shown = {text.get_position()[::-1]: text.get_text() for text in ax.texts}
    assert shown == {(0, 0): "90", (0, 1): "10", (2, 0): "1", (2, 1): "3"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("read as", "digit")
    assert "90 of 104 digits read correctly (86.54%)" in words(fig)
    assert "mistakes, %" in words(fig)


def test_the_worst_digits_are_found_and_drawn() -> None:
    assert results.most_wrong(SCORES, LABELS) == [5, 1]
    assert results.least_sure(SCORES)[:2] == [3, 1]
    fig = results.worst(PICTURES, LABELS, SCORES, {"wrong": [5, 1], "none here": []})
    np.testing.assert_array_equal(np.stack(pictures(fig)), PICTURES[[5, 1]])
    for expected in ("wrong", "5, read as 2", "1, read as 7", "none here", "none"):
        assert expected in words(fig).split("\n")
    lengths, colors = bars(fig.axes[results.SHOWN], "height")
    assert lengths == SCORES[5].tolist()
    assert (colors[5], colors[2]) == (style.UP, style.DOWN)


def test_reliability_is_drawn_before_and_after_a_temperature() -> None:
    columns = {
        temperature: calibration.reliability(
            calibration.probabilities(SCORES, "sigmoid", temperature), LABELS
        )
        for temperature in (1.0, 2.5)
    }
    fig = calibration_plots.reliability(columns)
    text = words(fig)
    assert "8 digits, 75.00% read correctly" in text
    for column, (temperature, bins) in enumerate(columns.items()):
        above, below = fig.axes[column], fig.axes[len(columns) + column]
        title = f"temperature {temperature:g}: expected calibration error {bins.ece:.4f}"
        assert above.get_title() == title
        full = bins.counts > 0
        diagonal, dots = above.lines
        assert np.all(diagonal.get_xydata() == [[0, 0], [100, 100]])
        expected = 100 * np.stack([bins.confidence[full], bins.accuracy[full]], axis=1)
        np.testing.assert_allclose(dots.get_xydata(), expected)
        gaps = np.array(above.collections[0].get_segments())  # [bins, ends, x and y]
        np.testing.assert_allclose(gaps[:, 0], expected)
        np.testing.assert_allclose(gaps[:, 1], expected[:, [0, 0]])
        assert bars(below, "height")[0] == bins.counts.tolist()
        chance = [(bar.get_y() + bar.get_height() / 2, bar.get_height()) for bar in above.patches]
        sigma = np.sqrt(bins.confidence * (1 - bins.confidence) / bins.counts.clip(1))[full]
        np.testing.assert_allclose(
            np.array(chance).T, 100 * np.stack([bins.confidence[full], 4 * sigma])
        )


def test_reliability_of_few_images_is_drawn_without_a_warning(tmp_path: Path) -> None:
    """All in one bin, and sure beyond doubt: no width to the band of chance."""
    for scores, labels in ((np.eye(10), np.arange(10)), (np.eye(1), np.zeros(1, np.uint8))):
        bins = calibration.reliability(scores, labels)
        style.save(calibration_plots.reliability({1.0: bins}), tmp_path / "a.png")


def test_the_reliability_of_a_file_shows_its_temperature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = checkpoint.load(checkpoint.SHIPPED)
    path = tmp_path / "model.safetensors"
    for temperature, width, drawn_at in ((1.0, 490, ["1"]), (3.25, 900, ["1", "3.25"])):
        checkpoint.save(path, shipped.params, shipped.spec, temperature=temperature)
        assert cli.main(["plot", "reliability", str(path), "--out", str(tmp_path / "a.png")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines[:-1]] == drawn_at
        with Image.open(tmp_path / "a.png") as drawn:
            assert drawn.size == (width, 610)


def test_before_and_after_have_their_own_numbers() -> None:
    fig = before_and_after()
    text = words(fig)
    assert "Untrained: accuracy 8.7%, cost 7.50" in text
    assert "Trained: accuracy 97.5%, cost 0.25" in text
    assert "2,000 digits (quadratic cost)" in text
    before, after = (image for image in pictures(fig) if image.shape != (28, 28))
    np.testing.assert_array_equal(neurons_in(before, 4, 4), FIRST_LAYER.reshape(16, 28, 28))
    np.testing.assert_array_equal(neurons_in(after, 4, 4), -FIRST_LAYER.reshape(16, 28, 28))
    assert text.count("weight of a pixel") == 2


def test_descent_draws_the_paths_and_says_what_they_are() -> None:
    fig = some_descent()
    text = words(fig)
    for expected in (
        "Gradient descent on f(x, y) = x**2 + y**2",
        "gradient (2.00, 4.00): up",
        "its negative: down",
        "from (2, 0.3)",
        "Too large a step: learning rate 1.6",
        "momentum",
        "f(x, y)",
        "slope times 0.1",
    ):
        assert expected in text
    plane = fig.axes[0]
    path = descend(parse("x**2 + y**2"), (1.0, 2.0), steps=30)
    np.testing.assert_allclose(plane.lines[0].get_xydata(), path.points, rtol=1e-12)
    up, down = (np.array(arrow.xy) - path.points[0] for arrow in plane.texts[:2])
    np.testing.assert_allclose(up / np.hypot(*up), path.gradients[0] / path.slopes[0], rtol=1e-9)
    np.testing.assert_allclose(down, -up, rtol=1e-9)
    for (low, high), at in ((plane.get_xlim(), 0), (plane.get_ylim(), 1)):
        assert low < path.points[:, at].min() < path.points[:, at].max() < high
    x, y = plane.get_xlim(), plane.get_ylim()
    assert x[1] - x[0] == pytest.approx(y[1] - y[0])  # arrows stand at right angles to contours
    slopes = next(ax for ax in fig.axes if "slope" in ax.get_xlabel())
    np.testing.assert_allclose(slopes.lines[0].get_ydata(), 0.1 * slopes.lines[0].get_xdata())


@pytest.mark.parametrize("text", ["0*x", "log(x) + 1e90/(x - 1.5)"])
def test_odd_surfaces_are_drawn_without_a_warning(text: str, tmp_path: Path) -> None:
    """Flat; far too steep, with a pole, and no value at all on a half of the plane."""
    words = ["descend", "--expression", text, "--plot", str(tmp_path / "a.png"), "--steps", "20"]
    assert cli.main(words) == 0
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.size == (900, 1200)


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.png.txt"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its name has to end in .png or .svg"):
        style.save(style.figure(1, 1), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_text_on_a_colour_can_be_read() -> None:
    assert style.readable_on((1, 1, 0.5, 1)) == style.INK
    assert style.readable_on((0.3, 0, 0.4, 1)) == "white"


def test_without_matplotlib_a_sentence_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JaxnnError):
        style.require_matplotlib()
    for command in (["plot", "weights"], ["plot", "costs"], ["descend", "--plot", "a.svg"]):
        assert cli.main(command) == 2
        said = "jaxnn: matplotlib is not installed: pip install 'jaxnn[plots]'\n"
        assert capsys.readouterr() == ("", said)
    assert cli.main(["descend", "--steps", "5"]) == 0  # the numbers need none


def test_every_picture_needs_no_argument(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the shipped model and the embedded digits, into the folder where one stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plot_inputs, "SHORT_RUN", 2)
    columns = 1 if checkpoint.load(checkpoint.SHIPPED).temperature == 1 else 2
    sizes = {
        "reliability": (80 + 410 * columns, 610),
        "weights": (900, 272),
        "activations": (930, 460),
        "costs": (900, 380),
        "sweep": (750, 286),
        "confusion": (750, 640),
        "worst": (900, 560),
        "untrained": (900, 800),
    }
    for picture, size in sizes.items():
        assert cli.main(["plot", picture]) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"drawn: {picture}.png\n")
        with Image.open(f"{picture}.png") as drawn:
            assert drawn.size == size
            assert np.ptp(np.asarray(drawn.convert("L"))) > 200  # ink on white
        if picture == "worst":
            assert out.count("read as") == 2 * results.SHOWN
        if picture == "untrained":
            before, after = (
                float(line.split()[2].rstrip("%"))
                for line in out.splitlines()
                if "accuracy" in line
            )
            assert 2 < before < 25
            assert after > 90


def log(folder: Path, *lines: str) -> Path:
    (folder / "log.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder / "log.jsonl"


GOOD = {"epoch": 1, "cost": 0.5, "held_out_cost": 0.6, "held_out_accuracy": 0.7, "best": True}


def test_a_log_is_read(tmp_path: Path) -> None:
    read = plot_inputs.read_log(log(tmp_path, json.dumps(GOOD), json.dumps({**GOOD, "epoch": 2})))
    assert read["epoch"].tolist() == [1, 2]
    assert read["held_out_accuracy"].tolist() == [0.7, 0.7]
    assert cli.main(["plot", "costs", str(tmp_path), "--out", str(tmp_path / "a.svg")]) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (None, "holds no epoch yet"),
        ("{", "line 1, is no epoch with epoch, cost,"),
        ("[" * 5000, "line 1"),
        ("7", "line 1"),
        ("{}", "line 1"),
        (json.dumps({**GOOD, "cost": None}), "line 1"),
        (json.dumps({**GOOD, "cost": float("nan")}), "line 1"),
        (json.dumps({**GOOD, "cost": 10**400}), "line 1"),
    ],
)
def test_a_bad_log_is_refused(line: str | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        plot_inputs.read_log(log(tmp_path, *([] if line is None else [line])))


def test_what_cannot_be_drawn_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, spec in (("small", Spec(sizes=(4, 10))), ("few", Spec(sizes=(784, 3)))):
        model = models.build(spec)
        arrays = [np.zeros((spec.sizes[1], spec.sizes[0]), np.float32)]
        params = (type(_first(model))(arrays[0], np.zeros(spec.sizes[1], np.float32)),)
        checkpoint.save(tmp_path / name, params, spec)
    for command, said in {
        ("weights", str(tmp_path / "small")): "sees 4 numbers",
        ("activations", str(tmp_path / "few")): "digits go up to 9, but the network knows 3",
        ("confusion", str(tmp_path / "few")): "digits go up to 9, but the network knows 3",
        ("weights", "nowhere"): "does not exist",
        ("weights", "--out", "a.gif"): "has to end in .png or .svg",
        ("activations", "--index", "2000"): "index is 2000, expected 0 to 1999",
        ("activations", "--index", "-1"): "index is -1",
        ("costs", str(tmp_path)): "name a folder that `jaxnn train` made",
        ("untrained", "--seed", "-1"): "seed is -1",
    }.items():
        assert cli.main(["plot", *command]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1


def _first(model: Any) -> Any:
    import jax

    return jax.eval_shape(model.init, jax.random.key(0))[0]


def test_pictures_load_no_training_code() -> None:
    script = (
        "import sys\n"
        "from jaxnn.plots import network, results, style, surfaces\n"
        "assert not {'jaxnn.train', 'optax', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
