"""Holds predicted memory against measured memory: every mechanism, classifier and masked autoencoder, fp32 and bf16.

    python benchmarks/memory_table.py

Each training step is weighed in a process of its own, with and without checkpointing; how busy the machine is does not
matter. A quarter of an hour on two cores. Writes command, records.jsonl and report.md to
results/<date>-<machine>-memory/; what is in the folder is not measured again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from saccade.attention import fitting, list_attentions
from saccade.measurement.memory.peak import measure_peak
from saccade.measurement.memory.predict import predicted_step
from saccade.measurement.subject import Subject
from saccade.measurement.work import work_of
from saccade.models.sizes import create_model
from saccade.record import Record, read_records, write_records, write_whole
from vit_step import default_folder

MODELS = {"vit_micro_patch4_32": 128, "mae_micro_patch4_32": 256}

# What a prediction should reach.
REACH = 0.02


def main() -> int:
    asked = arguments().parse_args()
    folder = asked.output or default_folder("memory")
    subjects = [
        subject_of(model, attention, dtype, checkpointing)
        for model, dtype, checkpointing, attention in product(
            asked.models, asked.dtypes, (False, True), asked.attentions or list_attentions()
        )
    ]
    kept = folder / "records.jsonl"
    done = {cell_of(record.model, record.attention, record.conditions): record for record in _read(kept)}
    if asked.predict_again:
        done = {cell: predicted_again(record) for cell, record in done.items()}
    missing = [one for one in subjects if cell_of(one.model, one.attention, asdict(one)) not in done]
    missing = [] if asked.predict_again else missing
    with ThreadPoolExecutor(asked.jobs) as pool:
        for subject, record in zip(missing, pool.map(measure_peak, missing), strict=True):
            done[cell_of(subject.model, subject.attention, asdict(subject))] = record
            write_records(kept, done.values())
            print(f"{len(done)}/{len(subjects)} {said(record)}", file=sys.stderr, flush=True)
    records = sorted(done.values(), key=_terms)
    write_records(kept, records)
    command = shlex.join(["python", *sys.argv])
    write_whole(folder / "command", command + "\n")
    write_whole(folder / "report.md", report(records, command))
    print(report(records, command))
    print(f"written: {folder}", file=sys.stderr)
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--attentions", nargs="+", help="instead of all")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--predict-again", action="store_true", help="predict what is in the folder by this code; measure nothing"
    )
    return parser


Cell = tuple[str, str, str, bool]


def cell_of(model: str, attention: str, terms: Mapping[str, Any]) -> Cell:
    """What is measured once."""
    return model, attention, terms["dtype"], terms["checkpointing"]


def predicted_again(record: Record) -> Record:
    """The record with what is predicted now beside what was measured then."""
    terms = {name: record.conditions[name] for name in ("dtype", "checkpointing", "batch_size")}
    memory = predicted_step(
        Subject(model=record.model, attention=record.attention, options=record.model_options, **terms)
    )
    return replace(record, values={**record.values, "predicted_bytes": memory.peak_bytes, "within": memory.within})


def _read(path: Path) -> Iterator[Record]:
    return read_records(path) if path.exists() else iter(())


def subject_of(model: str, attention: str, dtype: str, checkpointing: bool) -> Subject:
    """The mechanism with options that fit, in encoder and decoder."""
    with torch.device("meta"):
        stacks = work_of(create_model(model)).stacks
    fits = {
        stack.name: fitting(attention, stack.width, stack.heads, stack.tokens, patches=stack.patches)
        for stack in stacks
    }
    return Subject(
        model=model,
        attention=fits["encoder"],
        options={"decoder_attention": fits["decoder"]} if "decoder" in fits else {},
        batch_size=MODELS[model],
        dtype=dtype,
        checkpointing=checkpointing,
    )


def difference(record: Record) -> float:
    """Predicted above measured, as a share of what was measured."""
    return record.values["predicted_bytes"] / record.values["peak_bytes"] - 1


def said(record: Record) -> str:
    """One line of progress."""
    terms = record.conditions
    what = f"{record.model} {record.attention} {terms['dtype']}{' checkpointed' if terms['checkpointing'] else ''}"
    if record.error or record.values["predicted_bytes"] is None:
        return f"{what}: {record.error or record.values['unpredicted']}"
    return f"{what}: {record.values['peak_bytes'] / 1e6:.1f} MB, predicted {100 * difference(record):+.1f} %"


def report(records: Sequence[Record], command: str) -> str:
    """The records in words and tables."""
    facts = records[0].machine
    compared = [one for one in records if not one.error and one.values["predicted_bytes"] is not None]
    near = [one for one in compared if abs(difference(one)) <= REACH]
    told = [one for one in compared if abs(difference(one)) <= one.values["within"]]
    lines = [
        "# Memory of a training step: predicted without running it, counted, and measured",
        "",
        f"`{command}`",
        "",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, saccade at {facts['commit']}.",
        "Two steps with AdamW (float32 masters under bf16), one thread. Measured: the highest resident memory of a "
        "fresh process above what it had before the model. Tensors: those of a real run, added up. Predicted: tensors "
        "without values, whole pages, and in bf16 the kernels that oneDNN compiles, which no dispatcher sees. "
        "MB = 10^6 bytes.",
        "",
        f"**{len(near)} of {len(records)} predictions are within {100 * REACH:g} % of what was measured, {len(told)} "
        "within what they say of themselves.** The last column is the prediction's own word.",
    ]
    for key in dict.fromkeys(map(_terms, records)):
        lines += _table([record for record in records if _terms(record) == key])
    return "\n".join(lines) + "\n"


def _terms(record: Record) -> tuple[str, str, bool]:
    return record.model, record.conditions["dtype"], record.conditions["checkpointing"]


def _table(records: Sequence[Record]) -> Iterator[str]:
    first = records[0]
    yield (
        f"\n## {first.model}, {first.conditions['dtype']}, batch {first.conditions['batch_size']}"
        f"{', checkpointing' if first.conditions['checkpointing'] else ''}\n"
    )
    yield "| attention | predicted, MB | tensors, MB | measured, MB | difference | the prediction's word |"
    yield "|:--|--:|--:|--:|--:|:--|"
    for record in records:
        yield f"| `{record.attention}` | {' | '.join(_cells(record))} |"


def _cells(record: Record) -> list[str]:
    values = record.values
    if record.error or values["predicted_bytes"] is None:
        return ["", "", "", "", record.error or values["unpredicted"]]
    sizes = [f"{values[name] / 1e6:,.1f}" for name in ("predicted_bytes", "tracked_bytes", "peak_bytes")]
    away, word = difference(record), f"within {100 * values['within']:.0f} %"
    beyond = abs(away) > values["within"]
    return [*sizes, f"{100 * away:+.1f} %".replace("-", "−"), f"{word}, **and is not**" if beyond else word]


if __name__ == "__main__":
    sys.exit(main())
