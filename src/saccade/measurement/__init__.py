"""What a model costs: operations by declaration, seconds against its rivals, peak bytes; each in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.models.vit import VisionTransformer
    from saccade.record import Record

KINDS = ("operations", "seconds", "memory")


def measure(
    model: str | VisionTransformer,
    attention: str | None = None,
    *,
    what: Sequence[str] = KINDS,
    batch_size: int = 64,
    inference_batch: int = 64,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    clock: str = "wall",
    repeats: int = 5,
    **options: Any,
) -> list[Record]:
    """Measures one model with one attention; `saccade.compare` sets several beside each other.

    Example:
        saccade.measure("vit_small_patch16_224", "nystrom(landmarks=16)", batch_size=8, num_classes=10)

    Args:
        model: a name of `list_models()`, or a model that create_model made, which is built again with fresh weights.
        attention: its written form; None for the model's own.
        what: any of "operations", "seconds" and "memory".
        batch_size: images of a training step.
        inference_batch: images of an inference call that is measured for its throughput.
        dtype: of the weights: "fp32" or "bf16".
        amp_dtype: "bf16" for autocast.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: of the measuring process; None for as many as torch uses in this one.
        clock: "wall", or "cpu" for processor time.
        repeats: of each timing.
        options: overrides of the model, as for create_model.

    Returns:
        A record for each of `what`; `values` holds the numbers, units in their names, and every repeat.

    Raises:
        ValueError: what create_model refuses, a device that is not there, or terms that contradict each other.
    """
    from saccade.measurement.operations import operations_record
    from saccade.measurement.peak import measure_peak
    from saccade.measurement.seconds import time_rivals
    from saccade.measurement.subject import subject_of

    if unknown := set(what) - set(KINDS):
        raise ValueError(f"what={list(what)}: {', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    subject = subject_of(
        model,
        attention,
        options,
        device=device,
        threads=threads,
        batch_size=batch_size,
        inference_batch=inference_batch,
        dtype=dtype,
        amp_dtype=amp_dtype,
        clock=clock,
    )
    # Whatever is asked for: a model that makes no sense is refused here, before a process is started for it.
    records = [operations_record(subject)]
    if "seconds" in what:
        records += time_rivals([subject], repeats=repeats)
    if "memory" in what:
        records.append(measure_peak(subject))
    return [record for record in records if record.kind in what]
