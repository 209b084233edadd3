"""Original 001: a masked autoencoder with lambda layers against softmax, on images of one channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, ClassVar

import torch

from saccade.attention.elsewhere import kernels_of
from saccade.attention.lambda_layer import Lambda
from saccade.attention.tokens import Tokens
from saccade.measurement.largest_batch.batch import max_batch
from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.seconds import time_rivals
from saccade.measurement.subject import Subject, subject_of
from saccade.models.sizes import create_model
from saccade.originals.claimed import Claimed
from saccade.originals.original import Asked, Beside, Fault, Original, Part, counts, shallower
from saccade.originals.strip_lambda import StripLambda, taps_with_data
from saccade.record import Record
from saccade.reports.batches import ok_line
from saccade.reports.torchinfo_form import torchinfo_lines
from saccade.training.progress import Progress

MODEL = "mae_base_patch16_224"
ENCODER: Mapping[str, Any] = {"in_chans": 1, "embed_dim": 128, "depth": 12, "num_heads": 8, "decoder_depth": 8}
WIDE, NARROW = ({"decoder_embed_dim": width, "decoder_num_heads": heads} for width, heads in ((512, 16), (128, 8)))

# The decoder of its table of layers, and of its largest patches.
PARAMETERS = {
    (8, "softmax"): 27_706_816,
    (8, "lambda"): 20_038_848,
    (16, "softmax"): 4_048_384,
    (16, "lambda"): 3_172_224,
}
# Of the wide decoder's models, layer by layer.
SHARED = {
    "patch_embed": 8_320,
    "blocks.0.mlp": 131_712,
    "decoder_blocks.0.mlp": 2_099_712,
    "decoder_embed": 66_048,
    "decoder_pred": 32_832,
}
LAYERS = {
    "softmax": {"blocks.0.attn": 66_048, "decoder_blocks.0.attn": 1_050_624, **SHARED},
    "lambda": {"blocks.0.attn": 22_240, "decoder_blocks.0.attn": 157_840},
}

EXPLICIT, LINEAR = 'softmax(kernel="explicit")', 'lambda(position="none")'

# Softmax by both kernels, so that lambda is held against the better one.
TIMED = (EXPLICIT, "softmax", "lambda", LINEAR)

# Of a trial on this machine.
TRIED_MEMORY = "700MB"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One bisection of the original: every trial that it printed.

    Attributes:
        name: the original's word for the attention.
        attention: saccade's.
        tried: the batch sizes in their order.
        largest: the last that was OK.
    """

    name: str
    attention: str
    tried: tuple[int, ...]
    largest: int


SEARCHED = (
    Searched(name="linear", attention=LINEAR, tried=(512, 256, 128, 64, 96, 80, 88, 84, 86, 87), largest=87),
    Searched(name="attn", attention=EXPLICIT, tried=(512, 256, 128, 64, 32, 16, 24, 20, 22, 23), largest=23),
    Searched(name="lambda", attention="lambda", tried=(512, 256, 128, 64, 32, 48, 56, 52, 50, 49), largest=49),
)

# Patch, batch, attention: GB, at a decoder of width 128 and 8 heads.
GIGABYTES = {
    (8, 10, EXPLICIT): 10.5,
    (8, 10, "lambda"): 4.5,
    (4, 1, EXPLICIT): 13.6,
    (4, 1, "lambda"): 3.8,
    (4, 10, "lambda"): 8.0,
}

MINUTES = {EXPLICIT: 8, "lambda": 5}


class MaeLambda(Original):
    """Lambda layers and softmax: parameters, bytes, the largest batch."""

    id = "001"
    was = (
        "A masked autoencoder on 224 x 224 pixels of one channel, encoder 12 blocks of width 128, decoder 8 blocks of "
        "width 512 or 128, with lambda layers (k = 16, a 9 x 9 convolution for positions, BatchNorm) or without their "
        'position part (its "linear") against softmax: parameters, minutes, GB, and by bisection the largest batch.'
    )
    hardware = "a GPU that is not named"
    usual: ClassVar[Mapping[str, Any]] = {"scale": 4, "batch_size": 2, "repeats": 5, "gpu": "rtx-3090"}
    faults = (
        Fault(
            "The 9 x 9 kernel slid over a 1 x L strip of tokens: 9 of its 81 taps ever saw data.",
            attention="saccade.originals.strip_lambda:StripLambda",
            clauses=("reach_is_true", "facts_are_true", "equals_reference"),
        ),
        Fault("The tokens of that strip came in random order.", rule="shuffled tokens"),
        Fault(
            "Each trial of the bisection took one training step, so AdamW's moments were never allocated.",
            rule="one step",
        ),
        Fault(
            'Any exit but 0, that of a typing error included, counted as "does not fit".',
            rule="crash counted as no fit",
        ),
        Fault(
            "The loss never fell below 1, which on standardised pixels is that of predicting the mean: nothing was "
            "learned.",
            rule="nothing reconstructed",
        ),
    )
    instead = "saccade max-batch softmax lambda --model mae_base_patch16_224 --memory 24GB --confirm"

    def claims(self) -> list[Record]:
        """The bisections, the memory at equal batch, and the complaint about the loss."""
        return [*_claimed_batches(), *_claimed_losses()]

    def counted(self) -> Part:
        """Tables of layers, and how much of the kernel is of use."""
        tables = _tables()
        return replace(tables, beside=[*tables.beside, *_taps()])

    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """Bytes and the largest batch in full size without running, then steps."""
        yield from _bytes(progress)
        yield _batches(asked, progress)
        yield _trials(asked, progress)
        yield _steps(asked, progress)


def _options(patch: int, decoder: Mapping[str, Any], scale: int = 1) -> dict[str, Any]:
    depths = {name: shallower(ENCODER[name], scale) for name in ("depth", "decoder_depth")}
    return {**ENCODER, **depths, "patch_size": patch, **decoder}


def _tables() -> Part:
    """Both tables of layers, and the four totals."""
    lines, beside = [], []
    for (patch, attention), theirs in PARAMETERS.items():
        with torch.device("meta"):
            model = create_model(MODEL, attention, **_options(patch, WIDE if patch == 8 else NARROW))
        every = sum(one.numel() for one in model.parameters())
        bare = sum(one.numel() for name, one in model.named_parameters() if name in ("cls_token", "mask_token"))
        beside.append(counts(f"parameters by module, patch {patch}, {attention}", theirs, every - bare))
        if patch == 8:
            lines += [f"- {attention} → {every - bare:,}", *torchinfo_lines(model), ""]
            beside += [
                counts(
                    f"parameters, {name}, {attention}",
                    of_layer,
                    sum(one.numel() for one in model.get_submodule(name).parameters()),
                )
                for name, of_layer in LAYERS[attention].items()
            ]
    return Part("The layers, as torchinfo prints them", lines, beside)


def _taps() -> list[Beside]:
    """How much of the position kernel is of use."""
    sizes, tokens = (ENCODER["embed_dim"], ENCODER["num_heads"]), Tokens((28, 28), prefix=1)
    strip, taps = taps_with_data(StripLambda(*sizes, tokens))
    grid, _ = taps_with_data(Lambda(*sizes, tokens))
    return [
        Beside("taps that see data, on the strip", "not told", f"{strip} of {taps}", "yes: the same layer"),
        Beside("taps that see data, on the grid", "none was built", f"{grid} of {taps}", "no: another layer"),
    ]


def _bytes(progress: Progress) -> Iterator[Part]:
    """In full size, as on a GPU; nothing is run."""
    for (patch, batch, attention), theirs in GIGABYTES.items():
        progress.say(f"predicting {attention} at patch {patch}, batch {batch}")
        subject = Subject(model=MODEL, attention=attention, options=_options(patch, NARROW), batch_size=batch)
        with kernels_of("cuda"):
            ours = predicted_step(subject).peak_bytes
        what = f"memory, patch {patch}, batch {batch}, {attention}"
        yield Part(
            "",
            beside=[Beside(what, f"{theirs} GB", f"{ours / 1e9:.1f} GB, predicted", _NOT_TOLD)],
        )


def _batches(asked: Asked, progress: Progress) -> Part:
    """In full size, without running; the original's own trials, as they would have gone."""
    names = [searched.attention for searched in SEARCHED]
    progress.say(f"predicting the largest batch of {len(names)} attentions on {asked.gpu}")
    records = max_batch(names, model=MODEL, for_gpu=asked.gpu, inference=False, **_options(8, NARROW))
    found = {record.attention: record for record in records}
    lines, rows = [], []
    for searched in SEARCHED:
        record = found[searched.attention]
        lines.append(f"====== baseline : {searched.name} ======")
        if record.error:
            lines.append(record.error)
            continue
        largest = record.values["largest_batch"]
        told = dict.fromkeys((*searched.tried, largest, largest + 1))
        lines += [_trial(batch, batch <= largest) for batch in told]
        lines += ["", f"=> batch_size = {largest}", ""]
        rows.append(
            Beside(
                f"largest batch, {searched.name}",
                f"{searched.largest}",
                f"{largest} on {asked.gpu}, {record.values['verified']}",
                _NOT_TOLD,
            )
        )
    return Part("The largest batch, predicted in full size", lines, rows, records)


def _trials(asked: Asked, progress: Progress) -> Part:
    """Each answer tried in processes of their own, with two steps of the optimiser, on a smaller model and memory."""
    names = [searched.attention for searched in SEARCHED]
    progress.say(f"trying the largest batch of {len(names)} attentions in {TRIED_MEMORY}")
    options = _options(8, NARROW, asked.scale)
    records = max_batch(
        names,
        model=MODEL,
        memory=TRIED_MEMORY,
        inference=False,
        confirm=True,
        device=asked.device,
        threads=asked.threads,
        heard=lambda attention, kind, one: progress.say(
            f"{attention}: {ok_line(one.batch_size, one.fits, one.reason)}"
        ),
        **options,
    )
    found = {record.attention: record for record in records}
    lines = []
    for searched in SEARCHED:
        record = found[searched.attention]
        lines.append(f"====== baseline : {searched.name} ======")
        lines += [record.error] if record.error else []
        lines += [ok_line(one["batch_size"], one["fits"], one["reason"]) for one in record.values.get("tried", [])]
        lines += ["", f"=> batch_size = {record.values.get('largest_batch')}", ""]
    return Part(f"The largest batch in {TRIED_MEMORY}, tried", lines, records=records, scaled=[_smaller(options)])


def _smaller(options: Mapping[str, Any]) -> str:
    """Than the original's model."""
    depths = f"{options['depth']} of 12 encoder blocks and {options['decoder_depth']} of 8 decoder blocks"
    return f"what is run has {depths} (--scale 1 for all)"


_NOT_TOLD = "no: on which GPU, and what of its memory was read, is not told"


def _trial(batch_size: int, fits: bool) -> str:
    return ok_line(batch_size, fits, "ok" if fits else "out of memory")


def _steps(asked: Asked, progress: Progress) -> Part:
    """Seconds of a step in turns, at patch 8."""
    options = _options(8, NARROW, asked.scale)
    subjects = [
        subject_of(MODEL, attention, options, device=asked.device, threads=asked.threads, batch_size=asked.batch_size)
        for attention in TIMED
    ]
    progress.say(f"timing a training step of {len(subjects)} models in turns")
    records = time_rivals(subjects, repeats=asked.repeats, what=("step",))
    seconds = {one.attention: median(one.values["step_seconds"]) for one in records if one.error is None}
    rows = []
    theirs = f"{MINUTES[EXPLICIT] / MINUTES['lambda']:.2f} x ({MINUTES[EXPLICIT]} against {MINUTES['lambda']} min)"
    for softmax in (EXPLICIT, "softmax"):
        if {softmax, "lambda"} <= set(seconds):
            ours = f"{seconds[softmax] / seconds['lambda']:.2f} x"
            rows.append(Beside(f"a step of {softmax} over lambda's", theirs, ours, "no: another machine, and smaller"))
    return Part(
        "A training step at patch 8",
        [one.error or f"{one.attention}: {seconds[one.attention]:.4f} s" for one in records],
        rows,
        records,
        [_smaller(options), f"{asked.batch_size} images a timed step, not 10 (--batch-size 10)"],
    )


def _claimed_batches() -> Iterator[Record]:
    for searched in SEARCHED:
        claimed = _claimed(searched.attention)
        yield claimed.operations()
        tried = [
            {
                "batch_size": batch,
                "fits": batch <= searched.largest,
                "reason": _EXITED[batch <= searched.largest],
                "optimiser_steps": 1,
            }
            for batch in searched.tried
        ]
        yield claimed.record("batch", {"largest_batch": searched.largest, "tried": tried})
    for (patch, batch, attention), gigabytes in GIGABYTES.items():
        if patch == 8:
            yield _claimed(attention).record("memory", {"peak_bytes": round(gigabytes * 1e9)}, batch_size=batch)


# All that was looked at is whether a trial ended with code 0.
_EXITED = {True: "ok", False: "any exit but 0"}


def _claimed_losses() -> Iterator[Record]:
    for attention in (EXPLICIT, "lambda"):
        yield _claimed(attention).record("accuracy", {"test_loss": 1.0, "test_baseline_loss": 1.0}, seed=0)


def _claimed(attention: str) -> Claimed:
    conditions = {"device": "cuda", "token_order": "random"}
    return Claimed(model=MODEL, attention=attention, options=_options(8, NARROW), conditions=conditions)
