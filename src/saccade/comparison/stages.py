"""Stages: the training runs of a cell, each in a folder of its own, and how what they trained is judged."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from saccade.comparison.then import Then
from saccade.data.dataset import Dataset
from saccade.errors import Busy, Diverged, Failed
from saccade.models.mae import MaskedAutoencoder
from saccade.record import write_whole
from saccade.training.device import choose_device, same_bits
from saccade.training.finetuning import finetuning_recipe
from saccade.training.loop import Trained, train
from saccade.training.probe import probe, random_start
from saccade.training.recipe import Recipe, with_values
from saccade.training.recipes import own_classes
from saccade.training.run import RECIPE
from saccade.training.setup import load_images, plan_model


@dataclass(frozen=True)
class Stages:
    """One cell's runs.

    Attributes:
        recipe: of the first one.
        folder: of the cell.
        device: as torch writes it.
        threads: of torch.
        test: whether the test part is read at the end, or nothing of it.
    """

    recipe: Recipe
    folder: Path
    device: str
    threads: int
    test: bool

    @cached_property
    def dataset(self) -> Dataset:
        """The images of all of them."""
        return load_images(self.recipe, plan_model(self.recipe).img_size, print)

    def run(self, name: str, recipe: Recipe) -> Trained:
        """One run, from the end of the last whole epoch that a kill has left of it; anew where nothing goes on.

        Raises:
            Busy: another process is at work on it; what it has done stays.
            Diverged: a loss or gradient is not finite.
        """
        folder = self.folder / name
        asked: dict[str, Any] = {"device": self.device, "threads": self.threads, "data": self.dataset}
        if (folder / RECIPE).is_file():
            try:
                return train(recipe, output=folder, test=self.test, resume=True, **asked)
            except Busy:
                raise
            except (ValueError, Failed) as error:
                print(f"{folder} cannot be gone on with and is begun anew: {error}")
        shutil.rmtree(folder, ignore_errors=True)
        return train(recipe, output=folder, test=self.test, **asked)

    def result(self, then: Then | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything that a record holds of the cell, and the facts of its images.

        Raises:
            Diverged: one of the runs has a loss or gradient that is not finite.
        """
        first = self.run("run", self.recipe)
        # A worker's peak is that of all it has trained; `kind` "memory" tells a mechanism's own.
        values = {key: value for key, value in first.result.items() if key != "peak_bytes"}
        if then is not None:
            values |= self._probed(first, then) if then.recipe is None else self._finetuned(first, then.recipe)
        return values, first.data_facts

    def _probed(self, first: Trained, then: Then) -> dict[str, Any]:
        """The frozen encoder judged, and beside it, for the test part, one that has not learned anything."""
        assert isinstance(first.model, MaskedAutoencoder)
        # Where nothing of the test part may be seen, the validation part stands in for it.
        dataset = self.dataset if self.test else replace(self.dataset, test=self.dataset.validation)
        told: dict[str, Any] = {"method": then.method, "amp_dtype": self.recipe.train.amp_dtype}
        with same_bits(choose_device(self.device), self.threads):
            began = time.perf_counter()
            found = probe(first.model, dataset, **told)
            seconds = time.perf_counter() - began
            random = probe(random_start(first.model, self.recipe.train.seed), dataset, **told) if self.test else {}
        probes = {"pre-trained": found} | ({"random": random} if self.test else {})
        write_whole(self.folder / "probe.json", json.dumps(probes, indent=2) + "\n")
        return self._judged(found, seconds, "random", random) | {"probe_settings": found["settings"]}

    def _finetuned(self, first: Trained, recipe: Recipe) -> dict[str, Any]:
        """The encoder trained with labels, and beside it the same model from the start."""
        recipe = finetuning_recipe(
            self.folder / "run",
            recipe=with_values(recipe, {f"data.{name}": value for name, value in vars(self.recipe.data).items()}),
            flags={"seed": self.recipe.train.seed},
            trust_class=own_classes(self.recipe),
        )
        try:
            tuned = self.run("finetune", recipe).result
            scratch = self.run("scratch", _from_scratch(recipe)).result if self.test else {}
        except Diverged as diverged:
            raise Diverged(f"in fine-tuning, {diverged}") from diverged
        judged = self._judged(tuned, tuned["train_seconds"], "scratch", scratch)
        return judged | {"then_images_seen": tuned["images_seen"]}

    def _judged(
        self, found: Mapping[str, Any], seconds: float, reference: str, other: Mapping[str, Any]
    ) -> dict[str, Any]:
        values = {"validation_top1_percent": found["validation_top1_percent"], "then_seconds": seconds}
        if self.test:
            values |= {name: found[name] for name in ("test_top1_percent", "test_correct", "test_images")}
            values[f"{reference}_test_top1_percent"] = other["test_top1_percent"]
        return values


def _from_scratch(recipe: Recipe) -> Recipe:
    """The recipe without its checkpoint."""
    return with_values(
        recipe, {"model.checkpoint": None, "model.checkpoint_sha256": None, "model.convert_channels": False}
    )
