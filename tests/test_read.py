"""`jaxnn read`: numbers of MNIST digits on a page, from the file to the strings and the drawing."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxnn import answers, checkpoint, cli, data
from jaxnn.answers import Answers
from jaxnn.plots import style
from jaxnn.plots.read import Label, annotated

TRUTH = [["1250", "37"], ["4869"]]
ZOOM = 2


@pytest.fixture(scope="module")
def page():
    """Dark digits on white, uint8 [H, W], and where the ink of each lies.

    Of each digit a familiar one is taken: how well the network reads is not the question here.
    """
    dataset = data.load("embedded")
    known = answers.answer(checkpoint.load(checkpoint.SHIPPED), dataset.test_images)
    paper, boxes = np.full((260, 520), 250, np.uint8), []
    for line, numbers in enumerate(TRUTH):
        x, y = 30, 30 + 110 * line
        for number in numbers:
            for digit in number:
                others = 100 * (dataset.test_labels != int(digit))
                image = dataset.test_images[np.argmin(known.novelty + others)]
                big = np.asarray(Image.fromarray(image).resize((28 * ZOOM, 28 * ZOOM)))
                rows, columns = (np.flatnonzero((big > 127).any(axis)) for axis in (1, 0))
                crop = big[:, columns[0] : columns[-1] + 1]
                wide = crop.shape[1]
                paper[y : y + len(big), x : x + wide] -= (crop * 0.9).astype(np.uint8)
                boxes.append((x, y + rows[0], wide, len(rows)))
                x += wide + 10
            x += 70
    return paper, boxes


@pytest.fixture
def files(page, tmp_path):
    """The page as files: as it is, light on dark, and on its side with an EXIF tag to turn it."""
    pictures = {"page.png": page[0], "dark.png": 255 - page[0], "photo.png": np.rot90(page[0])}
    for name, picture in pictures.items():
        image = Image.fromarray(np.ascontiguousarray(picture))
        if name == "photo.png":
            image.getexif()[0x0112] = 6  # turn it by 90 degrees, clockwise
        image.save(tmp_path / name, exif=image.getexif())
    return [str(tmp_path / name) for name in pictures]


def test_pages_come_out_as_strings_with_a_box_for_every_digit(page, files, capsys):
    assert cli.main(["read", *files, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["image"] for result in found["results"]] == files
    assert found["unread"] == []
    for result in found["results"]:
        assert [[number["text"] for number in line] for line in result["lines"]] == TRUTH
        digits = [d for line in result["lines"] for number in line for d in number["digits"]]
        assert "".join(str(digit["digit"]) for digit in digits) == "1250374869"
        assert all(0.5 < digit["confidence"] <= 1 for digit in digits)
        assert not any(digit["rejected"] for digit in digits)
        boxes = [tuple(digit["box"].values()) for digit in digits]
        # Where a stroke ends is a matter of one or two of its soft pixels.
        np.testing.assert_allclose(boxes, page[1], atol=3)


def test_people_get_a_line_a_line_and_a_sentence_for_what_cannot_be_read(files, tmp_path, capsys):
    bad, blank, missing = (tmp_path / name for name in ("bad.png", "blank.png", "none.png"))
    bad.write_bytes(b"no picture")
    Image.new("L", (90, 60), 200).save(blank)
    assert cli.main(["read", str(bad), files[0], str(blank), str(missing)]) == 2
    out, err = capsys.readouterr()
    assert out == f"{files[0]}:\n  1250 37\n  4869\n"
    lines = err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, (bad, blank, missing), strict=True):
        assert line.startswith(f"jaxnn: {name}")


def test_what_is_no_digit_is_a_question_mark_and_drawn_in_the_other_colour(
    files, tmp_path, monkeypatch, capsys
):
    asked = answers.answer

    def suspicious(file, images):
        found = asked(file, images)
        return found._replace(rejected=found.labels == 5)

    monkeypatch.setattr(answers, "answer", suspicious)
    copy = tmp_path / "copy.png"
    assert cli.main(["read", files[0], "--plot", str(copy)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  12?0 37"
    with Image.open(copy) as drawn:
        for color in (style.UP, style.DOWN):
            assert color_count(drawn, color) > 100
    monkeypatch.setattr(answers, "answer", asked)
    assert cli.main(["read", files[0], "--plot", str(copy)]) == 0
    with Image.open(copy) as drawn:
        assert color_count(drawn, style.DOWN) == 0


def color_count(picture, color):
    return int(np.all(np.asarray(picture) == list(bytes.fromhex(color[1:])), axis=2).sum())


@pytest.mark.parametrize(
    ("whole", "parts", "text"), [(0.5, 0.99, 2), (0.5, 0.85, 1), (1.0, 1.0, 1)]
)
def test_a_shape_is_cut_only_where_its_parts_are_much_surer(
    whole, parts, text, tmp_path, monkeypatch, capsys
):
    paper = np.full((100, 120), 255, np.uint8)
    paper[20:80, 20:30] = paper[20:80, 90:100] = paper[47:53, 20:100] = 0  # two strokes, joined
    Image.fromarray(paper).save(tmp_path / "a.png")

    def answer(file, images):
        confidence = np.where(np.arange(len(images)) == 0, whole, parts)
        labels = np.ones(len(images), int)
        nothing = np.zeros(len(images))
        return Answers(labels, np.zeros((len(images), 10)), confidence, nothing, nothing > 0)

    monkeypatch.setattr(answers, "answer", answer)
    assert cli.main(["read", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  " + "1" * text


def test_a_copy_is_enlarged_until_it_can_be_read_but_not_beyond_bounds():
    small = Image.new("L", (100, 40), 255)
    label = Label((10, 10, 8, 12), "7", "98%", False)
    width, height = annotated(small, [label]).size
    assert width == 400
    assert height >= 160
    assert max(annotated(Image.new("RGB", (4000, 300)), [label]).size) <= 2400
    # The same numbers give the same bytes.
    blobs = []
    for _ in range(2):
        annotated(small, [label]).save(buffer := io.BytesIO(), "PNG")
        blobs.append(buffer.getvalue())
    assert blobs[0] == blobs[1]


def test_what_cannot_be_drawn_is_said_before_anything_is_read(files, tmp_path, capsys):
    for words, said in (
        (
            [files[0], "--plot", "a.svg"],
            "a.svg names no annotated copy: its name has to end in .png",
        ),
        (
            [*files, "--plot", "a.png"],
            "--plot draws one picture, but 3 are given: read one at a time",
        ),
        ([], "no picture given: name one or more files, as in `jaxnn read numbers.png`"),
    ):
        assert cli.main(["read", *words]) == 2
        assert capsys.readouterr() == ("", f"jaxnn: {said}\n")
    target = tmp_path / "folder.png"
    target.mkdir()
    assert cli.main(["read", files[0], "--plot", str(target)]) == 1
