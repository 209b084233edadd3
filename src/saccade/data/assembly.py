"""Assembly: a decoded data set, split once and counted, becomes a Dataset."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from saccade.data.dataset import Dataset, Split
from saccade.data.decoded import Decoded
from saccade.data.draws import bits
from saccade.data.found import Found, NoLabels
from saccade.data.published import change, known_by_classes
from saccade.data.splits import set_aside

TEST_SHARE, VALIDATION_SHARE = 1 / 5, 1 / 10
BROKEN_NAMED = 10
# A channel that never changes has no deviation to divide by; a pixel has 255 steps.
LEAST_STD = 1 / 255


def assemble(
    found: Found,
    decoded: Decoded,
    *,
    img_size: tuple[int, int],
    crop_pct: float,
    on_bad_image: str,
    limit: int | None,
) -> Dataset:
    """Splits, counts and describes.

    Where there is no test part, a fifth of the training pictures becomes one; where there is no validation part, a
    tenth of those that remain. Both are chosen by a hash of each picture's name (its path below the folder, or its row)
    under seed 0, class by class in proportion where there are classes.

    Args:
        found: what lay there.
        decoded: the same, decoded.
        img_size: height and width that the model sees.
        crop_pct: share of the shorter side that the model's crop covers.
        on_bad_image: "error" refuses a data set with pictures that cannot be read; "skip" leaves them out, and says so.
        limit: keep so many training pictures, those first by a hash of their names; None: all.

    Raises:
        NoLabels: fewer than two classes have pictures that can be read, or one has too few to split.
        ValueError: unreadable pictures, too few pictures to split, or a limit beyond them.
    """
    _refuse_broken(found, decoded, on_bad_image)
    split = _split(found, decoded)
    available = len(split.rows["train"][1])
    if limit is not None:
        split.rows["train"] = ("train", _limited(decoded.parts["train"]["keys"], split.rows["train"][1], limit))
    notes = [*found.notes, *split.notes, *_broken_notes(decoded), *_gaps(found, decoded, split)]
    known = known_by_classes(found.classes)
    changed = change(known, decoded.formats, sum(decoded.formats.values())) if known else None
    if limit is not None and limit < available:
        notes.append(f"{limit:,} of {available:,} training pictures are used")
    if changed:
        notes.append(changed)
    mean, std = _mean_and_std(decoded.parts["train"], split.rows["train"][1])
    parts = {
        name: Split(decoded.pictures(part).select(rows), decoded.parts[part]["labels"][rows])
        for name, (part, rows) in split.rows.items()
    }
    state = [decoded.fingerprint(), found.classes, img_size, crop_pct, limit]
    return Dataset(
        name=found.name,
        classes=found.classes,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        img_size=img_size,
        crop_pct=crop_pct,
        mean=mean,
        std=std,
        fingerprint=hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16],
        split_rule="; ".join(filter(None, [found.split_rule, *split.rules])),
        skipped=dict(Counter(part for part, _, _ in decoded.broken)),
        copied=bool(changed) or (limit is not None and limit < available),
        notes=tuple(notes),
        attribution=found.attribution or (known.attribution if known else ""),
    )


@dataclass
class _Assigned:
    """For each part of the data set: the part it was found in and its rows there; how that came about."""

    rows: dict[str, tuple[str, Int64[Tensor, " n"]]]
    rules: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _split(found: Found, decoded: Decoded) -> _Assigned:
    split = _Assigned({part: (part, torch.arange(len(table["labels"]))) for part, table in decoded.parts.items()})
    if "test" not in split.rows:
        taken = _set_aside(found, decoded, split, "test", TEST_SHARE)
        split.notes.append(f"there is no test part: {taken} were made one by a hash of their names")
    if "validation" not in split.rows:
        taken = _set_aside(found, decoded, split, "validation", VALIDATION_SHARE)
    for part, (_, rows) in split.rows.items():
        if not len(rows):
            raise ValueError(f"{found.name}: the {part} part is empty")
    return split


def _set_aside(found: Found, decoded: Decoded, split: _Assigned, part: str, share: float) -> str:
    """Takes a share of the training pictures for `part`; returns how many of how many, in words."""
    table, rows = decoded.parts["train"], split.rows["train"][1]
    count = max(1, round(share * len(rows)))
    try:
        stays, taken = set_aside(table["labels"][rows], table["keys"][rows], count, part)
    except ValueError as error:
        few = f"{found.name}: {len(rows)} training pictures are too few for a {part} part"
        if not found.classes:
            raise ValueError(f"{few}; give more") from error
        raise NoLabels(f"{few}: {error}", "give more") from error
    split.rows |= {"train": ("train", rows[stays]), part: ("train", rows[taken])}
    words = f"{count:,} of {len(rows):,} training pictures"
    split.rules.append(f"{part}: {words}, by a hash of their names{', stratified' if found.classes else ''}, seed 0")
    return words


def _limited(keys: Int64[Tensor, " n"], rows: Int64[Tensor, " k"], limit: int) -> Int64[Tensor, " l"]:
    if not 1 <= limit <= len(rows):
        raise ValueError(f"limit={limit}: there are 1..{len(rows)} training pictures to choose from")
    order = bits(0, 0, keys[rows], "limit", 1)[:, 0].argsort(stable=True)
    return rows[order[:limit]].sort().values


def _refuse_broken(found: Found, decoded: Decoded, on_bad_image: str) -> None:
    if decoded.broken and on_bad_image == "error":
        total = len(decoded.broken) + sum(len(table["labels"]) for table in decoded.parts.values())
        raise ValueError(
            f"{found.name}: {len(decoded.broken):,} of {total:,} pictures cannot be read: {_named(decoded)}; repair or "
            'remove them, or leave them out with --on-bad-image skip (on_bad_image="skip")'
        )


def _broken_notes(decoded: Decoded) -> list[str]:
    if not decoded.broken:
        return []
    return [f"{len(decoded.broken):,} pictures cannot be read and were left out: {_named(decoded)}"]


def _named(decoded: Decoded) -> str:
    names = [f"{part} {name!r} ({why})" for part, name, why in decoded.broken[:BROKEN_NAMED]]
    more = len(decoded.broken) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def _gaps(found: Found, decoded: Decoded, split: _Assigned) -> list[str]:
    """Notes on classes that a part lacks.

    Raises:
        NoLabels: fewer than two classes have training pictures.
    """
    if not found.classes:
        return []
    notes = []
    for part, (source, rows) in split.rows.items():
        counts = decoded.parts[source]["labels"][rows].bincount(minlength=len(found.classes)).tolist()
        lacking = [name for name, count in zip(found.classes, counts, strict=True) if not count]
        if part == "train" and len(found.classes) - len(lacking) < 2:
            raise NoLabels(
                f"{found.name}: fewer than two classes have training pictures that can be read", "repair or give more"
            )
        if lacking:
            notes.append(f"the {part} part has no pictures of {', '.join(map(repr, lacking[:BROKEN_NAMED]))}")
    return notes


def _mean_and_std(table: dict[str, Tensor], rows: Int64[Tensor, " n"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel over all pixels of these pictures, whole as they were decoded; a pixel is 0..1."""
    pixels = float((table["heights"][rows] * table["widths"][rows]).sum())
    mean = table["sums"][rows].sum(dim=0).double() / pixels
    variance = table["squares"][rows].sum(dim=0).double() / pixels - mean.square()
    std = variance.clamp(min=0).sqrt() / 255
    return tuple((mean / 255).tolist()), tuple(std.clamp(min=LEAST_STD).tolist())
