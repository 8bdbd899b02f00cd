"""`jaxnn classify`: the verdict here and from a server, `--raw`, `--plot`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import matplotlib
import numpy as np
import pytest
import trustme
from fakes import Fake
from PIL import Image
from serving import serve_sync

import service.client
from jaxnn import answers, checkpoint, cli, data, novelty
from jaxnn.data.preprocess import prepare
from jaxnn.plots import picture as plots
from jaxnn.plots import style
from service.calling import steps
from service.calling.parts import Classification
from service.repository import load_model

KEYS = {"image", "label", "confidence", "rejected", "novelty", "scores"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, familiar with some of the embedded digits."""
    file, digits = checkpoint.load(checkpoint.SHIPPED), data.load("embedded")
    images, labels = digits.train_images[:400], digits.train_labels[:400]
    sure = np.where(np.arange(10) == labels[:, None], 0.95, 0.05)
    familiar = novelty.fit(images, labels, sure)
    path = tmp_path_factory.mktemp("model") / "familiar.safetensors"
    checkpoint.save(path, file.params, file.spec, temperature=0.7, familiar=familiar)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three digits, dark on light, 120 x 120 but the last, of 28 x 28; and a square."""
    folder, digits = tmp_path_factory.mktemp("pictures"), data.load("embedded")
    for index, image in enumerate(digits.test_images[:2]):
        Image.fromarray(255 - image).resize((120, 120)).save(folder / f"{index}.png")
    Image.fromarray(255 - digits.test_images[2]).save(folder / "2.png")
    square = np.full((120, 120), 255, np.uint8)
    square[40:80, 40:80] = 0
    Image.fromarray(square).save(folder / "square.png")
    return [str(folder / name) for name in ("0.png", "1.png", "2.png", "square.png")]


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def found(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert cli.main(["classify", *words, "--json", "-"]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
    return results


def test_a_verdict_for_each_picture(
    model: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = answers.answer(
        checkpoint.load(model), np.stack([prepare(pixels(path)) for path in pictures])
    )
    assert expected.rejected.tolist() == [False, False, False, True]
    assert cli.main(["classify", *pictures, "--model", str(model)]) == 0
    *digits, square = capsys.readouterr().out.splitlines()
    assert digits == [
        f"{path}: {label}  (confidence {int(100 * confidence)}%)"
        for path, label, confidence, *_ in zip(
            pictures[:3], expected.labels, expected.confidence, strict=False
        )
    ]
    label = expected.labels[3]
    assert square == (f"{pictures[3]}: not sure: it does not look like a digit (read as {label})")
    for index, result in enumerate(found([*pictures, "--model", str(model)], capsys)):
        assert set(result) == KEYS
        assert result["image"] == pictures[index]
        for key in ("label", "confidence", "rejected", "novelty", "scores"):
            truth = getattr(expected, "labels" if key == "label" else key)[index]
            np.testing.assert_allclose(result[key], truth, rtol=1e-6)


def test_raw_pictures_are_left_alone_here_and_by_a_server(
    model: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = pictures[2]  # on light, so that it would be inverted
    image = pixels(dark)
    colour = tmp_path / "grey, but RGB.png"
    Image.fromarray(image).convert("RGB").save(colour)
    raw, prepared = answers.answer(checkpoint.load(model), np.stack([image, prepare(image)])).scores
    assert np.abs(raw - prepared).max() > 0.01
    here = found([dark, str(colour), "--raw", "--model", str(model)], capsys)
    served: list[dict[str, Any]] = []

    def scenario(target: str) -> None:
        served.extend(found([dark, "--raw", "--server", target], capsys))
        served.extend(found([pictures[3], "--server", target], capsys))

    serve_sync(load_model(model, "digits", buckets=(1,)), scenario)
    for result in (*here, served[0]):
        np.testing.assert_allclose(result["scores"], raw, rtol=1e-5)
    # The server's verdict is the same, but it does not tell the novelty.
    for mine, other in zip(
        (here[0], *found([pictures[3], "--model", str(model)], capsys)), served, strict=True
    ):
        assert other["confidence"] == pytest.approx(mine["confidence"], rel=1e-5)
        assert other == {
            **mine, "novelty": None, "confidence": other["confidence"], "scores": other["scores"]
        }  # fmt: skip


def test_the_flags_of_a_server(
    pictures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(steps, "FIRST_DELAY_S", 0.001)
    ca, folder = trustme.CA(), tmp_path
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = ca.issue_cert("127.0.0.1")
    pair = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    with Fake(credentials=grpc.ssl_server_credentials([pair])) as fake:
        secure = ["classify", pictures[0], "--server", fake.target, "--tls-ca", f"{folder}/ca.pem"]
        monkeypatch.setenv("JAXNN_TOKEN", "of-the-environment")
        assert cli.main([*secure]) == 0
        assert cli.main([*secure, "--token", "given"]) == 0
        sent = [asked.metadata["authorization"] for asked in fake.asked]
        assert sent == ["Bearer of-the-environment", "Bearer given"]
        assert capsys.readouterr().out == f"{pictures[0]}: 0  (confidence 100%)\n" * 2
        fake.refusals = [(grpc.StatusCode.UNAUTHENTICATED, None)]
        assert cli.main([*secure]) == 2
        assert capsys.readouterr().err == (
            "jaxnn: refused (the client's token: JAXNN_TOKEN or --token on the command line)\n"
        )
        assert cli.main(["classify", pictures[0], "--server", fake.target]) == 1
        assert "if it speaks TLS, give tls_ca (--tls-ca)" in capsys.readouterr().err
        (folder / "strange.pem").write_bytes(trustme.CA().cert_pem.bytes())
        said = subprocess.run(
            [sys.executable, "-m", "jaxnn", *secure[:-1], f"{folder}/strange.pem"],
            capture_output=True,
            text=True,
            cwd=Path(cli.__file__).parents[1],
            env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        ).stderr
        assert said.startswith("jaxnn: the certificate of the server")
        assert said.count("\n") == 1  # gRPC's own lines are left out
    assert cli.main([*secure]) == 1
    assert f"no server answers at {fake.target}" in capsys.readouterr().err
    for words, said in (
        (["--token", "x"], "--token and the --tls flags are for --server"),
        (["--server-model", "x"], "--server-model, --token and the --tls flags are for --server"),
        (["--server", "[::1]:1", "--server-model", ""], "expected NAME or NAME:VERSION"),
        (["--server", "[::1]:1", "--server-model", "a:b:c"], "expected NAME or NAME:VERSION"),
        (["--server", "[::1]:1", "--model", "x"], "--server-model names a model of the server"),
        (["--server", "digits.example:1"], "would cross the network unencrypted"),
        (["--server", "nowhere"], "expected HOST:PORT"),
    ):
        assert cli.main(["classify", pictures[0], *words]) == 2
        assert said in capsys.readouterr().err


def test_a_model_of_the_server_can_be_named(
    pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Fake() as fake:
        for words in ([], ["--server-model", "letters"], ["--server-model", "letters:7"]):
            assert cli.main(["classify", pictures[0], "--server", fake.target, *words]) == 0
        asked = [(one.request.model_name, one.request.model_version) for one in fake.asked]
    assert asked == [("", ""), ("letters", ""), ("letters", "7")]


@pytest.mark.parametrize("confidence", [np.nan, np.inf, -1.0])
def test_a_server_that_knows_no_confidence(
    confidence: float,
    pictures: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def classify(self: object, images: np.ndarray, **asking: str) -> Classification:
        scores = np.linspace(0, 0.9, 10, dtype=np.float32)[None]
        return Classification(np.array([9]), scores, np.array([confidence]), np.array([False]))

    monkeypatch.setattr(service.client.DigitClient, "classify", classify)
    assert cli.main(["classify", pictures[0], "--server", "127.0.0.1:1"]) == 0
    assert capsys.readouterr().out == f"{pictures[0]}: 9  (score 0.900)\n"


@pytest.mark.parametrize(
    ("picture", "words", "said"),
    [
        (np.zeros((20, 28), np.uint8), ["--raw"], "it has 28 x 20 pixels, expected 28 x 28 of 8"),
        (np.eye(28, dtype=np.uint16) * 999, ["--raw"], "28 x 28 pixels of more than 8 bits, exp"),
        (np.uint8([[[1, 2, 3]] * 28] * 28), ["--raw"], "28 x 28 pixels in colour, expected 28 x"),
        (np.full((90, 90), 255, np.uint8), [], "the picture is blank"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(
    picture: np.ndarray,
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert cli.main(["classify", str(tmp_path / "a.png"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxnn: {tmp_path / 'a.png'}: ")
    assert said in line


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that are written."""
    figures: list[Any] = []
    save = style.save
    monkeypatch.setattr(style, "save", lambda fig, path: (figures.append(fig), save(fig, path)))
    yield figures


@pytest.mark.parametrize(("which", "flag"), [(0, "--plot"), (3, "--explain")])
def test_the_figure_shows_what_was_seen_and_said(
    which: int, flag: str, model: Path, pictures: list[str], tmp_path: Path, drawn: list[Any]
) -> None:
    target, path = tmp_path / "out.png", pictures[which]
    assert cli.main(["classify", path, "--model", str(model), flag, str(target)]) == 0
    (fig,) = drawn
    left, middle, right = fig.axes
    np.testing.assert_array_equal(left.get_images()[0].get_array(), pixels(path))
    np.testing.assert_array_equal(middle.get_images()[0].get_array(), prepare(pixels(path)))
    file = checkpoint.load(model)
    verdict = answers.answer(file, prepare(pixels(path))[None])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], verdict.scores[0])
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in right.patches]
    answer = style.DOWN if which == 3 else style.UP
    assert [index for index, colour in enumerate(colours) if colour == answer] == verdict.labels
    assert ("not sure" in fig.get_suptitle()) == (which == 3)
    assert file.familiar
    assert right.get_xlabel() == (
        f"novelty {verdict.novelty[0]:.2f}, {'above' if which == 3 else 'within'} the limit of "
        f"{file.familiar.limit:.2f}"
    )
    with Image.open(target) as image:
        assert image.size == (900, 340)


def test_large_pictures_are_reduced_for_drawing() -> None:
    photo = Image.new("RGB", (4000, 3000), "white")
    fig = plots.explained(photo, np.zeros((28, 28), np.uint8), np.zeros(10), "7", "", False)
    drawn = fig.axes[0].get_images()[0].get_array()
    assert drawn is not None
    assert drawn.shape == (600, 800, 3)
    assert photo.size == (4000, 3000)
    assert fig.axes[0].get_title() == "the picture, 4000 x 3000"


def test_what_cannot_be_drawn_is_said_before_anything_is_read(
    pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ([*pictures, "--plot", "a.png"], "--plot draws one picture, but 4 are given: classify one"),
        ([pictures[0], "--plot", "a.jpg"], "a.jpg names no figure"),
    ):
        assert cli.main(["classify", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"jaxnn: {said}")


@pytest.mark.parametrize("command", ["classify", "read"])
def test_a_figure_never_replaces_its_picture(command, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.new("L", (60, 60), 255).save(photo)
    before = photo.read_bytes()
    assert cli.main([command, str(photo), "--plot", str(photo)]) == 2
    assert "is the picture itself: name another file" in capsys.readouterr().err
    assert photo.read_bytes() == before
