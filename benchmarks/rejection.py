"""What is refused as no digit: the part of each kind of picture that is accepted, by score.

    python -m benchmarks.rejection [--quick] [--publish]

Needs the folders of MNIST and of Fashion-MNIST in JAXNN_MNIST and JAXNN_FASHION, and matplotlib
for its fonts. All scores have to accept 95 % of the last 10,000 training images of MNIST; the
rule is the shipped model's own, with the limit that its file keeps.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks import paper
from benchmarks.report import markdown
from jaxnn import calibration, checkpoint, metrics, models, novelty
from jaxnn.data import load, preprocess
from jaxnn.errors import DataError

COUNT = {True: 200, False: 1000}  # pictures of a kind that is prepared, quick or not
LETTERS, SYMBOLS = "AEFHKMNRWXY", "&#%?@$"
SIDE = 200  # of a drawn picture, in pixels
KNOWN = 10_000  # training images that limits are fitted on: the last ones
SCORES = ("largest score", "confidence", "60 components", "distance", "rule")


class Seen(NamedTuple):
    """Pictures as the network sees them, and what they show."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray | None  # uint8 [N] of digits
    refused: int = 0  # others, that could not even be prepared


def run(quick: bool) -> dict[str, Any]:
    """Measures every kind by every score."""
    folders = {name: os.environ.get(name) for name in ("JAXNN_MNIST", "JAXNN_FASHION")}
    for name, folder in folders.items():
        if not folder:
            return {"left_out": f"{name} names no folder"}
    file = checkpoint.load(checkpoint.SHIPPED)
    if file.familiar is None:
        return {"left_out": "the shipped model has no novelty limit: train it again"}
    digits = load(folders["JAXNN_MNIST"])
    clothes = load(folders["JAXNN_FASHION"]).test_images
    scores = scores_of(file, digits.train_images)
    known = scores(digits.train_images[-KNOWN:])[0]
    limits = {name: float(np.quantile(known[name], novelty.ACCEPTED)) for name in SCORES}
    # The model's pieces were made of these images, so a limit of distances is cross-validated.
    answers = np.eye(10)[scores(digits.train_images)[1]]
    alone = novelty.fit(digits.train_images, digits.train_labels, answers)
    limits["distance"] = alone.limit
    limits["rule"] = file.familiar.limit
    kinds = {
        "MNIST, test": Seen(digits.test_images, digits.test_labels),
        **drawn(digits.test_images, digits.test_labels, clothes, COUNT[quick]),
    }
    found = {}
    for kind, seen in kinds.items():
        values, answers = scores(seen.images)
        total = len(seen.images) + seen.refused
        taken = {name: values[name] <= limits[name] for name in SCORES}
        found[kind] = {"pictures": total, "digits": seen.labels is not None}
        found[kind]["accepted"] = {name: float(taken[name].sum() / total) for name in SCORES}
        if seen.labels is not None:
            right = answers == seen.labels
            found[kind]["accuracy"] = {name: float(right[taken[name]].mean()) for name in SCORES}
            found[kind]["accuracy of all"] = float(right.sum() / total)
    return {"limits": limits, "kinds": found}


def scores_of(
    file: checkpoint.ModelFile, training: np.ndarray
) -> Callable[[np.ndarray], tuple[dict[str, np.ndarray], np.ndarray]]:
    """A function: images -> how suspect each is by each score, and the answers."""
    model = models.build(file.spec)
    x = training.reshape(len(training), -1) / np.float32(255)
    mean = x.mean(axis=0)
    span = np.linalg.eigh(x.T @ x - len(x) * np.outer(mean, mean))[1][:, -60:]  # [784, 60]
    assert file.familiar is not None
    familiar = file.familiar

    def scores(images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        activations = metrics.scores(file.params, images, model=model)
        sure = calibration.probabilities(activations, file.spec.output, file.temperature)
        answers = sure.argmax(axis=1)
        away = images.reshape(len(images), -1) / np.float32(255) - mean
        found = (
            -activations.max(axis=1),
            -sure.max(axis=1),
            np.linalg.norm(away - away @ span @ span.T, axis=1),
            novelty.novelty(images, np.eye(sure.shape[1])[answers], familiar),
            novelty.novelty(images, sure, familiar),
        )
        return dict(zip(SCORES, found, strict=True)), answers

    return scores


def drawn(
    digits: np.ndarray, labels: np.ndarray, clothes: np.ndarray, count: int
) -> dict[str, Seen]:
    """All other kinds: pictures that are prepared first, and clothes and noise as they are."""
    rng = np.random.default_rng(5)
    chosen = rng.choice(len(digits), count, replace=False)
    names = list(paper.KINDS)
    on_paper = (paper.render(names[k % len(names)], digits[i], rng) for k, i in enumerate(chosen))
    large = (Image.fromarray(255 - cloth).resize((112, 112)) for cloth in clothes[:count])
    kinds = {
        "MNIST, test, on paper": prepared(on_paper, labels[chosen]),
        "Fashion-MNIST, as it is": Seen(clothes, None),
        "Fashion-MNIST, as dark pictures": prepared(large),
        "letters": prepared(printed(LETTERS, count, rng)),
        "signs": prepared(printed(SYMBOLS, count, rng)),
        "scribbles": prepared(scribble(rng) for _ in range(count)),
        "filled shapes": prepared(shape(rng) for _ in range(count)),
    }
    noise = rng.integers(0, 256, (count, 28, 28), np.uint8)
    faint = np.clip(rng.normal(0, 30, (count, 28, 28)), 0, 255).astype(np.uint8)
    blank = np.broadcast_to(np.uint8(rng.integers(0, 256, (count, 1, 1))), noise.shape)
    return kinds | {
        "noise, as it is": Seen(noise, None),
        "faint noise, as it is": Seen(faint, None),
        "blank, as it is": Seen(blank, None),
    }


def prepared(pictures: Iterable[Image.Image], labels: np.ndarray | None = None) -> Seen:
    """What the network sees of them, without those that `prepare` refuses."""
    images = [_prepared(picture) for picture in pictures]
    kept = np.array([image is not None for image in images])
    seen = np.stack([image for image in images if image is not None])
    return Seen(seen, None if labels is None else labels[kept], int(np.sum(~kept)))


def _prepared(picture: Image.Image) -> np.ndarray | None:
    try:
        return preprocess.prepare(picture)
    except DataError:
        return None


def printed(characters: str, count: int, rng: np.random.Generator) -> Iterable[Image.Image]:
    """Characters in the fonts of matplotlib, a little turned."""
    import matplotlib

    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*.ttf"))
    fonts = [path for path in fonts if "Display" not in path.name]
    for _ in range(count):
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 110)
        picture, draw = canvas()
        character = characters[rng.integers(len(characters))]
        draw.text((SIDE / 2, SIDE / 2), character, fill=20, font=font, anchor="mm")
        yield picture.rotate(rng.uniform(-8, 8), fillcolor=250)


def scribble(rng: np.random.Generator) -> Image.Image:
    """A line that winds at random."""
    picture, draw = canvas()
    waves = rng.normal(0, 1, (2, 2, rng.integers(3, 9)))  # sine and cosine, x and y
    turns = np.linspace(0, 2 * np.pi, 200)[:, None] * np.arange(1, waves.shape[2] + 1)
    line = np.sin(turns) @ waves[0].T + np.cos(turns) @ waves[1].T  # [200, 2]
    line = SIDE / 2 + 0.4 * SIDE * line / np.abs(line).max()
    draw.line([(x, y) for x, y in line.tolist()], fill=20, width=int(rng.integers(4, 14)))
    return picture


def shape(rng: np.random.Generator) -> Image.Image:
    """A filled ellipse, rectangle or triangle."""
    picture, draw = canvas()
    half = SIDE * rng.uniform(0.15, 0.4, 2)
    left, top, right, bottom = (*(SIDE / 2 - half), *(SIDE / 2 + half))
    which = rng.integers(3)
    if which == 0:
        draw.ellipse((left, top, right, bottom), fill=20)
    elif which == 1:
        draw.rectangle((left, top, right, bottom), fill=20)
    else:
        draw.polygon([(SIDE / 2, top), (left, bottom), (right, bottom)], fill=20)
    return picture.rotate(rng.uniform(0, 90), fillcolor=250)


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """White paper, and a pen."""
    picture = Image.new("L", (SIDE, SIDE), 250)
    return picture, ImageDraw.Draw(picture)


def table(result: dict[str, Any]) -> str:
    """A row for each kind: the part accepted by each score; of digits, the accuracy after it."""
    head = ["accepted (accuracy on those)", "pictures", *SCORES]
    rows = []
    for kind, found in result["kinds"].items():
        cells = [f"{found['accepted'][name]:.1%}" for name in SCORES]
        if found["digits"]:
            cells = [
                f"{cell} ({found['accuracy'][name]:.2%})"
                for cell, name in zip(cells, SCORES, strict=True)
            ]
        rows.append([kind, f"{found['pictures']:,}", *cells])
    return markdown(head, rows)


if __name__ == "__main__":
    from benchmarks import rejection, report

    report.main("rejection", rejection)
