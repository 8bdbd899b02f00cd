"""Digits on synthetic paper, by kind of damage: what people photograph, scan and draw.

    render("ruled", digit, np.random.default_rng(7)) -> a PIL image

The same generator state gives the same picture. A kind is a `Look`, or a function of the
generator that chooses one.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks import effects, strokes
from benchmarks.effects import Colour, Range

Effect = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
Finish = Callable[[Image.Image, np.random.Generator], Image.Image]

WHITE: tuple[Colour, ...] = ((255, 255, 255),)
OFF_WHITE: tuple[Colour, ...] = ((250, 250, 248), (243, 240, 230), (232, 232, 236), (238, 230, 210))
NOTES: tuple[Colour, ...] = (
    (255, 240, 130),
    (250, 190, 205),
    (190, 225, 180),
    (175, 215, 240),
    (250, 190, 120),
    (196, 165, 125),
)
BOARDS: tuple[Colour, ...] = ((0, 0, 0), (35, 38, 40), (38, 72, 55), (25, 35, 75), (60, 62, 66))
DARK: tuple[Colour, ...] = ((0, 0, 0), (25, 25, 28), (45, 45, 50), (20, 25, 75))
INKS: tuple[Colour, ...] = (
    (30, 60, 170),  # blue
    (60, 110, 220),
    (205, 35, 40),  # red
    (25, 130, 60),  # green
    (120, 120, 122),  # pencil
    (250, 165, 70),  # light orange
    (125, 50, 150),
    (115, 70, 35),
    (215, 60, 140),
    (20, 150, 165),
)
CHALKS: tuple[Colour, ...] = ((255, 255, 255), (235, 235, 225), (250, 225, 120), (245, 180, 190))
MODES = ("P", "LA", "RGBA", "I;16", "CMYK", "1")
OWN = 0.3  # of the pictures keep the digit's own strokes, where the kind lets them


class Look(NamedTuple):
    """A kind of picture; the ranges are drawn from anew for each."""

    frame: Range = (100, 600)  # the shorter side, pixels
    height: Range = (0.4, 0.75)  # the digit's longer side, of the frame's shorter one
    pen: Range = (0.03, 0.14)  # its stroke's width, of its height; even in the logarithm
    own: float = OWN  # how often it keeps its own strokes
    turn: float = 0  # up to so many degrees
    away: Range = (0, 0.3)  # how far from the middle to the border it lies
    papers: tuple[Colour, ...] = WHITE
    inks: tuple[Colour, ...] = DARK
    contrast: Range | None = None  # levels from paper to ink, in place of the ink's own
    grain: float = 0  # how much of the ink the paper's grain keeps off
    below: tuple[Effect, ...] = ()  # on the paper, before the ink
    above: tuple[Effect, ...] = ()  # on paper and ink
    finish: Finish | None = None  # on the picture


def render(kind: str, digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A picture of a digit.

    Args:
      kind: a name in `KINDS`.
      digit: uint8 [28, 28], bright ink on black, as MNIST has it.
      rng: where all chances come from.
    """
    look = KINDS[kind]
    return _rendered(look if isinstance(look, Look) else look(rng), digit, rng)


def _rendered(look: Look, digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    shorter = rng.uniform(*look.frame)
    shape = np.array([shorter, shorter * rng.uniform(1, 1.4)]).round().astype(int)
    tall, wide = rng.permutation(shape)
    height = max(shorter * rng.uniform(*look.height), 12.0)
    pen = max(np.exp(rng.uniform(*np.log(look.pen))), 1.2 / height)
    turn = rng.uniform(-look.turn, look.turn)
    ink = strokes.drawn(digit, height, None if rng.random() < look.own else pen, turn)
    paper, colour = _colours(look, rng)
    sheet = np.empty((tall, wide, 3), np.float32)
    sheet[:] = paper
    for effect in look.below:
        sheet = effect(sheet, height, rng)
    if look.grain:
        grains = effects.clouds(ink.shape, max(1.5, height / 60), rng)
        ink = ink * (1 - look.grain * np.clip(0.5 + 0.5 * grains, 0, 1))
    top, left = _place(ink.shape, (tall, wide), look.away, rng)
    area = sheet[top : top + ink.shape[0], left : left + ink.shape[1]]
    area += ink[: area.shape[0], : area.shape[1], None] * (colour - area)
    for effect in look.above:
        sheet = effect(sheet, height, rng)
    picture = effects.as_picture(sheet)
    return look.finish(picture, rng) if look.finish else picture


def _colours(look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """float32 [3] each: the paper, the ink."""
    paper = np.asarray(look.papers[rng.integers(len(look.papers))], np.float32)
    ink = np.asarray(look.inks[rng.integers(len(look.inks))]) + rng.normal(0, 6, 3)
    if look.contrast:
        ink = paper - rng.uniform(*look.contrast) * rng.uniform(0.85, 1.15, 3)
    return paper, ink.clip(0, 255).astype(np.float32)


def _place(
    ink: tuple[int, ...], frame: tuple[int, int], away: Range, rng: np.random.Generator
) -> tuple[int, int]:
    """The ink's top and left: one of the two axes `away` from the middle, the other less so."""
    amounts = rng.permutation([rng.uniform(*away), rng.uniform(0, away[1])])
    corner = []
    for side, whole, amount in zip(ink, frame, amounts, strict=True):
        free = max(whole - side, 0) / 2
        corner.append(round(free + rng.choice([-1, 1]) * amount * max(free - 1, 0)))
    return corner[0], corner[1]


def _as_mode(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One of `MODES`: what programs and scanners write."""
    mode = MODES[rng.integers(len(MODES))]
    grey = picture.convert("L")
    if mode in ("LA", "RGBA"):  # a drawing on nothing: whatever colour the nothing has
        result = Image.new("RGB", picture.size, (0, 0, 0)).convert(mode)
        result.putalpha(grey.point(lambda level: 255 - level))
        return result
    if mode == "I;16":
        deep = np.asarray(grey, np.uint16) * 257
        return Image.fromarray(deep)
    if mode == "1":
        return grey.point(lambda level: 255 * (level > 128)).convert("1")
    if mode == "P":
        return picture.quantize(int(rng.integers(4, 64)))
    return picture.convert(mode)


def _photo(rng: np.random.Generator) -> Look:
    """A phone's photo: most of what the other kinds have, each now and then and milder."""

    def now_and_then(chance: float, effect: Effect) -> tuple[Effect, ...]:
        return (effect,) if rng.random() < chance else ()

    rulings = (effects.ruled, partial(effects.ruled, squared=True, spacing=(0.3, 1.0)))
    mild = partial(effects.textured, depth=(1, 3))
    return Look(
        frame=(250, 600),
        height=(0.2, 0.6),
        pen=(0.03, 0.12),
        turn=6,
        away=(0, 0.5),
        papers=OFF_WHITE,
        inks=DARK + INKS[:5],
        grain=rng.uniform(0, 0.25),
        below=(mild, *now_and_then(0.5, rulings[rng.integers(2)])),
        above=(
            *now_and_then(0.2, effects.on_table),
            partial(effects.uneven, darkest=(0.5, 0.9)),
            *now_and_then(0.4, partial(effects.shadowed, light=(0.5, 0.8))),
            *now_and_then(0.5, partial(effects.slanted, by=(0.02, 0.09))),
            *now_and_then(0.4, partial(effects.defocused, spread=(0.006, 0.025))),
            *now_and_then(0.15, partial(effects.shaken, way=(0.02, 0.06))),
            partial(effects.noisy, depth=(1, 8)),
        ),
        finish=partial(effects.jpeg, quality=(35, 92)),
    )


KINDS: dict[str, Look | Callable[[np.random.Generator], Look]] = {
    "clean": Look(pen=(0.012, 0.2)),
    "thin": Look(pen=(0.01, 0.025), own=0, frame=(200, 600)),
    "thick": Look(pen=(0.15, 0.24), own=0),
    "coloured ink": Look(inks=INKS, papers=WHITE + OFF_WHITE),
    "light on dark": Look(papers=BOARDS, inks=CHALKS, grain=0.35),
    "coloured paper": Look(papers=NOTES, inks=DARK + INKS[:3]),
    "low contrast": Look(papers=OFF_WHITE, contrast=(40, 70)),
    "uneven light": Look(papers=OFF_WHITE, above=(effects.uneven,)),
    "shadow": Look(papers=OFF_WHITE, above=(effects.shadowed,)),
    "ruled": Look(inks=DARK + INKS[:3], frame=(150, 600), below=(effects.ruled,)),
    "squared": Look(
        inks=DARK + INKS[:3],
        frame=(150, 600),
        below=(partial(effects.ruled, squared=True, spacing=(0.3, 1.0)),),
    ),
    "textured": Look(papers=OFF_WHITE + NOTES[-1:], grain=0.3, below=(effects.textured,)),
    "noisy": Look(papers=OFF_WHITE, above=(effects.noisy,)),
    "out of focus": Look(papers=OFF_WHITE, above=(effects.defocused,)),
    "shaken": Look(papers=OFF_WHITE, above=(effects.shaken,)),
    "JPEG": Look(papers=WHITE + OFF_WHITE, inks=DARK + INKS[:3], finish=effects.jpeg),
    "perspective": Look(
        height=(0.35, 0.6), away=(0, 0.2), papers=OFF_WHITE, above=(effects.slanted,)
    ),
    "rotated": Look(turn=12),
    "off-centre": Look(height=(0.25, 0.6), away=(0.9, 0.99)),
    "small": Look(frame=(500, 1200), height=(0.05, 0.1), pen=(0.06, 0.14), away=(0, 0.7)),
    "large": Look(
        frame=(500, 800),
        papers=OFF_WHITE,
        above=(partial(effects.uneven, darkest=(0.6, 0.95)),),
        finish=effects.enlarged,
    ),
    "file mode": Look(finish=_as_mode),
    "table": Look(
        height=(0.35, 0.65),
        papers=OFF_WHITE,
        above=(effects.on_table, partial(effects.slanted, by=(0.02, 0.06))),
    ),
    "photo": _photo,
}
