"""What happens to a written sheet: rulings, light, the camera, the file.

Each effect but those of files is a function (sheet, height, rng, settings) -> sheet: float32
[H, W, 3] in 0 to 255, the digit's height in pixels, a NumPy Generator, (low, high) ranges.
"""

import io
import math

import numpy as np
from PIL import Image, ImageFilter

Range = tuple[float, float]
Colour = tuple[int, int, int]

LINES: tuple[Colour, ...] = (
    (150, 185, 225),
    (120, 150, 200),
    (185, 185, 190),
    (150, 150, 155),
    (225, 160, 160),
    (165, 205, 170),
)
TABLES: tuple[Colour, ...] = ((70, 48, 32), (40, 40, 44), (95, 75, 55), (25, 28, 35), (90, 92, 95))


def ruled(
    sheet: np.ndarray,
    height: float,
    rng: np.random.Generator,
    *,
    spacing: Range = (0.5, 1.3),
    squared: bool = False,
) -> np.ndarray:
    """Printed lines, or squares, some of them with a margin; spacing in heights of the digit."""
    gap = max(height * rng.uniform(*spacing), 7.0)
    width = max(gap * rng.uniform(0.015, 0.045), 0.8)
    colour = np.float32(LINES[rng.integers(len(LINES))])
    tall, wide = sheet.shape[:2]
    lines = _comb(tall, gap, width, rng)[:, None]
    if squared:
        lines = np.maximum(lines, _comb(wide, gap, width, rng)[None, :])
    elif rng.random() < 0.25:
        margin = np.clip(width - np.abs(np.arange(wide) - 0.08 * wide), 0, 1)
        sheet = sheet + margin[None, :, None] * (np.float32((225, 120, 120)) - sheet)
    return sheet + lines[..., None].astype(np.float32) * (colour - sheet)


def _comb(length: int, gap: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel along a side is covered by lines `gap` apart."""
    to_line = np.abs((np.arange(length) + rng.uniform(0, gap)) % gap - gap / 2)
    return np.clip((width + 1) / 2 - to_line, 0, min(width, 1))


def clouds(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, float32 [H, W], about 1 in size; `cell` pixels from one knot to the next."""
    tall, wide = (max(2, math.ceil(side / cell)) for side in shape)
    knots = Image.fromarray(rng.standard_normal((tall, wide), np.float32))
    return np.asarray(knots.resize(shape[::-1], Image.Resampling.BICUBIC))


def textured(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, depth: Range = (2, 6)
) -> np.ndarray:
    """Grain and stains of paper; depth in levels."""
    shape = sheet.shape[:2]
    grain = rng.uniform(*depth) * clouds(shape, rng.uniform(1.2, 2.5), rng)
    stains = rng.uniform(*depth) * clouds(shape, 0.25 * min(shape), rng)
    return sheet + (grain + stains)[..., None]


def uneven(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, darkest: Range = (0.35, 0.7)
) -> np.ndarray:
    """Light that falls off to one side, or round a lamp; `darkest` as a fraction of the best."""
    y, x = np.ogrid[-1 : 1 : sheet.shape[0] * 1j, -1 : 1 : sheet.shape[1] * 1j]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        far = (1 + (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2)) / 2
    else:
        at = rng.uniform(-0.8, 0.8, 2)
        far = np.minimum(((x - at[0]) ** 2 + (y - at[1]) ** 2) / 4, 1)
    warmth = 1 - np.float32((0, 0.02, 0.08)) * rng.uniform(0, 1)
    light = (1 - (1 - rng.uniform(*darkest)) * far).astype(np.float32)
    return sheet * light[..., None] * warmth


def shadowed(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, light: Range = (0.45, 0.75)
) -> np.ndarray:
    """A hard shadow whose edge passes near the middle, straight or round; `light` is left in it."""
    tall, wide = sheet.shape[:2]
    y, x = np.ogrid[:tall, :wide]
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    off = rng.uniform(-0.3, 0.3) * min(tall, wide)
    across = (x - wide / 2) * cos + (y - tall / 2) * sin - off
    if rng.random() < 0.4:  # a hand, a head
        along = (y - tall / 2) * cos - (x - wide / 2) * sin
        radius = rng.uniform(0.5, 1.2) * min(tall, wide)
        across = np.hypot(across - radius, along) - radius
    penumbra = rng.uniform(0.005, 0.03) * min(tall, wide)
    lit = np.clip(across / penumbra + 0.5, 0, 1).astype(np.float32)
    left = rng.uniform(*light) * np.float32((0.97, 0.98, 1.0))  # a shadow is a little blue
    return sheet * (left + (1 - left) * lit[..., None])


def on_table(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, strip: Range = (0.05, 0.25)
) -> np.ndarray:
    """The sheet on a dark table of which one to four sides are seen; strips in sheet sides."""
    tall, wide = sheet.shape[:2]
    strips = rng.uniform(*strip, 4) * min(tall, wide) * (rng.permutation(4) < rng.integers(1, 5))
    top, bottom, left, right = (int(one) for one in strips)
    shape = (top + tall + bottom, left + wide + right)
    colour = np.float32(TABLES[rng.integers(len(TABLES))])
    grain = Image.fromarray(rng.standard_normal((max(4, shape[0] // 6), 4), np.float32))
    wood = np.asarray(grain.resize(shape[::-1], Image.Resampling.BICUBIC))
    table = colour * (1 + 0.12 * wood[..., None])
    table[top : top + tall, left : left + wide] = sheet
    return table


def slanted(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, by: Range = (0.04, 0.1)
) -> np.ndarray:
    """Seen from the side: the picture's corners see points up to `by` of a side further in."""
    tall, wide = sheet.shape[:2]
    corners = np.array([(0, 0), (wide, 0), (wide, tall), (0, tall)], float)
    inward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (wide, tall)
    seen = corners + inward * rng.uniform(0, rng.uniform(*by), (4, 2))
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, seen, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        right += [u, v]
    picture = as_picture(sheet).transform(
        (wide, tall),
        Image.Transform.PERSPECTIVE,
        tuple(np.linalg.solve(np.array(rows), np.array(right))),
        Image.Resampling.BICUBIC,
    )
    return np.asarray(picture, np.float32)


def defocused(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, spread: Range = (0.015, 0.05)
) -> np.ndarray:
    """Out of focus; the spread in heights of the digit."""
    blur = ImageFilter.GaussianBlur(height * rng.uniform(*spread))
    return np.asarray(as_picture(sheet).filter(blur), np.float32)


def shaken(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, way: Range = (0.04, 0.12)
) -> np.ndarray:
    """Moved while the shutter was open; the way in heights of the digit."""
    angle, length = rng.uniform(0, math.pi), max(height * rng.uniform(*way), 2.0)
    reach = math.ceil(length / 2)
    padded = np.pad(sheet, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    tall, wide = sheet.shape[:2]
    steps = np.linspace(-length / 2, length / 2, min(2 * reach + 1, 25))
    total = np.zeros_like(sheet)
    for step in steps:
        top, left = (reach + round(step * part) for part in (math.sin(angle), math.cos(angle)))
        total += padded[top : top + tall, left : left + wide]
    return total / len(steps)


def noisy(
    sheet: np.ndarray, height: float, rng: np.random.Generator, *, depth: Range = (4, 16)
) -> np.ndarray:
    """A sensor's noise, in each pixel and colour of its own; depth in levels."""
    return sheet + rng.uniform(*depth) * rng.standard_normal(sheet.shape, np.float32)


def as_picture(sheet: np.ndarray) -> Image.Image:
    """Rounded to what a file can hold."""
    return Image.fromarray(np.rint(sheet).clip(0, 255).astype(np.uint8))


def jpeg(
    picture: Image.Image, rng: np.random.Generator, *, quality: Range = (8, 30)
) -> Image.Image:
    """Saved as a JPEG and opened again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.uniform(*quality)))
    with Image.open(file) as opened:
        opened.load()
        return opened.copy()


def enlarged(
    picture: Image.Image, rng: np.random.Generator, *, longer: Range = (2000, 4000)
) -> Image.Image:
    """As a camera of many pixels gives it: softer than its pixels, a little noise, a JPEG."""
    scale = rng.uniform(*longer) / max(picture.size)
    size = tuple(round(scale * side) for side in picture.size)
    large = np.array(picture.resize(size, Image.Resampling.BICUBIC))
    tile = np.rint(rng.normal(0, rng.uniform(1, 5), (256, 257, 3))).astype(np.int16)
    for top in range(0, size[1], 256):
        strip = large[top : top + 256].astype(np.int16)
        noise = np.tile(tile, (1, math.ceil(size[0] / 257), 1))[: len(strip), : size[0]]
        strip += noise
        large[top : top + 256] = strip.clip(0, 255)
    return jpeg(Image.fromarray(large), rng, quality=(80, 95))
