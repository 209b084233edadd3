"""One picture, in every form that pictures come in, pixel by pixel."""

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from saccade.data.decode import FORMATS, Unreadable, covering_size, decode, read_header


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], chunks: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow cannot write all that it reads."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + body + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(picture: bytes, size=(1, 2)) -> list:
    return decode(picture, size, 1)[0].tolist()


def colour(picture: bytes, size=(1, 2)) -> list:
    return decode(picture, size, 3).transpose(1, 2, 0).tolist()


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = [0, 128, 129, 257, 300, 32768, 65535]
    picture = png(7, 1, 16, 0, [struct.pack(">7H", *values)])
    assert grey(picture, (1, 7)) == [[round(value / 257) for value in values]]
    assert grey(picture, (1, 7)) == [[0, 0, 1, 1, 1, 128, 255]]
    assert read_header(picture).grey


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_sixteen_bits_are_scaled_in_other_formats_too(kind):
    image = Image.fromarray(np.array([[0, 257 * 7]], dtype=np.uint16))
    assert grey(saved(image, kind)) == [[0, 7]]


def test_sixteen_bits_of_either_byte_order_are_scaled():
    big = Image.fromarray(np.array([[0, 257 * 7]], dtype=">u2"))
    assert grey(saved(big, "TIFF")) == [[0, 7]]


def test_whole_numbers_beyond_sixteen_bits_are_refused():
    image = Image.fromarray(np.array([[0, 257 * 9]], dtype=np.int32))
    assert grey(saved(image, "TIFF")) == [[0, 9]]
    beyond = Image.fromarray(np.array([[0, 70_000]], dtype=np.int32))
    with pytest.raises(Unreadable, match="not 16-bit pixels"):
        grey(saved(beyond, "TIFF"))


def test_float_pixels_are_refused():
    with pytest.raises(Unreadable, match="no known range"):
        grey(saved(Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)), "TIFF"))


def test_sixteen_bit_colours_keep_their_high_byte():
    picture = png(2, 1, 16, 2, [struct.pack(">6H", 0, 255, 256, 511, 65279, 65535)])
    assert colour(picture) == [[[0, 0, 1], [1, 254, 255]]]


def test_one_bit_is_black_and_white():
    assert grey(png(2, 1, 1, 0, [b"\x40"])) == [[0, 255]]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (2, 1), (0, 255, 255, 0))
    assert colour(saved(image, "TIFF")) == [[[255, 0, 0], [255, 0, 0]]]
    red = np.array(colour(saved(image, "JPEG", quality=100))[0][0])
    assert abs(red - [255, 0, 0]).max() <= 3


def palette(transparent: int | None = None) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return saved(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def test_a_palette_stands_for_its_colours():
    assert colour(palette()) == [[[10, 20, 30], [200, 100, 50]]]
    assert not read_header(palette()).grey


def test_a_transparent_colour_of_a_palette_is_white():
    assert colour(palette(transparent=0)) == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize("alpha", [0, 1, 100, 254, 255])
def test_transparency_is_laid_on_white(alpha):
    image = Image.new("RGBA", (2, 1), (10, 0, 255, alpha))
    expected = [round((value * alpha + 255 * (255 - alpha)) / 255) for value in (10, 0, 255)]
    assert colour(saved(image, "PNG")) == [[expected, expected]]


def test_grey_with_alpha_is_laid_on_white_and_stays_grey():
    image = Image.new("LA", (2, 1), (100, 128))
    value = round((100 * 128 + 255 * 127) / 255)
    assert grey(saved(image, "PNG")) == [[value, value]]
    assert read_header(saved(image, "PNG")).grey


def test_a_grey_level_that_means_transparent_is_white():
    picture = png(2, 1, 8, 0, [bytes([7, 9])], chunk(b"tRNS", struct.pack(">H", 7)))
    assert grey(picture) == [[255, 9]]


CORNERS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8) * 40
TURNED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].T,
    8: np.rot90(CORNERS),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_turned_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = saved(Image.fromarray(CORNERS), kind, exif=exif)
    head = read_header(picture)
    assert (head.height, head.width) == TURNED[orientation].shape
    assert grey(picture, TURNED[orientation].shape) == TURNED[orientation].tolist()


def test_the_first_frame_of_what_moves_is_taken():
    frames = [Image.new("L", (2, 1), value) for value in (50, 200)]
    assert grey(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [[50, 50]]


def test_colours_become_grey_by_itu_601_and_grey_becomes_three_equal_channels():
    picture = saved(Image.new("RGB", (2, 1), (200, 100, 50)), "PNG")
    assert grey(picture)[0][0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert colour(saved(Image.new("L", (2, 1), 7), "PNG")) == [[[7, 7, 7]] * 2]


def test_arrays_are_taken_as_they_are():
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(decode(array, (2, 4), 3), array.transpose(2, 0, 1))
    assert np.array_equal(decode(array[:, :, 0], (2, 4), 1)[0], array[:, :, 0])


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    assert np.abs(decode(stripes, (8, 8), 1)[0, 1:-1, 1:-1].astype(int) - 127.5).max() < 2


@pytest.mark.parametrize(
    ("height", "width", "img_size", "crop_pct", "expected"),
    [
        (32, 32, (32, 32), 1.0, (32, 32)),
        (300, 400, (224, 224), 0.875, (256, 341)),
        (400, 300, (224, 224), 0.875, (341, 256)),
        (100, 100, (64, 32), 1.0, (64, 64)),
        (100, 300, (64, 32), 1.0, (64, 192)),
        (10, 1000, (8, 8), 1.0, (8, 800)),
        (8, 8, (32, 32), 1.0, (32, 32)),
        (333, 500, (32, 32), 1.0, (32, 48)),
    ],
)
def test_the_smallest_size_that_covers_is_chosen(height, width, img_size, crop_pct, expected):
    assert covering_size(height, width, img_size, crop_pct) == expected


BROKEN = {
    "nothing": b"",
    "text": b"this is a text file that somebody called .jpg",
    "html": b"<html><body>404 Not Found</body></html>",
    "half a header": saved(Image.new("RGB", (8, 8)), "PNG")[:20],
    "half a picture": saved(Image.effect_noise((64, 64), 50), "JPEG")[:900],
    "half a PNG": saved(Image.effect_noise((64, 64), 50), "PNG")[:900],
    "an EPS, which would run ghostscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_unreadable(name):
    with pytest.raises(Unreadable, match=r"."):
        decode(BROKEN[name], (8, 8), 3)


@pytest.mark.parametrize(
    "picture", [saved(Image.new("L", (8, 8)), "PCX"), BROKEN["an EPS, which would run ghostscript"]]
)
def test_formats_that_are_not_listed_are_not_opened(picture):
    with pytest.raises(Unreadable, match="no JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM picture"):
        read_header(picture)


@pytest.mark.parametrize("depth", [1, 8])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(depth):
    bomb = png(60_000, 60_000, depth, 0, [])
    with pytest.raises(Unreadable, match=r"50 megapixels|decompression bomb"):
        read_header(bomb)
    with pytest.raises(Unreadable, match=r"50 megapixels|decompression bomb"):
        decode(bomb, (8, 8), 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_is_fifty_megapixels():
    assert read_header(b"P5 10000 5000 255\n").width == 10_000
    for width in (10_001, 20_000):
        with pytest.raises(Unreadable, match=f"{width} x 5000 is above the limit of 50 megapixels"):
            read_header(b"P5 %d 5000 255\n" % width)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_mutated_pictures_are_read_or_reported_and_never_crash(kind):
    assert kind in FORMATS
    chance = random.Random(kind)
    whole = saved(Image.effect_noise((24, 16), 60).convert("RGB"), kind)
    for _ in range(60):
        mutated = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 8)):
            if mutated:
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        with contextlib.suppress(Unreadable):
            assert decode(bytes(mutated), (8, 8), 3).shape == (3, 8, 8)
