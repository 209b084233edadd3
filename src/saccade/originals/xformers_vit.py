"""Original 002: a narrow ViT with dense, sparse and memory-efficient attention, timed at one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, ClassVar

import torch

from saccade.attention.masked import Masked
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.seconds import time_rivals
from saccade.measurement.subject import Subject, subject_of
from saccade.models.sizes import create_model
from saccade.originals.claimed import Claimed
from saccade.originals.original import Asked, Beside, Fault, Original, Part
from saccade.record import Record
from saccade.reports.benchmark_form import measurement_block
from saccade.training.progress import Progress

MODEL = "vit_tiny_patch16_224"
OPTIONS: Mapping[str, Any] = {"embed_dim": 96, "depth": 8, "num_heads": 8, "mlp_ratio": 3.0}
SHARED = "qkv_bias=False"
SPARSE = 'pattern(of="axial|local(2)|random(0.01)|gaussian(5,0.03)")'
SPARSITY = 0.806


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """One of the three models.

    Attributes:
        name: the original's word.
        attention: what runs here.
        ran: what ran there; the flag that chose memory-efficient attention was lost on its way.
        forward_seconds, forward_megabytes: median and peak of the forward pass.
        average_seconds: its "average inference time".
        step_seconds, step_megabytes: of a training step, where they were taken.
        forward_repeats, step_repeats: how many measurements their medians are of.
    """

    name: str
    attention: str
    ran: str
    forward_seconds: float
    forward_megabytes: float
    average_seconds: float
    forward_repeats: int
    step_seconds: float | None = None
    step_megabytes: float | None = None
    step_repeats: int | None = None

    @property
    def written(self) -> str:
        """The attention with the options that all three share."""
        return Claimed(model=MODEL, attention=self.attention, beside=SHARED).written


PROFILED = (
    Profiled(
        name="ViT",
        attention='softmax(kernel="explicit")',
        ran="explicit",
        forward_seconds=3.87e-3,
        forward_megabytes=28.87548828125,
        average_seconds=3.186824321746826e-3,
        forward_repeats=514,
        step_seconds=5.46e-3,
        step_megabytes=786.21630859375,
        step_repeats=365,
    ),
    Profiled(
        name="Sparse ViT",
        attention=SPARSE,
        ran="eager",
        forward_seconds=9.33e-3,
        forward_megabytes=32.49267578125,
        average_seconds=8.32324504852295e-3,
        forward_repeats=22,
        step_seconds=13.90e-3,
        step_megabytes=791.16748046875,
        step_repeats=15,
    ),
    Profiled(
        name="Mem efficient ViT",
        attention='softmax(kernel="sdpa")',
        ran="explicit",
        forward_seconds=6.34e-3,
        forward_megabytes=266.49072265625,
        average_seconds=5.165774822235107e-3,
        forward_repeats=315,
    ),
)


class XformersVit(Original):
    """Dense, sparse, memory-efficient."""

    id = "002"
    was = (
        "A ViT of width 96, depth 8, 8 heads and MLP ratio 3 on 224 x 224 pixels in patches of 16, in half precision, "
        "one image at a time: dense attention against sparse (axial, or nearer than two patches, or random, or random "
        "with Gaussian weights: 80.6 % of the pairs are left out) and against memory-efficient attention, by "
        "torch.utils.benchmark. Sparse came out 2.4 x and memory-efficient 1.6 x slower than dense."
    )
    hardware = "an NVIDIA A100"
    usual: ClassVar[Mapping[str, Any]] = {"batch_size": 1, "repeats": 20}
    faults = (
        Fault(
            "The flag that selects memory-efficient attention was lost in a recursion, so it never ran.",
            rule="kernel not run",
        ),
        Fault("At one image it is the launch of kernels that is measured.", rule="launch-bound"),
        Fault(
            "Three models shared one process, so the peak of each contains the weights of the others.",
            rule="shared process",
        ),
        Fault('"average inference time" read the clock before it synchronised.', rule="clock read too early"),
    )
    instead = "saccade bench softmax pattern --model vit_tiny_patch16_224 --batch-size 64"

    def claims(self) -> list[Record]:
        """Both scripts' printouts."""
        return [record for profiled in PROFILED for record in _claims(profiled)]

    def counted(self) -> Part:
        """The mask."""
        return Part("Counted", beside=[_sparsity()])

    def measured(self, asked: Asked, progress: Progress) -> Iterator[Part]:
        """Times and bytes."""
        yield _profiles(asked, progress)


def _sparsity() -> Beside:
    """Of the mask over all tokens, the class token's row and column dense; drawn here by the model's seed."""
    model = create_model(MODEL, Claimed(model=MODEL, attention=SPARSE, beside=SHARED).written, **OPTIONS)
    layer = model.blocks[0].attn
    assert isinstance(layer, Masked)
    ours = 1 - layer.mask(None, torch.device("cpu")).float().mean().item()
    return Beside("sparsity of the mask", f"{SPARSITY:.3f}", f"{ours:.3f}", "nearly: another draw of the same rules")


def _profiles(asked: Asked, progress: Progress) -> Part:
    subjects = [_subject(profiled, asked) for profiled in PROFILED]
    progress.say("timing a training step and a forward pass of three models in turns")
    seconds = time_rivals(subjects, repeats=asked.repeats, what=("step", "latency"))
    memory, lines, beside = [], [], []
    for profiled, subject, timed in zip(PROFILED, subjects, seconds, strict=True):
        progress.say(f"weighing a training step: {profiled.name}")
        memory.append(measure_peak(subject))
        if timed.error:
            lines.append(f"{profiled.name}: {timed.error}")
            continue
        lines += _printed(profiled, subject, timed, memory[-1])
        beside += _rows(profiled, timed, seconds[0])
    return Part(
        "Training step and forward pass, as torch.utils.benchmark prints them",
        lines,
        beside,
        [*seconds, *memory],
        [
            f"{subjects[0].dtype} on {subjects[0].device}, half precision on an A100 there",
            "memory of the forward pass is predicted, that of the training step is measured",
        ],
    )


def _printed(profiled: Profiled, subject: Subject, timed: Record, weighed: Record) -> list[str]:
    """The three printouts of a model."""

    def block(act: str) -> list[str]:
        laps, calls = timed.values[f"{act}_seconds"], timed.values[f"{act}_calls"]
        return measurement_block("profile", laps, calls, subject.threads).splitlines()

    forward = predicted_step(subject, training=False)
    average = 1000 * mean(timed.values["latency_seconds"])
    return [
        f"Benchmarking {profiled.name}",
        *block("step"),
        f"Memory used: {weighed.values.get('peak_bytes', 0) / 2**20} MB",
        f"{profiled.name} Forward only",
        *block("latency"),
        f"Memory used: {forward.peak_bytes / 2**20} MB",
        f"{profiled.name} average inference time : {average}ms",
        "",
    ]


def _rows(profiled: Profiled, timed: Record, dense: Record) -> list[Beside]:
    ours = {act: f"{1000 * median(timed.values[f'{act}_seconds']):.2f} ms" for act in ("latency", "step")}
    why = "no: another machine"
    rows = [Beside(f"forward, {profiled.name}", f"{1000 * profiled.forward_seconds:.2f} ms", ours["latency"], why)]
    if profiled.step_seconds is not None:
        rows.append(
            Beside(f"training step, {profiled.name}", f"{1000 * profiled.step_seconds:.2f} ms", ours["step"], why)
        )
    if profiled is not PROFILED[0] and not dense.error:
        theirs = profiled.forward_seconds / PROFILED[0].forward_seconds
        ratio = median(timed.values["latency_seconds"]) / median(dense.values["latency_seconds"])
        rows.append(Beside(f"forward, {profiled.name} over ViT", f"{theirs:.2f} x", f"{ratio:.2f} x", why))
    return rows


def _subject(profiled: Profiled, asked: Asked) -> Subject:
    terms: dict[str, Any] = {"device": asked.device, "threads": asked.threads}
    return subject_of(
        MODEL, profiled.written, OPTIONS, **terms, batch_size=asked.batch_size, inference_batch=asked.batch_size
    )


def _claims(profiled: Profiled) -> Iterator[Record]:
    claimed = Claimed(
        model=MODEL,
        attention=profiled.attention,
        beside=SHARED,
        options=OPTIONS,
        conditions={
            "device": "cuda",
            "dtype": "fp16",
            "batch_size": 1,
            "inference_batch": 1,
            "process": "reproduce.py",
        },
        accelerator="NVIDIA A100",
    )
    asked: dict[str, Any] = {
        "kernel_asked": "sdpa" if "sdpa" in profiled.attention else profiled.ran,
        "kernel_run": profiled.ran,
    }
    forward = {"latency_seconds": [profiled.forward_seconds], "latency_repeats": profiled.forward_repeats}
    yield claimed.operations()
    yield claimed.record("seconds", forward, synchronised=True, **asked)
    yield claimed.record("seconds", {"latency_seconds": [profiled.average_seconds]}, synchronised=False, **asked)
    yield claimed.record("memory", {"peak_bytes": round(profiled.forward_megabytes * 2**20)}, training=False)
    if profiled.step_seconds is not None and profiled.step_megabytes is not None:
        training: dict[str, Any] = {"process": "benchmark.py"}
        step = {"step_seconds": [profiled.step_seconds], "step_repeats": profiled.step_repeats}
        yield claimed.record("seconds", step, synchronised=True, **asked, **training)
        yield claimed.record("memory", {"peak_bytes": round(profiled.step_megabytes * 2**20)}, **training)
