"""Original 000: a masked autoencoder of ViT-Large's size on 112 x 112 pixels, with plain and with xFormers' blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any, ClassVar

import torch

from saccade.attention.elsewhere import kernels_of
from saccade.data.augment import Augment
from saccade.data.batches import Batch, train_batches
from saccade.data.sources import load_data
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.operations import operations
from saccade.measurement.seconds import time_rivals
from saccade.measurement.subject import Subject, subject_of
from saccade.measurement.work import work_of
from saccade.models.sizes import create_model, model_defaults
from saccade.originals.claimed import Claimed
from saccade.originals.logged import log_line
from saccade.originals.original import Asked, Beside, Fault, Original, Part, counts, shallower
from saccade.record import Record
from saccade.training.progress import Progress

MODEL = "mae_large_patch16_224"
IMG_SIZE, BATCH_SIZE = 112, 64

# What facebookresearch/mae does to an image before it hides patches.
AUGMENT = Augment(flip=0.5, resized_crop=(0.2, 1.0))

# How often the wait for a batch is measured.
WAITS = 5


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A line of the original's tables.

    Attributes:
        name: the original's word.
        written: what it had, in saccade's words.
        attention: what is run here in the encoder, which sees 12 patches; decoder_attention: in the decoder, of 49.
        step_seconds, megabytes: as published.
        block, reversible: of its blocks.
    """

    name: str
    written: str = "softmax"
    attention: str = "softmax"
    decoder_attention: str = "softmax"
    step_seconds: float
    megabytes: int
    block: str = "xformers"
    reversible: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """Of the model, apart from the attentions."""
        return {"img_size": IMG_SIZE, "block": self.block, "reversible": self.reversible}

    def subject(self, asked: Asked, **terms: Any) -> Subject:
        """What is measured here."""
        depths = {key: shallower(model_defaults(MODEL)[key], asked.scale) for key in ("depth", "decoder_depth")}
        return subject_of(
            MODEL,
            self.attention,
            self.options | depths | {"decoder_attention": self.decoder_attention},
            **{"device": asked.device, "threads": asked.threads, "batch_size": asked.batch_size, **terms},
        )


FOURIER = "fourier(per_head=True, out_proj=True)"

# Landmarks and sums that 12 and 49 patches allow: a quarter of them, eight at most, or the original's own twelve.
LOGGED = (
    Logged(name="plain blocks", step_seconds=0.11, megabytes=6350, block="pre", reversible=False),
    Logged(name="xFormers blocks", step_seconds=0.17, megabytes=8308, reversible=False),
    Logged(
        name="fourier_mix",
        written=FOURIER,
        attention=FOURIER,
        decoder_attention=FOURIER,
        step_seconds=0.1458,
        megabytes=3893,
    ),
    Logged(
        name="nystrom",
        written="nystrom(landmarks=64)",
        attention="nystrom(landmarks=3)",
        decoder_attention="nystrom(landmarks=8)",
        step_seconds=0.2012,
        megabytes=5148,
    ),
    Logged(name="scaled_dot_product", step_seconds=0.2298, megabytes=5148),
    Logged(
        name="linformer",
        written="linformer(k=12)",
        attention="linformer(k=3)",
        decoder_attention="linformer(k=12)",
        step_seconds=0.2279,
        megabytes=5205,
    ),
    Logged(
        name="orthoformer",
        written="orthoformer(landmarks=32)",
        attention="orthoformer(landmarks=3)",
        decoder_attention="orthoformer(landmarks=8)",
        step_seconds=0.8514,
        megabytes=5163,
    ),
)

# Module by module as torch printed both models: class, mask and position tokens are not among them.
PRINTED_PARAMETERS = {"plain blocks": 329_237_760, "xFormers blocks": 329_295_104}

FIRST_LOSS = {"plain blocks": 1.5708, "xFormers blocks": 1.2193}


class MaeBlocks(Original):
    """Plain blocks against xFormers' blocks, and five attentions in the latter."""

    id = "000"
    was = (
        "A masked autoencoder of ViT-Large's size on 112 x 112 pixels in patches of 16, three quarters hidden, 64 "
        "images a step: encoder 24 blocks of width 1024 on 13 tokens, decoder 8 of width 512 on 50. Plain blocks were "
        "set against those of xFormers, and in these five attentions against each other, by the log's seconds a step "
        "and its MB."
    )
    hardware = "a GPU that is not named"
    usual: ClassVar[Mapping[str, Any]] = {"scale": 8, "batch_size": 8, "repeats": 5, "data": "digits"}
    faults = (
        Fault(
            '"nystrom" had 64 landmarks for 13 and for 50 tokens, so it was softmax: the same memory to the MB.',
            rule="degenerate",
        ),
        Fault('"linformer" padded 13 tokens to 50, so it did more work than softmax.', rule="padded tokens"),
        Fault(
            "The five were measured with reversible blocks, the baseline without, and only the history of its files "
            "says so.",
            rule="a second thing changed",
        ),
        Fault("Visible patches arrived in random order.", rule="shuffled tokens"),
        Fault(
            "At 13 and 50 tokens the quadratic part is 0.2 % and 1.6 % of the arithmetic: nothing could be gained.",
            rule="what a swap can gain",
        ),
    )
    instead = (
        "saccade compare softmax fourier nystrom linformer orthoformer --task mae --model mae_large_patch16_224 "
        "--data path/to/images --tune 5 --seeds 5"
    )

    def claims(self) -> list[Record]:
        """The two tables, and the arithmetic of the models that they are about."""
        return [record for logged in LOGGED for record in _claims(logged)]

    def counted(self) -> Part:
        """Parameters, and what another attention could gain."""
        return Part("Counted", beside=[*_parameters(), *_shares()])

    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """Memory, the lines of the log, memory in full size."""
        progress.say(f"reading {asked.data}, for losses and for the wait for a batch")
        batch, wait_seconds = _first_batch(asked)
        subjects = [logged.subject(asked) for logged in LOGGED]
        weighed = []
        for logged, subject in zip(LOGGED, subjects, strict=True):
            progress.say(f"weighing a training step: {logged.name}")
            weighed.append(measure_peak(subject))
            yield Part("", records=weighed[-1:])
        yield _steps(asked, subjects, weighed, batch, wait_seconds, progress)
        yield from _full_size(progress)


def _parameters() -> list[Beside]:
    rows = []
    for logged in LOGGED[:2]:
        with torch.device("meta"):
            model = create_model(MODEL, "softmax", **logged.options)
        bare = sum(one.numel() for name, one in model.named_parameters() if name in ("cls_token", "mask_token"))
        ours = sum(one.numel() for one in model.parameters()) - bare
        rows.append(counts(f"parameters, {logged.name}", PRINTED_PARAMETERS[logged.name], ours))
    return rows


def _shares() -> list[Beside]:
    """Of softmax's two N² products."""
    with torch.device("meta"):
        stacks = operations(create_model(MODEL, "softmax", **LOGGED[0].options))["stacks"]
    return [
        Beside(
            f"quadratic part of the {name}'s arithmetic",
            "not told",
            f"{100 * stack['quadratic_flops'] / stack['softmax_flops']:.1f} % at {stack['tokens']} tokens",
            "no: the original does not say",
        )
        for name, stack in stacks.items()
    ]


def _first_batch(asked: Asked) -> tuple[Batch, float]:
    """The first batch of an epoch, and the median wait for the ones behind it."""
    dataset = load_data(asked.data, img_size=IMG_SIZE, in_chans=3, labelled=False)
    batches = train_batches(dataset, asked.batch_size, seed=0, epoch=0, augment=AUGMENT, device=asked.device)
    first = next(batches)
    waits, mark = [], time.perf_counter()
    for _ in islice(batches, WAITS):
        now = time.perf_counter()
        waits.append(now - mark)
        mark = now
    return first, median(waits) if waits else 0.0


def _steps(
    asked: Asked,
    subjects: Sequence[Subject],
    memory: Sequence[Record],
    batch: Batch,
    wait_seconds: float,
    progress: Progress,
) -> Part:
    """Seconds in turns, and the loss of the first step."""
    progress.say(f"timing a training step of {len(subjects)} models in turns")
    seconds = time_rivals(subjects, repeats=asked.repeats, what=("step",))
    lines, beside = [], []
    for logged, subject, timed, weighed in zip(LOGGED, subjects, seconds, memory, strict=True):
        loss = _first_loss(subject, batch)
        line = timed.error
        if line is None:
            seconds_a_step = median(timed.values["step_seconds"])
            line = log_line(seconds_a_step, wait_seconds, weighed.values.get("peak_bytes"))
            theirs = f"{logged.step_seconds:g}"
            beside.append(Beside(f"seconds a step, {logged.name}", theirs, f"{seconds_a_step:.4f}", _NOT))
        lines.append(f"{logged.name:<20}{line}  loss: {loss:.4f}")
        if logged.name in FIRST_LOSS:
            theirs = f"{FIRST_LOSS[logged.name]:.4f}"
            beside.append(Beside(f"loss of the first step, {logged.name}", theirs, f"{loss:.4f}", "no: other images"))
    return Part(
        "A training step, as the original's log has it",
        lines,
        beside,
        seconds,
        _scaled(subjects[0]),
    )


_NOT = "no: another machine, and smaller"


def _first_loss(subject: Subject, batch: Batch) -> float:
    with torch.no_grad():
        return float(work_of(subject.built()).loss(batch.images))


def _scaled(subject: Subject) -> Sequence[str]:
    usual = model_defaults(MODEL)
    told = []
    if subject.options["depth"] < usual["depth"]:
        told.append(
            f"{subject.options['depth']} of {usual['depth']} encoder blocks and {subject.options['decoder_depth']} of "
            f"{usual['decoder_depth']} decoder blocks (--scale 1 for all)"
        )
    if subject.batch_size != BATCH_SIZE:
        told.append(f"{subject.batch_size} images a step, not {BATCH_SIZE} (--batch-size {BATCH_SIZE})")
    return [
        *told,
        "nystrom, linformer and orthoformer have landmarks and sums for 13 and 50 tokens; what the original had is "
        "refused",
    ]


def _full_size(progress: Progress) -> Iterator[Part]:
    """Nothing is run: the tensors of two steps at 64 images, in half precision by autocast as in the original."""
    full = Asked(batch_size=BATCH_SIZE, threads=1)
    for logged in LOGGED:
        progress.say(f"predicting {logged.name} in full size")
        with kernels_of("cuda"):
            predicted = predicted_step(logged.subject(full, amp_dtype="bf16"))
        ours = f"{predicted.peak_bytes / 2**20:,.0f} MB, predicted within {predicted.within:.0%}"
        why = "nearly: the same tensors in other kernels' hands"
        if logged.written != logged.attention:
            why = f"no: {logged.written} is refused here"
        yield Part("", beside=[Beside(f"peak, {logged.name}, full size", f"{logged.megabytes:,} MB", ours, why)])


def _claims(logged: Logged) -> Iterator[Record]:
    """Sizes, seconds, bytes; linformer worked on as many tokens as there are in all."""
    claimed = Claimed(
        model=MODEL,
        attention=logged.written,
        options=logged.options,
        conditions={"device": "cuda", "batch_size": BATCH_SIZE, "token_order": "random"},
    )
    told = _BESIDE.get(logged.name, {})
    # The arithmetic does not depend on the blocks around it.
    plain = replace(claimed, options={"img_size": IMG_SIZE})
    yield plain.operations(sizes_only=logged.written != logged.attention)
    yield claimed.record("seconds", {"step_seconds": [logged.step_seconds]}, **told)
    yield claimed.record("memory", {"peak_bytes": logged.megabytes * 2**20}, **told)


# "scaled_dot_product" was one of the five, and none of the two that they were held against.
_BESIDE: dict[str, dict[str, Any]] = {
    "scaled_dot_product": {"rival": "scaled_dot_product in reversible blocks"},
    "linformer": {"tokens": 13, "padded_tokens": 50},
}
