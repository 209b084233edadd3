"""Pictures of reconstructions: original, masked, and what each masked autoencoder makes of it, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from saccade.training.reconstructed import Reconstructed
from saccade.training.shown import Shown

# Small pictures are enlarged, by whole pixels, to about this height.
_SIDE = 160
_GAP = 14
# A blue that no grey picture has.
_HIDDEN = (150, 166, 192)
_INK, _PALE = "#000000", "#555555"
_POINTS = 13
_LONGEST = 24


@dataclass(frozen=True, eq=False)
class _Column:
    """A picture a row, with a line or two above and lines below each."""

    title: str
    images: UInt8[Tensor, "n c y x"]
    below: list[list[str]]


def reconstruction_figure(shown: Shown, path: Path, *, visible: str = "original") -> None:
    """Draws a row a picture, a column a model, as a PNG.

    A pixel of a picture is a square of whole pixels of the file, and nothing is blended: what is visible to the model
    is to be found again as it is. Below each reconstruction stands its loss on the hidden patches beside that of
    predicting the mean.

    Args:
        shown: the pictures, and what each model makes of them.
        path: of the file.
        visible: what a reconstruction shows where the model sees the patch: "original", "predicted", or "both", in a
            column each.

    Raises:
        ValueError: another word.
    """
    if visible not in ("original", "predicted", "both"):
        raise ValueError(f"visible={visible!r}: must be original, predicted or both")
    columns = _columns(shown, visible)
    scale = max(1, round(_SIDE / shown.images.shape[2]))
    height, width = (side * scale for side in shown.images.shape[2:])
    widths = [max(width, *(_text_width(line) for line in _lines(column))) for column in columns]
    most = max(len(below) for column in columns for below in column.below)
    head, row = 2 * _line_height() + 4, height + most * _line_height() + _GAP
    notes = _notes(shown, visible, sum(widths) + _GAP * (len(widths) - 1))
    foot = len(notes) * _line_height()
    size = (sum(widths) + _GAP * (len(widths) + 1), _GAP + head + row * len(shown.images) + foot + _GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    left = _GAP
    for column, wide in zip(columns, widths, strict=True):
        titles = column.title.split("\n")
        for number, line in enumerate(titles):
            draw.text((left, _GAP + (number + 2 - len(titles)) * _line_height()), line, fill=_INK, font=_font())
        for number, image in enumerate(column.images):
            top = _GAP + head + number * row
            canvas.paste(_enlarged(image, scale), (left, top))
            for place, line in enumerate(column.below[number]):
                draw.text((left, top + height + 2 + place * _line_height()), line, fill=_PALE, font=_font())
        left += wide + _GAP
    for number, line in enumerate(notes):
        draw.text((_GAP, size[1] - _GAP - foot + number * _line_height()), line, fill=_PALE, font=_font())
    canvas.save(path, format="PNG")


def _columns(shown: Shown, visible: str) -> list[_Column]:
    nothing: list[list[str]] = [[] for _ in shown.names]
    first = next(iter(shown.models.values()))
    columns = [
        _Column("original", shown.images, [[_shortened(name)] for name in shown.names]),
        _Column(f"masked, {shown.mask_ratio:.0%}", _masked(shown.images, first), nothing),
    ]
    for label, made in shown.models.items():
        below = [
            [f"loss {loss:.3f}", f"mean {mean:.3f}"]
            for loss, mean in zip(made.loss.tolist(), made.mean_loss.tolist(), strict=True)
        ]
        title = "\n".join(_wrapped(label, 2 * _SIDE)[:2])
        if visible in ("original", "both"):
            columns.append(_Column(title, made.pasted, below))
        if visible in ("predicted", "both"):
            one = f"{_wrapped(label, 2 * _SIDE)[0]}\nall predicted" if visible == "both" else title
            columns.append(_Column(one, made.predicted, nothing if visible == "both" else below))
    return columns


def _masked(images: UInt8[Tensor, "n c y x"], made: Reconstructed) -> UInt8[Tensor, "n 3 y x"]:
    """The pictures as the models see them."""
    colour = torch.tensor(_HIDDEN, dtype=torch.uint8)[:, None, None]
    return torch.where(made.hidden[:, None], colour, images.expand(-1, 3, -1, -1))


def _notes(shown: Shown, visible: str, width: int) -> list[str]:
    """What the picture does not say by itself."""
    absolute = [label for label, made in shown.models.items() if made.absolute]
    errors = "absolute" if len(absolute) == len(shown.models) else "squared"
    of_some = f" (absolute: {', '.join(absolute)})" if absolute and errors == "squared" else ""
    said = [f"loss: mean {errors} error{of_some} over the hidden patches; mean: that of predicting the mean."]
    if visible != "predicted":
        said.append("Visible patches are the original's" + (", or predicted, too." if visible == "both" else "."))
    normalised = [label for label, made in shown.models.items() if made.norm_pix_loss]
    if normalised:
        whose = "" if len(normalised) == len(shown.models) else f"{', '.join(normalised)}: "
        said.append(
            f"{whose}predicts each patch less its own mean, over its own deviation (norm_pix_loss); these two are the "
            "original's here, and its losses are of normalised patches."
        )
    return [line for sentence in said for line in _wrapped(sentence, width)]


def _enlarged(image: UInt8[Tensor, "c y x"], scale: int) -> Image.Image:
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    made = Image.fromarray(pixels)
    return made.resize((made.width * scale, made.height * scale), Image.Resampling.NEAREST)


def _lines(column: _Column) -> Sequence[str]:
    return [*column.title.split("\n"), *(line for below in column.below for line in below)]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many pixels, broken between words; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"


def _text_width(text: str) -> int:
    return round(_font().getlength(text)) + 1


def _line_height() -> int:
    return _POINTS + 5


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The font of the figures: matplotlib brings it along."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", _POINTS)
