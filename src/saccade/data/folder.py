"""A folder of pictures, in class folders or without, with or without train, val and test above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from saccade.data.found import PART_OF, Found, NoLabels, Part, Picture, file_state

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")


def find_folder(path: Path, name: str, *, labelled: bool = True) -> Found:
    """The pictures at any depth; a picture's class is the folder right below its part.

    Hidden files are passed over; files without a picture's ending are counted in a note.

    Args:
        path: the folder.
        name: as the user wrote it.
        labelled: whether there must be classes; without, all pictures of a part are alike, wherever they lie in it.

    Raises:
        NoLabels: one class only, a class without pictures, parts whose classes differ, or pictures in no class folder.
        ValueError: no pictures, or folders that can be read in two ways.
    """
    folders = _subfolders(path)
    roots = _part_folders(path, folders) or {"train": path}
    if "train" not in roots:
        raise ValueError(f"{name}: there is no train folder beside {', '.join(root.name for root in roots.values())}")
    if labelled:
        classes = tuple(child.name for child in _subfolders(roots["train"]))
        found = {part: _pictures_of(root, classes, name) for part, root in roots.items()}
        _refuse_bare_classes(found["train"], name)
    else:
        _refuse_loose_beside_parts(path, list(roots.values()), name)
        classes = ()
        found = {part: {"": sorted(filter(_is_picture, _files(root)))} for part, root in roots.items()}
    others = sum(not _is_picture(file) for root in roots.values() for file in _files(root))
    note = (f"{others} files without a picture's ending ({', '.join(ENDINGS)}) were passed over",) if others else ()
    files = [file for by_class in found.values() for pictures in by_class.values() for file in pictures]
    if not files:
        raise ValueError(
            f"{name}: no pictures in it: put them into one folder a class, as in {path.name}/cat/1.jpg "
            f"(endings {', '.join(ENDINGS)})"
        )
    return Found(
        name=name,
        classes=classes,
        parts={part: _part(roots[part], by_class, classes) for part, by_class in found.items()},
        state=["folder", file_state(files)],
        split_rule=f"folders {', '.join(sorted(root.name for root in roots.values()))}" if len(roots) > 1 else "",
        notes=note,
    )


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _part_folders(path: Path, folders: list[Path]) -> dict[str, Path] | None:
    """The folders of the parts, if `path` holds parts and not classes.

    A part holds folders and a class pictures; but where all are named as parts, the training part among them, their
    pictures lie in no class folders.
    """
    named = [child for child in folders if child.name.lower() in PART_OF]
    parted = named == folders and "train" in {PART_OF[child.name.lower()] for child in named}
    if not parted and not any(_subfolders(child) and not _loose(child) for child in named):
        return None
    if others := [child.name for child in folders if child not in named]:
        raise ValueError(
            f"{path}: beside {', '.join(child.name for child in named)} lies {', '.join(others)}: "
            f"only folders named {', '.join(PART_OF)} may lie there"
        )
    roots: dict[str, Path] = {}
    for child in named:
        part = PART_OF[child.name.lower()]
        if part in roots:
            raise ValueError(f"{path}: {roots[part].name} and {child.name} are both the {part} part; keep one")
        roots[part] = child
    return roots


def _pictures_of(root: Path, classes: tuple[str, ...], name: str) -> dict[str, list[Path]]:
    """The picture files of each class below a part's folder."""
    by_class = {child.name: sorted(filter(_is_picture, _files(child))) for child in _subfolders(root)}
    if loose := _loose(root):
        raise NoLabels(f"{name}: {loose.name!r} lies in no class folder", "put every picture into one, move it away")
    if strangers := sorted(child for child, files in by_class.items() if files and child not in classes):
        raise NoLabels(
            f"{name}: {root.name} has the class {strangers[0]!r}, which the training part has not",
            "add it there, take it away",
        )
    return by_class


def _refuse_loose_beside_parts(path: Path, roots: list[Path], name: str) -> None:
    if path not in roots and (loose := _loose(path)):
        raise ValueError(
            f"{name}: beside {', '.join(root.name for root in roots)} lies {loose.name!r}, which belongs to no part: "
            "put it into one, or move it away"
        )


def _refuse_bare_classes(train: dict[str, list[Path]], name: str) -> None:
    bare = [child for child, files in train.items() if not files]
    if bare and len(bare) < len(train):
        raise NoLabels(f"{name}: no pictures in the class folder {bare[0]!r}", "fill it, take it away")


def _part(root: Path, by_class: dict[str, list[Path]], classes: tuple[str, ...]) -> Part:
    number = {one: place for place, one in enumerate(classes or by_class)}
    files = [(file, number[one]) for one, pictures in by_class.items() for file in pictures]

    def read() -> Iterator[Picture]:
        return (file for file, _ in files)

    return Part([file.relative_to(root).as_posix() for file, _ in files], [label for _, label in files], read)


def _loose(path: Path) -> Path | None:
    """The first picture right in a folder."""
    return next(filter(_is_picture, sorted(path.iterdir())), None)


def _files(path: Path) -> Iterator[Path]:
    """Every file below, through links to folders too, each folder once."""
    seen = set()
    for folder, children, names in os.walk(path, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            children.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        children[:] = sorted(child for child in children if not child.startswith("."))
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")
