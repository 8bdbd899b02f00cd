"""The annotated copy that `jaxnn read` draws: a box round every digit, and what it was read as."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxnn.errors import ConfigError
from jaxnn.files import write_aside
from jaxnn.plots import style

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LEGIBLE = 48  # pixels that digits are high at least: the copy of a small picture is enlarged
SIZES = ((12, 0.4), (9, 0.2))  # of text and note: pixels at least, and part of a digit's height
LONGEST = 2400  # side of the copy in pixels, at most


class Label(NamedTuple):
    """What stands at one digit."""

    box: tuple[int, int, int, int]  # left, top, width, height in pixels of the picture
    text: str
    note: str  # below the text, smaller
    doubtful: bool  # in the other colour


def check_path(path: Path) -> None:
    """Call it before long work that ends in `save`.

    Raises:
      ConfigError: the name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path} names no annotated copy: its name has to end in .png")


def annotated(picture: "Picture", labels: Sequence[Label]) -> "Picture":
    """A copy in colour, larger or smaller where that makes it easier to look at.

    Args:
      picture: mode L or RGB.
      labels: at least one.
    """
    from PIL import Image, ImageDraw, ImageFont

    height = float(np.median([label.box[3] for label in labels]))
    zoom = min(max(1.0, LEGIBLE / height), LONGEST / max(picture.size))
    high = zoom * height
    margin = math.ceil(max(0, 0.8 * high - zoom * min(label.box[1] for label in labels)))
    width, height = (max(1, round(side * zoom)) for side in picture.size)
    copy = Image.new("RGB", (width, height + margin), "white")
    copy.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (0, margin))
    draw, line = ImageDraw.Draw(copy), max(1, round(high / 40))
    large, small = (ImageFont.load_default(max(least, part * high)) for least, part in SIZES)
    for label in labels:
        left, top = zoom * label.box[0], zoom * label.box[1] + margin
        right, bottom = left + zoom * label.box[2], top + zoom * label.box[3]
        color = style.DOWN if label.doubtful else style.UP
        draw.rectangle((left, top, right, bottom), outline=color, width=line)
        above = top
        for text, font in ((label.note, small), (label.text, large)):
            at = ((left + right) / 2, above - 2 * line)
            draw.text(at, text, color, font, "mb", stroke_width=line, stroke_fill="white")
            above = draw.textbbox(at, text, font, "mb")[1]
    return copy


def save(copy: "Picture", path: Path) -> None:
    """Writes the copy as PNG.

    Raises:
      RunError: the file could not be written.
    """
    check_path(path)
    buffer = io.BytesIO()
    copy.save(buffer, "PNG")
    write_aside(path, buffer.getvalue())
