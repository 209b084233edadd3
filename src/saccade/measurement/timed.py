"""What lives in a timing process: one subject, checked against its reference, then timed call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import torch

from saccade.attention import parse_layers
from saccade.attention.contract import gate
from saccade.measurement.clock import lap, warm_up
from saccade.measurement.compiling import first_call
from saccade.measurement.step import Forward, Step, random_images
from saccade.measurement.subject import Subject
from saccade.measurement.terms import Terms
from saccade.measurement.work import Model, Stack, work_of


@runtime_checkable
class ChoosesKernel(Protocol):
    """An attention that computes one function by several kernels."""

    kernel: str

    def kernel_for(self, dtype: torch.dtype, device: torch.device) -> str:
        """The kernel that runs for tensors of this kind."""
        ...


@runtime_checkable
class Folds(Protocol):
    """An attention that may compute a few wanted rows without keys and values."""

    def folds(self, rows: int, count: int) -> bool:
        """Whether it does for so many rows of so many tokens."""
        ...


class Timed:
    """Acts by name, and their times: what a timing process answers from.

    Args:
        acts: what is timed; each takes and returns nothing.
        terms: device and clock.
        facts: conditions that only this process knows.
    """

    def __init__(self, acts: Mapping[str, Callable[[], None]], terms: Terms, facts: Mapping[str, Any]) -> None:
        self.acts = acts
        self.device = torch.device(terms.device)
        self.clock = terms.clock
        self.compile = terms.compile
        self.calls: dict[str, int] = {}
        # `lap` waits for the device before each reading of the clock.
        self._facts = {**facts, "synchronised": True}

    def facts(self) -> dict[str, Any]:
        """Conditions that only this process knows."""
        return self._facts

    def warm_up(self, what: str) -> dict[str, Any]:
        """Laps until steady, and how many calls a repeat will have; before them, how compiling went."""
        told = first_call(self.acts[what], self.device) if self.compile else {}
        if "does_not_compile" in told:
            return told
        warm = warm_up(self.acts[what], self.device, self.clock)
        self.calls[what] = warm.calls
        return {**asdict(warm), **told}

    def repeat(self, what: str) -> dict[str, float]:
        """One lap."""
        return asdict(lap(self.acts[what], self.calls[what], self.device, self.clock))


def timed_subject(subject: dict[str, Any]) -> Timed:
    """A subject, checked against its reference: what `time_rivals` puts into a process.

    Raises:
        Broken: an attention whose output or gradients are not its reference's is not timed.
    """
    made = Subject(**subject)
    model = made.built()
    pass_the_gate(model, made)
    work = work_of(model)
    # First, since it casts the model.
    step = Step(model, random_images(model, made.batch_size), made, work.loss)
    acts: dict[str, Callable[[], None]] = {
        "forward": Forward(model, random_images(model, made.batch_size), made, work.forward),
        "step": step,
        "latency": Forward(model, random_images(model, 1), made, work.answer),
        "inference": Forward(model, random_images(model, made.inference_batch), made, work.answer),
    }
    return Timed(acts, made.terms, kernels(model, made))


def pass_the_gate(model: Model, subject: Subject) -> None:
    """Holds each kind of layer against its reference, output and gradients, at every shape that will be timed."""
    for stack in work_of(model).stacks:
        # An encoder that is trained on some of the patches is used on all of them.
        for patches in dict.fromkeys((stack.patches, stack.tokens.patches)):
            _pass(stack, patches, subject)


def _pass(stack: Stack, patches: int, subject: Subject) -> None:
    passed = set()
    for layer, written in enumerate(parse_layers(stack.attention, len(stack.blocks))):
        if written not in passed:
            gate(
                written,
                stack.width,
                stack.heads,
                stack.tokens,
                patches,
                dtype=subject.terms.mixing_dtype,
                device=subject.device,
                layer=layer,
            )
        passed.add(written)


def kernels(model: Model, subject: Subject) -> dict[str, str | None]:
    """The kernels that were asked for and that run, of the layers that have a choice; the others run "eager".

    Those of the encoder; a decoder's are told beside them. `last_block` says where the class token's row, the only one
    wanted of the last block, is computed in another order.
    """
    encoder, *others = work_of(model).stacks
    told = _kernels(encoder, subject) | {"last_block": "folded" if _folded(encoder) else None}
    for stack in others:
        told |= {f"{stack.name}_{key}": value for key, value in _kernels(stack, subject).items()}
    return told


def _kernels(stack: Stack, subject: Subject) -> dict[str, str | None]:
    device = torch.device(subject.device)
    asked: dict[str, None] = {}
    ran: dict[str, None] = {}
    for layer in (block.attn for block in stack.blocks):
        if isinstance(layer, ChoosesKernel):
            asked[layer.kernel] = None
            ran[layer.kernel_for(subject.terms.mixing_dtype, device)] = None
        else:
            ran["eager"] = None
    return {"kernel_asked": ", ".join(asked) or None, "kernel_run": ", ".join(ran)}


def _folded(stack: Stack) -> bool:
    last = stack.blocks[-1].attn
    return stack.rows is not None and isinstance(last, Folds) and last.folds(stack.rows, stack.count)
