"""Decoding: one picture, in whatever form it came, as uint8 pixels of the wanted size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from saccade.data.found import Picture

# Pillow knows further formats; some of them run other programs (EPS) or hold no still picture.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MOST_PIXELS = 50_000_000
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


class Unreadable(Exception):  # noqa: N818
    """A picture that cannot be read; the message says why."""


@dataclass(frozen=True)
class Header:
    """What a picture says of itself: height and width as it is to be seen, whether it is grey, its format."""

    height: int
    width: int
    grey: bool
    format: str


def read_header(picture: Picture) -> Header:
    """Reads the header alone.

    Raises:
        Unreadable: no picture, or one of more than `MOST_PIXELS`.
    """
    if isinstance(picture, np.ndarray):
        return Header(picture.shape[0], picture.shape[1], picture.ndim == 2, "pixels")
    with _opened(picture) as image:
        width, height = image.size
        # Pillow turns TIFF files itself, and gives the size they will have.
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return Header(*((width, height) if turned else (height, width)), image.mode in GREY, image.format or "")


def decode(picture: Picture, size: tuple[int, int], channels: int) -> np.ndarray:
    """The pixels of a picture, (channels, height, width), uint8.

    Turned as its EXIF tag says; 8 bits a channel; on white where it is transparent; colours to grey by ITU-R 601 or
    grey to three equal channels as asked; resized by Pillow's bicubic, which is antialiased where it shrinks; the first
    frame where it moves. In detail, with every value v:

    * 16-bit grey (and 32-bit whole numbers that stay within 16 bits): v / 257, rounded; 16-bit colour: the high byte;
    * palette: the colours it stands for; 1 bit: 0 or 255; CMYK and YCbCr: as Pillow converts them;
    * alpha a: (v a + 255 (255 - a)) / 255, rounded.

    Args:
        picture: a file, the bytes of one, or pixels.
        size: height and width of the result.
        channels: 1 or 3.

    Raises:
        Unreadable: it is broken, or of a kind that has no one meaning as 8 bits (float pixels).
    """
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    else:
        with _opened(picture) as opened:
            image = _loaded(opened)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def covering_size(height: int, width: int, img_size: tuple[int, int], crop_pct: float) -> tuple[int, int]:
    """Height and width, sides in proportion, of the smallest picture that covers img_size / crop_pct."""
    wanted = [round(side / crop_pct) for side in img_size]
    scale = max(wanted[0] / height, wanted[1] / width)
    return max(wanted[0], round(height * scale)), max(wanted[1], round(width * scale))


@contextmanager
def _opened(picture: Path | bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Unreadable(
                    f"{image.width} x {image.height} is above the limit of {MOST_PIXELS // 10**6} megapixels"
                )
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"no {', '.join(FORMATS)} picture") from None
    # A broken file makes Pillow's readers fail in any way: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from error


def _loaded(image: Image.Image) -> Image.Image:
    """The picture turned upright, opaque, in a mode of 8 bits a channel."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise Unreadable("float pixels have no known range")
    if upright.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(upright).astype(np.int64)))
    if upright.has_transparency_data:
        pixels = np.asarray(upright.convert("RGBA")).astype(np.uint32)
        colour, alpha = pixels[:, :, :3], pixels[:, :, 3:]
        return Image.fromarray(((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
    return upright


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable(f"whole numbers {values.min()}..{values.max()}, which are not 16-bit pixels")
    return ((values + 128) // 257).astype(np.uint8)
