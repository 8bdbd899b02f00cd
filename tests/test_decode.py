"""Hostile picture files: `preprocess.decode` refuses each with one sentence, and nothing leaks."""

import io
import struct
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxnn.data.preprocess import FORMATS, MAX_PIXELS, decode, prepare
from jaxnn.errors import DataError


@pytest.fixture(scope="module")
def photo():
    """A dark ring on white paper, [130, 200]."""
    y, x = np.mgrid[:130, :200]
    return np.where(np.abs(np.hypot(y - 60, x - 90) - 40) < 6, 20, 250).astype(np.uint8)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def png(width, height, rows=b""):
    """A PNG file of one bit a pixel, written by hand, that declares any size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_the_hand_written_png_is_one():
    assert decode(png(8, 2, b"\0\xaa\0\x55"), "it").size == (8, 2)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (8_000, 5_001, "big.png has 8000 x 5001 pixels, expected from 1 to 40,000,000 in all"),
        (10_000, 10_000, "big.png has 10000 x 10000 pixels"),  # Pillow warns from here on
        (60_000, 60_000, "big.png has more pixels than the 40,000,000 allowed"),  # and refuses
        (2**31 - 1, 2**31 - 1, "big.png has more pixels than the 40,000,000 allowed"),
        (2**31 - 1, 1, "big.png has "),
        (0, 5, "big.png is not a whole PNG|big.png has 0 x 5"),
        (5, 0, "big.png is not a whole PNG|big.png has 5 x 0"),
    ],
)
def test_size_is_refused_before_decoding(monkeypatch, width, height, message):
    def decoded(*args, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            decode(png(width, height), "big.png")


def test_the_limit_itself_is_allowed():
    side = 6_324  # 39,992,976 pixels
    assert side**2 <= MAX_PIXELS
    rows = (b"\0" + bytes(side // 8 + 1)) * side
    assert decode(png(side, side, rows), "it").size == (side, side)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated(photo, kind):
    blob = encoded(photo, kind)
    for keep in (0, 1, 10, len(blob) // 4, len(blob) // 2, len(blob) * 3 // 4):
        with pytest.raises(DataError, match=r"cut is not a whole PNG, JPEG.* or GIF picture"):
            decode(blob[:keep], "cut")


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"not a picture",
        bytes(1000),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"P5 2 2 255\n\0\0\0\0",  # PGM: a picture, but of a kind that is not read
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\x04\0\0\0WEBP",
        b"II*\0\x08\0\0\0\xff\xff",
        b"\xff\xd8\xff",
    ],
)
def test_no_picture(blob):
    with pytest.raises(DataError, match="it is not a whole PNG, JPEG, WEBP, BMP, TIFF or GIF") as e:
        decode(blob, "it")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_decode_or_are_refused(photo, kind):
    blob = encoded(photo[::4, ::4].copy(), kind)
    rng = np.random.default_rng(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            damaged = np.frombuffer(blob, np.uint8).copy()
            at = rng.integers(0, min(len(blob), 400), 3)
            damaged[at] = rng.integers(0, 256, 3)
            try:
                found = prepare(decode(damaged.tobytes(), "it"))
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert found.shape == (28, 28)


def test_warning_filters_survive_threads(photo):
    blob, bad = encoded(photo), png(10_000, 10_000)
    before = list(warnings.filters)
    failures = []

    def work():
        for _ in range(20):
            if not prepare(decode(blob, "it")).any():
                failures.append("blank")
            try:
                decode(bad, "it")
            except DataError:
                continue
            failures.append("decoded")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert warnings.filters == before


@pytest.mark.parametrize("kind", ["frame", "specks", "noise", "chequered", "lines"])
def test_forty_megapixels_cost_little_memory(kind):
    page = np.full((5000, 8000), 255, np.uint8)
    if kind == "frame":
        page[500:4500, 1000:4000] = 0
        page[800:4200, 1300:3700] = 255
    elif kind == "specks":  # 10,000 of them
        page.reshape(100, 50, 100, 80)[:, :17, :, :17] = 0
    elif kind == "noise":
        page[:] = np.random.default_rng(3).integers(0, 256, (500, 800)).repeat(10, 0).repeat(10, 1)
    elif kind == "chequered":
        page[::2, ::2] = page[1::2, 1::2] = 0
    else:
        page.reshape(50, 100, 8000)[:, :30] = 0
    tracemalloc.start()
    try:
        found = prepare(page)
    except DataError as error:
        assert kind != "frame"
        assert str(error).startswith("the picture is blank")
    else:
        assert found.shape == (28, 28)
        if kind == "frame":
            rows, columns = np.nonzero(found > 25)
            assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 15)
            assert found[12:16, 12:16].max() == 0
    finally:
        # The page is 40 MB; its light in float32, not reduced before, would be 160 MB.
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
        tracemalloc.stop()
