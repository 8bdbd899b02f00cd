"""Where digits lie: bars whose places are known, MNIST digits pasted on pages, and awkward ink."""

import numpy as np
import pytest
from PIL import Image

from jaxnn import data
from jaxnn.data import numbers, touching
from jaxnn.errors import DataError

HIGH, WIDE = 40, 20  # of the boxes that stand for digits here


def page(*boxes, shape=(300, 500)):
    """Ink 1 in boxes of left, top, width, height; float32 [H, W]."""
    ink = np.zeros(shape, np.float32)
    for left, top, width, height in boxes:
        ink[top : top + height, left : left + width] = 1
    return ink


def row(*lefts, top=100):
    return [(left, top, WIDE, HIGH) for left in lefts]


def found(ink):
    """The boxes, line by line, number by number."""
    return [[[tuple(s.box) for s in number] for number in line] for line in numbers.find(ink)]


def layout(ink):
    """How many shapes each number of each line has."""
    return [[len(number) for number in line] for line in found(ink)]


def test_lines_and_numbers_come_in_reading_order():
    first = [*row(20, 50, 80, top=30), *row(180, 210, top=34)]
    second = [*row(10, 45, top=110), *row(140, top=104), *row(300, 330, top=112)]
    expected = [[first[:3], first[3:]], [second[:2], second[2:3], second[3:]]]
    assert found(page(*reversed(second), *first)) == expected


@pytest.mark.parametrize("slope", [-0.15, 0.15])
def test_a_line_may_rise_or_fall_and_its_digits_differ_in_height(slope):
    less = np.resize([0, 12, -6, 4], 13)  # of each digit's height
    lines = [
        [
            (33 * n, int(120 + at + slope * 33 * n + less[n] / 3), WIDE, int(HIGH - less[n]))
            for n in (0, 1, 2, 3, 9, 10, 11, 12)
        ]
        for at in (0, 65)
    ]
    assert found(page(*lines[0], *lines[1])) == [[line[:4], line[4:]] for line in lines]


def test_the_size_of_the_picture_plays_no_part():
    boxes = [*row(20, 50, 120), (78, 130, 8, 12), *row(30, 70, top=170)]
    small = page(*boxes)
    large = np.kron(small, np.ones((3, 3), np.float32))
    scaled = [[[tuple(3 * each for each in box) for box in number] for number in line]
              for line in found(small)]  # fmt: skip
    assert layout(small) == [[2, 1], [2]]
    assert found(large) == scaled


@pytest.mark.parametrize(
    "pieces",
    [
        [(50, 90, 22, 5), (50, 100, 20, 30)],  # a bar above
        [(72, 90, 16, 5), (50, 88, 20, 42)],  # a bar beside the top
        [(50, 90, 20, 18), (52, 111, 18, 20)],  # broken in the middle
        [(50, 90, 6, 25), (50, 112, 30, 5), (68, 92, 6, 17)],  # a short stroke inside a corner
        [(50, 90, 8, 30), (61, 90, 4, 4), (50, 122, 20, 6)],  # three pieces
    ],
)
def test_pieces_of_a_digit_become_one_shape(pieces):
    ends = np.array([(left + width, top + height) for left, top, width, height in pieces])
    left, top = np.array(pieces)[:, :2].min(0)
    right, bottom = ends.max(0)
    around = (left, top, right - left, bottom - top)
    neighbours = row(10, 100, top=90)
    assert found(page(*pieces, *neighbours)) == [[[neighbours[0], around, neighbours[1]]]]


def test_neighbours_stay_apart_however_close():
    assert layout(page(*row(20, 41, 62))) == [[3]]
    # Strokes that lean, as in 11: their boxes overlap, their ink does not.
    y, x = np.mgrid[:100, :120]
    leaning = [(abs(x - left - (70 - y) / 2) < 3) & (y > 20) & (y < 70) for left in (20, 32, 44)]
    lines = numbers.find(np.any(leaning, 0).astype(np.float32))
    assert [[len(number) for number in line] for line in lines] == [[3]]
    for shape, stroke in zip(lines[0][0], leaning, strict=True):
        left, top, width, height = shape.box
        own = stroke[top : top + height, left : left + width]
        np.testing.assert_array_equal(shape.ink, own)  # nothing of a neighbour's in it


def test_digits_of_two_close_lines_stay_apart():
    assert layout(page(*row(20, 50, 80, top=50), *row(20, 50, 80, top=94))) == [[3], [3]]


@pytest.mark.parametrize(
    ("mark", "parts"),
    [
        ((63, 134, 6, 6), True),  # a point
        ((64, 132, 5, 16), True),  # a comma
        ((62, 117, 12, 4), True),  # a dash
        ((64, 118, 6, 6), False),  # a blot at half height
        ((64, 137, 3, 3), False),  # dust
        ((10, 146, 116, 4), False),  # a line below
    ],
)
def test_a_mark_between_digits_is_no_digit_and_may_part_them(mark, parts):
    left, right = row(10, 40), row(76, 106)
    expected = [[left, right]] if parts else [[left + right]]
    assert found(page(*left, mark, *right)) == expected


def test_gaps_part_numbers_by_the_measure_of_their_line():
    assert layout(page(*row(10, 35, 95, 120, 145))) == [[2, 3]]  # 5 and 40 pixels
    assert layout(page(*row(10, 65, 120, 175))) == [[4]]  # all 35: written widely
    assert layout(page(*row(10, 80, 150))) == [[1, 1, 1]]  # all 50: nobody writes as widely


def test_dust_is_left_out_however_much_there_is():
    rng = np.random.default_rng(3)
    ink = page(*row(100, 140, 180), shape=(300, 400))
    for y, x in rng.integers(0, 290, (400, 2)):
        if not (80 < y < 160 and 80 < x < 220):
            ink[y : y + 2, x : x + 2] = 1
    assert found(ink) == [[row(100, 140, 180)]]


def test_faint_ink_alone_is_nothing():
    assert numbers.find(np.zeros((0, 5), np.float32)) == []
    assert numbers.find(np.zeros((40, 50), np.float32)) == []
    assert numbers.find(0.4 * page(*row(20, 60))) == []


def test_a_page_full_of_noise_is_refused():
    noise = np.random.default_rng(1).random((400, 400), np.float32) * (
        np.indices((400, 400)) % 2
    ).min(0)
    with pytest.raises(
        DataError, match=r"has [\d,]+ separate shapes of ink, expected at most 1,000"
    ):
        numbers.find(noise)


def test_mnist_digits_on_pages_are_found_where_they_were_pasted():
    """Real digits, some in pieces or with dirt: 19 pages of 20 are wholly right, and all nearly."""
    images = data.load("embedded").test_images
    rng, right = np.random.default_rng(11), 0
    for _ in range(40):
        ink, expected, y = np.zeros((400, 700), np.float32), [], 20
        for _ in range(3):
            x, line = int(rng.integers(10, 60)), []
            for count in rng.integers(1, 5, 2):
                for image in images[rng.integers(0, len(images), count)]:
                    side = int(rng.integers(56, 72))
                    glyph = np.asarray(Image.fromarray(image).resize((side, side))) / 255
                    columns = np.flatnonzero((glyph > numbers.FAINT).any(0))
                    glyph = glyph[:, columns[0] : columns[-1] + 1]
                    wide, top = glyph.shape[1], y + int(rng.integers(0, 8))
                    ink[top : top + side, x : x + wide] = glyph
                    x += wide + int(rng.integers(4, 14))
                line.append(int(count))
                x += int(rng.integers(60, 90))
            expected.append(line)
            y += 90
        right += layout(ink) == expected
    assert right >= 36


def bridged(*lefts, thick=4):
    """Upright strokes joined by a bridge of some thickness, as one shape."""
    ink = page(
        *((left, 10, 8, HIGH) for left in lefts), (lefts[0], 28, lefts[-1] - lefts[0], thick)
    )
    (((shape,),),) = numbers.find(ink)
    return shape


def test_touching_shapes_are_cut_where_the_least_ink_is_in_the_way():
    ways = list(touching.cuts(bridged(10, 54)))
    first, second = ways[0]
    assert first.box.left == 10
    assert first.box.left + first.box.width == second.box.left
    assert 25 < second.box.left < 47
    for way in ways:  # every bit of ink is in one part
        assert sum(float(part.ink.sum()) for part in way) == bridged(10, 54).ink.sum()


def test_a_cut_follows_the_gap_between_leaning_strokes():
    y, x = np.mgrid[:60, :130]
    strokes = [(abs(x - left - (60 - y) * 0.9) < 4) & (y >= 5) & (y < 55) for left in (15, 61)]
    bridge = (y >= 30) & (y < 33) & (x > 43) & (x < 87)
    (((shape,),),) = numbers.find((strokes[0] | strokes[1] | bridge).astype(np.float32))
    first, _ = next(touching.cuts(shape))
    left = np.zeros(y.shape, bool)
    left[first.box.top :, first.box.left :][: first.box.height, : first.box.width] = first.ink > 0
    assert np.all(left[strokes[0]])
    assert not np.any(left[strokes[1]])


def test_a_shape_is_not_cut_where_it_is_narrow_or_solid():
    assert list(touching.cuts(bridged(10, 40))) == []
    assert list(touching.cuts(bridged(10, 54, thick=12))) == []
    assert list(touching.cuts(numbers.Shape(np.ones((1, 4)), numbers.Box(0, 0, 4, 1)))) == []
    assert [len(way) for way in touching.cuts(bridged(10, 54))] == [2]
    assert [len(way) for way in touching.cuts(bridged(10, 54, 98))] == [2, 3, 4]
