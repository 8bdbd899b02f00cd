"""Pictures to digits: MNIST itself is the truth."""

import numpy as np
import pytest
from PIL import Image

from jaxnn import data
from jaxnn.checkpoint import SHIPPED, load
from jaxnn.data.preprocess import prepare, prepare_many
from jaxnn.errors import DataError
from jaxnn.metrics import scores
from jaxnn.models import build

BLANK = "the picture is blank: nothing in it stands out from its paper"


@pytest.fixture(scope="module")
def digits():
    """Held-out MNIST digits, uint8 [200, 28, 28]."""
    return data.load("embedded").test_images[:200]


@pytest.fixture(scope="module")
def photo(digits):
    """Dark ink on white paper, off the centre, [130, 200]; `prepare` gives back the digit."""
    return 255 - np.pad(enlarged(digits[1], 84), ((6, 40), (101, 15)))


def enlarged(digit, side):
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def cut(digit):
    """The digit without the paper round it: its ink touches all four edges."""
    rows, columns = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


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


def test_inverted_mnist_is_turned_back_and_nothing_else(digits):
    for digit in digits:
        assert np.array_equal(prepare(255 - digit), digit)
        assert np.array_equal(prepare(Image.fromarray(255 - digit).convert("RGBA")), digit)


def test_a_picture_of_28_by_28_that_is_no_finished_digit_is_prepared(digits):
    for digit in digits[:20]:
        corner = np.pad(digit, ((0, 4), (0, 4)))[4:, 4:]
        if not digit[:4].any() and not digit[:, :4].any():  # or ink would be cut off
            assert alike(prepare(corner), digit) > 0.9
        small = np.pad(enlarged(digit, 14), 7)
        assert np.ptp(np.nonzero(prepare(small) > 25), axis=1).max() >= 18


def test_solid_pictures_of_28_by_28_come_back_as_they_are():
    solid = np.zeros((28, 28), np.uint8)
    solid[2:22, 1:27] = np.arange(150, 176)  # clothes rather than strokes
    assert np.array_equal(prepare(solid), solid)
    assert np.array_equal(prepare(255 - solid), solid)


# Where the centre of mass falls between two pixels, rounding may choose the other one, hence
# `alike`. The rest is resampling, and strokes brought to MNIST's width: 0.9 of the digits come to
# 0.87 and more; two different digits have 0.4.
@pytest.mark.parametrize("scale", [1, 2, 5, 20])
def test_enlarged_inverted_and_moved_mnist_comes_back(digits, scale):
    margins = ((3 * scale, scale), (0, 9 * scale))
    pictures = [255 - np.pad(enlarged(digit, 28 * scale), margins) for digit in digits[:30]]
    found = [alike(prepare(p), d) for p, d in zip(pictures, digits[:30], strict=True)]
    assert min(found) > 0.75
    assert np.quantile(found, 0.1) > 0.85


@pytest.mark.parametrize("side", [20, 40, 100])
def test_ink_may_touch_the_edges(digits, side):
    close = []
    for digit in digits[:20]:
        crop = Image.fromarray(cut(digit)).resize((side, side), Image.Resampling.BICUBIC)
        full = prepare(np.pad(crop, 2 * side))
        both = np.asarray(crop), 255 - np.asarray(crop)
        close += [alike(prepare(picture), full) > 0.75 for picture in both]
    # Of a thick digit without any paper round it, what lies between the strokes may count as ink.
    assert sum(close) >= 38


def test_geometry_is_that_of_mnist(photo):
    found = prepare(photo)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    mass = found.sum(dtype=float)
    # Within the rounding to whole pixels of the centre (14, 14), where MNIST has it.
    assert abs(found.sum(1) @ (np.arange(28) + 0.0) / mass - 14) <= 0.5
    assert abs(found.sum(0) @ (np.arange(28) + 0.0) / mass - 14) <= 0.5
    assert found.max() == 255
    assert found[[0, -1]].max() == found[:, [0, -1]].max() == 0


def test_ink_of_either_brightness(photo):
    found = prepare(photo)
    assert alike(prepare(255 - photo), found) > 0.98  # chalk on a board
    faint = (150 - (255 - photo.astype(int)) // 4).astype(np.uint8)  # pencil on grey paper
    assert alike(prepare(faint), found) > 0.98
    shaded = (100 + (255 - photo.astype(int)) // 4).astype(np.uint8)  # bright on grey
    assert alike(prepare(shaded), found) > 0.98


def test_colour_array(photo):
    red_on_white = np.stack([np.full_like(photo, 255), photo, photo], axis=-1)
    assert alike(prepare(red_on_white), prepare(photo)) > 0.99


def test_a_white_drawing_on_nothing(photo):
    layers = np.full((*photo.shape, 4), 255, np.uint8)
    layers[..., 3] = 255 - photo
    assert alike(prepare(Image.fromarray(layers)), prepare(photo)) > 0.99


def test_the_same_picture_gives_the_same_digit(photo):
    before = photo.copy()
    assert np.array_equal(prepare(photo), prepare(photo))
    assert np.array_equal(prepare(Image.fromarray(photo)), prepare(photo))
    assert np.array_equal(photo, before)  # and is left as it was


def test_many(digits, photo):
    found = prepare_many(iter([photo, digits[0], Image.fromarray(photo)]))
    assert found.dtype == np.uint8
    assert np.array_equal(found, [prepare(photo), digits[0], prepare(photo)])
    assert prepare_many([]).shape == (0, 28, 28)
    with pytest.raises(DataError, match=f"^picture 1: {BLANK}$"):
        prepare_many([photo, np.zeros((9, 9), np.uint8)])


def test_thin_strokes_are_not_faint():
    page = np.full((1000, 1000), 255, np.uint8)
    np.fill_diagonal(page, 0)  # a fiftieth of each pixel that it crosses in the end
    found = prepare(page)
    assert found.max() == 255
    assert found[5:22].max(axis=1).min() > 200


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (28, 28), (300, 200, 3)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank(shape, level):
    with pytest.raises(DataError, match=f"^{BLANK}$"):
        prepare(np.full(shape, level, np.uint8))


def test_paper_with_hardly_a_trace_is_blank():
    page = np.full((80, 80), 200, np.uint8)
    page[20:60, 38:42] -= 3
    with pytest.raises(DataError, match=BLANK):
        prepare(page)
    page[20:60, 38:42] -= 60
    assert prepare(page).max() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(value):
    page = np.full((30, 30), value, np.float32)
    with pytest.raises(DataError, match=BLANK):
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


def accuracy(images, labels):
    file = load(SHIPPED)
    return np.mean(scores(file.params, images, model=build(file.spec)).argmax(1) == labels)


@pytest.mark.mnist
def test_the_shipped_model_loses_nothing_by_preparation(mnist):
    loaded = data.load(mnist)
    images, labels = loaded.test_images, loaded.test_labels
    plain = accuracy(images, labels)
    assert abs(accuracy(prepare_many(images), labels) - plain) <= 0.003


@pytest.mark.mnist
def test_nor_by_the_whole_way_from_another_picture_of_the_digit(mnist):
    loaded = data.load(mnist)
    images, labels = loaded.test_images[::40], loaded.test_labels[::40]  # 250
    plain = accuracy(images, labels)
    ways = {  # and how many of the 250 may be lost
        "moved": (4, [np.pad(d, ((0, 5), (3, 0))) for d in images]),
        "framed": (4, [255 - np.pad(cut(d), 3) for d in images]),
        "cut": (10, [255 - cut(d) for d in images]),  # thick ink, and hardly any paper
        "enlarged": (4, [255 - np.pad(enlarged(d, 90), ((0, 30), (50, 7))) for d in images]),
    }
    for way, (lost, pictures) in ways.items():
        assert accuracy(prepare_many(pictures), labels) >= plain - lost / 250, way
