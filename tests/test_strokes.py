"""Pieces, widths and MNIST's geometry, on shapes whose answer is known."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxnn import data
from jaxnn.data import strokes
from jaxnn.data.strokes import BOX, SIDE, THICKEST, THINNEST, normalised, pieces, stroke_width
from jaxnn.errors import DataError


def ring(side, radius, width):
    """float32 [side, side]: a ring about the middle, its edges anti-aliased."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (0.5 + width / 2 - np.abs(np.hypot(y, x) - radius)).clip(0, 1).astype(np.float32)


def boxes(shape, *corners):
    """Ink in boxes of rows and columns."""
    ink = np.zeros(shape, np.float32)
    for top, bottom, left, right in corners:
        ink[top:bottom, left:right] = 1
    return ink


def ink_width(digit):
    """The width of a result's strokes in pixels: area over the length of the middle line."""
    return (
        2
        * ndimage.distance_transform_edt(
            np.asarray(Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)) > 127
        ).max()
        / 10
    )


MAIN = (20, 80, 40, 50)


def kept(*others):
    """Which of the other boxes belong to the digit, on a page of 100 x 100."""
    found = pieces(boxes((100, 100), MAIN, *others))
    assert found[20:80, 40:50].all()
    return [bool(found[top:bottom, left:right].all()) for top, bottom, left, right in others]


def test_dust_is_dropped():
    assert kept((30, 32, 60, 62), (5, 7, 5, 7)) == [False, False]


def test_the_bar_of_a_five_belongs_to_it():
    assert kept((15, 20, 55, 85)) == [True]  # beside
    assert kept((12, 16, 40, 60)) == [True]  # above


def test_what_lies_far_away_belongs_only_if_it_is_large_and_beside():
    assert kept((30, 70, 90, 95)) == [False]  # a third of the ink
    assert kept((20, 80, 88, 96)) == [True]  # as that of two digits' halves
    assert kept((96, 99, 5, 95)) == [False]  # large, but below: a line of the page


def test_what_runs_along_the_edge_of_the_picture_is_not_the_digit():
    assert kept((0, 100, 0, 15)) == [False]  # a shadow, though it is the larger piece
    assert kept((0, 3, 0, 100), (97, 100, 0, 100)) == [False, False]
    frame = boxes((100, 100), (0, 100, 0, 100))
    frame[4:96, 4:96] = 0
    assert np.array_equal(
        pieces(np.maximum(frame, boxes((100, 100), MAIN))), boxes((100, 100), MAIN) > 0
    )


def test_a_digit_that_touches_the_edge_is_one_where_nothing_else_is():
    touching = boxes((100, 100), (0, 100, 30, 50))
    assert np.array_equal(pieces(touching), touching > 0.5)
    assert pieces(np.maximum(touching, boxes((100, 100), (5, 7, 70, 72))))[0, 30]


def test_ink_is_what_is_above_one_half():
    assert np.array_equal(pieces(np.array([[0.4, 0.6], [0.5, 0]])), [[False, True], [False, False]])
    corner = np.eye(9)  # pixels touch at their corners
    assert np.array_equal(pieces(corner), corner > 0)


@pytest.mark.parametrize("ink", [np.zeros((9, 9), np.float32), np.full((1, 1), 0.5)])
@pytest.mark.parametrize("shaped", [pieces, normalised])
def test_without_ink_the_picture_is_blank(ink, shaped):
    with pytest.raises(DataError, match="the picture is blank: nothing in it stands out"):
        shaped(ink)


@pytest.mark.parametrize("width", [2, 4, 8, 16])
def test_the_width_of_strokes(width):
    # A bar's short ends count as outline: 2wl / (2w + 2l) of a bar 25 times as long.
    bar = boxes((25 * width + 20, width + 20), (10, 10 + 25 * width, 10, 10 + width))
    assert stroke_width(bar) == pytest.approx(width * 25 / 26, rel=0.05)
    assert stroke_width(bar.T) == pytest.approx(stroke_width(bar), rel=1e-4)
    # A ring has no ends. Where it is some pixels wide the gradient is exact to a few per cent.
    assert stroke_width(ring(300, 100, width)) == pytest.approx(width, rel=0.1)


@pytest.fixture(scope="module")
def digits():
    """Held-out MNIST digits, float32 [60, 28, 28] in [0, 1]."""
    return data.load("embedded").test_images[:60].astype(np.float32) / 255


def enlarged(ink, scale):
    size = (round(ink.shape[1] * scale), round(ink.shape[0] * scale))
    return np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def test_the_geometry_is_that_of_mnist(digits):
    for ink in digits:
        found = normalised(enlarged(ink, 4))
        assert found.dtype == np.uint8
        assert found.shape == (SIDE, SIDE)
        assert found.max() == 255
        extent = np.ptp(np.nonzero(found), axis=1) + 1
        assert extent.max() in (BOX - 1, BOX)  # at its end the ink may round to 0
        share = found / found.sum(dtype=float)
        # Within the rounding to whole pixels of (14, 14), or as far as the picture lets it.
        for axis in (0, 1):
            assert abs(share.sum(axis) @ np.arange(SIDE, dtype=float) - SIDE / 2) <= 0.51


def test_the_aspect_is_kept():
    for tall, wide in ((200, 40), (40, 200), (120, 120)):
        ink = boxes((300, 300), (30, 30 + tall, 50, 50 + wide))
        ink[40 : 20 + tall, 60 : 40 + wide] = 0  # an outline
        found = np.nonzero(normalised(ink) > 100)
        longer = max(tall, wide)
        for axis, side in ((0, tall), (1, wide)):
            assert abs(np.ptp(found[axis]) + 1 - BOX * side / longer) <= 1.5


def test_where_it_lies_and_how_large_it_is_does_not_matter():
    one = normalised(np.pad(ring(80, 30, 8), ((3, 50), (90, 0))))
    assert np.array_equal(one, normalised(ring(80, 30, 8)))
    large = normalised(ring(160, 60, 16))
    assert one.sum() == pytest.approx(large.sum(dtype=float), rel=0.03)  # resampling


@pytest.mark.parametrize("width", [4, 8, 16, 24])
def test_thin_and_thick_strokes_come_to_the_width_of_mnist(width):
    # The ring is 200 pixels over: strokes of 0.4 to 2.4 pixels of the result's 20.
    found = normalised(ring(240, 100 - width / 2, width))
    # Half a pixel is what blur and the doubled distance in the middle of a stroke amount to.
    assert THINNEST - 0.6 <= ink_width(found) <= THICKEST + 0.6


@pytest.mark.parametrize("side", [300, 500])
def test_hairlines_are_not_lost(side):
    found = normalised(ring(side, 0.45 * side, 1.5))
    assert THINNEST - 0.6 <= ink_width(found) <= THICKEST + 0.6
    assert found[12:16, 12:16].max() == 0


def test_strokes_of_mnists_own_width_stay(digits):
    found = np.array([stroke_width(normalised(enlarged(ink, 4)) / 255) for ink in digits])
    own = np.array([stroke_width(enlarged(ink, 4)) / 4 for ink in digits])
    inside = (own > THINNEST) & (own < THICKEST)
    assert inside.sum() > 10
    assert np.abs(found - own)[inside].max() < 0.4


def test_what_is_no_stroke_stays_solid():
    found = normalised(boxes((100, 100), (20, 80, 20, 80)))
    assert (found == 255).sum() > 300  # of 400
    wheel = normalised(ring(240, 65, 70))  # its hole is 3 of the 20 pixels wide, and remains so
    assert (wheel[4:24, 4:24].diagonal()[5:15] < 128).sum() <= 4


def test_a_dot_and_a_hairline_are_something():
    for ink in (np.ones((1, 1)), np.ones((1, 700)), np.ones((700, 1)), boxes((9, 9), (4, 5, 4, 5))):
        assert normalised(ink.astype(np.float32)).max() == 255


def test_the_same_ink_gives_the_same_digit_and_is_left_alone():
    ink = ring(80, 30, 3)
    before = ink.copy()
    assert np.array_equal(normalised(ink), normalised(ink))
    assert np.array_equal(strokes.pieces(ink), strokes.pieces(ink))
    assert np.array_equal(ink, before)
