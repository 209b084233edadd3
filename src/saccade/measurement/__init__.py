"""What a model costs: operations by declaration, seconds against its rivals, peak bytes; each in a fresh process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.measurement.allocator import Allocator
    from saccade.measurement.work import Model
    from saccade.record import Record
    from saccade.training.progress import Progress

KINDS = ("operations", "seconds", "memory")


def measure(
    model: str | Model,
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


def bench(
    attentions: Sequence[str] = (),
    *,
    tokens: Sequence[int] = (196, 784, 3136),
    what: Sequence[str] = ("core", "layer"),
    batch_size: int = 4,
    dim: int = 512,
    heads: int = 8,
    prefix: int = 0,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    clock: str = "wall",
    allocator: Allocator = "default",
    repeats: int = 5,
    memory: bool = False,
    progress: Progress | None = None,
    finished: Callable[[list[Record]], None] = lambda records: None,
) -> list[Record]:
    """Times attentions beside softmax at several sizes: their cores on given q, k and v, and whole layers.

    Softmax is always in, by both its kernels. Each attention lives in a process of its own, is held against its
    reference, and takes turns with the others, forward alone and with backward. `saccade.reports.layers` makes tables
    of the records and says from how many tokens on each is cheaper than softmax.

    Example:
        saccade.bench(["linear", "nystrom(landmarks=64)"], tokens=[196, 784], dim=384, heads=6)

    Args:
        attentions: their written forms; none means all of `list_attentions()`.
        tokens: numbers of patches, each that of a square grid.
        what: any of "core" and "layer".
        batch_size: images.
        dim: width of a token.
        heads: into which it is divided.
        prefix: tokens in front of the patches, as a class token is.
        dtype: of the weights: "fp32" or "bf16".
        amp_dtype: "bf16" for autocast.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: of each measuring process; None for as many as torch uses in this one.
        clock: "wall", or "cpu" for processor time.
        allocator: "keep" for processes that give no memory back (glibc).
        repeats: turns of each.
        memory: measure the peak of forward and backward too, each in a fresh process.
        progress: is told what is done.
        finished: is given all records so far when those of a size are there, to keep them.

    Returns:
        A record for each attention, size, and of core and layer; with an `error` and no values where it makes no sense,
        does not fit into memory, or fails.

    Raises:
        ValueError: no such attention or option, one that is refused at every size, a number of tokens that is no
            square, a device that is not there, or terms that contradict each other.
    """
    import torch

    from saccade.attention import list_attentions
    from saccade.measurement.layer import WHAT, LayerSubject
    from saccade.measurement.layers import Layers, require_sense, subjects_of
    from saccade.measurement.terms import Terms, require_positive
    from saccade.training.device import choose_device

    require_positive(repeats=repeats)
    if not what or set(what) - set(WHAT):
        raise ValueError(f"what={list(what)}: must be any of {', '.join(WHAT)}")
    terms = Terms(
        batch_size=batch_size,
        dtype=dtype,
        amp_dtype=amp_dtype,
        device=str(choose_device(device)),
        threads=torch.get_num_threads() if threads is None else threads,
        clock=clock,
        allocator=allocator,
    )
    base = LayerSubject(attention="softmax", dim=dim, num_heads=heads, grid=(1, 1), prefix=prefix, terms=terms)
    subjects = subjects_of(attentions or list_attentions(), tokens, base)
    if attentions:
        require_sense(subjects)
    layers = Layers(subjects, what=what, repeats=repeats, memory=memory, progress=progress, finished=finished)
    return layers.records()
