"""Where data comes from: `load_data` finds it by name or path, decodes it once, and splits it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

from saccade.data.assembly import assemble
from saccade.data.cache import cache_folder, decoded_once
from saccade.data.cifar_binary import cifar_folder, find_cifar
from saccade.data.dataset import Dataset
from saccade.data.decode import Header, Unreadable, read_header
from saccade.data.digits import find_digits
from saccade.data.download import LAYOUTS, downloaded
from saccade.data.folder import find_folder
from saccade.data.found import Found, NoLabels
from saccade.data.hub import find_on_hub, is_hub_name
from saccade.data.idx import find_idx, idx_folder
from saccade.data.parquet import find_parquet, holds_parquet
from saccade.data.published import FASHION_CLASSES, PUBLISHED

MEMORY_BYTES = 4 * 2**30
PHOTO_SIDE = 224
ALIKE = 100


def load_data(
    name: str | Path,
    *,
    img_size: int | tuple[int, int],
    crop_pct: float = 1.0,
    in_chans: int | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    limit: int | None = None,
    labelled: bool = True,
    memory_bytes: int = MEMORY_BYTES,
    note: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Pictures by name or path, ready for training.

    Each picture is decoded once, to the smallest size that covers img_size / crop_pct with its sides in proportion, and
    kept as uint8 in the cache folder. A test or validation part that is missing is made of training pictures, by a hash
    of their names.

    Args:
        name: one of digits, cifar10, cifar100, mnist, fashion_mnist; a path; or "owner/name" (see `listing`).
        img_size: height and width that the model sees; one number for both.
        crop_pct: share of the shorter side that evaluation's middle crop covers.
        in_chans: 1 or 3 channels; None: 1 where every picture is grey, else 3.
        on_bad_image: what to do about pictures that cannot be read: refuse the data set, or leave them out and say so.
        limit: so many training pictures, the first by a hash of their names.
        labelled: whether there must be classes to learn. Without, pictures that lack them are taken, too: a folder with
            loose pictures or one class only, or a table without a column of classes; `classes` is then empty, and every
            label 0. Pictures that have classes keep them, and their parts.
        memory_bytes: pixels beyond this are mapped from the cache's file instead of held in memory.
        note: is told at once what takes long; what matters for results is in the data set's `notes` too.

    Raises:
        NoLabels: pictures without classes, where there must be some.
        ValueError: no such data, or data that cannot be trained on; the message says what to do.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    _check(size, crop_pct, in_chans, on_bad_image)

    def load(found: Found) -> Dataset:
        decoded = decoded_once(found, size, crop_pct, in_chans, memory_bytes, note)
        return assemble(found, decoded, img_size=size, crop_pct=crop_pct, on_bad_image=on_bad_image, limit=limit)

    try:
        dataset = load(find(str(name)))
    except NoLabels as missing:
        if labelled:
            raise
        found = find(str(name), labelled=False)
        dataset = load(replace(found, notes=(f"{missing.lack}: the pictures are taken without classes", *found.notes)))
    for one in dataset.notes:
        note(one)
    return dataset


def find(name: str, *, labelled: bool = True) -> Found:
    """What lies under a name or a path, not yet decoded.

    Args:
        name: as `load_data` takes it.
        labelled: whether there must be classes; without, folders and tables are taken as pictures and nothing else.

    Raises:
        NoLabels: pictures without classes, where there must be some.
        ValueError: nothing, or nothing that is understood.
    """
    if name == "digits":
        return find_digits()
    if name in PUBLISHED:
        return replace(_published(name), attribution=PUBLISHED[name].attribution)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _in_folder(path, name, labelled)
    if path.suffix == ".parquet" and path.is_file():
        return find_parquet(path, name, labelled=labelled)
    if name and path.exists():
        raise ValueError(
            f"{name}: a single file must be parquet; archives are to be unpacked, and pickles are never read"
        )
    # Beside a folder that is there, a name that is not is a slip, and nobody else's business.
    if is_hub_name(name) and not path.parent.is_dir():
        return find_on_hub(name, labelled=labelled)
    raise ValueError(
        f"{name}: there is no such data: give digits, {', '.join(PUBLISHED)}, the path of a folder or a parquet file, "
        "or a name of the Hugging Face hub as owner/name"
    )


def own_size(name: str) -> tuple[int, int]:
    """Height and width of the first training pictures if they are alike and at most 224 pixels, else 224 x 224."""
    sizes = {(head.height, head.width) for head in _first_headers(find(name))}
    side = sizes.pop() if len(sizes) == 1 else (PHOTO_SIDE, PHOTO_SIDE)
    return side if max(side) <= PHOTO_SIDE else (PHOTO_SIDE, PHOTO_SIDE)


def in_colour(name: str) -> bool:
    """Whether any of the first training pictures has colours, which a model of one channel does not see."""
    return not all(head.grey for head in _first_headers(find(name, labelled=False)))


def _first_headers(found: Found) -> Iterator[Header]:
    """Those that can be read of the first training pictures."""
    for picture in islice(found.parts["train"].read(), ALIKE):
        with suppress(Unreadable):
            yield read_header(picture)


def _published(name: str) -> Found:
    folder = downloaded(name, cache_folder() / "downloads")
    if layout := LAYOUTS.get(name):
        return find_cifar(layout, folder, name)
    return find_idx(folder, name, FASHION_CLASSES if name == "fashion_mnist" else None)


def _in_folder(path: Path, name: str, labelled: bool) -> Found:
    if cifar := cifar_folder(path):
        return find_cifar(*cifar, name)
    if folder := idx_folder(path):
        return find_idx(folder, name)
    if holds_parquet(path):
        return find_parquet(path, name, labelled=labelled)
    return find_folder(path, name, labelled=labelled)


def _check(size: tuple[int, int], crop_pct: float, in_chans: int | None, on_bad_image: str) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"img_size={size}: give a height and a width of at least 1 pixel")
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct={crop_pct}: must be above 0 and at most 1")
    if in_chans not in (None, 1, 3):
        raise ValueError(f"in_chans={in_chans}: pictures have 1 channel or 3")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f'on_bad_image={on_bad_image!r}: must be "error" or "skip"')
