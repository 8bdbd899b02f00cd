"""Pictures to digits as MNIST has them: 28 x 28 bytes, bright ink on black, centred by mass.

Photographs, scans and drawings alike: `ink` finds what was written, `strokes` gives it MNIST's
form. The bytes of a picture are hostile until decoded: `decode` limits formats and pixels, and
turns whatever a parser trips over into one sentence.
"""

import io
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from jaxnn.data import ink, paper, strokes
from jaxnn.data.strokes import BOX, SIDE
from jaxnn.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 40_000_000
MAX_SIDE = 32_768  # longer rows cost decoders many times their pixels
FINISHED = 32  # of 255: a border so near to black, or to white, is that of a finished digit
OFF, SLACK = 1.5, 3  # pixels that it may lie off the centre, and be larger or smaller than `BOX`
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

    The digit's ink is found, scaled with its aspect kept to 20 pixels on its longer side, and put
    with its centre of mass at the centre; strokes much thinner or thicker than MNIST's are brought
    to its width. A picture of 28 x 28 that is such a digit already, or fills its frame as no
    digit of MNIST does, comes back as it is (inverted, where it is dark on light).

    Args:
      image: a PIL image in any mode, as decoded or opened; or grey uint8 [H, W], or RGB uint8
        [H, W, 3].

    Returns:
      uint8 [28, 28]; 0 is background and 255 is ink.

    Raises:
      DataError: a blank picture, one without pixels or with too many, or another array.

    Source: http://yann.lecun.com/exdb/mnist/, how the digits were normalised and centred.
    """
    picture = upright(_as_picture(image) if isinstance(image, np.ndarray) else image)
    if picture.size == (SIDE, SIDE):
        finished = _finished(picture)
        if finished is not None:
            return finished
    found = ink.ink_of(picture).map
    digit = strokes.pieces(found)
    if np.count_nonzero(digit) < np.count_nonzero(found > 0.5):  # there is other ink beside it
        found = np.where(ndimage.binary_dilation(digit, strokes.EVERYWHERE), found, 0)
    return strokes.normalised(found)


def prepare_many(images: "Iterable[Picture | np.ndarray]") -> np.ndarray:
    """Digits as MNIST has them, from pictures of one digit each: uint8 [N, 28, 28].

    Raises:
      DataError: as `prepare`; the sentence names the picture's place, from 0.
    """
    digits = []
    for index, image in enumerate(images):
        try:
            digits.append(prepare(image))
        except DataError as error:
            raise DataError(f"picture {index}: {error}") from None
    return np.stack(digits) if digits else np.empty((0, SIDE, SIDE), np.uint8)


def upright(image: "Picture") -> "Picture":
    """A picture in any mode as L or RGB, turned as its EXIF data says, its own size kept.

    More than 8 bits are brought to 8 by the picture's own range. What is transparent becomes
    white, or black where the rest is light.

    Raises:
      DataError: no pixels, too many, or pixels that cannot be read.
    """
    from PIL import Image, ImageOps

    _check_size(image.width, image.height, "the picture")
    with _guarded("the picture"):
        if image.mode.startswith(("I", "F")):
            levels = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
            lowest = levels.min()
            levels = (levels - lowest) * (255 / max(float(levels.max() - lowest), 1e-30))
            plain = Image.fromarray(np.rint(levels).astype(np.uint8))
        elif image.has_transparency_data:
            plain = _on_paper(image.convert("RGBA"))
        elif image.mode in ("1", "L"):
            plain = image.convert("L")
        else:
            plain = image.convert("RGB")
        turn = image.getexif().get(_ORIENTATION, 1)
        if turn == 1:
            return plain
        plain.getexif()[_ORIENTATION] = turn
        return ImageOps.exif_transpose(plain)


def _on_paper(layers: "Picture") -> "Picture":
    """RGBA over white paper, or over black where what is there is light."""
    from PIL import Image, ImageStat

    shown = layers.getchannel("A")
    visible = shown.point(lambda level: 255 * (level > 0))
    stat = ImageStat.Stat(layers.convert("L"), visible)
    light = bool(stat.count[0]) and stat.mean[0] > 127
    page = Image.new("RGB", layers.size, (0, 0, 0) if light else (255, 255, 255))
    page.paste(layers.convert("RGB"), mask=shown)
    return page


def _finished(picture: "Picture") -> np.ndarray | None:
    """A picture of 28 x 28 as it is, bright on black, where nothing has to be done to it."""
    grey = np.asarray(picture.convert("L"))
    border = np.median(paper.edge(grey))
    if border > 255 - FINISHED:
        grey = 255 - grey
    elif border >= FINISHED:
        return None
    mask = grey > 255 // 4
    if not mask.any():
        return None
    side = max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (0, 1))
    centres = [np.arange(SIDE) @ grey.sum(axis) / grey.sum() for axis in (0, 1)]
    centred = max(abs(centre - SIDE / 2) for centre in centres) <= OFF
    return grey if side > BOX + SLACK or (side >= BOX - SLACK and centred) else None


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Keeps a hostile picture's warnings and exceptions inside; one thread at a time.

    One at a time because the list of warning filters belongs to the whole process, and so that
    several large pictures are never in memory together.
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
    if max(width, height) > MAX_SIDE:
        raise DataError(
            f"{what} has {width} x {height} pixels, expected at most {MAX_SIDE:,} on a side"
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
