"""What a model costs: operations by declaration, seconds against its rivals, peak bytes; each in a fresh process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.measurement.allocator import Allocator
    from saccade.measurement.work import Model
    from saccade.record import Record
    from saccade.training.progress import Progress

KINDS = ("operations", "seconds", "memory")


def measure(
    model: str | Model | nn.Module,
    attention: str | None = None,
    *,
    what: Sequence[str] = KINDS,
    inputs: Sequence[Tensor] | None = None,
    loss: Callable[..., Tensor] | None = None,
    batch_size: int = 64,
    inference_batch: int = 64,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    clock: str = "wall",
    checkpointing: bool = False,
    repeats: int = 5,
    **options: Any,
) -> list[Record]:
    """Measures one model with one attention; `saccade.compare` sets several beside each other.

    The memory of a training step is measured of any module. It is handed to a fresh process in a file, so that its
    classes and its loss must be found by an import, not in a script or a notebook; the module itself stays as it is.

    Example:
        saccade.measure("vit_small_patch16_224", "nystrom(landmarks=16)", batch_size=8, num_classes=10)
        saccade.measure(my.Net(), what=["memory"], inputs=[images, labels], loss=my.loss)

    Args:
        model: a name of `list_models()`, or a model that create_model made, which is built again with fresh weights; or
            any other torch.nn.Module, or "my.module:build", a function that makes one.
        attention: its written form; None for the model's own.
        what: any of "operations", "seconds" and "memory"; of a module that is not ours "memory" alone.
        inputs: tensors of one training step of a module that is not ours.
        loss: of that module and its inputs; None where its output is the loss, or has it as `loss`.
        batch_size: images of a training step.
        inference_batch: images of an inference call that is measured for its throughput.
        dtype: of the weights: "fp32" or "bf16".
        amp_dtype: "bf16" for autocast.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: of the measuring process; None for as many as torch uses in this one.
        clock: "wall", or "cpu" for processor time.
        checkpointing: blocks keep only their input for the backward pass, and run again in it.
        repeats: of each timing.
        options: overrides of the model, as for create_model.

    Returns:
        A record for each of `what`; `values` holds the numbers, units in their names, and every repeat.

    Raises:
        ValueError: what create_model refuses, a device that is not there, or terms that contradict each other.
    """
    import torch

    from saccade.measurement.memory.own import is_own, own
    from saccade.measurement.memory.peak import measure_own_peak, measure_peak
    from saccade.measurement.operations import operations_record
    from saccade.measurement.seconds import time_rivals
    from saccade.measurement.subject import subject_of
    from saccade.measurement.terms import Terms
    from saccade.training.device import choose_device

    if unknown := set(what) - set(KINDS):
        raise ValueError(f"what={list(what)}: {', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    terms: dict[str, Any] = {"dtype": dtype, "amp_dtype": amp_dtype, "clock": clock, "checkpointing": checkpointing}
    if is_own(model):
        if attention or options or checkpointing or set(what) != {"memory"}:
            raise ValueError(
                "a module that create_model has not made is measured as it is, and its memory alone: "
                'set what=["memory"], and no attention, checkpointing or option'
            )
        asked = Terms(
            batch_size=len(inputs[0]) if inputs else 1,
            device=str(choose_device(device)),
            threads=torch.get_num_threads() if threads is None else threads,
            **terms,
        )
        return [measure_own_peak(own(model, inputs, loss, asked))]
    if inputs is not None or loss is not None:
        raise ValueError("inputs and loss are for a module of your own: our models are given random images")
    subject = subject_of(
        cast("str | Model", model),
        attention,
        options,
        device=device,
        threads=threads,
        batch_size=batch_size,
        inference_batch=inference_batch,
        **terms,
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
    what: Sequence[str] | None = None,
    model: str | None = None,
    tokens: Sequence[int] = (),
    img_size: Sequence[int | Sequence[int]] = (),
    patch_size: Sequence[int | Sequence[int]] = (),
    batch_size: int | Sequence[int] = 4,
    dim: int | None = None,
    heads: int | None = None,
    prefix: int | None = None,
    dtype: str | Sequence[str] = "fp32",
    amp_dtype: str | None = None,
    compile: bool = False,  # noqa: A002
    checkpointing: bool = False,
    device: str = "auto",
    threads: int | None = None,
    clock: str = "wall",
    allocator: Allocator = "default",
    repeats: int = 5,
    memory: bool = False,
    rivals: bool = False,
    quiet_only: bool = False,
    patience_seconds: float | None = None,
    progress: Progress | None = None,
    finished: Callable[[list[Record]], None] = lambda records: None,
    **options: Any,
) -> list[Record]:
    """Times attentions beside softmax: their cores on given q, k and v, whole layers, blocks around them, whole models.

    Softmax is always in, by both its kernels. Each attention lives in a process of its own, is held against its
    reference, and takes turns with the others: layers and blocks forward alone and with backward, models in a training
    step and in inference. Every combination of batch size, dtype and number of tokens stands for itself, with its own
    softmax. `saccade.reports.layers` makes tables of the records and says from how many tokens on each is cheaper.

    Example:
        saccade.bench(["linear", "nystrom(landmarks=64)"], tokens=[196, 784], dim=384, heads=6)
        saccade.bench(["linear"], model="vit_small_patch16_224", what=["block", "model"], batch_size=[1, 8])

    Args:
        attentions: their written forms; none means all of `list_attentions()`.
        what: any of "core", "layer", "block" and "model"; None for "model" where there is one, else core and layer.
        model: a name of `list_models()`: itself, or the cores, layers and blocks of its encoder on all patches.
        tokens: numbers of patches, each that of a square grid; none means the model's own, or 196, 784 and 3136. Images
            of a model are as large as its patches make them.
        img_size: of the model's images, each a side or rows and columns, instead of tokens.
        patch_size: of the model's patches, each a side or rows and columns.
        batch_size: images of a call, one number or several.
        dim: width of a token; 512 without a model, which has its own.
        heads: into which it is divided; 8 without a model.
        prefix: tokens in front of the patches, as a class token is; none without a model.
        dtype: of the weights: "fp32" or "bf16", or both.
        amp_dtype: "bf16" for autocast.
        compile: by torch.compile; how long that took is told apart from the times, and who does not compile is marked.
        checkpointing: keep only the inputs of what is timed, or of a model's blocks, and run it again in backward.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        threads: of each measuring process; None for as many as torch uses in this one.
        clock: "wall", or "cpu" for processor time.
        allocator: "keep" for processes that give no memory back (glibc).
        repeats: turns of each.
        memory: measure the peak of forward and backward, or of a model's training step, too, each in a fresh process.
        rivals: softmax in cheaper models (larger patches, fewer layers, narrower, patches merged) takes part, each with
            about as many declared FLOPs as one of the attentions; only beside models.
        quiet_only: refuse to begin while others are at work on the machine, and count no round that they disturbed.
        patience_seconds: after which a process that gives no answer is ended; None for a quarter of an hour.
        progress: is told what is done.
        finished: is given all records so far whenever there are more, to keep them.
        options: overrides of the model, as for create_model.

    Returns:
        A record for each attention, size, terms, and of core, layer, block and model; with an `error` where it makes no
        sense, does not fit into memory, or fails: what of it was measured before that is kept. Of models also what they
        compute, by declaration.

    Raises:
        ValueError: no such attention or option, one that is refused at every size, a number of tokens that is no
            square, a device that is not there, others at work where none should be, or terms that contradict each
            other.
    """
    import torch

    from saccade.attention import list_attentions
    from saccade.measurement.benching.groups import Asked
    from saccade.measurement.benching.rounds import Rounds, require_sense
    from saccade.measurement.isolate import PATIENCE_SECONDS
    from saccade.measurement.quiet import require_quiet
    from saccade.measurement.terms import Terms, require_positive
    from saccade.training.device import choose_device

    require_positive(repeats=repeats)
    if patience_seconds is not None and not patience_seconds > 0:
        raise ValueError(f"patience_seconds={patience_seconds:g}: must be above 0 (--timeout)")
    place, count = str(choose_device(device)), torch.get_num_threads() if threads is None else threads
    terms = [
        Terms(
            batch_size=images,
            dtype=weights,
            amp_dtype=amp_dtype,
            device=place,
            threads=count,
            clock=clock,
            allocator=allocator,
            checkpointing=checkpointing,
            compile=compile,
        )
        for weights in ([dtype] if isinstance(dtype, str) else dtype)
        for images in ([batch_size] if isinstance(batch_size, int) else batch_size)
    ]
    asked = Asked(
        attentions=attentions or list_attentions(),
        what=what if what is not None else ("model",) if model else ("core", "layer"),
        terms=terms,
        model=model,
        options=options,
        tokens=tokens,
        img_size=img_size,
        patch_size=patch_size,
        dim=dim,
        heads=heads,
        prefix=prefix,
        rivals=rivals,
    )
    groups = asked.groups()
    if attentions:
        require_sense(groups)
    if quiet_only:
        require_quiet(place, count)
    rounds = Rounds(
        groups,
        repeats=repeats,
        memory=memory,
        quiet_only=quiet_only,
        progress=progress,
        patience_seconds=PATIENCE_SECONDS if patience_seconds is None else patience_seconds,
        finished=finished,
    )
    return rounds.records()
