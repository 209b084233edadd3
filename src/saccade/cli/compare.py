"""The verb `compare`: the main job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def compare(
    *attentions: str,
    task: Literal["classify", "mae"] = "classify",
    then: Literal["probe", "finetune"] | None = None,
    probe: Literal["linear", "linear-bn", "knn"] | None = None,
    finetune_epochs: int | None = None,
    decoder_attention: str | None = None,
    data: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    seeds: int = 5,
    tune: int = 0,
    rates: Path | None = None,
    margin: float = 1.0,
    rivals: Annotated[bool, Parameter(negative="")] = False,
    rivals_of: str | None = None,
    scales: int = 1,
    scale_by: Literal["width", "tokens"] = "width",
    anyway: Annotated[bool, Parameter(negative="")] = False,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    on_bad_image: Literal["error", "skip"] | None = None,
    dtype: str | None = None,
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    jobs: int = 1,
    repeats: int = 7,
    clock: Literal["wall", "cpu"] = "wall",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare attention mechanisms: train the same model with each, measure each, and say which one to take.

    Example:
    `saccade compare softmax linear "nystrom(landmarks=16)" --data path/to/images --model vit_small_patch16_224`

    Each mechanism gets the same images in the same order, the same initial weights where it has them, and the same
    budget. What was finished is kept: the same command goes on where it stopped, and one with a further mechanism or
    more seeds adds only these. The folder then holds report.md, records.jsonl and a picture of accuracy against cost.

    With --task mae each mechanism pre-trains a masked autoencoder, without labels, and is judged by a probe of its
    encoder or by fine-tuning it; the loss of pre-training is shown, and ranks nothing:
    `saccade compare softmax linear --task mae --then finetune --data path/to/images`

    With --rivals it also trains what people would use instead of another attention, softmax models that take no longer
    because of larger patches, fewer layers, less width or merged tokens, and says whether a mechanism beats them; with
    --scales 2 it repeats everything in a larger model, and recommends only what holds in both.

    Parameters
    ----------
    attentions
        Mechanisms, as in `saccade attentions`, with options: "nystrom(landmarks=16)"; mixtures: `linear*8,softmax*4`;
        your own class: my.module:Mine or file.py:Mine. Softmax is always in. None means all that saccade brings.
    task
        classify, or mae: pre-train first, in encoder and decoder.
    then
        How a pre-trained encoder is judged: probe (it stays as it is) or finetune (all of it is trained with labels).
        Default: probe. Beside it stands what the same gives without pre-training.
    probe
        linear, linear-bn (behind a BatchNorm) or knn (a vote of the nearest training images). Default: linear.
    finetune_epochs
        Passes over the training images with labels. Default: those of the recipe of `saccade finetune`.
    decoder_attention
        The same in every decoder. Default: each mechanism is in its decoder, too.
    data
        digits (embedded), a folder of class folders, a parquet file or folder, owner/name on the hub, cifar10, ...
    model
        A name from `saccade models`. Default: the recipe's.
    recipe
        A name from `saccade recipes`, or a TOML file. Default: the one that fits data and model.
    set_
        Changes one field of the recipe: --set train.weight_decay=0.1
    seeds
        Runs of each mechanism, with seeds 0 .. N-1; an interval needs 3.
    tune
        Learning rates tried for each mechanism, half a decade apart around the recipe's, chosen on the validation part.
    rates
        A folder whose records.jsonl holds tuning runs of the same model, recipe and images: their rates are used.
    margin
        How many points of accuracy a mechanism may lose and still be "not worse"; fixed beforehand.
    rivals
        Compare softmax models of the cheapest mechanism's training step, too, as measured on this machine.
    rivals_of
        The mechanism that gives the rivals' cost, where it is not the cheapest; implies --rivals.
    scales
        2 repeats everything in a larger model, in the same folder.
    scale_by
        width (twice, heads as wide as before) or tokens (four times, by patches of half the side or larger images).
    anyway
        Go on where no mechanism could gain a tenth of the model's arithmetic.
    epochs
        Passes over the training images.
    lr
        Learning rate at the recipe's batch size; the middle of the grid with --tune.
    batch_size
        Images a step, in training and in the timings.
    img_size
        Height and width, or one number for both. Default: the model's.
    on_bad_image
        Whether a picture that cannot be read ends the command (error) or is left out and counted (skip).
    dtype
        Of the weights: fp32 or bf16.
    amp_dtype
        Of autocast: bf16.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of each process. Default: torch's own choice.
    jobs
        Training runs at a time. Times are always taken alone, afterwards.
    repeats
        Repeats of each timing; the rivals take turns.
    clock
        wall, or cpu (the process's own time, for noisy machines; marked).
    output
        Folder of the comparison. Default: runs/compare-DATA-MODEL-HASH, the hash standing for the question.
    json
        Print a line of JSON for each row, then one with the sentence and what the doctor found.
    """
    from saccade.cli.console import note, results
    from saccade.comparison import compare as run
    from saccade.comparison.then import Method
    from saccade.training.progress import shown
    from saccade.training.recipe import parse_settings

    methods: dict[str, Method] = {"linear": "linear", "linear-bn": "linear_bn", "knn": "knn"}
    with shown() as progress:
        comparison = run(
            attentions,
            task=task,
            then=then,
            probe=None if probe is None else methods[probe],
            finetune_epochs=finetune_epochs,
            decoder_attention=decoder_attention,
            data=data,
            model=model,
            recipe=recipe,
            settings=parse_settings(set_),
            seeds=seeds,
            tune=tune,
            rates=rates,
            margin=margin,
            rivals=rivals,
            rivals_of=rivals_of,
            scales=scales,
            scale_by=scale_by,
            anyway=anyway,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            img_size=img_size,
            on_bad_image=on_bad_image,
            dtype=dtype,
            amp_dtype=amp_dtype,
            device=device,
            threads=threads,
            jobs=jobs,
            repeats=repeats,
            clock=clock,
            output=output,
            progress=progress,
            command=shlex.join(["saccade", *sys.argv[1:]]),
        )
    if json:
        for line in comparison.json_lines():
            results().print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        for finding in comparison.later:
            note(str(finding))
        results().print(comparison.table())
        # Broken into lines for a reader only.
        results().print(comparison.sentence, markup=False, highlight=False, soft_wrap=not results().is_terminal)
        note(f"written: {comparison.folder / 'report.md'}")
    return comparison.exit_code
