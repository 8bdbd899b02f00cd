"""Pictures to digits as MNIST has them: 28 x 28 bytes, bright ink on black, centred by mass.

The bytes of a picture are hostile until decoded: `decode` limits formats and pixels, and turns
whatever a parser trips over into one sentence.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from jaxnn.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 40_000_000
SIDE = 28  # of the result, in pixels
BOX = 20  # the digit's longer side within it
MIN_CONTRAST = 32  # between ink and paper, of 255: less is a blank picture
DARK = 32  # a border below this is the black of a finished digit
_WORKING_SIDE = 1024  # larger pictures are reduced first: 20 pixels need no more
_ORIENTATION = 0x0112  # the EXIF tag

_warnings_lock = threading.Lock()


def decode(blob: bytes, what: str) -> "Picture":
    """The picture in a file's bytes, its first frame, upright as its EXIF data says.

    Args:
      blob: a PNG, JPEG, WebP, BMP, TIFF or GIF file.
      what: its name, for messages.

    Raises:
      DataError: not such a file, cut short, damaged, or above `MAX_PIXELS` (seen before any
        pixel is decoded).
    """
    from PIL import Image, ImageOps

    with _guarded(what):
        image = Image.open(io.BytesIO(blob), formats=FORMATS)
        _check_size(image.width, image.height, what)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


def prepare(image: "Picture | np.ndarray") -> np.ndarray:
    """A digit as MNIST has it, from a picture of one digit.

    A 28 x 28 picture with bright ink and a black border is taken to be finished and comes back
    unchanged. Anything else is normalised as MNIST was: the ink's bounding box is scaled, aspect
    kept, to 20 pixels on its longer side, and its centre of mass put at the centre.

    Args:
      image: a PIL image in any mode, or grey uint8 [H, W], or RGB uint8 [H, W, 3].

    Returns:
      uint8 [28, 28]; 0 is background and 255 is ink.

    Raises:
      DataError: a blank picture, one without pixels or with too many, or another array.

    Source: http://yann.lecun.com/exdb/mnist/, how the digits were normalised and centred.
    """
    grey = _grey(_as_picture(image) if isinstance(image, np.ndarray) else image)
    background = float(np.median(_border(grey)))
    darker, brighter = background - grey.min(), grey.max() - background
    contrast = max(darker, brighter)
    if contrast < MIN_CONTRAST:
        raise DataError(
            f"the picture is blank: its ink differs from its border by {contrast:.0f} of 255, "
            f"expected at least {MIN_CONTRAST}"
        )
    if grey.shape == (SIDE, SIDE) and background < DARK:
        return grey
    ink = (background - grey if darker > brighter else grey - background) / contrast
    # The fifth nearest to the paper is shade and noise, the fifth nearest to the ink is ink.
    return _centred(np.clip((ink - 0.2) / 0.6, 0, 1))


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Keeps a hostile picture's warnings and exceptions inside; one thread at a time.

    One at a time because the list of warning filters belongs to the whole process.
    """
    from PIL import Image

    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except DataError:
            raise
        except Image.DecompressionBombError:
            raise DataError(f"{what} has more pixels than the {MAX_PIXELS:,} allowed") from None
        except Exception as error:  # parsers of six formats fail in a dozen ways
            raise DataError(
                f"{what} is not a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture: "
                f"it is another kind of file, cut short or damaged"
            ) from error


def _check_size(width: int, height: int, what: str) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(
            f"{what} has {width} x {height} pixels, expected from 1 to {MAX_PIXELS:,} in all"
        )


def _as_picture(array: np.ndarray) -> "Picture":
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or array.shape[2:] == (3,)):
        raise DataError(
            f"the picture is an array {array.dtype} {list(array.shape)}, "
            f"expected uint8 [H, W] or [H, W, 3]"
        )
    _check_size(array.shape[1], array.shape[0], "the picture")
    return Image.fromarray(array)


def _grey(image: "Picture") -> np.ndarray:
    """uint8 [H, W], upright, transparency over white, at most `_WORKING_SIDE` on a side."""
    from PIL import Image, ImageOps

    _check_size(image.width, image.height, "the picture")
    with _guarded("the picture"):
        deep = image.mode.startswith(("I", "F"))  # more than 8 bits
        if deep:
            grey = image.convert("F")
        elif image.has_transparency_data:
            ink = image.convert("RGBA")
            grey = Image.new("L", image.size, 255)
            grey.paste(ink.convert("L"), mask=ink.getchannel("A"))
        else:
            grey = image.convert("L")
        grey.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
        ImageOps.exif_transpose(grey, in_place=True)
        if max(grey.size) > _WORKING_SIDE:
            grey.thumbnail((_WORKING_SIDE, _WORKING_SIDE))
        pixels = np.array(grey)
        if deep:  # whatever its unit, its own range becomes 0 to 255
            pixels = np.rint(255 * (pixels - pixels.min()) / max(np.ptp(pixels), 1e-30))
        return pixels.astype(np.uint8)


def _border(grey: np.ndarray) -> np.ndarray:
    """The outermost pixels of [H, W], flattened; the corners count twice."""
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _centred(ink: np.ndarray) -> np.ndarray:
    """uint8 [28, 28] from ink [H, W] in [0, 1] that is not all zero."""
    from PIL import Image

    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(crop.shape)
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    picture = Image.fromarray(crop.astype(np.float32))
    digit = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    digit = digit / digit.max()  # strokes much thinner than a pixel came out faint
    top, left = (
        int(np.clip(round(SIDE / 2 - np.arange(n) @ digit.sum(axis) / digit.sum()), 0, SIDE - n))
        for n, axis in ((height, 1), (width, 0))
    )
    result = np.zeros((SIDE, SIDE), np.uint8)
    result[top : top + height, left : left + width] = np.rint(255 * digit)
    return result
