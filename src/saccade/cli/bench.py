"""The verb `bench`: attentions timed against softmax, in layers, blocks and models, size by size."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from saccade.record import Record
    from saccade.reports.fairness.finding import Finding


def bench(
    *attention: str,
    what: str | None = None,
    model: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    tokens: str = "",
    img_size: str = "",
    patch_size: str = "",
    batch_size: str = "4",
    dim: int | None = None,
    heads: int | None = None,
    prefix: int | None = None,
    dtype: str = "fp32",
    amp_dtype: str | None = None,
    compile: Annotated[bool, Parameter(negative="")] = False,  # noqa: A002
    checkpointing: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    threads: int | None = None,
    repeats: int = 5,
    clock: Literal["wall", "cpu"] = "wall",
    memory: Annotated[bool, Parameter(negative="")] = False,
    rivals: Annotated[bool, Parameter(negative="")] = False,
    quiet_only: Annotated[bool, Parameter(negative="")] = False,
    timeout: float | None = None,
    style: Literal["table", "torch"] = "table",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Time attentions beside softmax, in layers, blocks or models, and find from how many tokens on each is cheaper.

    Examples:

    `saccade bench linear "nystrom(landmarks=64)" --tokens 196,784,3136,12544 --output runs/bench`

    `saccade bench linear --model vit_small_patch16_224 --what block,model --batch-size 1,8 --dtype fp32,bf16`

    Each attention is held against its reference first, lives in a process of its own, and takes turns with the others:
    layers and blocks forward alone and with backward, models in a training step and in inference. Softmax is always in,
    by both its kernels, and the faster one is what the others are divided by, at each size, batch and dtype by itself.
    What is refused at a size, fails, hangs, or would not fit into memory is marked, and the rest goes on.

    Parameters
    ----------
    attention
        Mechanisms, as in `saccade attentions`, with options, or your own class: my.module:Mine or file.py:Mine. None
        means all that saccade brings. Where no option is written and the defaults are refused at a size, fitting ones
        are taken, and said.
    what
        Any of these with commas between them. core: the mixing of given queries, keys and values. layer: with its
        projections. block: with norms, MLP and shortcuts, too. model: all of it, needs --model. Default: core,layer, or
        model where there is one.
    model
        A name from `saccade models`. Cores, layers and blocks are those of its encoder, on all patches.
    set_
        Changes any option of the model: --set depth=6 --set mlp_ratio=3
    tokens
        Numbers of patches with commas between them, each that of a square grid. A model's images are as large as that
        takes. Default: the model's own, or 196,784,3136.
    img_size
        Of the model's images, instead: one side, or several with commas between them.
    patch_size
        Of the model's patches: one side, or several with commas between them.
    batch_size
        Images of a call, one number or several with commas between them.
    dim
        Width of a token, without a model. Default: 512.
    heads
        Heads, into which the width is divided, without a model. Default: 8.
    prefix
        Tokens in front of the patches, as a class token is, without a model. Default: 0.
    dtype
        Of the weights: fp32 or bf16, or both with a comma between them.
    amp_dtype
        Of autocast: bf16.
    compile
        Compile everything by torch.compile; how long that takes is told apart, and who does not compile is marked.
    checkpointing
        Keep only the inputs of what is timed, or of a model's blocks, and run it again in backward.
    device
        auto, cpu, cuda, cuda:N or mps.
    threads
        Threads of each process. Default: torch's own choice.
    repeats
        Repeats of each timing; an interval needs 3.
    clock
        wall, or cpu (the process's own time, for noisy machines).
    memory
        Measure the peak memory of forward and backward, or of a training step, too, each in a fresh process.
    rivals
        Softmax in cheaper models takes part (larger patches, fewer layers, narrower, patches merged), each with about
        as many declared FLOPs as one of the mechanisms; only where models are timed.
    quiet_only
        Refuse to begin while others are at work on the machine, and count no round that they disturbed.
    timeout
        Seconds after which a process that gives no answer is ended and marked. Default: 900.
    style
        table, or torch: each time as torch.utils.benchmark prints it, with median and interquartile range.
    output
        Folder for records.jsonl, report.md and pictures against tokens; records are kept as they come.
    json
        Print a line of JSON for each attention and kind of call, with all sizes.
    """
    from saccade.cli.console import note
    from saccade.measurement import bench as run
    from saccade.record import require_writable, write_records
    from saccade.reports.fairness import examine
    from saccade.reports.layer_report import write_layer_report
    from saccade.reports.layers import UNWATCHED, busy, gaps, lines, unwatched
    from saccade.training.progress import shown

    options = _options(set_)
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
            what=None if what is None else _parts(what),
            tokens=_numbers("tokens", tokens, 196),
            img_size=_numbers("img-size", img_size, 224),
            patch_size=_numbers("patch-size", patch_size, 16),
            batch_size=_numbers("batch-size", batch_size, 4),
            dtype=_words(dtype),
            model=model,
            dim=dim,
            heads=heads,
            prefix=prefix,
            amp_dtype=amp_dtype,
            compile=compile,
            checkpointing=checkpointing,
            device=device,
            threads=threads,
            repeats=repeats,
            clock=clock,
            memory=memory,
            rivals=rivals,
            quiet_only=quiet_only,
            patience_seconds=timeout,
            progress=progress,
            finished=keep,
            **options,
        )
    findings = examine(records)
    _print(records, findings, style, json)
    for gap in gaps(lines(records)):
        note(gap)
    if busy(records):
        note("others used the machine meanwhile: these times are not to be trusted")
    if unwatched(records):
        note(UNWATCHED)
    if output is not None:
        command = shlex.join(["saccade", *sys.argv[1:]])
        note(f"written: {write_layer_report(output, records, findings, command)}")


def _print(records: Sequence[Record], findings: Sequence[Finding], style: str, json: bool) -> None:
    """Numbers on stdout, what the doctor found beside them."""
    from saccade.cli.console import note, results
    from saccade.reports.benchmark_form import measurement_blocks
    from saccade.reports.layer_table import LEGEND, by_kind, columns
    from saccade.reports.layers import lines
    from saccade.reports.tables import TerminalTable

    for finding in findings:
        note(str(finding))
    if json:
        from json import dumps

        for line in lines(records):
            print(dumps(line.plain(), ensure_ascii=False))
    elif style == "torch":
        for block in measurement_blocks(records):
            results().print(block, markup=False, highlight=False, soft_wrap=True)
    else:
        for title, own in by_kind(lines(records)).items():
            results().print(f"\n{title}", style="bold", markup=False, highlight=False)
            results().print(TerminalTable(columns(own), ""))
        results().print(f"\n{LEGEND}", markup=False, highlight=False)


def _options(settings: Sequence[str]) -> dict[str, Any]:
    """What `--set` changes of the model; bench's own options are no options of a model."""
    from saccade.cli.flags import model_options
    from saccade.measurement import bench as run

    options = model_options(None, settings)
    if own := sorted({"attention", "seed", *inspect.signature(run).parameters} & set(options)):
        raise ValueError(f"--set {own[0]}: bench itself says that, not an option of the model (`saccade bench --help`)")
    return options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parts(text: str) -> list[str]:
    """What is timed; "both" is what layers had before there were blocks and models."""
    return _words(text.replace("both", "core,layer"))


def _numbers(name: str, text: str, example: int) -> list[int]:
    """ "196,784" as numbers; none where nothing was said."""
    try:
        numbers = [int(word) for word in _words(text)]
    except ValueError:
        raise ValueError(
            f"--{name} {text}: write whole numbers with commas between them, as in {example},{2 * example}"
        ) from None
    if text and not numbers:
        raise ValueError(f"--{name} {text}: at least one number is needed, as {example}")
    return numbers
