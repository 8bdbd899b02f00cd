"""`jaxnn read`: the digits of written numbers."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from jaxnn.commands import inputs
from jaxnn.commands.output import say, write_json
from jaxnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

    from jaxnn.answers import Answers
    from jaxnn.data.numbers import Shape

WORKING_SIDE = 1536  # pixels; larger pictures are reduced to it: a digit needs about 20
CAUTION = 5  # as many times surer of its parts than of the whole: then a shape is cut


class Part(NamedTuple):
    """Ink that may be a digit."""

    box: dict[str, int]  # left, top, width and height in pixels of the upright picture
    at: int  # place among the images that the network is asked about


Way = list[Part]  # to read a shape: as a whole, or cut into several


class Page(NamedTuple):
    """One picture, its shapes found, the network not asked yet."""

    name: str
    picture: "Picture | None"  # mode L or RGB, upright
    lines: list[list[list[list[Way]]]]  # of numbers, of shapes, each with its ways


@dataclass(frozen=True)
class Read:
    """Read the numbers written in each picture, digit by digit, line by line."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files: PNG, JPEG, WebP, BMP, TIFF or GIF."""
    model: Path | None = None
    """A model file; the one that ships with jaxnn where not given."""
    plot: Path | None = None
    """Draw a copy of the one picture, every digit boxed and named, as this .png file."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self, argv: list[str]) -> None:
        """Prints the numbers of each picture; one that cannot be read does not stop the others."""
        if not self.images:
            raise DataError(
                "no picture given: name one or more files, as in `jaxnn read numbers.png`"
            )
        if self.plot and len(self.images) > 1:
            raise ConfigError(
                f"--plot draws one picture, but {len(self.images)} are given: read one at a time"
            )
        import numpy as np

        from jaxnn import answers
        from jaxnn.data.picture_files import shown
        from jaxnn.plots import read as drawing

        if self.plot:
            drawing.check_path(self.plot)
            inputs.check_plot(self.plot, self.images[0])
        file = inputs.load_model(self.model)
        images: list[np.ndarray] = []  # of all pictures: the network is asked once
        pages, unread = [], []
        for path in self.images:
            try:
                pages.append(_page(path, images, keep=self.plot is not None))
            except DataError as error:
                unread.append(str(error))
        found = answers.answer(file, np.stack(images)) if pages else None
        results = [_result(page, found) for page in pages if found]
        for result in results:
            lines = [" ".join(number["text"] for number in line) for line in result["lines"]]
            say("\n  ".join([f"{shown(result['image'])}:", *lines]), self.json)
        write_json(self.json, {"results": results, "unread": unread})
        if self.plot and pages and pages[0].picture:
            _draw(pages[0].picture, results[0], self.plot)
        for sentence in unread[:-1]:
            print(f"jaxnn: {sentence}", file=sys.stderr)
        if unread:
            raise DataError(unread[-1])


def _page(path: Path, images: "list[np.ndarray]", keep: bool) -> Page:
    """The shapes of a picture file; what the network is to see of them is appended to images.

    Photos are large: the picture itself is kept only where that is asked for.
    """
    from jaxnn.data import ink, numbers, picture_files, preprocess, strokes, touching

    name = picture_files.shown(path)
    picture = preprocess.upright(preprocess.decode(picture_files.read_file(path), name))
    try:
        found = ink.ink_of(picture, WORKING_SIDE)
        lines = numbers.find(found.map)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if not lines:
        raise DataError(f"{name} shows no digits: give a picture of written numbers")

    def part(shape: "Shape") -> Part:
        images.append(strokes.normalised(shape.ink))
        return Part(_original(shape.box, found.scale, picture.size), len(images) - 1)

    def ways(shape: "Shape") -> list[Way]:
        return [[part(each) for each in way] for way in ((shape,), *touching.cuts(shape))]

    found_lines = [[[ways(shape) for shape in number] for number in line] for line in lines]
    return Page(str(path), picture if keep else None, found_lines)


def _original(
    box: tuple[int, int, int, int], scale: float, size: tuple[int, int]
) -> dict[str, int]:
    """A box of the ink map in pixels of its picture, rounded outward."""
    left, top, width, height = box
    right, bottom = (
        min(math.ceil(end / scale), most)
        for end, most in zip((left + width, top + height), size, strict=True)
    )
    left, top = math.floor(left / scale), math.floor(top / scale)
    return {"left": left, "top": top, "width": right - left, "height": bottom - top}


def _result(page: Page, found: "Answers") -> dict[str, Any]:
    """What the network says of a picture's shapes, each read in the way that it doubts least."""

    def doubt(way: Way) -> float:  # about the part that is the least sure
        worst = max(1.0 if found.rejected[at] else 1.0 - found.confidence[at] for _, at in way)
        return worst * (CAUTION if len(way) > 1 else 1)

    def digit(part: Part) -> dict[str, Any]:
        return {
            "digit": int(found.labels[part.at]),
            "confidence": float(found.confidence[part.at]),
            "rejected": bool(found.rejected[part.at]),
            "box": part.box,
        }

    def number(shapes: list[list[Way]]) -> dict[str, Any]:
        digits = [digit(part) for ways in shapes for part in min(ways, key=doubt)]
        text = "".join("?" if each["rejected"] else str(each["digit"]) for each in digits)
        return {"text": text, "digits": digits}

    return {"image": page.name, "lines": [[number(each) for each in line] for line in page.lines]}


def _draw(picture: "Picture", result: dict[str, Any], path: Path) -> None:
    from jaxnn.plots import read as drawing

    labels = [
        drawing.Label(
            tuple(digit["box"].values()),
            "?" if digit["rejected"] else str(digit["digit"]),
            # Rounded down: 100% is for what is certain.
            f"{digit['digit']}?" if digit["rejected"] else f"{int(100 * digit['confidence'])}%",
            digit["rejected"],
        )
        for line in result["lines"]
        for number in line
        for digit in number["digits"]
    ]
    drawing.save(drawing.annotated(picture, labels), path)
