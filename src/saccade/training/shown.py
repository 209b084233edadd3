"""Masked autoencoders on disk, and what each makes of the same pictures with the same patches hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from saccade.data.draws import permutation
from saccade.data.loose import load_pictures
from saccade.models.mae import MaskedAutoencoder
from saccade.training.device import choose_device, same_bits
from saccade.training.opened import check_facts, open_model, prepared, says_itself
from saccade.training.reconstructed import Normalisation, Reconstructed, check_alike, reconstruct, with_mask_ratio

COUNT = 8
"""Pictures of a data set, where nobody says how many."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures and what each model makes of them.

    Attributes:
        names: of the pictures.
        images: the pictures, as the models see them.
        mask_ratio: share of the patches that is hidden.
        models: what each is called, and what it makes of the pictures.
    """

    names: list[str]
    images: UInt8[Tensor, "n c y x"]
    mask_ratio: float
    models: dict[str, Reconstructed]


def reconstruct_saved(
    sources: Sequence[Path],
    pictures: Sequence[Path] = (),
    *,
    data: str | None = None,
    count: int | None = None,
    mask_ratio: float | None = None,
    norm_pix_loss: bool = False,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    trust_class: Collection[str] = (),
    note: Callable[[str], None],
) -> Shown:
    """Shows pre-trained models the same pictures.

    Args:
        sources: as `open_model` takes them.
        pictures: files; none takes pictures of a data set's validation part.
        data: name or path of that data set; None takes what the first model was trained on.
        count: so many of them, drawn by the seed; None takes `COUNT`.
        mask_ratio: share of the patches to hide; None takes the models' own.
        norm_pix_loss: whether files of others' predict normalised pixels.
        seed: of the masks and of the pictures drawn.
        device: as `choose_device` takes it.
        threads: of torch; None leaves its own choice.
        trust_class: classes outside saccade's table that a folder may name as its attention; their code runs.
        note: is told what is being done.

    Raises:
        ValueError: no masked autoencoder there, models that cannot be shown the same, no such pictures, or an option
            that means nothing to these.
    """
    if pictures and data is not None:
        raise ValueError(f"--data {data} beside picture files: give one or the other")
    if pictures and count is not None:
        raise ValueError(f"--count {count} beside picture files, which are all shown: leave --count out")
    if count is not None and count < 1:
        raise ValueError(f"--count {count}: must be at least 1")
    if twice := [str(one) for one, times in Counter(sources).items() if times > 1]:
        raise ValueError(f"{', '.join(twice)}: given more than once, for columns that would be alike: give each once")
    if norm_pix_loss and all(says_itself(source) for source in sources):
        raise ValueError(
            "--norm-pix-loss: is said of checkpoint files of others, and a folder of saccade says it itself: leave it "
            "out"
        )
    place = choose_device(device)
    opened = [_masked_autoencoder(source, trust_class, norm_pix_loss, note) for source in sources]
    if mask_ratio is not None:
        opened = [(with_mask_ratio(model, mask_ratio), facts) for model, facts in opened]
    models = [model for model, _ in opened]
    check_alike(models, [str(source) for source in sources])
    names, images, own = _pictures(
        *opened[0], sources[0], pictures, data, COUNT if count is None else count, seed, note
    )
    made = {}
    with same_bits(place, threads):
        for label, source, (model, facts) in zip(labels(models, sources), sources, opened, strict=True):
            check_facts(facts, source)
            normalisation = own if facts["mean"] is None else Normalisation(tuple(facts["mean"]), tuple(facts["std"]))
            if normalisation is None:
                raise ValueError(
                    f"{source} does not say its images' mean and deviation: give --data, which has its own"
                )
            made[label] = reconstruct(model.to(place), images, normalisation, seed=seed)
    return Shown(names, images, models[0].config["mask_ratio"], made)


def labels(models: Sequence[MaskedAutoencoder], sources: Sequence[Path]) -> list[str]:
    """What tells the models apart: their attention, with the decoder's where it is another; else where they lie."""
    said = [
        model.attention
        if model.decoder_attention == model.attention
        else f"{model.attention}/{model.decoder_attention}"
        for model in models
    ]
    if len(set(said)) == len(said):
        return said
    return [f"{one} ({source})" for one, source in zip(said, sources, strict=True)]


def _masked_autoencoder(
    source: Path, trust_class: Collection[str], norm_pix_loss: bool, note: Callable[[str], None]
) -> tuple[MaskedAutoencoder, dict[str, Any]]:
    model, facts = open_model(source, trust_class, norm_pix_loss=norm_pix_loss, note=note)
    if not isinstance(model, MaskedAutoencoder):
        raise ValueError(
            f"{source} holds no masked autoencoder with its decoder, and nothing else reconstructs: give the folder of "
            "a run of `saccade pretrain`, or a full checkpoint of facebookresearch/mae or transformers"
        )
    if model.in_chans not in (1, 3):
        raise ValueError(f"{source} takes images of {model.in_chans} channels, and a picture shows 1 or 3")
    return model, facts


def _pictures(
    model: MaskedAutoencoder,
    facts: dict[str, Any],
    source: Path,
    pictures: Sequence[Path],
    data: str | None,
    count: int,
    seed: int,
    note: Callable[[str], None],
) -> tuple[list[str], UInt8[Tensor, "n c y x"], Normalisation | None]:
    """The pictures with their names, and the normalisation of the data they are of."""
    check_facts(facts, source)
    if pictures:
        images = load_pictures(pictures, model.img_size, model.in_chans, facts["crop_pct"])
        return [path.name for path in pictures], images, None
    dataset = prepared(model, facts, source, data, note, labelled=False)
    drawn = permutation(seed, 0, len(dataset.validation))[:count]
    said = [
        dataset.classes[label] if dataset.classes else "validation"
        for label in dataset.validation.labels[drawn].tolist()
    ]
    names = [f"{one} ({number})" for one, number in zip(said, drawn.tolist(), strict=True)]
    images = dataset.validation.images.centre(drawn, dataset.img_size)
    return names, images, Normalisation(dataset.mean, dataset.std)
