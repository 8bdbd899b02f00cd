"""Pictures to digits: hostile bytes, every kind of picture, and MNIST itself as the truth."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from jaxnn import data
from jaxnn.data.preprocess import FORMATS, decode, prepare
from jaxnn.errors import DataError


@pytest.fixture(scope="module")
def digits():
    """Held-out MNIST digits, uint8 [200, 28, 28]."""
    return data.load("embedded").test_images[:200]


@pytest.fixture(scope="module")
def photo(digits):
    """Dark ink on white paper, off the centre, [130, 200]; `prepare` gives back the digit."""
    big = np.asarray(Image.fromarray(digits[1]).resize((84, 84), Image.Resampling.BICUBIC))
    return 255 - np.pad(big, ((6, 40), (101, 15)))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def alike(one, other):
    """Correlation of two pictures, the best over shifts by up to one pixel each way."""
    return max(
        np.corrcoef(np.roll(one, (y, x), (0, 1)).ravel(), other.ravel())[0, 1]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    )


def test_mnist_passes_unchanged(digits):
    for digit in digits:
        found = prepare(digit)
        assert found.dtype == np.uint8
        assert np.array_equal(found, digit)


@pytest.mark.parametrize("scale", [1, 2, 5, 20])
def test_enlarged_inverted_and_moved_mnist_comes_back(digits, scale):
    # Where the centre of mass falls between two pixels, rounding may choose the other one, hence
    # `alike`. The rest is resampling: 0.90 is the least seen here, two different digits have 0.4.
    for digit in digits[:60]:
        side = 28 * scale
        big = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
        found = prepare(255 - np.pad(big, ((3 * scale, scale), (0, 9 * scale))))
        assert alike(found, digit) > 0.85


def test_geometry_is_that_of_mnist(photo):
    found = prepare(photo)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    mass = found.sum(dtype=float)
    # Within the rounding to whole pixels of the centre (14, 14), where MNIST has it.
    assert abs(found.sum(1) @ np.arange(28) / mass - 14) <= 0.5
    assert abs(found.sum(0) @ np.arange(28) / mass - 14) <= 0.5
    assert found.max() == 255
    assert found[[0, -1]].max() == found[:, [0, -1]].max() == 0


def test_a_bar_keeps_its_aspect_and_is_centred():
    page = np.full((100, 60), 250, np.uint8)
    page[10:90, 5:13] = 10  # 80 x 8 pixels become 20 x 2
    found = prepare(page)
    expected = np.zeros((28, 28), np.uint8)
    expected[4:24, 13:15] = 255
    rows, columns = np.nonzero(found)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 2)
    assert alike(found, expected) > 0.99


def test_ink_of_either_brightness(photo):
    found = prepare(photo)
    assert np.array_equal(prepare(255 - photo), found)  # chalk on a board
    faint = (150 - (255 - photo.astype(int)) // 4).astype(np.uint8)  # pencil on grey paper
    assert alike(prepare(faint), found) > 0.98
    shaded = (100 + (255 - photo.astype(int)) // 4).astype(np.uint8)  # bright on grey
    assert alike(prepare(shaded), found) > 0.98


def test_a_small_picture_with_a_bright_border_is_inverted(digits):
    assert alike(prepare(255 - digits[0]), digits[0]) > 0.95


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_modes(photo, mode):
    found = prepare(Image.fromarray(photo).convert(mode))
    assert alike(found, prepare(photo)) > 0.99


def test_two_levels(photo):
    found = prepare(Image.fromarray(photo).convert("1", dither=Image.Dither.NONE))
    assert alike(found, prepare(photo)) > 0.9


def test_sixteen_bits(photo):
    deep = Image.fromarray(photo.astype(np.uint16) * 256)
    assert deep.mode == "I;16"
    assert alike(prepare(deep), prepare(photo)) > 0.99
    assert alike(prepare(decode(encoded(deep), "deep.png")), prepare(photo)) > 0.99


def test_colour_array(photo):
    red_on_white = np.stack([np.full_like(photo, 255), photo, photo], axis=-1)
    assert alike(prepare(red_on_white), prepare(photo)) > 0.99


def test_transparency_is_white(photo):
    # Black everywhere; only the alpha channel shows the digit.
    layers = np.zeros((*photo.shape, 4), np.uint8)
    layers[..., 3] = 255 - photo
    assert alike(prepare(Image.fromarray(layers)), prepare(photo)) > 0.99
    assert alike(prepare(decode(encoded(layers), "it")), prepare(photo)) > 0.99
    # A palette: colour 0 is the paper, black and transparent, colour 1 is black ink.
    indexed = Image.fromarray((photo < 128).astype(np.uint8)).convert("P")
    indexed.putpalette([0] * 768)
    for given in (0, bytes([0, 255])):
        blob = encoded(indexed, transparency=given)
        assert alike(prepare(decode(blob, "it")), prepare(photo)) > 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(photo, orientation, kind):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(photo)
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    blob = encoded(stored, kind, exif=exif, lossless=True)
    expected = prepare(photo)
    assert alike(expected, prepare(stored)) < 0.8 or orientation == 1  # a wrong turn would show
    assert decode(blob, "it").size == upright.size
    assert alike(prepare(decode(blob, "it")), expected) > 0.97  # JPEG loses a little
    with Image.open(io.BytesIO(blob)) as opened:
        assert alike(prepare(opened), expected) > 0.97


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(photo, kind):
    assert alike(prepare(decode(encoded(photo, kind), "it")), prepare(photo)) > 0.97


def test_exif_orientation_with_transparency(photo):
    layers = np.zeros((*photo.shape, 4), np.uint8)
    layers[..., 3] = 255 - photo
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(layers).transpose(Image.Transpose.ROTATE_90)
    with Image.open(io.BytesIO(encoded(stored, exif=exif))) as opened:
        assert alike(prepare(opened), prepare(photo)) > 0.97


def test_large():
    page = np.full((6000, 6000), 255, np.uint8)
    page[500:4500, 1000:4000] = 0
    page[800:4200, 1300:3700] = 255
    tracemalloc.start()
    try:
        found = prepare(page)
        # The page is 36 MB; its ink in float64, not reduced before, would be 288 MB.
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert np.ptp(np.flatnonzero(found.any(1))) + 1 == 20
    assert np.ptp(np.flatnonzero(found.any(0))) + 1 == 15
    assert found.max() == 255
    assert found[12:16, 12:16].max() == 0


def test_thin_strokes_are_not_faint():
    page = np.full((1000, 1000), 255, np.uint8)
    np.fill_diagonal(page, 0)  # a fiftieth of each pixel that it crosses in the end
    found = prepare(page)
    assert found.max() == 255
    assert np.diag(found)[5:25].min() > 200


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (28, 28), (300, 200, 3)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank(shape, level):
    with pytest.raises(DataError, match="blank: its ink differs from its border by 0 of 255"):
        prepare(np.full(shape, level, np.uint8))


def test_nearly_blank():
    page = np.full((28, 28), 200, np.uint8)
    page[10:20, 14] -= 31
    with pytest.raises(DataError, match="by 31 of 255, expected at least 32"):
        prepare(page)
    page[10:20, 14] -= 1
    assert prepare(page).max() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(value):
    page = np.full((30, 30), value, np.float32)
    with pytest.raises(DataError, match="blank"):
        prepare(Image.fromarray(page))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((28, 28), np.float32),
        np.zeros(784, np.uint8),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((28, 28, 4), np.uint8),
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_other_arrays(array):
    with pytest.raises(DataError, match=rf"array {array.dtype} .*expected uint8 \[H, W\] or"):
        prepare(array)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3)])
def test_arrays_without_pixels(shape):
    with pytest.raises(DataError, match=r"pixels, expected from 1 to 40,000,000 in all"):
        prepare(np.zeros(shape, np.uint8))


def test_arrays_with_too_many_pixels():
    for shape in [(10_000, 4_001), (10**7, 10**7)]:  # refused before it is copied
        with pytest.raises(DataError, match=f"the picture has {shape[1]} x {shape[0]} pixels"):
            prepare(np.broadcast_to(np.uint8(0), shape))
