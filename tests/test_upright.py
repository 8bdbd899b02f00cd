"""`preprocess.upright`: of every mode, format and orientation, the pixels that were stored."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxnn.data.preprocess import FORMATS, decode, upright

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"]
TURNED = {  # what undoes each EXIF orientation
    1: (),
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_90,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_270,),
}


@pytest.fixture(scope="module")
def photo():
    """A dark ring on white paper with a bar to tell its sides apart, [130, 200]."""
    y, x = np.mgrid[:130, :200]
    ring = np.abs(np.hypot(y - 60, x - 90) - 40) < 6
    ring[20:26, 120:150] = True
    return np.where(ring, 0, 255).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def grey(image):
    """The light of an upright picture, float [H, W]."""
    found = upright(image)
    assert found.mode in ("L", "RGB")
    return np.asarray(found.convert("L"), float)


def inked(photo, level):
    """RGBA: the ring's ink in one level of grey, and nothing at all round it."""
    return np.dstack([np.full((*photo.shape, 3), level, np.uint8), 255 - photo])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_comes_back_upright_in_its_own_size(photo, mode):
    image = Image.fromarray(photo).convert(mode.replace("RGBa", "RGBA")).convert(mode)
    assert image.mode == mode
    assert np.abs(grey(image) - photo).max() <= 1  # HSV and YCbCr round


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
@pytest.mark.parametrize("scale", [16, 257])  # twelve bits, or all sixteen
def test_sixteen_bits(photo, mode, scale):
    order = ">u2" if mode.endswith("B") else "<u2"
    levels = (photo.astype(int) * scale).astype(order)
    deep = Image.frombytes(mode, photo.shape[::-1], levels.tobytes())
    assert np.array_equal(grey(deep), photo)


def test_the_lab_of_a_scanner(photo):
    even = Image.new("L", photo.shape[::-1], 128)
    lab = Image.merge("LAB", [Image.fromarray(photo), even, even])
    assert np.abs(grey(lab) - photo).max() <= 2
    assert np.abs(grey(decode(encoded(lab, "TIFF"), "it")) - photo).max() <= 2


def test_deep_files(photo):
    deep = Image.fromarray(photo.astype(np.uint16) * 257)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(grey(decode(encoded(deep, kind), "it")), photo)
    for array in (photo.astype(np.float32) / 255, photo.astype(np.int32) * 2**20):
        assert np.array_equal(grey(decode(encoded(array, "TIFF"), "it")), photo)
    with_gap = np.where(photo == 0, np.nan, photo / 255).astype(np.float32)
    assert np.array_equal(grey(Image.fromarray(with_gap)), photo)


def test_fax_and_prepress_files(photo):
    image = Image.fromarray(photo)
    fax = encoded(image.convert("1"), "TIFF", compression="group4")
    assert np.array_equal(grey(decode(fax, "it")), photo)
    assert np.array_equal(grey(decode(encoded(image.convert("CMYK"), "TIFF"), "it")), photo)
    assert np.abs(grey(decode(encoded(image.convert("CMYK"), "JPEG"), "it")) - photo).mean() < 2


def test_transparency_is_paper(photo):
    black, white = (Image.fromarray(inked(photo, level)) for level in (0, 255))
    for mode in ("RGBA", "LA", "RGBa"):
        assert np.array_equal(grey(black.convert(mode)), photo)
        assert np.array_equal(grey(white.convert(mode)), 255 - photo)  # on black
    assert np.array_equal(grey(decode(encoded(black), "it")), photo)


def test_transparency_of_a_palette_or_a_colour(photo):
    indexed = Image.fromarray((photo < 128).astype(np.uint8)).convert("P")
    indexed.putpalette([0] * 768)  # all black: only its transparency shows the ring
    for given in (0, bytes([0, 255])):
        assert np.array_equal(grey(decode(encoded(indexed, transparency=given), "it")), photo)
    layered = indexed.convert("PA")
    layered.putalpha(Image.fromarray(255 - photo))
    assert np.array_equal(grey(layered), photo)
    chalk = Image.fromarray(255 - photo)
    for image in (chalk, chalk.convert("RGB"), chalk.convert("1")):
        nothing = (0, 0, 0) if image.mode == "RGB" else 0
        found = decode(encoded(image, transparency=nothing), "it")
        assert np.array_equal(grey(found), 255 - photo), image.mode


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(photo, orientation, kind):
    stored = Image.fromarray(photo)
    for turn in TURNED[orientation]:
        stored = stored.transpose(turn)
    assert orientation == 1 or not np.array_equal(stored, photo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    blob = encoded(stored, kind, exif=exif, lossless=True)
    near = 5 if kind == "JPEG" else 0  # levels, on average: it loses a little
    assert np.abs(grey(decode(blob, "it")) - photo).mean() <= near
    with Image.open(io.BytesIO(blob)) as opened:  # not turned yet
        assert np.abs(grey(opened) - photo).mean() <= near


def test_exif_orientation_with_transparency(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(inked(photo, 0)).transpose(Image.Transpose.ROTATE_90)
    with Image.open(io.BytesIO(encoded(stored, exif=exif))) as opened:
        assert np.array_equal(grey(opened), photo)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0no such thing",
        b"Exif\0\0II*\0\xff\xff\0\0\x01\0",  # points out of the file
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",  # text
    ],
)
def test_damaged_exif_does_not_cost_the_picture(photo, exif):
    assert np.abs(grey(decode(encoded(photo, "JPEG", exif=exif), "it")) - photo).mean() < 5


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(photo, kind):
    assert np.abs(grey(decode(encoded(photo, kind), "it")) - photo).mean() < 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_is_read(photo, kind):
    others = [Image.fromarray(np.ascontiguousarray(photo[::-1, ::-1]))] * 2
    options = {"lossless": True} if kind == "WEBP" else {}
    blob = encoded(photo, kind, save_all=True, append_images=others, **options)
    image = decode(blob, "it")
    assert image.n_frames > 1
    assert np.array_equal(grey(image), photo)
