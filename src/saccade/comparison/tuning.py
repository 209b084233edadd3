"""Tuning: every mechanism gets the same grid of learning rates, and its rate is chosen on the validation part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from saccade.record import Record, read_records
from saccade.reports.contenders import by_scale, name_of
from saccade.training.recipe import recipe_from_dict, recipe_to_dict

# Fresh: no seed that a comparison's accuracy rests on.
TUNING_SEED = 1_000_000

# An optimum still at the edge after so many more rates is left there, and the doctor says so.
MOST_EXTENSIONS = 3


def rate_grid(rate: float, count: int) -> tuple[float, ...]:
    """`count` rates, half a decade apart, around `rate`; with an even count the extra one lies below.

    Raises:
        ValueError: fewer than 1 rate.
    """
    if count < 1:
        raise ValueError(f"--tune {count}: tuning needs 1 rate at the least, and 0 turns it off")
    return tuple(_half_decades(rate, step) for step in range(-(count // 2), count - count // 2))


def widened(grid: Sequence[float], chosen: Iterable[float]) -> tuple[float, ...]:
    """The grid with one more rate beyond each end that is somebody's optimum: the same for all mechanisms."""
    chosen = set(chosen)
    below = [_half_decades(grid[0], -1)] if grid[0] in chosen else []
    above = [_half_decades(grid[-1], 1)] if grid[-1] in chosen else []
    return (*below, *grid, *above)


def best_rate(records: Iterable[Record]) -> float | None:
    """The rate with the best validation accuracy, the lower of equals; None where no run finished."""
    finished = [
        (-float(record.values["validation_top1_percent"]), float(record.recipe["train"]["lr"]))
        for record in records
        if record.kind == "tuning" and record.error is None and record.recipe is not None
    ]
    return min(finished)[1] if finished else None


def read_rates(folder: Path, like: Record, wanted: Sequence[str]) -> list[Record]:
    """The tuning records of another comparison's folder, which must have tuned the same model on the same images.

    Args:
        folder: holds a records.jsonl.
        like: any record of this comparison's training, at the same scale.
        wanted: the mechanisms, by `attention_resolved`, and rivals by name; records of others are left out.

    Raises:
        ValueError: no such records, or of another model, data or recipe, or none of a mechanism.
    """
    path = folder / "records.jsonl"
    if not path.is_file():
        raise ValueError(f"--rates {folder}: there is no records.jsonl in it; give the folder of a tuned comparison")
    scale = like.conditions.get("scale", "")
    records = [record for record in by_scale(read_records(path)).get(scale, []) if record.kind == "tuning"]
    if not records:
        where, again = (f" at {scale}", " --scales 2") if scale else ("", "")
        raise ValueError(
            f"--rates {folder}: it holds no tuning records{where}; make some with `saccade compare --tune 5{again}`"
        )
    for record in records:
        if difference := _difference(record, like):
            raise ValueError(f"--rates {folder}: its rates do not hold here: {difference}; tune with --tune 5")
    for name in wanted:
        if best_rate([record for record in records if name_of(record) == name]) is None:
            raise ValueError(f"--rates {folder}: no run of {name} was tuned there; tune all alike with --tune 5")
    return [record for record in records if name_of(record) in wanted]


def _difference(tuned: Record, like: Record) -> str | None:
    """What keeps a rate tuned there from holding here, in words."""
    theirs, ours = _question(tuned), _question(like)
    if tuned.conditions.get("rival"):
        # Another model is what makes it one; its name says which.
        del ours["model's options"]
    for key in ours:
        if theirs.get(key) != ours[key]:
            return f"{key} was {theirs.get(key)} there and is {ours[key]} here"
    return None


def _question(record: Record) -> dict[str, object]:
    # What a recipe could not say when it was written had the default of today.
    recipe = recipe_to_dict(recipe_from_dict(record.recipe or {}))
    train = {key: value for key, value in recipe["train"].items() if key not in ("lr", "seed", "logging_step")}
    return {
        "model": record.model,
        "model's options": dict(record.model_options),
        "the images": (record.data or {}).get("fingerprint"),
        "augmentation": recipe["augment"],
        "training": train,
        "what follows on pre-training": record.conditions.get("then"),
    }


def _half_decades(rate: float, steps: int) -> float:
    """`rate` times 10^(steps / 2), to three digits: 1e-3, 3.16e-3, 1e-2."""
    return float(f"{rate * 10 ** (steps / 2):.3g}")
