"""Races saccade's augmentation in batches against torchvision's transforms of one image at a time, on equal terms.

    python benchmarks/input_pipeline.py

Both sides begin with the same 32 x 32 images as bytes in memory and end with normalised float batches; one thread,
processor time, rivals take turns in one process. Before any timing the same crops, resizings and mirror images are
shown to give the same pixels. torchvision runs twice: on PIL images, as its data sets give them (what the goals are
set against), and on tensors, which is faster. Run it on a quiet machine: about two minutes. Writes command,
records.jsonl and report.md to results/<date>-<machine>-input-pipeline/.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

# It makes torchvision importable beside any build of torch.
from peers import timm  # noqa: E402, F401

# isort: split
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402

from saccade.data.augment import Augment, augment  # noqa: E402
from saccade.data.batches import train_batches  # noqa: E402
from saccade.data.boxes import DRAWS, below, random_boxes  # noqa: E402
from saccade.data.dataset import Dataset, Split  # noqa: E402
from saccade.data.draws import uniform  # noqa: E402
from saccade.data.pictures import Pictures  # noqa: E402
from saccade.measurement.machine import machine_facts, pressure_avg10  # noqa: E402
from saccade.record import write_whole  # noqa: E402

SIDE, PADDING, SCALE, RATIO = 32, 4, (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
BICUBIC = v2.InterpolationMode.BICUBIC

ON_PICTURES = "torchvision on PIL images"
PIPELINES = {
    "crop and flip": (
        Augment(crop_padding=PADDING, flip=0.5),
        [v2.RandomCrop(SIDE, padding=PADDING), v2.RandomHorizontalFlip()],
    ),
    "resized crop and flip": (
        Augment(resized_crop=SCALE, resized_ratio=RATIO, flip=0.5),
        [v2.RandomResizedCrop(SIDE, SCALE, RATIO, BICUBIC, antialias=True), v2.RandomHorizontalFlip()],
    ),
}
# How many times faster than torchvision on PIL images.
GOALS = {"crop and flip": "20", "resized crop and flip": "6"}

Pass = Callable[[int], Tensor]
"""Makes all batches of an epoch and returns the last."""


def main() -> int:
    asked = arguments().parse_args()
    torch.set_num_threads(1)
    dataset = made(asked.images)
    check_crops(dataset)
    check_floats(dataset)
    check_resized_crops(dataset)
    records = [record for name in asked.pipelines for record in race(name, dataset, asked)]
    command = shlex.join(["python", *sys.argv])
    folder = asked.output or default_folder()
    write_whole(folder / "records.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_whole(folder / "command", command + "\n")
    write_whole(folder / "report.md", report(records, command))
    print(report(records, command))
    print(f"written: {folder}", file=sys.stderr)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=list(PIPELINES))
    parser.add_argument("--images", type=int, default=4096, help="images an epoch; a turn is an epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9, help="turns of each rival")
    parser.add_argument("--output", type=Path)
    return parser


def default_folder() -> Path:
    facts = machine_facts()
    machine = re.sub(r"[^a-z0-9]+", "-", f"{facts['processor']} {facts['cores']} cores".lower()).strip("-")
    return ROOT / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{machine}-input-pipeline"


def made(n: int) -> Dataset:
    """Images of noise: no rival's time depends on what is to be seen."""
    images = torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(Pictures.of(images), torch.arange(n) % 10)
    return Dataset(
        name="noise",
        classes=tuple("0123456789"),
        train=split,
        validation=split,
        test=split,
        img_size=(SIDE, SIDE),
        crop_pct=1.0,
        mean=MEAN,
        std=STD,
        fingerprint="noise",
        split_rule="none",
    )


def check_crops(dataset: Dataset) -> None:
    """The crops and mirror images that saccade draws, made by torchvision's functions, are the same bits."""
    index = torch.arange(200)
    ours, _ = augment(dataset, index, PIPELINES["crop and flip"][0], seed=0, epoch=0)
    corners = below(uniform(0, 0, index, "crop", 2), torch.tensor([2 * PADDING + 1] * 2)).tolist()
    turned = (uniform(0, 0, index, "flip", 1)[:, 0] < 0.5).tolist()
    for place, ((top, left), turn) in enumerate(zip(corners, turned, strict=True)):
        theirs = functional.crop(functional.pad(dataset.train.images[place], [PADDING]), top, left, SIDE, SIDE)
        theirs = functional.horizontal_flip(theirs) if turn else theirs
        insist(torch.equal(ours[place], theirs), f"the crop of image {place}")


def check_floats(dataset: Dataset) -> None:
    """Bytes become the same floats."""
    batch = next(train_batches(dataset, 200, seed=0, epoch=0, augment=Augment()))
    theirs = functional.to_dtype(dataset.train.images.centre(batch.index, (SIDE, SIDE)), scale=True)
    theirs = functional.normalize(theirs, list(MEAN), list(STD))
    insist(torch.allclose(batch.images, theirs, atol=1e-5), "normalised floats")


def check_resized_crops(dataset: Dataset) -> None:
    """The boxes that saccade draws, resized by torchvision's function, are the same bits."""
    index = torch.arange(200)
    options = PIPELINES["resized crop and flip"][0]
    ours, _ = augment(dataset, index, options, seed=0, epoch=0)
    sides = torch.full((200,), SIDE)
    boxes, found = random_boxes(uniform(0, 0, index, "resized crop", DRAWS), sides, sides, SCALE, RATIO)
    turned = uniform(0, 0, index, "flip", 1)[:, 0] < 0.5
    for place in found.nonzero()[:, 0].tolist():
        box = [int(side[place]) for side in boxes]
        theirs = functional.resized_crop(dataset.train.images[place], *box, [SIDE, SIDE], BICUBIC, antialias=True)
        theirs = functional.horizontal_flip(theirs) if turned[place] else theirs
        insist(torch.equal(ours[place], theirs), f"the resized crop of image {place}")


def insist(same: bool, what: str) -> None:
    if not same:
        raise SystemExit(f"{what} differ: the two do not do the same, and are not timed")


def rivals(name: str, dataset: Dataset, batch_size: int) -> dict[str, Pass]:
    """Each makes all full batches of one epoch."""
    options, transforms = PIPELINES[name]

    def saccade(epoch: int) -> Tensor:
        for batch in train_batches(dataset, batch_size, seed=0, epoch=epoch, augment=options):
            last = batch
        return last.images

    arrays = [dataset.train.images[i].permute(1, 2, 0).contiguous().numpy() for i in range(len(dataset.train))]
    to_floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    on_pictures = OneByOne(arrays, Image.fromarray, v2.Compose([*transforms, v2.ToImage(), *to_floats]))
    tensors = [dataset.train.images[i] for i in range(len(dataset.train))]
    on_tensors = OneByOne(tensors, lambda one: one, v2.Compose([*transforms, *to_floats]))
    return {
        "saccade": saccade,
        ON_PICTURES: loader(on_pictures, batch_size),
        "torchvision on tensors": loader(on_tensors, batch_size),
    }


class OneByOne(torch.utils.data.Dataset):
    """A map-style data set as torchvision's are: an image at a time is opened and transformed."""

    def __init__(self, images: list, opened: Callable, transform: Callable) -> None:
        self.images, self.opened, self.transform = images, opened, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.opened(self.images[i])), i % 10


def loader(images: OneByOne, batch_size: int) -> Pass:
    batches = DataLoader(images, batch_size=batch_size, shuffle=True, drop_last=True)

    def run(epoch: int) -> Tensor:
        torch.manual_seed(epoch)
        for floats, _ in batches:
            last = floats
        return last

    return run


def race(name: str, dataset: Dataset, asked: argparse.Namespace) -> list[dict]:
    """One record for each rival: images a second of every turn."""
    print(name, file=sys.stderr)
    machine, runs = machine_facts(), rivals(name, dataset, asked.batch_size)
    speeds: dict[str, list[float]] = {rival: [] for rival in runs}
    pressure = []
    count = len(dataset.train) // asked.batch_size * asked.batch_size
    for turn in range(asked.repeats + 1):
        pressure.append(pressure_avg10())
        for rival, run in runs.items():
            began = time.process_time()
            images = run(turn)
            seconds = time.process_time() - began
            insist(images.shape == (asked.batch_size, 3, SIDE, SIDE), f"{rival}'s batches")
            # The first turn warms up.
            if turn:
                speeds[rival].append(count / seconds)
    conditions = {
        "batch_size": asked.batch_size,
        "images": len(dataset.train),
        "image": [3, SIDE, SIDE],
        "threads": 1,
        "clock": "cpu",
        "augment": asdict(PIPELINES[name][0]),
        "pressure_avg10": pressure,
        "torchvision": version("torchvision"),
        "pillow": version("pillow"),
    }
    return [
        {"kind": "input pipeline", "pipeline": name, "rival": rival, "images_per_second": speed}
        | {"conditions": conditions, "machine": machine, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        for rival, speed in speeds.items()
    ]


def report(records: list[dict], command: str) -> str:
    machine = records[0]["machine"]
    lines = [
        "# Input pipeline: batches against one image at a time",
        "",
        f"`{command}` on {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}; one thread, "
        f"processor time, batches of {records[0]['conditions']['batch_size']} float images of 3 x {SIDE} x {SIDE}. "
        "Both sides gave the same pixels for the same crops.",
        "",
        "| pipeline | rival | images a second (median, lowest, highest) | saccade is faster by | goal |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(record["pipeline"] for record in records):
        speeds = {record["rival"]: record["images_per_second"] for record in records if record["pipeline"] == name}
        for rival, speed in speeds.items():
            ratios = [ours / theirs for ours, theirs in zip(speeds["saccade"], speed, strict=True)]
            ratio = "" if rival == "saccade" else f"{median(ratios):.1f} ({min(ratios):.1f}..{max(ratios):.1f})"
            shown = f"{median(speed):,.0f} ({min(speed):,.0f}..{max(speed):,.0f})"
            goal = GOALS[name] if rival == ON_PICTURES else ""
            lines.append(f"| {name} | {rival} | {shown} | {ratio} | {goal} |")
    busiest = max(
        (one for record in records for one in record["conditions"]["pressure_avg10"] if one is not None), default=0
    )
    if busiest > 5:
        lines += ["", f"**The machine was busy** (pressure {busiest:.0f} %): ratios are rough."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
