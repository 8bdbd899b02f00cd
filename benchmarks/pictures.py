"""How many synthetic pictures of digits the shipped model reads, by kind of damage; and how fast.

    JAXNN_MNIST=FOLDER python -m benchmarks pictures [--full] [--print]

MNIST's test digits, whose folder JAXNN_MNIST names, on the paper of benchmarks/paper.py. Without
it the held-out part of the embedded digits: the shipped model was trained on these, as they are
training images of the whole of MNIST. The same pictures are read three times: prepared by
`jaxnn.data.preprocess.prepare`, merely reduced to 28 x 28 grey pixels, and that inverted. One that
`prepare` refuses counts as read wrongly.
"""

import io
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks import paper, timing
from benchmarks.report import markdown
from benchmarks.timing import Contestant
from jaxnn import answers, data
from jaxnn.checkpoint import SHIPPED, ModelFile, load
from jaxnn.data import preprocess
from jaxnn.errors import DataError
from jaxnn.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNT = {True: 60, False: 300}  # pictures of a kind, quick or not
SLOW = {"large": 5}  # kinds of which there are so many times fewer
REPEATS = {True: 5, False: 15}  # of what is timed
SIDE = preprocess.SIDE
PHOTO = (4000, 3000)  # pixels
SMALL = 64  # a side of the small pictures, pixels
BATCH = 1000


class Digits(NamedTuple):
    """What is put on paper."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # uint8 [N]
    unseen: bool  # by the shipped model


class Read(NamedTuple):
    """The pictures of one kind, as 28 x 28."""

    labels: np.ndarray  # uint8 [N]
    prepared: np.ndarray  # uint8 [N, 28, 28], black where refused
    refused: np.ndarray  # bool [N]
    plain: np.ndarray  # uint8 [N, 28, 28]


def digits() -> Digits:
    """MNIST's test images where JAXNN_MNIST names their folder, else the embedded ones."""
    folder = os.environ.get("JAXNN_MNIST")
    found = data.load(folder or "embedded")
    return Digits(found.test_images, found.test_labels, bool(folder))


def picture(kind: str, number: int, source: Digits) -> tuple[Image.Image, int]:
    """The picture of a kind with this number, and its digit: the same each time."""
    rng = np.random.default_rng((zlib.crc32(kind.encode()), number))
    at = int(rng.integers(len(source.labels)))
    return paper.render(kind, source.images[at], rng), int(source.labels[at])


def seen(one: Image.Image) -> Image.Image:
    """As a person sees it on a white page: RGB."""
    if one.mode == "I;16":
        return Image.fromarray((np.asarray(one) >> 8).astype(np.uint8)).convert("RGB")
    if one.has_transparency_data:
        page = Image.new("RGBA", one.size, "white")
        page.alpha_composite(one.convert("RGBA"))
        return page.convert("RGB")
    return one.convert("RGB")


def reduced(one: Image.Image) -> np.ndarray:
    """Grey uint8 [28, 28], and nothing else done to it."""
    return np.asarray(seen(one).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def read(kind: str, count: int, source: Digits) -> Read:
    """Renders and prepares the first `count` pictures of a kind."""
    prepared = np.zeros((count, SIDE, SIDE), np.uint8)
    plain, labels, refused = prepared.copy(), np.zeros(count, np.uint8), np.zeros(count, bool)
    for number in range(count):
        one, labels[number] = picture(kind, number, source)
        plain[number] = reduced(one)
        try:
            prepared[number] = preprocess.prepare(one)
        except DataError:
            refused[number] = True
    return Read(labels, prepared, refused, plain)


def measure(kind: str, found: Read, file: ModelFile) -> dict[str, Any]:
    """The parts, 0 to 1, that are read rightly; None in place of what the model cannot say."""
    prepared, plain, inverted = (
        answers.answer(file, images) for images in (found.prepared, found.plain, 255 - found.plain)
    )
    right = (prepared.labels == found.labels) & ~found.refused
    accepted = None
    if file.familiar:
        accepted = ~found.refused & ~prepared.rejected
    return {
        "kind": kind,
        "count": len(found.labels),
        "prepared": float(right.mean()),
        "plain": float((plain.labels == found.labels).mean()),
        "inverted": float((inverted.labels == found.labels).mean()),
        "refused": float(found.refused.mean()),
        "rejected": None if accepted is None else float((~found.refused & ~accepted).mean()),
        "accepted": float(right[accepted].mean())
        if accepted is not None and accepted.any()
        else None,
    }


def small_ones(finished: bool) -> Callable[[], list[np.ndarray]]:
    """`prepare` on digits as MNIST has them, or on drawings of `SMALL` x `SMALL`, dark on white."""
    images = list(digits().images[:BATCH])
    if not finished:
        large = [Image.fromarray(255 - one).resize((SMALL, SMALL)) for one in images]
        images = [np.asarray(one) for one in large]
    return lambda: [preprocess.prepare(one) for one in images]


def photo(whole: bool) -> Callable[[], Any]:
    """A photo of 12 megapixels from its file's bytes: decoded and prepared, or decoded alone."""
    large = picture("photo", 0, digits())[0].resize(PHOTO, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=90)
    blob = file.getvalue()
    if whole:
        return lambda: preprocess.prepare(preprocess.decode(blob, "the photo"))
    return lambda: preprocess.decode(blob, "the photo").size


TIMED = {
    "finished": partial(small_ones, True),
    "drawn": partial(small_ones, False),
    "photo": partial(photo, True),
    "decoding": partial(photo, False),
}


def run(quick: bool) -> dict[str, Any]:
    """Times first, then renders, prepares and reads, kind by kind."""
    entered = {name: Contestant(prepare, 1, "one process") for name, prepare in TIMED.items()}
    outcomes = timing.interleaved(entered, REPEATS[quick])
    source, file = digits(), load(SHIPPED)
    kinds = []
    for kind in paper.KINDS:
        count = COUNT[quick] // SLOW.get(kind, 1)
        kinds.append(measure(kind, read(kind, count, source), file))
    return {
        "unseen": source.unseen,
        "model": file.digest,
        "kinds": kinds,
        "seconds": {name: one.times._asdict() for name, one in outcomes.items()},
    }


def overall(kinds: list[dict[str, Any]], what: str) -> float | None:
    """The mean over kinds, all of the same weight; None where the model says nothing."""
    found = [one[what] for one in kinds if one[what] is not None]
    return float(np.mean(found)) if found else None


def table(result: dict[str, Any]) -> str:
    """The digits and the times in words, then a row a kind."""
    names = ("prepared", "plain", "inverted", "refused", "rejected", "accepted")
    kinds = result["kinds"]
    total = {name: overall(kinds, name) for name in names}
    counts = sum(one["count"] for one in kinds)
    rows = [
        [one["kind"], str(one["count"]), *(_percent(one[name]) for name in names)]
        for one in [*kinds, {"kind": "**all kinds alike**", "count": f"{counts:,}", **total}]
    ]
    head = ["read rightly, %", "pictures", "prepared", "as they are", "inverted"]
    head += ["refused", "rejected", "right of the accepted"]
    whose = (
        "Test digits of MNIST, which the shipped model has not seen."
        if result["unseen"]
        else "Embedded digits, which are **training images of the shipped model**: "
        "name the folder of the whole of MNIST by JAXNN_MNIST."
    )
    second = {name: times["median"] for name, times in result["seconds"].items()}
    speed = (
        f"On one core, {BATCH:,} digits of 28 x 28 pixels as MNIST has them are prepared in "
        f"{second['finished']:.2f} s, {BATCH:,} drawings of {SMALL} x {SMALL} in "
        f"{second['drawn']:.2f} s, and a JPEG photo of {PHOTO[0] * PHOTO[1] / 1e6:.0f} megapixels "
        f"in {second['photo']:.2f} s, {second['decoding']:.2f} s of it the decoding."
    )
    sheet = "![A picture of each kind, and what was made of it](figures/pictures.png)"
    return f"{whose} {speed}\n\n{sheet}\n\n{markdown(head, rows)}"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f}"


@style.look()
def figure(result: dict[str, Any]) -> "Figure":
    """A column a kind, in two banks: the picture, and below it what `prepare` makes of it."""
    source = digits()
    kinds = [one["kind"] for one in result["kinds"]]
    columns = -(-len(kinds) // 2)
    fig = style.figure(1.1 * columns, 5.4)
    grid = fig.subplots(4, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for at, kind in enumerate(kinds):
        bank, column = divmod(at, columns)
        above, below = grid[2 * bank, column], grid[2 * bank + 1, column]
        one, _ = picture(kind, 0, source)
        small = seen(one)
        small.thumbnail((300, 300))
        above.imshow(small)
        above.set_title(kind)
        try:
            below.imshow(preprocess.prepare(one), cmap="gray", vmin=0, vmax=255)
        except DataError:
            below.text(0.5, 0.5, "refused", ha="center", color=style.DOWN)
    return fig
