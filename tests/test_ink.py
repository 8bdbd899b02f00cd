"""Ink told from paper: drawn ink whose place is known is found again, on every kind of paper."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from jaxnn import data
from jaxnn.data import ink
from jaxnn.data.ink import ink_of
from jaxnn.data.paper import DARK, LIGHT, polarity
from jaxnn.data.preprocess import prepare
from jaxnn.data.rulings import without_rulings
from jaxnn.errors import DataError

SIDE = 240
Y, X = np.mgrid[:SIDE, :SIDE] - SIDE / 2
DIGITS = data.load("embedded").test_images[[0, 200, 400, 600, 800, 1000]]


def drawn(digit, side=150):
    """A digit's ink in the middle of a page, float [SIDE, SIDE]."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large) / 255, (SIDE - side) // 2)


INKS = [drawn(digit) for digit in DIGITS]
EVERY = pytest.mark.parametrize("covered", INKS, ids=range(len(INKS)))


def on(paper, colour, covered):
    """A page: ink of one level or colour over the paper's."""
    paper, colour = (np.asarray(levels, float) for levels in (paper, colour))
    if colour.ndim == 1:
        covered = covered[..., None]
    return Image.fromarray(np.rint(paper * (1 - covered) + colour * covered).astype(np.uint8))


def overlap(found, covered):
    """What both call ink, of what either calls so."""
    one, other = found > 0.5, covered > 0.5
    return (one & other).sum() / (one | other).sum()


def shaded(covered, light):
    """Dark ink on white paper under a light in [0, 1]."""
    return Image.fromarray((np.asarray(on(235, 40, covered)) * light).astype(np.uint8))


def lines(angle, spacing, width=2):
    """Which pixels are of rulings, at an angle in degrees."""
    turn = np.deg2rad(angle)
    return (Y * np.cos(turn) - X * np.sin(turn)) % spacing < width


@EVERY
@pytest.mark.parametrize(("paper", "level"), [(250, 10), (0, 255), (200, 150), (60, 110)])
def test_ink_of_either_sign(covered, paper, level):
    page = on(paper, level, covered)
    assert np.sign(polarity(np.asarray(page, np.float32) / 255)) == (
        DARK if level < paper else LIGHT
    )
    assert overlap(ink_of(page).map, covered) > 0.6  # faint ink is drawn a little wider


@pytest.mark.parametrize("margin", [0, 8, 40])
@pytest.mark.parametrize("level", [20, 230])
def test_crops_whose_ink_touches_the_edges(margin, level):
    for covered in INKS:
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        crop = np.pad(covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin)
        assert overlap(ink_of(on(250 - level, level, crop)).map, crop) > 0.75


@EVERY
def test_a_shadow_over_half_a_digit(covered):
    hard = np.where(X + 0.3 * Y > 0, 1, 0.7)
    soft = 0.7 + 0.3 * np.tanh(Y / 25)
    for light in (hard, soft):
        assert overlap(ink_of(shaded(covered, light)).map, covered) > 0.65


@pytest.mark.xfail(strict=True, reason="the light half of the paper is taken for light ink")
def test_a_deep_shadow_with_a_hard_edge():
    light = np.where(X + 0.3 * Y > 0, 1, 0.4)
    assert overlap(ink_of(shaded(INKS[0], light)).map, INKS[0]) > 0.65


@EVERY
def test_light_that_falls_off(covered):
    light = 0.6 + 0.4 * X / X.max()  # five times as light at the one side as at the other
    assert overlap(ink_of(shaded(covered, light)).map, covered) > 0.75
    board = np.asarray(on(20, 140, covered)) + 100 * (X / SIDE + 0.5)
    assert overlap(ink_of(Image.fromarray(board.astype(np.uint8))).map, covered) > 0.75


@EVERY
@pytest.mark.parametrize(
    ("paper", "colour"),
    [
        ((255, 255, 255), (250, 240, 60)),  # yellow on white
        ((250, 180, 200), (60, 220, 230)),
        ((0, 0, 0), (30, 40, 220)),
        ((60, 140, 60), (195, 60, 90)),
    ],
)
def test_coloured_ink_on_coloured_paper(covered, paper, colour):
    assert overlap(ink_of(on(paper, colour, covered)).map, covered) > 0.8


@pytest.mark.xfail(strict=True, reason="ink is looked for in the mean of the three colours")
def test_ink_as_light_as_its_paper():
    found = ink_of(on((90, 160, 80), (200, 60, 70), INKS[0]))  # red on green: 110 both
    assert overlap(found.map, INKS[0]) > 0.8


def test_a_sheet_on_a_dark_table():
    for digit in DIGITS:
        sheet = np.asarray(on(235, 40, drawn(digit, 130)))
        photo = np.full((300, 330), 40, np.uint8)
        photo[30:270, 45:285] = sheet
        covered = np.pad(drawn(digit, 130), ((30, 30), (45, 45)))
        found = ink_of(Image.fromarray(photo)).map
        inside = np.s_[40:260, 55:275]  # the sheet's edge is no matter here
        assert overlap(found[inside], covered[inside]) > 0.7


@EVERY
@pytest.mark.parametrize("angle", [0, -5, 9])
@pytest.mark.parametrize("squared", [False, True])
def test_rulings_go_and_the_digit_stays(covered, angle, squared):
    ruled = lines(angle, 48) | (lines(angle + 90, 48) if squared else False)
    found = ink_of(on(np.where(ruled, 120, 245), 20, covered)).map > 0.5
    beside = ruled & (covered < 0.1)
    assert (found & beside).sum() < 0.2 * ruled.sum()  # next to the digit some may stay
    plain = ink_of(on(245, 20, covered)).map
    assert overlap(found, plain) > 0.6


@EVERY
def test_where_nothing_is_ruled_nothing_is_taken(covered):
    mask = covered > 0.5
    assert without_rulings(mask) is mask or np.array_equal(without_rulings(mask), mask)
    ruled = mask | lines(3, 40)
    left = without_rulings(ruled)
    assert not (left & ~ruled).any()  # ink is only ever taken away
    assert (left & mask).sum() > 0.85 * mask.sum()


@pytest.mark.parametrize("angle", [0, 5, 90, 87, 60])
def test_a_line_alone_is_what_was_drawn(angle):
    for short in (1, 0.6):  # from edge to edge, or a 1
        bar = lines(angle, 10 * SIDE, 6) & (np.hypot(X, Y) < short * SIDE)
        assert overlap(ink_of(on(250, 20, bar.astype(float))).map, bar) > 0.6


def test_the_long_straight_lines_of_a_seven_stay():
    seven = np.zeros((SIDE, SIDE))
    seven[30:38, 40:200] = 1
    seven[(Y > -90) & (Y < 90) & (np.abs(X + 0.6 * Y - 20) < 5)] = 1
    found = ink_of(on(250, 20, seven)).map
    assert overlap(found, seven) > 0.8
    assert found[31:37, 45:195].min() > 0.5
    one = np.zeros((SIDE, SIDE))
    one[25:215, 116:124] = 1
    assert overlap(ink_of(on(250, 20, one)).map, one) > 0.8


@pytest.mark.parametrize("size", [(40, 30), (512, 100), (1024, 512), (1000, 2000)])
def test_the_scale_leads_from_the_picture_to_the_map(size):
    width, height = size
    page = np.full((height, width), 250, np.uint8)
    top, left = height // 4, width // 4
    page[top : top + height // 2, left : left + max(3, width // 12)] = 10
    found = ink_of(Image.fromarray(page))
    assert found.map.dtype == np.float32
    assert 0 <= found.map.min() < found.map.max() <= 1
    assert max(found.map.shape) == min(max(size), ink.WORKING_SIDE)
    assert found.map.shape == (round(height * found.scale), round(width * found.scale))
    rows, columns = np.nonzero(found.map > 0.5)
    assert abs(rows.min() - top * found.scale) <= 1.5
    assert abs(columns.min() - left * found.scale) <= 1.5
    assert max(ink_of(Image.fromarray(page), side=64).map.shape) <= 64


def answered(page):
    """Whether a picture has an answer; else it is refused in one line."""
    try:
        found = prepare(page)
    except DataError as error:
        assert "\n" not in str(error)
        return False
    assert found.dtype == np.uint8
    assert found.shape == (28, 28)
    assert found.max() > 0
    return True


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_lines_of_pixels_of_every_level(size):
    for level in range(0, 256, 15):
        page = np.full((size, 1), level, np.uint8)
        assert not answered(page)
        assert not answered(page.T)
        page[size // 2] = 255 - level
        answered(page)
        answered(page.T)


@pytest.mark.parametrize("shape", [(8, 8), (27, 200), (100, 70), (512, 512), (90, 120, 3)])
def test_noise(shape):
    rng = np.random.default_rng(11)
    answered(rng.integers(0, 256, shape, dtype=np.uint8))
    answered((255 * (rng.random(shape) < 0.03)).astype(np.uint8))


def test_a_page_full_of_specks():
    page = np.full((500, 800), 255, np.uint8)
    page[::5, ::4] = page[1::5, ::4] = 0  # 20,000 of them
    answered(page)


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(
        arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)),
        arrays(np.uint8, (100, 70), elements=st.sampled_from([0, 90, 200, 255])),
        arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 40), st.just(3))),
    )
)
@example(np.zeros((1, 1), np.uint8))
def test_any_pixels_are_answered_or_refused(page):
    answered(page)


def test_specks_of_one_depth():
    page = np.full((24, 88, 3), 23, np.uint8)  # their depths differ by rounding only
    page[4, 46, 1] = page[18, 41, 2] = page[18, 46, 0] = 255
    with pytest.raises(DataError, match="blank"):
        prepare(page)
