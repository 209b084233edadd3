"""The verb `max-batch`: how many images fit into memory at a time, attention by attention, without trying."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from saccade.measurement.largest_batch.trying import Tried
    from saccade.record import Record


def max_batch(
    *attention: str,
    model: str,
    memory: str | None = None,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    what: Literal["training", "inference", "both"] = "both",
    margin: float = 0.0,
    confirm: Annotated[bool, Parameter(negative="")] = False,
    patience_seconds: float = 900.0,
    img_size: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    checkpointing: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    threads: int | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say the largest batch that fits into memory, for each attention, in seconds and without running the model.

    Examples:

    `saccade max-batch softmax linear "nystrom(landmarks=16)" --model mae_base_patch16_224 --memory 24GB`

    `saccade max-batch --model vit_small_patch16_224 --for a100-40gb --dtype bf16 --margin 0.1`

    `saccade max-batch linear --model vit_micro_patch2_32 --memory 2GB --confirm`

    A training step is saccade's own, with AdamW and its moments; inference is a forward pass in eval mode, of a masked
    autoencoder's encoder on whole images. Softmax is always in. What is refused at this size is said, and the rest
    goes on. Exit code 1 where a try crashed or hung.

    Parameters
    ----------
    attention
        Mechanisms, as in `saccade attentions`, with options, or your own class: my.module:Mine or file.py:Mine. None
        means all that saccade brings.
    model
        A name from `saccade models`.
    memory
        With its unit: 24GB is 24 * 10^9 bytes, 24GiB is 24 * 2^30; MB and MiB. Default: what is free. On a CPU it is
        what the process has resident, the interpreter and torch included; on a GPU the card's.
    for_
        A GPU that need not be there, such as a100-40gb; an unknown one lists all.
    what
        training, inference or both.
    margin
        Share of the memory that is kept free, such as 0.1.
    confirm
        Then try in fresh processes, whose peak is measured: the answer fits, one image more does not, or only now and
        then; both are tried twice. Where that is not so, the search goes on from there. A process that goes far beyond
        the memory is stopped. Takes minutes.
    patience_seconds
        How long one try may take.
    img_size
        Rows and columns in pixels, or one number for both. Default: the model's.
    set_
        Changes any other option of the model: --set depth=6 --set num_classes=100
    dtype
        Of the weights: fp32 or bf16 (with float32 masters in the optimiser).
    amp_dtype
        Of autocast: bf16.
    checkpointing
        Blocks keep only their input for the backward pass, and run again in it.
    device
        auto, cpu, cuda or cuda:N.
    threads
        Threads of a process. Default: torch's own choice.
    output
        Folder for records.jsonl and report.md.
    json
        Print a line of JSON for each attention: its record.
    """
    from saccade.cli.console import note, results
    from saccade.cli.flags import model_options
    from saccade.errors import Failed
    from saccade.measurement.largest_batch.batch import max_batch as run
    from saccade.record import require_writable, write_records
    from saccade.reports.batch_report import write_batch_report
    from saccade.reports.batches import columns, gaps, legend, ok_line
    from saccade.reports.tables import TerminalTable
    from saccade.training.progress import shown

    if output is not None:
        require_writable(output)

    def keep(records: list[Record]) -> None:
        """What is found outlives an interruption."""
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_records(output / "records.jsonl", records)

    with shown() as progress:

        def hear(attention: str, kind: str, tried: Tried) -> None:
            progress.say(f"{attention}, {kind}: {ok_line(tried.batch_size, tried.fits, tried.reason)}")

        records = run(
            attention,
            model=model,
            memory=memory,
            for_gpu=for_,
            training=what != "inference",
            inference=what != "training",
            margin=margin,
            confirm=confirm,
            dtype=dtype,
            amp_dtype=amp_dtype,
            checkpointing=checkpointing,
            device=device,
            threads=threads,
            patience_seconds=patience_seconds,
            progress=progress,
            heard=hear,
            finished=keep,
            **model_options(img_size, set_),
        )
    if json:
        for record in records:
            print(record.line())
    else:
        results().print(TerminalTable(columns(records), legend(records)))
    for gap in gaps(records):
        note(gap)
    if output is not None:
        note(f"written: {write_batch_report(output, records, shlex.join(['saccade', *sys.argv[1:]]))}")
    if failed := [one.attention for one in records if one.error and not one.error.startswith("refused")]:
        raise Failed(f"without an answer: {', '.join(failed)}")
