"""The verb `bench`: attention layers timed against softmax, size by size."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from saccade.record import Record


def bench(
    *attention: str,
    tokens: str = "196,784,3136",
    what: Literal["core", "layer", "both"] = "both",
    batch_size: int = 4,
    dim: int = 512,
    heads: int = 8,
    prefix: int = 0,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    repeats: int = 5,
    clock: Literal["wall", "cpu"] = "wall",
    memory: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Time attention layers beside softmax, and find from how many tokens on each is cheaper.

    Example:
    `saccade bench linear "nystrom(landmarks=64)" --tokens 196,784,3136,12544 --output runs/bench`

    Each attention is held against its reference first, lives in a process of its own, and takes turns with the others;
    forward alone, and with backward. Softmax is always in, by both its kernels, and the faster one is what the others
    are divided by. What is refused at a size, fails, or would not fit into memory is marked, and the rest goes on.

    Parameters
    ----------
    attention
        Mechanisms, as in `saccade attentions`, with options, or your own class: my.module:Mine or file.py:Mine. None
        means all that saccade brings. Where no option is written and the defaults are refused at a size, fitting ones
        are taken, and said.
    tokens
        Numbers of patches with commas between them, each that of a square grid.
    what
        core: the mixing of given queries, keys and values. layer: with its projections.
    batch_size
        Images of a call.
    dim
        Width of a token.
    heads
        Heads, into which the width is divided.
    prefix
        Tokens in front of the patches, as a class token is.
    dtype
        Of the weights: fp32 or bf16.
    amp_dtype
        Of autocast: bf16.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of each process. Default: torch's own choice.
    repeats
        Repeats of each timing; an interval needs 3.
    clock
        wall, or cpu (the process's own time, for noisy machines).
    memory
        Measure the peak memory of forward and backward too, each in a fresh process.
    output
        Folder for records.jsonl, report.md and a picture of time against tokens; records are kept size by size.
    json
        Print a line of JSON for each attention and kind of call, with all sizes.
    """
    from saccade.cli.console import note, results
    from saccade.measurement import bench as run
    from saccade.record import require_writable, write_records
    from saccade.reports.layer_report import write_layer_report
    from saccade.reports.layers import LEGEND, busy, by_kind, columns, gaps, lines
    from saccade.reports.tables import TerminalTable
    from saccade.training.progress import shown

    sizes = _numbers(tokens)
    if output is not None:
        require_writable(output)

    def keep(records: list[Record]) -> None:
        """What is measured outlives an interruption."""
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_records(output / "records.jsonl", records)

    with shown() as progress:
        records = run(
            attention,
            tokens=sizes,
            what=("core", "layer") if what == "both" else (what,),
            batch_size=batch_size,
            dim=dim,
            heads=heads,
            prefix=prefix,
            dtype=dtype,
            amp_dtype=amp_dtype,
            device=device,
            threads=threads,
            repeats=repeats,
            clock=clock,
            memory=memory,
            progress=progress,
            finished=keep,
        )
    found = lines(records)
    if json:
        from json import dumps

        for line in found:
            print(dumps(line.plain(), ensure_ascii=False))
    else:
        for title, own in by_kind(found).items():
            results().print(f"\n{title}", style="bold", markup=False, highlight=False)
            results().print(TerminalTable(columns(own), ""))
        results().print(f"\n{LEGEND}", markup=False, highlight=False)
    for gap in gaps(found):
        note(gap)
    if busy(records):
        note("others used the processors meanwhile: these times are not to be trusted")
    if output is not None:
        note(f"written: {write_layer_report(output, records, shlex.join(['saccade', *sys.argv[1:]]))}")


def _numbers(text: str) -> list[int]:
    """ "196,784" as numbers."""
    try:
        return [int(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise ValueError(f"--tokens {text}: write whole numbers with commas between them, as in 196,784") from None
